//! HTTP/2 by hand: frames that no client's library would send.
use crate::rpc::INFER;
use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
};

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RESET: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

/// Codes of errors.
pub(crate) const ENHANCE_YOUR_CALM: u32 = 0xb;

/// A frame that came.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// The code of a reset or, behind the last stream, of the connection's end.
    pub(crate) fn code(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }
}

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A header as HPACK writes it without a table.
pub(crate) fn literal(name: &str, value: &str) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    [vec![0], text(name), text(value)].concat()
}

/// The head of a call.
pub(crate) fn head() -> Vec<u8> {
    let pairs = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", INFER),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
    ];
    pairs.map(|(name, value)| literal(name, value)).concat()
}

/// A connection whose preface was sent.
pub(crate) struct Raw(pub(crate) TcpStream);

impl Raw {
    /// Connects and says so many settings: pairs of a number and its value.
    pub(crate) fn connect(address: SocketAddr, settings: &[(u16, u32)]) -> Self {
        let mut stream = crate::wire::connect(address);
        let pairs = settings.iter().flat_map(|(name, value)| {
            let (name, value) = (name.to_be_bytes(), value.to_be_bytes());
            [&name[..], &value[..]].concat()
        });
        let settings = frame(SETTINGS, 0, 0, &pairs.collect::<Vec<u8>>());
        stream.write_all(&[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &settings[..]].concat()).unwrap();
        Self(stream)
    }

    /// Sends the same bytes over and over, until the other side takes no more of them or they were sent `most` times.
    pub(crate) fn flood(&mut self, bytes: &[u8], most: usize) -> io::Result<()> {
        (0..most).try_for_each(|_| self.0.write_all(bytes))
    }

    /// The next frame, or nothing at the end.
    pub(crate) fn next(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).ok()?;
        let number = |bytes: [u8; 4]| u32::from_be_bytes(bytes);
        let mut payload = vec![0; number([0, head[0], head[1], head[2]]) as usize];
        self.0.read_exact(&mut payload).ok()?;
        Some(Frame { kind: head[3], stream: number(head[5..9].try_into().unwrap()), payload })
    }

    /// The first frame of a kind; `None` if the connection ends before.
    pub(crate) fn first(&mut self, kind: u8) -> Option<Frame> {
        std::iter::from_fn(|| self.next()).find(|frame| frame.kind == kind)
    }
}
