//! Our session beside h2's, frame by frame: what both take they must understand alike, and where only one of them goes on,
//! the reason is one of those that [`reasons`] names.
use super::{
    LIMITS,
    frame::{Frame, Head, Heads, kind},
    input::{Came, GREETING, Then},
    other::{Other, OtherCall},
};
use http::{HeaderMap, HeaderValue, Method};
use std::collections::{BTreeMap, BTreeSet};
use xebec_net::fuzzing::{Link, UnderstoodCall};

mod reasons;

/// Reads on with both until they part or there is no more; the reasons for which one took what the other did not.
pub(super) fn compare(came: &Came) -> Vec<&'static str> {
    let mut pair = Pair::new();
    for (bytes, then) in &came.0 {
        let mut rest = bytes.strip_prefix(GREETING).unwrap_or(bytes);
        while let Some((frame, behind)) = Frame::first(rest).filter(|_| !pair.parted) {
            pair.come(&frame);
            rest = behind;
        }
        if *then == Then::Answer && !pair.parted {
            pair.answer();
        }
    }
    pair.all_are_alike();
    pair.reasons
}

/// Both, having taken the same frames.
struct Pair {
    ours: Link,
    other: Other,
    we_said: Said,
    it_said: Said,
    heads: Heads,
    /// Streams of which the two do not think the same.
    apart: BTreeSet<u32>,
    /// Only one of the connections goes on, or they need not understand the same any more.
    parted: bool,
    /// What we had [taken](Self::taken) before the last frame, or before the head that it is of.
    before: Taken,
    /// h2 has refused a head that is not there whole: we must not take it when it is.
    inside: bool,
    /// The client has said goodbye.
    goodbye: bool,
    reasons: Vec<&'static str>,
}

/// How many heads were taken, how many requests whole, and how much of their bodies.
type Taken = (usize, usize, usize);

/// What one of the two has sent about streams and the connection.
#[derive(Default)]
struct Said {
    heard: usize,
    /// For what error the streams were reset at last.
    resets: BTreeMap<u32, u32>,
    /// What its goodbye said in words.
    goodbye: String,
}

impl Said {
    fn hear(&mut self, sent: &[u8]) {
        while let Some((frame, _)) = sent.get(self.heard..).and_then(Frame::first) {
            self.heard += frame.bytes.len();
            if let (kind::RESET, Ok(code)) = (frame.kind, frame.payload.try_into()) {
                self.resets.insert(frame.stream, u32::from_be_bytes(code));
            } else if frame.kind == kind::GOAWAY {
                self.goodbye =
                    String::from_utf8_lossy(frame.payload.get(8..).unwrap_or_default()).into_owned();
            }
        }
    }

    fn refused(&self, stream: u32) -> bool {
        const REFUSED_STREAM: u32 = 7;
        self.resets.get(&stream) == Some(&REFUSED_STREAM)
    }
}

/// A frame, and the head that ended with it.
struct Step<'a> {
    frame: &'a Frame<'a>,
    head: Option<Head>,
}

/// How far a request has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Open,
    Whole,
    /// It was given up before it was whole.
    Reset,
}

impl Standing {
    fn new(whole: bool, reset: bool) -> Self {
        match (whole, reset) {
            (true, _) => Self::Whole,
            (false, true) => Self::Reset,
            (false, false) => Self::Open,
        }
    }
}

impl Pair {
    fn new() -> Self {
        let (mut ours, mut other) = (Link::new(&LIMITS), Other::new());
        ours.come(GREETING);
        other.come(GREETING);
        Self {
            ours,
            other,
            we_said: Said::default(),
            it_said: Said::default(),
            heads: Heads::default(),
            apart: BTreeSet::new(),
            parted: false,
            before: (0, 0, 0),
            inside: false,
            goodbye: false,
            reasons: Vec::new(),
        }
    }

