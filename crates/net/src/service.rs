//! What a protocol is to the network: two small traits, one for HTTP/1.1, one for gRPC.
//!
//! Calls run on the I/O core that read them and never leave it, so nothing here needs to be `Send`.
use crate::{
    body::{Body, ReadError},
    budget::Hold,
};
use bytes::{BufMut as _, Bytes, BytesMut};
use futures_core::Stream;
use http::{HeaderMap, Response, request::Parts};
use std::{cell::RefCell, future::Future, ops::Deref, pin::Pin, time::Instant};
use xebec_core::{Code, Principal};

/// Answers HTTP/1.1 requests.
pub trait HttpService: 'static {
    /// Answers one request. The head is there; the body is read only if the callee asks for it.
    ///
    /// # Cancel safety
    /// The future is dropped when the caller disconnects: whatever it started must see that.
    fn call(&self, principal: &Principal, head: Parts, body: Body) -> impl Future<Output = Response<Bytes>>;
}

/// A call over gRPC, as its head says it.
#[derive(Clone, Copy, Debug)]
pub struct GrpcHead<'a> {
    /// Who calls.
    pub principal: &'a Principal,
    /// `/package.Service/Method`.
    pub path: &'a str,
    /// The call's metadata.
    pub metadata: &'a HeaderMap,
    /// When the time is up that the caller gives it.
    pub until: Option<Instant>,
}

/// One call over gRPC with its request message read whole; of a call that takes many, with one of them.
#[derive(Debug)]
pub struct GrpcCall<'a> {
    /// Who calls.
    pub principal: &'a Principal,
    /// `/package.Service/Method`.
    pub path: &'a str,
    /// The call's metadata.
    pub metadata: &'a HeaderMap,
    /// When the time is up that the caller gives the call: then its future is dropped.
    pub until: Option<Instant>,
    /// The message, decompressed and without its prefix.
    pub message: Message,
}

/// A message that was read. As long as this lives, its memory counts against the core's.
#[derive(Debug)]
pub struct Message {
    bytes: Bytes,
    hold: RefCell<Hold>,
}

impl Message {
    pub(crate) fn new((bytes, hold): (Bytes, Hold)) -> Self {
        Self { bytes, hold: RefCell::new(hold) }
    }

    /// Counts memory that the call takes beside its message.
    ///
    /// # Errors
    /// There is no room for it now.
    pub fn count(&self, bytes: usize) -> Result<(), ReadError> {
        self.hold.borrow_mut().grow(bytes).map_err(|_| ReadError::NoRoom)
    }
}

impl Deref for Message {
    type Target = Bytes;

    fn deref(&self) -> &Bytes {
        &self.bytes
    }
}

/// Answers gRPC calls.
pub trait GrpcService: 'static {
    /// Whether `path` is answered at all, asked before any of the body is read.
    ///
    /// # Errors
    /// The status for a method that is unknown or not offered.
    fn accept(&self, path: &str) -> Result<(), GrpcStatus>;

    /// Whether the rest of a message is worth reading whose first bytes, uncompressed, are `start`: asked once, of a
    /// message that does not come whole in its first frame.
    ///
    /// # Errors
    /// The status for a caller who would be refused in any case.
    fn peek(&self, head: GrpcHead<'_>, start: &[u8]) -> Result<(), GrpcStatus> {
        let _ = (head, start);
        Ok(())
    }

    /// Takes note of a message that was refused before it was there to be answered, by this crate and not by `peek`.
    fn refused(&self, head: GrpcHead<'_>, status: &GrpcStatus) {
        let _ = (head, status);
    }

    /// Answers one call.
    ///
    /// # Cancel safety
    /// The future is dropped when the caller resets the stream or its deadline passes.
    fn call(&self, call: GrpcCall<'_>) -> impl Future<Output = Result<GrpcAnswer, GrpcStatus>>;

    /// Whether the method of `path` takes many messages, each of which [`Self::begin`] answers.
    fn takes_many(&self, path: &str) -> bool {
        let _ = path;
        false
    }

    /// Begins one message of a call that takes many. What is wrong with the message is for the answer to say.
    ///
    /// # Errors
    /// The status with which the call ends, once what came before is answered: the message cannot be read at all.
    ///
    /// # Cancel safety
    /// As of [`Self::call`].
    fn begin<'c>(&'c self, call: GrpcCall<'c>) -> Result<impl Future<Output = GrpcMessage> + 'c, GrpcStatus> {
        let message = format!("{} takes one message", call.path);
        Err::<std::future::Ready<GrpcMessage>, _>(GrpcStatus { code: Code::Internal.grpc(), message })
    }
}

/// The answer to a call.
pub enum GrpcAnswer {
    /// One message.
    One(GrpcMessage),
    /// Messages as they come; the stream's end is the call's end.
    Many(Pin<Box<dyn Stream<Item = GrpcMessage>>>),
}

/// An encoded message with the five bytes that gRPC puts before it.
#[derive(Clone, Debug)]
pub struct GrpcMessage(pub(crate) Bytes);

impl GrpcMessage {
    /// Encodes a message, uncompressed.
    pub fn encode(message: &impl prost::Message) -> Self {
        Self::of(message.encoded_len(), |buffer| message.encode_raw(buffer))
    }

    /// Puts the prefix before a message that is already encoded.
    pub fn raw(message: &[u8]) -> Self {
        Self::of(message.len(), |buffer| buffer.put_slice(message))
    }

    /// A message of so many bytes, which `write` writes.
    pub fn of(length: usize, write: impl FnOnce(&mut BytesMut)) -> Self {
        let mut buffer = BytesMut::with_capacity(5 + length);
        buffer.put_u8(0);
        // A message over 4 GiB cannot be said in gRPC at all; the engine's outputs are bounded far below.
        buffer.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
        write(&mut buffer);
        debug_assert_eq!(buffer.len(), 5 + length);
        Self(buffer.freeze())
    }

    /// As it goes over the wire.
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrpcStatus {
    /// By number, as in [`xebec_core::Code::grpc`].
    pub code: u8,
    /// For the caller.
    pub message: String,
}
