//! One connection without its socket: what its frames mean.
//!
//! Invariants: nothing is looked at while more than a bounded number of bytes waits to be sent; every head is
//! decompressed, whatever becomes of its stream; a stream is in `open` exactly as long as its [`Stream`] lives.
use super::{
    frame::{
        FIRST_MOST_FRAME, FrameHead, HEAD_BYTES, MOST_WINDOW, PREFACE, Reason, flag, kind, put, setting,
        unpadded,
    },
    head::{Fields, Head, Unfit},
    hpack::{self, Decoder},
    stream::{STREAM_WINDOW, Shared, State, Stream},
};
use crate::{limits::Limits, outbox::Outbox};
use bytes::{Buf as _, Bytes, BytesMut};
use std::{
    cell::{RefCell, RefMut},
    collections::VecDeque,
    rc::Rc,
};

/// The largest frame that a peer may send us. One of them, and a head of as much, is what a connection can make us keep
/// beside what its streams count for.
const MOST_FRAME_BYTES: u32 = 64 << 10;

/// Frames that one head may be cut into: empty ones cost us more than they cost a peer.
const MOST_HEAD_FRAMES: usize = 32;

/// Settings that one frame may have: there are seven in all.
const MOST_SETTINGS: usize = 64;

/// A piece of a body this small is copied out of a buffer that is this large: who waits with it keeps the buffer alive.
const SMALL_PIECE_BYTES: usize = 4 << 10;
const LARGE_BUFFER_BYTES: usize = 32 << 10;

/// Streams that we reset and remember, if no more than these may be open.
const LEAST_CUT: usize = 256;

/// Streams that we may have to reset for what is wrong with them, on one connection, for each that goes well.
const MOST_MISTAKES: usize = 128;

/// A head no longer than this is remembered, to be known when it comes again.
const MOST_KNOWN_BYTES: usize = 1 << 10;
const MOST_KNOWN_HEADERS: usize = 64;

/// The greatest stream that there can be.
const MOST_STREAM: u32 = 0x7fff_ffff;

/// What our pings say: one that asks whether a peer is there, and one whose answer shows that it has read our goodbye.
const ASKED: &[u8; 8] = b"xebec up";
const GOODBYE: &[u8; 8] = b"good bye";

/// Why a connection cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} (HTTP/2 error {})", reason.0)]
pub(crate) struct Fault {
    pub(crate) reason: Reason,
    what: &'static str,
}

const fn fault(reason: Reason, what: &'static str) -> Fault {
    Fault { reason, what }
}

const fn protocol(what: &'static str) -> Fault {
    fault(Reason::PROTOCOL_ERROR, what)
}

const fn size(what: &'static str) -> Fault {
    fault(Reason::FRAME_SIZE_ERROR, what)
}

const WIDE: Fault = fault(Reason::FLOW_CONTROL_ERROR, "a stream's window is larger than may be");

/// A request whose head is there.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) head: Rc<Head>,
    pub(crate) stream: Stream,
}

/// A head whose last frame has not come.
#[derive(Debug)]
struct Begun {
    stream: u32,
    block: Vec<u8>,
    frames: usize,
    last: bool,
}

/// A head that came, the block that it was, and the table that the block was read with.
#[derive(Debug)]
struct Known {
    block: Vec<u8>,
    changes: u64,
    head: Rc<Head>,
}

/// How far the end of the connection has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Farewell {
    None,
    /// The peer was told to begin no more streams; those that it began before it read that are answered.
    Asked,
    /// It has read it: the last stream is known.
    Told,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Session {
    shared: Rc<RefCell<Shared>>,
    decoder: Decoder,
    limits: Limits,
    /// The peer's preface has come, and its settings behind it.
    preface: bool,
    settings: bool,
    begun: Option<Begun>,
    known: Option<Known>,
    /// The greatest stream that the peer has used.
    last: u32,
    new: VecDeque<Request>,
    /// Streams among the new ones that were reset already.
    resets: usize,
    farewell: Farewell,
    /// The last stream that the peer was told will be answered.
    told: u32,
    /// Frames that were taken, but for those of a head that has no end yet.
    frames: u64,
}

