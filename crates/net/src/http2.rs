//! HTTP/2 as a server, as far as gRPC needs it: no push, no priorities, nothing sent that a peer would have to remember.
//!
//! A [`Session`] is one connection without its socket: it takes the bytes that came, keeps what they said, and gathers
//! what is to go in an [`Outbox`](crate::outbox::Outbox); a [`Stream`] is what the call of one stream reads from and writes
//! to. Both are one thread's, so that a frame costs no lock, and the call's own task is woken at most once for what came.
//! `grpc.rs` has the socket.
//!
//! What a peer can make us do is bounded here: streams at once, heads and their pieces, tables, bytes that are not read on
//! a stream and on a connection, answers that wait to be sent, streams reset before they were looked at (CVE-2023-44487),
//! streams that we had to reset because of it (CVE-2025-8671). Whatever a frame breaks ends its stream or the connection as
//! the RFC says.
//!
//! # Source
//! RFC 9113; RFC 7541 for heads.
mod frame;
mod head;
pub(crate) mod hpack;
mod session;
mod stream;

pub(crate) use frame::Reason;
pub(crate) use head::Head;
pub(crate) use session::{Request, Session, status};
pub(crate) use stream::Stream;
