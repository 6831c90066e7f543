//! Why one of the two may take what the other refuses, each reason by its name.
//!
//! That we refuse what h2 takes is no danger, and the names are for knowing it. That we take what h2 refuses is looked at
//! closely: each of those reasons asks for what the frame or the head must hold, and for a connection that h2 ends, that
//! we took nothing with the frame at which it did.
use super::{
    super::{
        LIMITS,
        frame::{self, Frame, Head, kind},
        other::OtherCall,
    },
    Pair, Step,
};
use http::{HeaderValue, Method, header};
use xebec_net::fuzzing::{BlockFields, UnderstoodCall};

/// h2 drops a field without a name that stands in the first of several frames, and does not put it into its table: from
/// there on it reads other heads than were sent.
pub(super) const FORGOTTEN_FIELD: &str = "h2 forgets a field without a name";

const FORGOTTEN_FAULT: &str = "h2 forgets that a head is malformed where a frame ends within a field";

/// What it refuses there we have to refuse as well, once it is whole.
pub(super) const UNREAD_HEAD: &str = "h2 reads a head before it is whole";

/// Faults for which we end the connection and h2 does not, and why.
const WE_END: [(&str, &str); 11] = [
    // CVE-2025-8671; h2 has the same with another number, which is turned off here.
    ("too many streams had to be reset", "we count mistakes"),
    // In pieces, which have to be kept, a head may be as long as in one.
    ("a head has no end", "we take a head in pieces only up to a frame's length"),
    ("there are more settings than can be", "we count settings"),
    // Nobody keeps priorities any more (RFC 9113, section 5.3), and no client gets this wrong: h2 resets the stream.
    ("a stream depends on itself", "a stream that depends on itself ends the connection"),
    ("a priority is cut", "h2 looks at the priority before the padding"),
    ("the padding is longer than its frame", "h2 looks at the priority before the padding"),
    // h2 resets the stream of a malformed head without looking which stream that is.
    ("a head is of a stream that no client begins", "h2 resets a malformed head of any stream"),
    ("a stream is less than one that was used before", "h2 resets a malformed head of any stream"),
    ("a head is of a stream that has ended", "h2 resets a malformed head of any stream"),
    ("a client does not push", "h2 resets a malformed push"),
    ("a head is not followed by its rest", "h2 does not wait for the rest of a malformed head"),
];