impl Session {
    /// A connection over which nothing has come. What the server has to say first is there to be sent.
    pub(crate) fn new(limits: &Limits) -> Self {
        let streams = usize::try_from(limits.max_concurrent_streams).unwrap_or(usize::MAX);
        let mut shared = Shared::new(streams.max(LEAST_CUT));
        let settings = [
            (setting::MAX_CONCURRENT_STREAMS, limits.max_concurrent_streams),
            (setting::INITIAL_WINDOW_SIZE, u32::try_from(STREAM_WINDOW).unwrap_or_default()),
            (setting::MAX_FRAME_SIZE, MOST_FRAME_BYTES),
            (setting::MAX_HEADER_LIST_SIZE, limits.max_header_bytes),
        ];
        let pairs = settings.map(|(name, value)| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat());
        put(&mut shared.outbox, kind::SETTINGS, 0, 0, &pairs.concat());
        shared.widen();
        Self {
            shared: Rc::new(RefCell::new(shared)),
            decoder: Decoder::new(),
            limits: *limits,
            preface: false,
            settings: false,
            begun: None,
            known: None,
            last: 0,
            new: VecDeque::new(),
            resets: 0,
            farewell: Farewell::None,
            told: MOST_STREAM,
            frames: 0,
        }
    }

    /// What is to be sent.
    pub(crate) fn outbox(&self) -> RefMut<'_, Outbox> {
        RefMut::map(self.shared.borrow_mut(), |shared| &mut shared.outbox)
    }

    /// Tells calls that wait for room that some has left.
    pub(crate) fn sent(&self) {
        self.shared.borrow().wake_waiting();
    }

    /// Whether so much waits to be sent that what comes has to wait.
    pub(crate) fn is_full(&self) -> bool {
        self.shared.borrow().is_full()
    }

    /// Whether a head has begun and goes on in another frame.
    pub(crate) fn is_inside_a_head(&self) -> bool {
        self.begun.is_some()
    }

    /// Counts the frames that were taken: what a peer sends is getting on while it grows.
    pub(crate) fn frames(&self) -> u64 {
        self.frames
    }

    /// Takes the frames that are there whole.
    ///
    /// # Errors
    /// The connection cannot go on.
    pub(crate) fn receive(&mut self, bytes: &mut BytesMut) -> Result<(), Fault> {
        if !self.preface && !self.read_preface(bytes)? {
            return Ok(());
        }
        // Before anything of it is taken this is all there is.
        let large = bytes.capacity() > LARGE_BUFFER_BYTES;
        while !self.is_full()
            && let Some(head) = FrameHead::read(bytes)
        {
            if head.length > MOST_FRAME_BYTES as usize {
                return Err(size("a frame is larger than the settings allow"));
            }
            if bytes.len() < HEAD_BYTES + head.length {
                break;
            }
            self.settings |= head.kind == kind::SETTINGS && !head.has(flag::ACK);
            if !self.settings {
                return Err(protocol("the first frame is not of settings"));
            }
            if self.begun.is_some() && head.kind != kind::CONTINUATION {
                return Err(protocol("a head is not followed by its rest"));
            }
            bytes.advance(HEAD_BYTES);
            if head.kind == kind::DATA {
                let copied = large && head.length <= SMALL_PIECE_BYTES;
                let payload = bytes.split_to(head.length);
                self.data(head, if copied { Bytes::copy_from_slice(&payload) } else { payload.freeze() })?;
            } else {
                self.control(head, bytes.get(..head.length).unwrap_or_default())?;
                bytes.advance(head.length);
            }
            if self.begun.is_none() {
                self.frames += 1;
            }
        }
        Ok(())
    }

    fn read_preface(&mut self, bytes: &mut BytesMut) -> Result<bool, Fault> {
        let some = bytes.len().min(PREFACE.len());
        if bytes.get(..some) != PREFACE.get(..some) {
            return Err(protocol("the connection does not begin as HTTP/2 does"));
        }
        self.preface = some == PREFACE.len();
        if self.preface {
            bytes.advance(some);
        }
        Ok(self.preface)
    }

    fn control(&mut self, head: FrameHead, payload: &[u8]) -> Result<(), Fault> {
        match head.kind {
            kind::HEADERS => self.headers(head, payload),
            kind::CONTINUATION => self.continuation(head, payload),
            kind::RESET => self.reset(head, payload),
            kind::WINDOW_UPDATE => self.window_update(head, payload),
            kind::SETTINGS => self.apply_settings(head, payload),
            kind::PING => self.ping(head, payload),
            kind::PRIORITY => priority(head, payload),
            kind::GOAWAY if head.stream != 0 => Err(protocol("a goodbye is of a stream")),
            kind::GOAWAY if payload.len() < 8 => Err(size("a goodbye has a wrong size")),
            // Its streams are answered all the same, and then it closes.
            kind::GOAWAY => Ok(()),
            kind::PUSH_PROMISE => Err(protocol("a client does not push")),
            // What is not known is to be ignored (section 4.1).
            _ => Ok(()),
        }
    }

    fn headers(&mut self, head: FrameHead, payload: &[u8]) -> Result<(), Fault> {
        if head.stream.is_multiple_of(2) {
            return Err(protocol("a head is of a stream that no client begins"));
        }
        let mut block = unpadded(head, payload).ok_or(protocol("the padding is longer than its frame"))?;
        if head.has(flag::PRIORITY) {
            let (priority, rest) = block.split_first_chunk::<5>().ok_or(size("a priority is cut"))?;
            depends_on_another(head.stream, priority)?;
            block = rest;
        }
        let (stream, last) = (head.stream, head.has(flag::END_STREAM));
        if head.has(flag::END_HEADERS) {
            return self.fields(stream, block, last);
        }
        self.begun = Some(Begun { stream, block: block.to_vec(), frames: 1, last });
        Ok(())
    }

    fn continuation(&mut self, head: FrameHead, payload: &[u8]) -> Result<(), Fault> {
        let begun = self.begun.as_mut().filter(|begun| begun.stream == head.stream);
        let begun = begun.ok_or(protocol("the rest of a head comes behind no head of its stream"))?;
        begun.frames += 1;
        begun.block.extend_from_slice(payload);
        // One that would fit into a frame is refused with a status when it is whole. What is longer is a flood.
        let most = usize::try_from(self.limits.max_header_bytes.max(MOST_FRAME_BYTES)).unwrap_or(usize::MAX);
        let frames = MOST_HEAD_FRAMES.max(2 * most / FIRST_MOST_FRAME as usize);
        if begun.block.len() > most || begun.frames > frames {
            return Err(fault(Reason::ENHANCE_YOUR_CALM, "a head has no end"));
        }
        if head.has(flag::END_HEADERS)
            && let Some(Begun { stream, block, last, .. }) = self.begun.take()
        {
            return self.fields(stream, &block, last);
        }
        Ok(())
    }

    /// A block that is there whole: the head of a new stream, or what stands behind the body of one.
    fn fields(&mut self, id: u32, block: &[u8], last: bool) -> Result<(), Fault> {
        let open = self.shared.borrow().find(id).map(Rc::clone);
        if let Some(open) = open {
            let fields = self.decode(block)?;
            if open.borrow().left || open.borrow().ended {
                return self.mistake(id, Reason::STREAM_CLOSED);
            }
            if open.borrow().reset {
                return Ok(());
            }
            let ended = if last && fields.are_trailers() {
                open.borrow_mut().end()
            } else {
                Err(Reason::PROTOCOL_ERROR)
            };
            return ended.or_else(|reason| self.mistake(id, reason));
        }
        if id <= self.last {
            self.decode(block)?;
            return match id {
                id if self.shared.borrow().was_cut(id) => Ok(()),
                id if id == self.last => {
                    Err(fault(Reason::STREAM_CLOSED, "a head is of a stream that has ended"))
                }
                _ => Err(protocol("a stream is less than one that was used before")),
            };
        }
        self.last = id;
        let head = self.head(block)?;
        let full = {
            let shared = self.shared.borrow();
            shared.open.len() - shared.gone
                >= usize::try_from(self.limits.max_concurrent_streams).unwrap_or(usize::MAX)
        };
        if full || self.farewell == Farewell::Told {
            self.shared.borrow_mut().put_reset(id, Reason::REFUSED_STREAM);
            return Ok(());
        }
        match head {
            Ok(head) => self.open(id, head, last),
            Err(Unfit::Malformed) => self.mistake(id, Reason::PROTOCOL_ERROR),
            Err(Unfit::TooLarge) => {
                let state = Rc::new(RefCell::new(State::new(id, 0, None, last)));
                let stream = Stream { state, shared: Rc::clone(&self.shared) };
                let _ = stream.send_fields(&status(431), true);
                Ok(())
            }
        }
    }

    fn open(&mut self, id: u32, head: Rc<Head>, last: bool) -> Result<(), Fault> {
        if last && head.length.is_some_and(|length| length > 0) {
            return self.mistake(id, Reason::PROTOCOL_ERROR);
        }
        let shared = &mut *self.shared.borrow_mut();
        let state = Rc::new(RefCell::new(State::new(id, shared.first_window, head.length, last)));
        shared.open.push((id, Rc::clone(&state)));
        let stream = Stream { state, shared: Rc::clone(&self.shared) };
        self.new.push_back(Request { head, stream });
        Ok(())
    }

    /// The head that a block says. Callers say the same over and over: with a table that has not changed, that is the same
    /// head.
    fn head(&mut self, block: &[u8]) -> Result<Result<Rc<Head>, Unfit>, Fault> {
        if let Some(known) = &self.known
            && known.changes == self.decoder.changes()
            && known.block == block
        {
            return Ok(Ok(Rc::clone(&known.head)));
        }
        let before = self.decoder.changes();
        let head = self.decode(block)?.finish().map(Rc::new);
        if let Ok(head) = &head
            && before == self.decoder.changes()
            && block.len() <= MOST_KNOWN_BYTES
            && head.headers.len() <= MOST_KNOWN_HEADERS
        {
            self.known = Some(Known { block: block.to_vec(), changes: before, head: Rc::clone(head) });
        }
        Ok(head)
    }

    fn decode(&mut self, block: &[u8]) -> Result<Fields, Fault> {
        let most_bytes = usize::try_from(self.limits.max_header_bytes).unwrap_or(usize::MAX);
        let mut fields = Fields::new(most_bytes, self.limits.max_headers);
        let decoded = self.decoder.decode(block, |field| fields.take(field));
        decoded
            .map_err(|hpack::Malformed| fault(Reason::COMPRESSION_ERROR, "a head cannot be decompressed"))?;
        Ok(fields)
    }

    /// Whether the peer has used this stream, or passed it over. Even ones would be ours to begin, and we begin none.
    fn was_begun(&self, id: u32) -> bool {
        id <= self.last && !id.is_multiple_of(2)
    }

    fn data(&mut self, head: FrameHead, payload: Bytes) -> Result<(), Fault> {
        let (id, bytes) = (head.stream, i64::try_from(payload.len()).unwrap_or(0));
        if !self.was_begun(id) {
            return Err(protocol("data is of a stream that was not begun"));
        }
        let piece = unpadded(head, &payload).ok_or(protocol("the padding is longer than its frame"))?;
        let piece = payload.slice_ref(piece);
        let kept = i64::try_from(piece.len()).unwrap_or(0);
        let open = {
            let shared = &mut *self.shared.borrow_mut();
            shared.own_window -= bytes;
            if shared.own_window < 0 {
                return Err(fault(Reason::FLOW_CONTROL_ERROR, "more was sent than the connection's window"));
            }
            // Padding is read at once.
            shared.release(bytes - kept);
            shared.find(id).map(Rc::clone)
        };
        let received = match &open {
            Some(open) if open.borrow().left || open.borrow().ended => Err(Reason::STREAM_CLOSED),
            Some(open) if open.borrow().reset => Ok(false),
            Some(open) => open.borrow_mut().receive(piece, bytes, head.has(flag::END_STREAM)).map(|()| true),
            None if self.shared.borrow().was_cut(id) => Ok(false),
            None => Err(Reason::STREAM_CLOSED),
        };
        if received != Ok(true) {
            self.shared.borrow_mut().release(kept);
        }
        received.map(drop).or_else(|reason| self.mistake(id, reason))
    }

    fn reset(&mut self, head: FrameHead, payload: &[u8]) -> Result<(), Fault> {
        if payload.len() != 4 {
            return Err(size("a reset has a wrong size"));
        }
        if !self.was_begun(head.stream) {
            return Err(protocol("a reset is of a stream that was not begun"));
        }
        let shared = &mut *self.shared.borrow_mut();
        let Some(open) = shared.find(head.stream).map(Rc::clone) else { return Ok(()) };
        let open = &mut *open.borrow_mut();
        if open.reset {
            return Ok(());
        }
        (open.reset, open.left) = (true, true);
        open.wake();
        shared.gone += 1;
        if !open.begun {
            self.resets += 1;
            if self.resets > self.limits.max_pending_resets {
                return Err(fault(Reason::ENHANCE_YOUR_CALM, "streams are begun only to be reset"));
            }
        }
        Ok(())
    }

    fn window_update(&mut self, head: FrameHead, payload: &[u8]) -> Result<(), Fault> {
        let increment: &[u8; 4] =
            payload.try_into().map_err(|_| size("a window's update has a wrong size"))?;
        let increment = i64::from(u32::from_be_bytes(*increment) & 0x7fff_ffff);
        if head.stream == 0 {
            let shared = &mut *self.shared.borrow_mut();
            if increment == 0 {
                return Err(protocol("the connection's window grows by nothing"));
            }
            shared.window += increment;
            if shared.window > MOST_WINDOW {
                return Err(fault(
                    Reason::FLOW_CONTROL_ERROR,
                    "the connection's window is larger than may be",
                ));
            }
            shared.wake_waiting();
            return Ok(());
        }
        if !self.was_begun(head.stream) {
            return Err(protocol("a window is of a stream that was not begun"));
        }
        if increment == 0 {
            return self.mistake(head.stream, Reason::PROTOCOL_ERROR);
        }
        let open = self.shared.borrow().find(head.stream).map(Rc::clone);
        let Some(open) = open.filter(|open| !open.borrow().reset) else { return Ok(()) };
        let widened = open.borrow_mut().widen(increment);
        widened.or_else(|reason| self.mistake(head.stream, reason))
    }

    fn apply_settings(&mut self, head: FrameHead, payload: &[u8]) -> Result<(), Fault> {
        if head.stream != 0 {
            return Err(protocol("settings are of a stream"));
        }
        if head.has(flag::ACK) {
            return if payload.is_empty() {
                Ok(())
            } else {
                Err(size("a word on settings has a wrong size"))
            };
        }
        let (pairs, rest) = payload.as_chunks::<6>();
        if !rest.is_empty() {
            return Err(size("settings have a wrong size"));
        }
        if pairs.len() > MOST_SETTINGS {
            return Err(fault(Reason::ENHANCE_YOUR_CALM, "there are more settings than can be"));
        }
        let shared = &mut *self.shared.borrow_mut();
        let mut window = shared.first_window;
        for [a, b, value @ ..] in pairs {
            let value = u32::from_be_bytes(*value);
            match u16::from_be_bytes([*a, *b]) {
                setting::ENABLE_PUSH if value > 1 => return Err(protocol("a setting is neither on nor off")),
                setting::HEADER_TABLE_SIZE => shared.tells_table |= value < hpack::TABLE_BYTES,
                setting::INITIAL_WINDOW_SIZE if i64::from(value) > MOST_WINDOW => return Err(WIDE),
                setting::INITIAL_WINDOW_SIZE => window = i64::from(value),
                setting::MAX_FRAME_SIZE => {
                    if !(FIRST_MOST_FRAME..1 << 24).contains(&value) {
                        return Err(protocol("a frame's size is less or more than it may be"));
                    }
                    shared.most_frame = usize::try_from(value).unwrap_or_default();
                }
                _ => {}
            }
        }
        // The last of several counts.
        shared.change_first_window(window).map_err(|_| WIDE)?;
        put(&mut shared.outbox, kind::SETTINGS, flag::ACK, 0, &[]);
        Ok(())
    }

    fn ping(&mut self, head: FrameHead, payload: &[u8]) -> Result<(), Fault> {
        if head.stream != 0 {
            return Err(protocol("a ping is of a stream"));
        }
        if payload.len() != 8 {
            return Err(size("a ping has a wrong size"));
        }
        if !head.has(flag::ACK) {
            put(&mut self.outbox(), kind::PING, flag::ACK, 0, payload);
        } else if payload == GOODBYE && self.farewell == Farewell::Asked {
            self.farewell = Farewell::Told;
            self.told = self.last;
            self.put_goodbye(self.told, Reason::NO_ERROR, "");
        }
        Ok(())
    }

    /// Resets a stream for what is wrong with it.
    fn mistake(&mut self, id: u32, reason: Reason) -> Result<(), Fault> {
        let shared = &mut *self.shared.borrow_mut();
        shared.mistakes += 1;
        if shared.mistakes > MOST_MISTAKES {
            return Err(fault(Reason::ENHANCE_YOUR_CALM, "too many streams had to be reset"));
        }
        shared.put_reset(id, reason);
        if let Some(open) = shared.find(id).map(Rc::clone) {
            let open = &mut *open.borrow_mut();
            if !open.reset {
                open.reset = true;
                open.wake();
                shared.gone += 1;
            }
        }
        Ok(())
    }

    /// The next request, unless the peer has reset it already.
    pub(crate) fn next(&mut self) -> Option<Request> {
        loop {
            let request = self.new.pop_front()?;
            let reset = {
                let state = &mut *request.stream.state.borrow_mut();
                state.begun = true;
                state.reset
            };
            if !reset {
                return Some(request);
            }
            self.resets = self.resets.saturating_sub(1);
        }
    }

    /// Asks the peer whether it is there.
    pub(crate) fn ask(&self) {
        put(&mut self.outbox(), kind::PING, 0, 0, ASKED);
    }

    /// Tells the peer to begin no more streams.
    pub(crate) fn finish(&mut self) {
        if self.farewell == Farewell::None {
            self.farewell = Farewell::Asked;
            // What it begins before it reads this is answered: only its answer to the ping says where that ends.
            self.put_goodbye(MOST_STREAM, Reason::NO_ERROR, "");
            put(&mut self.outbox(), kind::PING, 0, 0, GOODBYE);
        }
    }

    /// Whether every stream that there will be has ended.
    pub(crate) fn is_over(&self) -> bool {
        self.farewell == Farewell::Told && self.shared.borrow().open.is_empty()
    }

    /// Tells the peer why the connection ends.
    pub(crate) fn fail(&mut self, fault: Fault) {
        self.new.clear();
        // Never more than was told before (section 6.8).
        self.put_goodbye(self.last.min(self.told), fault.reason, fault.what);
    }

    fn put_goodbye(&self, last: u32, reason: Reason, what: &str) {
        let payload = [&last.to_be_bytes()[..], &reason.0.to_be_bytes(), what.as_bytes()].concat();
        put(&mut self.outbox(), kind::GOAWAY, 0, 0, &payload);
    }
}

/// Priorities are not kept, but have to be right.
fn priority(head: FrameHead, payload: &[u8]) -> Result<(), Fault> {
    let priority = payload.try_into().map_err(|_| size("a priority has a wrong size"))?;
    if head.stream == 0 {
        return Err(protocol("a priority is of no stream"));
    }
    depends_on_another(head.stream, priority)
}

fn depends_on_another(stream: u32, priority: &[u8; 5]) -> Result<(), Fault> {
    let [a, b, c, d, _] = *priority;
    if u32::from_be_bytes([a, b, c, d]) & 0x7fff_ffff == stream {
        return Err(protocol("a stream depends on itself"));
    }
    Ok(())
}

/// The block of an answer that is nothing but a status of HTTP.
pub(crate) fn status(code: u16) -> Vec<u8> {
    // The name has a place in the table of all peers; the value is written out.
    let mut block = vec![8, 3];
    block.extend_from_slice(itoa::Buffer::new().format(code).as_bytes());
    block
}

#[cfg(test)]
mod tests;
