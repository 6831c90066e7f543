//! Finds the end of a head, or of the lines behind the last chunk, as their bytes come.
//!
//! A pure state machine: it looks at every byte once, and how the bytes were cut on their way changes nothing. Its
//! invariant is that of all that follows: each line ends in CR LF, and no CR stands elsewhere.
use super::refusal::Refusal;
use memchr::memchr;

/// How far the lines have been looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scan {
    /// Bytes that were looked at.
    seen: usize,
    /// Where the line that is being looked at begins.
    line: usize,
}

impl Scan {
    /// The length of the lines up to and with the empty one, once it is there. `bytes` is what came before and more.
    ///
    /// # Errors
    /// A line does not end in CR LF.
    pub(crate) fn end(&mut self, bytes: &[u8]) -> Result<Option<usize>, Refusal> {
        while let Some(at) = bytes.get(self.seen..).and_then(|rest| memchr(b'\n', rest)) {
            let at = self.seen + at;
            let line = bytes.get(self.line..at).and_then(|line| line.strip_suffix(b"\r"));
            let line = line.filter(|line| memchr(b'\r', line).is_none()).ok_or(Refusal::LineEnd)?;
            (self.seen, self.line) = (at + 1, at + 1);
            if line.is_empty() {
                return Ok(Some(at + 1));
            }
        }
        self.seen = bytes.len();
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_found_however_the_bytes_are_cut_and_nothing_behind_it_is_looked_at() {
        let text = b"GET / HTTP/1.1\r\nhost: x\r\n\r\nbehind\n\n";
        let mut whole = Scan::default();
        assert_eq!(whole.end(text), Ok(Some(27)));
        for cut in 0..27 {
            let mut scan = Scan::default();
            assert_eq!(scan.end(&text[..cut]), Ok(None), "{cut}");
            assert_eq!(scan.end(text), Ok(Some(27)), "{cut}");
        }
        assert_eq!(Scan::default().end(b"\r\n"), Ok(Some(2)));
    }

    #[test]
    fn a_bare_lf_and_a_bare_cr_are_refused_as_soon_as_their_line_ends() {
        for text in [
            &b"GET / HTTP/1.1\n"[..],
            b"\n",
            b"GET / HTTP/1.1\r\nhost: x\n",
            b"GET / HTTP/1.1\r\na: b\rc: d\r\n",
            b"GET / HTTP/1.1\r\r\n",
        ] {
            assert_eq!(Scan::default().end(text), Err(Refusal::LineEnd), "{}", text.escape_ascii());
        }
    }
}