/// Why we end the connection, for this fault, and h2 does not.
fn we_end(step: &Step<'_>, fault: &str) -> Option<&'static str> {
    if fault.starts_with("a head cannot be decompressed") {
        // RFC 7541, section 4.2, has the change at the beginning of a block alone. A block in one frame is read alike.
        let pieces = step.head.as_ref()?.frames > 1;
        return pieces.then_some("h2 takes a change of the table's size in every frame of a head");
    }
    WE_END.iter().find(|(known, _)| fault.starts_with(known)).map(|(_, why)| *why)
}

impl Pair {
    /// Looks at a frame with which one of the connections has ended, or both have.
    pub(super) fn judge_end(&mut self, step: &Step<'_>) {
        let reason = match (self.ours.ended(), self.other.ended.as_deref()) {
            (Some(_), Some(_)) => {
                self.parted = true;
                return;
            }
            (Some(end), _) => we_end(step, &end.why).or_else(|| self.differs(step)),
            (None, _) if self.taken() != self.before => None,
            (None, end) => self.h2_ends(step, end.unwrap_or_default()).or_else(|| self.differs(step)),
        };
        let (ours, other) = (self.ours.ended(), &self.other.ended);
        let alone = || panic!("one ends alone, at {:?}, {:?}: {ours:?} {other:?}", step.frame, step.head);
        let reason = reason.unwrap_or_else(alone);
        self.reasons.push(reason);
        self.inside = reason == UNREAD_HEAD;
        self.parted = !self.inside;
    }

    fn differs(&self, step: &Step<'_>) -> Option<&'static str> {
        let differs = self.apart.contains(&step.frame.stream);
        differs.then_some("a frame is of a stream of which the two do not think the same")
    }

    /// Why h2 ends the connection and we do not.
    fn h2_ends(&self, Step { frame, head }: &Step<'_>, end: &str) -> Option<&'static str> {
        let known = self.ours(frame.stream);
        let is_over = known.is_some_and(|ours| ours.whole || ours.reset);
        let why = match frame.kind {
            // With the error that the goodbye named, if it named one.
            _ if self.goodbye && (end == "is closed" || end.starts_with("connection error received")) => {
                "h2 closes behind a goodbye when its streams are over"
            }
            kind::GOAWAY => "h2 compares one goodbye with another",
            kind::CONTINUATION if self.it_said.goodbye == "too_many_continuations" => {
                "h2 takes a head in fewer pieces"
            }
            kind::HEADERS | kind::CONTINUATION if is_inside_a_head(frame) => UNREAD_HEAD,
            kind::HEADERS | kind::CONTINUATION if is_over => "a head behind the end of its stream",
            kind::HEADERS | kind::CONTINUATION => return self.h2_ends_for_a_head(frame, head.as_ref()?),
            kind::DATA if self.it_said.goodbye == "too_many_data_frames" => "h2 counts frames without data",
            kind::DATA if is_over => "data behind the end of its stream",
            kind::WINDOW_UPDATE if frame.stream != 0 && increment(frame) == Some(0) => {
                "the window of a stream grows by nothing"
            }
            kind::SETTINGS if frame.has(frame::ACK) => "an acknowledgement of settings that were not sent",
            kind::SETTINGS if sets_more_than_one(frame, CONNECT_PROTOCOL) => "a setting that we do not know",
            _ => return None,
        };
        Some(why)
    }

    fn h2_ends_for_a_head(&self, frame: &Frame<'_>, head: &Head) -> Option<&'static str> {
        let fields = head.fields.as_ref()?;
        let why = match self.it_said.goodbye.as_str() {
            "header_list_way_too_large" => "h2 ends for a list that is far too long",
            _ if self.it_said.refused(frame.stream) => "h2 forgets a stream that it refused",
            _ if head.frames > 1 && self.it_said.resets.contains_key(&frame.stream) => {
                "h2 does not wait for the rest of a malformed head"
            }
            _ if fields.iter().any(is_no_field) => "h2 ends for what is no field",
            _ => return None,
        };
        Some(why)
    }

    /// Why only one of the two takes a head.
    pub(super) fn only_one_takes(
        &self,
        step: &Step<'_>,
        ours: Option<&UnderstoodCall>,
        other: Option<&OtherCall>,
    ) -> Option<&'static str> {
        let full = match ours {
            Some(_) => self.it_said.refused(step.frame.stream),
            None => self.we_said.refused(step.frame.stream),
        };
        if full {
            // Both count the streams that are open.
            return (!self.apart.is_empty()).then_some("a stream that only one has counts for one alone");
        }
        ours.and_then(we_take).or_else(|| h2_takes(step.head.as_ref()?, other?))
    }
}

/// Whether this is a head of which h2 may have [forgotten a field](FORGOTTEN_FIELD).
pub(super) fn may_be_forgotten(head: &Head) -> bool {
    head.frames > 1 && head.fields.iter().flatten().any(|(name, _)| name.is_none())
}

/// Why only we take a head.
fn we_take(ours: &UnderstoodCall) -> Option<&'static str> {
    let long = |length: &HeaderValue| length.len() > 19;
    let long = ours.headers.get_all(header::CONTENT_LENGTH).iter().any(long);
    long.then_some("a length of more digits than h2 reads")
}

/// Why only h2 takes a head.
fn h2_takes(head: &Head, other: &OtherCall) -> Option<&'static str> {
    let fields = head.fields.as_ref()?;
    if head.frames > 1 && is_malformed(fields) {
        return Some(FORGOTTEN_FAULT);
    }
    let headers = fields.iter().filter(|(name, _)| name.as_ref().is_some_and(|name| !name.starts_with(':')));
    if headers.count() > LIMITS.max_headers {
        return Some("we count headers");
    }
    let path = fields.iter().find(|(name, _)| name.as_deref() == Some(":path"));
    let path = path.and_then(|(_, path)| path.as_ref()).map(HeaderValue::as_bytes).unwrap_or_default();
    if path != b"*" && (!path.starts_with(b"/") || !path.iter().all(is_of_a_path)) {
        return Some("a path that is none");
    }
    let empty = other.head.headers.get_all(header::CONTENT_LENGTH).iter().any(HeaderValue::is_empty);
    empty.then_some("a length without digits")
}

/// Why we give up a stream that h2 does not.
pub(super) fn we_give_up(step: &Step<'_>) -> Option<&'static str> {
    let head = step.head.as_ref()?;
    let fields = head.fields.as_ref()?;
    // That of an answer, `:status`, is no name here at all; h2 takes it.
    if fields.iter().any(|(name, _)| name.as_ref().is_none_or(|name| name.starts_with(':'))) {
        return Some("fields behind a body that only a head has");
    }
    if head.frames > 1 && is_malformed(fields) {
        return Some(FORGOTTEN_FAULT);
    }
    let most = usize::try_from(LIMITS.max_header_bytes).unwrap_or(usize::MAX);
    let too_many = bytes(fields) > most || fields.len() > LIMITS.max_headers;
    too_many.then_some("too many fields behind a body")
}

/// Why h2 gives up a stream that we do not.
pub(super) fn h2_gives_up(step: &Step<'_>) -> Option<&'static str> {
    is_inside_a_head(step.frame).then_some(UNREAD_HEAD)
}

fn bytes(fields: &BlockFields) -> usize {
    let text = |(name, value): &(Option<String>, Option<HeaderValue>)| {
        name.as_ref().map_or(0, String::len) + value.as_ref().map_or(0, HeaderValue::len)
    };
    fields.iter().map(|field| text(field) + 32).sum()
}

/// RFC 9113, sections 8.2.2 and 8.3: what begins with a colon stands first and once, and nothing speaks of a connection of
/// HTTP/1.1.
fn is_malformed(fields: &BlockFields) -> bool {
    let mut names = Vec::new();
    fields.iter().any(|(name, value)| {
        let name = name.as_deref().unwrap_or_default();
        let wrong = match name {
            "connection" | "keep-alive" | "proxy-connection" | "transfer-encoding" | "upgrade" => true,
            "te" => value.as_ref().is_none_or(|value| value != "trailers"),
            _ if name.starts_with(':') => {
                names.contains(&name) || names.iter().any(|before: &&str| !before.starts_with(':'))
            }
            _ => false,
        };
        names.push(name);
        wrong
    })
}

fn is_no_field((name, value): &(Option<String>, Option<HeaderValue>)) -> bool {
    let Some((name, value)) = name.as_ref().zip(value.as_ref()) else { return true };
    match name.as_str() {
        ":method" => Method::from_bytes(value.as_bytes()).is_err(),
        ":path" | ":authority" | ":scheme" => std::str::from_utf8(value.as_bytes()).is_err(),
        _ => false,
    }
}

/// RFC 3986, section 2.
fn is_of_a_path(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~:/?[]@!$&'()*+,;=%".contains(byte)
}

fn is_inside_a_head(frame: &Frame<'_>) -> bool {
    matches!(frame.kind, kind::HEADERS | kind::CONTINUATION) && !frame.has(frame::END_HEADERS)
}

fn increment(frame: &Frame<'_>) -> Option<u32> {
    Some(u32::from_be_bytes(frame.payload.try_into().ok()?) & 0x7fff_ffff)
}

/// RFC 8441.
const CONNECT_PROTOCOL: u8 = 8;

fn sets_more_than_one(frame: &Frame<'_>, which: u8) -> bool {
    let (pairs, _) = frame.payload.as_chunks::<6>();
    pairs.iter().any(|[a, b, value @ ..]| [*a, *b] == [0, which] && u32::from_be_bytes(*value) > 1)
}
