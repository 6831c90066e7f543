//! A body in chunks, as a state machine without input or output.
//!
//! # Source
//! RFC 9112, section 7.1, read strictly: at most 16 digits of a size, CR LF only, short extensions, and no blank anywhere.
use super::{refusal::Refusal, scan::Scan};
use bytes::{Buf as _, Bytes, BytesMut};
use memchr::memchr;

/// The longest first line of a chunk: its size and its extensions.
const LINE_BYTES: usize = 256;

/// All extensions of one body together. Nothing known sends any.
const EXTENSION_BYTES: usize = 1024;

/// The lines behind the last chunk, which nobody reads.
pub(crate) const TRAILER_BYTES: usize = 4096;

/// The most lines behind the last chunk.
const TRAILERS: usize = 32;

/// Where in the body the next byte stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// In the line with the size.
    Size,
    /// In a chunk of which so many bytes are left.
    Data(u64),
    /// Behind a chunk's data, before its CR LF.
    DataEnd,
    /// Behind the last chunk.
    Trailers(Scan),
    /// Behind the body.
    End,
}

/// How far a body has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Chunks {
    place: Place,
    extensions: usize,
}

/// What the bytes so far give.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Some of the body.
    Piece(Bytes),
    /// Nothing before more bytes come.
    More,
    /// The body is over.
    End,
}

impl Chunks {
    pub(crate) fn new() -> Self {
        Self { place: Place::Size, extensions: 0 }
    }

    /// Takes from `input` what it has of the body.
    pub(crate) fn next(&mut self, input: &mut BytesMut) -> Result<Next, Refusal> {
        loop {
            match self.place {
                Place::Size => {
                    let Some((line, length)) = line(input)? else { return Ok(Next::More) };
                    let size = self.size(line)?;
                    input.advance(length);
                    self.place = if size == 0 { Place::Trailers(Scan::default()) } else { Place::Data(size) };
                }
                Place::Data(left) => {
                    let some = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
                    if some == 0 {
                        return Ok(Next::More);
                    }
                    let left = left - some as u64;
                    self.place = if left == 0 { Place::DataEnd } else { Place::Data(left) };
                    return Ok(Next::Piece(input.split_to(some).freeze()));
                }
                Place::DataEnd => match *input.as_ref() {
                    [b'\r', b'\n', ..] => {
                        input.advance(2);
                        self.place = Place::Size;
                    }
                    [] | [b'\r'] => return Ok(Next::More),
                    _ => return Err(Refusal::ChunkEnd),
                },
                Place::Trailers(mut scan) => {
                    let Some(length) = trailers(&mut scan, input)? else {
                        self.place = Place::Trailers(scan);
                        return Ok(Next::More);
                    };
                    input.advance(length);
                    self.place = Place::End;
                }
                Place::End => return Ok(Next::End),
            }
        }
    }

    /// Reads the line before a chunk.
    fn size(&mut self, line: &[u8]) -> Result<u64, Refusal> {
        let digits = memchr(b';', line).unwrap_or(line.len());
        let (digits, extension) = line.split_at_checked(digits).unwrap_or((line, b""));
        if digits.is_empty() || digits.len() > 16 {
            return Err(Refusal::ChunkSize);
        }
        self.extensions += extension.len();
        let plain = extension.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~'));
        if self.extensions > EXTENSION_BYTES || !plain {
            return Err(Refusal::ChunkExtension(EXTENSION_BYTES));
        }
        digits.iter().try_fold(0, |size, byte| {
            let digit = char::from(*byte).to_digit(16).ok_or(Refusal::ChunkSize)?;
            Ok(size << 4 | u64::from(digit))
        })
    }
}

/// The first line and its length with CR LF, once it is there.
fn line(input: &[u8]) -> Result<Option<(&[u8], usize)>, Refusal> {
    let start = input.get(..LINE_BYTES).unwrap_or(input);
    match memchr(b'\n', start) {
        Some(at) => {
            let line = start.get(..at).and_then(|line| line.strip_suffix(b"\r"));
            line.map(|line| Some((line, at + 1))).ok_or(Refusal::ChunkSize)
        }
        None if input.len() >= LINE_BYTES => Err(Refusal::ChunkSize),
        None => Ok(None),
    }
}

