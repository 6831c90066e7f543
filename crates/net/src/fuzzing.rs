//! Doors for fuzzing: what listeners hand to protocols, made of bytes that nobody sent.
//!
//! Only with the feature `fuzzing`, which no build that serves has. Nothing here decides anything: it drives the readers
//! that the listeners drive, without their sockets.
use crate::{
    body::{Body, Encoding},
    drain::Drain,
    grpc::split::Split,
    hosts::AllowedHosts,
    http1::{Refusal, chunk::Next, head::Head, inbox::Inbox},
    limits::Limits,
    reactor::{Core, Counters, Shared},
    service::{GrpcStatus, Message},
};
use bytes::Bytes;
use http::request::Parts;
use std::{rc::Rc, sync::Arc, time::Duration};
use xebec_core::port::Turn;

mod http2;

pub use http2::{BlockFields, Blocks, Link, LinkEnd, Outcome, UnderstoodCall};

/// An I/O core without a thread, a runtime or a socket.
#[derive(Debug)]
pub struct Desk(Rc<Core>);

struct NoTurn;

impl Turn for NoTurn {
    fn flush(&self) {}
}

impl Desk {
    /// A core with `limits` of its own.
    pub fn new(limits: Limits) -> Self {
        let (drain, counters) = (Drain::new(Duration::ZERO), Arc::new(Counters::default()));
        Self(Core::new(
            &Shared { limits, drain, turn: Arc::new(NoTurn), counters, hosts: AllowedHosts::default() },
            1,
        ))
    }

    /// A body that came whole with its head.
    pub fn body(&self, bytes: Bytes) -> Body {
        Body::here(bytes, Rc::clone(&self.0))
    }

    /// A message that came alone in its call.
    pub fn message(&self, bytes: Bytes) -> Message {
        Message::new((bytes, crate::budget::Hold::new(Rc::clone(&self.0.budget))))
    }

    /// The messages of a call that takes many, whose frames are these, and how it ended.
    pub fn messages(
        &self,
        frames: impl Iterator<Item = Bytes>,
        encoding: Option<Encoding>,
    ) -> (Vec<Message>, StreamEnd) {
        let mut split = Split::new(&self.0.budget, self.0.limits, encoding);
        let (mut messages, mut taken) = (Vec::new(), 0);
        for frame in frames {
            if let Err(status) = split.push(frame) {
                return (messages, StreamEnd::Refused(status));
            }
            loop {
                match split.next() {
                    Ok(Some(message)) => messages.push(Message::new(message)),
                    Ok(None) => break,
                    Err(status) => return (messages, StreamEnd::Refused(status)),
                }
            }
            taken += split.taken();
        }
        (messages, StreamEnd::Over { taken, inside: split.is_inside_a_message() })
    }

    /// The requests of a connection over which these pieces come, and how it ended. Bodies that are there whole are taken
    /// as they are if `whole` says so, as the loop does.
    pub fn requests<'a>(
        &self,
        pieces: impl Iterator<Item = &'a [u8]>,
        whole: bool,
    ) -> (Vec<Understood>, WireEnd) {
        let (mut inbox, mut requests, mut fed) = (Inbox::new(), Vec::new(), 0);
        let mut reading = None;
        for piece in pieces {
            inbox.bytes.extend_from_slice(piece);
            fed += piece.len();
            match self.read_on(&mut inbox, &mut reading, &mut requests, whole) {
                Ok(false) => {}
                Ok(true) => return (requests, WireEnd::Last { taken: fed - inbox.bytes.len() }),
                Err(refusal) => return (requests, WireEnd::Refused(refusal)),
            }
        }
        (requests, WireEnd::Waits { taken: fed - inbox.bytes.len() })
    }

    /// Takes what is there; whether it was the last that the caller wants answered.
    fn read_on(
        &self,
        inbox: &mut Inbox,
        reading: &mut Option<(Head, Vec<u8>)>,
        requests: &mut Vec<Understood>,
        whole: bool,
    ) -> Result<bool, Refusal> {
        let limits = &self.0.limits;
        loop {
            let Some((_, body)) = reading else {
                let Some(head) = inbox.head(limits.max_header_bytes, limits.max_headers)? else {
                    return Ok(false);
                };
                let body = if whole { inbox.whole_body(&head) } else { None };
                if let Some(body) = body {
                    let last = head.last;
                    requests.push(Understood { head: head.parts, body });
                    if last {
                        return Ok(true);
                    }
                } else {
                    inbox.begin_body(head.framing);
                    *reading = Some((head, Vec::new()));
                }
                continue;
            };
            match inbox.piece()? {
                Next::Piece(piece) => body.extend_from_slice(&piece),
                Next::More => return Ok(false),
                Next::End => {
                    let Some((head, body)) = reading.take() else { return Ok(false) };
                    requests.push(Understood { head: head.parts, body: body.into() });
                    if head.last {
                        return Ok(true);
                    }
                }
            }
        }
    }
}

/// A request as HTTP/1.1's reader understood it.
#[derive(Debug)]
pub struct Understood {
    /// What is asked for.
    pub head: Parts,
    /// Without its framing.
    pub body: Bytes,
}

/// How reading a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireEnd {
    /// What came is no request.
    Refused(Refusal),
    /// The caller wants no further answer.
    Last {
        /** Bytes that were used. */
        taken: usize,
    },
    /// For more bytes.
    Waits {
        /** Bytes that were used. */
        taken: usize,
    },
}

/// How reading a stream of messages ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamEnd {
    /// What came is no message.
    Refused(GrpcStatus),
    /// All frames were looked at.
    Over {
        /** Bytes that belong to messages that were begun. */
        taken: usize,
        /** A message is not there whole. */
        inside: bool,
    },
}