    fn come(&mut self, frame: &Frame<'_>) {
        if !self.inside {
            self.before = self.taken();
        }
        self.ours.come(frame.bytes);
        self.ours.read();
        let step = Step { frame, head: self.heads.take(frame) };
        if self.inside {
            assert_eq!(self.taken(), self.before, "only we take {:?}", step.head);
            self.parted = self.ours.ended().is_some() || step.head.is_some();
            return;
        }
        self.other.come(frame.bytes);
        self.we_said.hear(self.ours.sent());
        self.it_said.hear(&self.other.sent);
        self.goodbye |= frame.kind == kind::GOAWAY;
        if self.ours.ended().is_some() || self.other.ended.is_some() {
            self.judge_end(&step);
        } else if step.head.as_ref().is_some_and(reasons::may_be_forgotten) {
            assert_eq!(self.taken(), self.before, "a field without a name: {:?}", step.head);
            self.parted = true;
            self.reasons.push(reasons::FORGOTTEN_FIELD);
        } else {
            self.judge_stream(&step);
        }
    }

    fn answer(&mut self) {
        self.ours.answer();
        if !self.inside {
            self.other.answer();
            // With its last answer it closes.
            self.parted = self.other.ended.is_some();
            assert!(!self.parted || self.goodbye, "h2 ends for its own answer: {:?}", self.other.ended);
        }
    }

    fn taken(&self) -> Taken {
        let calls = self.ours.calls();
        let bytes = calls.iter().map(|call| call.body.len()).sum();
        (calls.len(), calls.iter().filter(|call| call.whole).count(), bytes)
    }

    /// Looks at the stream of the last frame: no other has changed with it.
    fn judge_stream(&mut self, step: &Step<'_>) {
        let stream = step.frame.stream;
        if self.apart.contains(&stream) {
            return;
        }
        let reason = match (self.ours(stream), self.other(stream)) {
            (None, None) => return,
            (Some(ours), Some(other)) => {
                same(ours, other);
                match (Standing::new(ours.whole, ours.reset), Standing::new(other.whole, other.reset)) {
                    (ours, other) if ours == other => return,
                    (Standing::Reset, _) => reasons::we_give_up(step),
                    (Standing::Open, Standing::Reset) => reasons::h2_gives_up(step),
                    (_, _) => None,
                }
            }
            (ours, other) => self.only_one_takes(step, ours, other),
        };
        let whose = if self.ours(stream).is_some() { "ours" } else { "h2's" };
        let alone = || panic!("stream {stream} is {whose} alone, at {:?}, {:?}", step.frame, step.head);
        let reason = reason.unwrap_or_else(alone);
        self.inside = reason == reasons::UNREAD_HEAD;
        self.reasons.push(reason);
        self.apart.insert(stream);
    }

    fn ours(&self, stream: u32) -> Option<&UnderstoodCall> {
        self.ours.calls().iter().rev().find(|call| call.stream == stream)
    }

    fn other(&self, stream: u32) -> Option<&OtherCall> {
        self.other.calls.iter().rev().find(|call| call.stream == stream)
    }

    /// Asserts that the two think the same of all streams, but of those whose reasons are known.
    fn all_are_alike(&self) {
        let ours = self.ours.calls().iter().filter(|call| !self.apart.contains(&call.stream));
        for (ours, other) in ours.filter_map(|ours| Some((ours, self.other(ours.stream)?))) {
            same(ours, other);
        }
    }
}

/// Asserts that both understood a stream alike, as far as it has come.
fn same(ours: &UnderstoodCall, other: &OtherCall) {
    let uri = &other.head.uri;
    assert_eq!(ours.method, other.head.method);
    // It has none, for which `Uri` has a slash.
    if ours.method != Method::CONNECT {
        assert_eq!(ours.path, uri.path());
    }
    let authority = uri.authority().map(|authority| authority.as_str().as_bytes());
    assert_eq!(ours.authority.as_ref().map(HeaderValue::as_bytes), authority);
    assert_eq!(listed(&ours.headers), listed(&other.head.headers));
    assert_eq!(ours.body, other.body, "stream {}", ours.stream);
}

fn listed(headers: &HeaderMap) -> Vec<(&str, &[u8])> {
    headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect()
}