/// The length of the lines behind the last chunk, once they are there. They are checked and forgotten.
fn trailers(scan: &mut Scan, input: &[u8]) -> Result<Option<usize>, Refusal> {
    let wrong = Refusal::Trailers(TRAILER_BYTES);
    let start = input.get(..TRAILER_BYTES).unwrap_or(input);
    let Some(length) = scan.end(start).map_err(|_| wrong)? else {
        return if input.len() >= TRAILER_BYTES { Err(wrong) } else { Ok(None) };
    };
    let mut headers = [httparse::EMPTY_HEADER; TRAILERS];
    let lines = start.get(..length).unwrap_or_default();
    match httparse::parse_headers(lines, &mut headers) {
        Ok(httparse::Status::Complete((read, _))) if read == length => Ok(Some(length)),
        _ => Err(wrong),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Feeds `bytes` cut at `cuts`; the body or the refusal, and what is left behind it.
    fn read(bytes: &[u8], cuts: &[usize]) -> (Result<Option<Vec<u8>>, Refusal>, usize) {
        let mut ends: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
        ends.extend([bytes.len()]);
        ends.sort_unstable();
        let (mut chunks, mut input, mut body, mut fed) = (Chunks::new(), BytesMut::new(), Vec::new(), 0);
        for end in ends {
            input.extend_from_slice(&bytes[fed..end]);
            fed = end;
            loop {
                match chunks.next(&mut input) {
                    Ok(Next::Piece(piece)) => body.extend_from_slice(&piece),
                    Ok(Next::More) => break,
                    Ok(Next::End) => return (Ok(Some(body)), input.len() + bytes.len() - fed),
                    Err(refusal) => return (Err(refusal), 0),
                }
            }
        }
        (Ok(None), 0)
    }

    #[test]
    fn chunks_become_the_body_and_what_stands_behind_is_left() {
        let cases: [(&[u8], &[u8], usize); 5] = [
            (b"0\r\n\r\n", b"", 0),
            (b"5\r\nhello\r\n0\r\n\r\nGET", b"hello", 3),
            (b"A;name=value\r\n0123456789\r\n0000000000000000\r\n\r\n", b"0123456789", 0),
            (b"1\r\na\r\n1;x;y=\"z\"\r\nb\r\n0\r\nx-sum: 7\r\ny:\r\n\r\n", b"ab", 0),
            (b"2\r\n\r\n\r\n0\r\n\r\n", b"\r\n", 0),
        ];
        for (bytes, body, left) in cases {
            assert_eq!(read(bytes, &[]), (Ok(Some(body.to_vec())), left), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn what_is_odd_about_a_chunk_is_refused_by_what_it_is() {
        let long = format!("1;{}\r\na\r\n", "e".repeat(200)).repeat(6);
        let endless = format!("1;{}", "e".repeat(300));
        let fields = "x: y\r\n".repeat(TRAILERS + 1);
        for (bytes, refusal) in [
            ("-1\r\n", Refusal::ChunkSize),
            ("+1\r\na\r\n", Refusal::ChunkSize),
            ("0x1\r\na\r\n", Refusal::ChunkSize),
            ("1 \r\na\r\n", Refusal::ChunkSize),
            (" 1\r\na\r\n", Refusal::ChunkSize),
            ("1_0\r\n", Refusal::ChunkSize),
            ("\r\n", Refusal::ChunkSize),
            (";x\r\n", Refusal::ChunkSize),
            ("1\na\n", Refusal::ChunkSize),
            ("1\r\r\na\r\n", Refusal::ChunkSize),
            ("10000000000000000\r\n", Refusal::ChunkSize),
            ("1\r\nab\r\n", Refusal::ChunkEnd),
            ("1\r\na\n", Refusal::ChunkEnd),
            ("1\r\na\rb", Refusal::ChunkEnd),
            ("1;\u{1}\r\na\r\n", Refusal::ChunkExtension(EXTENSION_BYTES)),
            ("1;a\rb\r\na\r\n", Refusal::ChunkExtension(EXTENSION_BYTES)),
            (&long, Refusal::ChunkExtension(EXTENSION_BYTES)),
            (&endless, Refusal::ChunkSize),
            ("0\r\nx y: z\r\n\r\n", Refusal::Trailers(TRAILER_BYTES)),
            ("0\r\nx : z\r\n\r\n", Refusal::Trailers(TRAILER_BYTES)),
            ("0\r\nx: y\n\r\n", Refusal::Trailers(TRAILER_BYTES)),
            (&format!("0\r\n{fields}\r\n"), Refusal::Trailers(TRAILER_BYTES)),
            (&format!("0\r\nx: {}", "y".repeat(TRAILER_BYTES)), Refusal::Trailers(TRAILER_BYTES)),
        ] {
            assert_eq!(read(bytes.as_bytes(), &[]).0, Err(refusal), "{}", bytes.escape_debug());
        }
    }

    #[test]
    fn a_chunk_as_large_as_can_be_said_is_awaited_and_nothing_is_kept_for_it() {
        let (mut chunks, mut input) = (Chunks::new(), BytesMut::from("ffffffffffffffff\r\na"));
        assert_eq!(chunks.next(&mut input), Ok(Next::Piece(Bytes::from_static(b"a"))));
        assert_eq!(chunks.next(&mut input), Ok(Next::More));
        assert_eq!(chunks.place, Place::Data(u64::MAX - 1));
    }

    proptest! {
        #[test]
        fn however_the_bytes_are_cut_the_outcome_is_the_same(
            bytes in "([0-9a-fA-F]{0,3}(;[a-z]{0,3})?(\r\n|\n|\r)?[ab\r\n]{0,6}){0,5}(0\r\n)?(x: y\r\n)?(\r\n)?",
            cuts in prop::collection::vec(0usize..64, 0..8),
        ) {
            prop_assert_eq!(read(bytes.as_bytes(), &cuts), read(bytes.as_bytes(), &[]));
        }

        #[test]
        fn any_body_in_any_chunks_comes_back(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..8),
            cuts in prop::collection::vec(0usize..400, 0..8),
        ) {
            let mut bytes = Vec::new();
            for piece in &pieces {
                bytes.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
                bytes.extend_from_slice(piece);
                bytes.extend_from_slice(b"\r\n");
            }
            bytes.extend_from_slice(b"0\r\n\r\nnext");
            prop_assert_eq!(read(&bytes, &cuts), (Ok(Some(pieces.concat())), 4));
        }
    }
}
