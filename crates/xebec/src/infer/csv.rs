//! Tables as text: cells with commas between them, a row a line.
//!
//! A row is kept as it was written, so that what is appended to it changes nothing before. A cell in quotes may hold commas,
//! line ends and, twice each, quotes.
//!
//! # Source
//! RFC 4180.
use anyhow::{Context as _, bail, ensure};
use std::{
    borrow::Cow,
    io::{BufRead, Read as _},
};

/// Largest row.
const MOST_ROW_BYTES: usize = 64 << 20;

/// A row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    /// Of its first line, from 1.
    pub(super) line: u64,
    /// As it was written, without the line's end.
    pub(super) raw: String,
    pub(super) cells: Vec<String>,
}

/// Reads rows one after the other. Empty lines are passed over.
#[derive(Debug)]
pub(super) struct Reader<R> {
    from: R,
    delimiter: char,
    line: u64,
    /// Read so far.
    bytes: u64,
}

impl<R: BufRead> Reader<R> {
    pub(super) fn new(from: R, delimiter: char) -> Self {
        Self { from, delimiter, line: 0, bytes: 0 }
    }

    /// Bytes that were read so far.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    fn next_row(&mut self) -> anyhow::Result<Option<Row>> {
        loop {
            let begin = self.line + 1;
            let raw = self.next_raw(begin)?;
            if raw.is_empty() {
                return Ok(None);
            }
            let raw =
                String::from_utf8(raw).ok().with_context(|| format!("line {begin} is not UTF-8 text"))?;
            let raw = if begin == 1 { raw.strip_prefix('\u{feff}').unwrap_or(&raw) } else { &raw };
            let raw = raw.strip_suffix('\n').unwrap_or(raw);
            let raw = raw.strip_suffix('\r').unwrap_or(raw);
            if !raw.trim().is_empty() {
                let cells = cells(raw, self.delimiter).with_context(|| format!("line {begin}"))?;
                return Ok(Some(Row { line: begin, raw: raw.to_owned(), cells }));
            }
        }
    }

    /// The bytes of a row with its line's end, or none at the end. A row is whole when its quotes are.
    fn next_raw(&mut self, begin: u64) -> anyhow::Result<Vec<u8>> {
        let (mut raw, mut quotes) = (Vec::new(), 0);
        while raw.is_empty() || quotes % 2 == 1 {
            let before = raw.len();
            let left = (MOST_ROW_BYTES - before.min(MOST_ROW_BYTES)) as u64;
            let read = (&mut self.from).take(left).read_until(b'\n', &mut raw)?;
            ensure!(raw.len() < MOST_ROW_BYTES, "line {begin}: a row is longer than {MOST_ROW_BYTES} bytes");
            if read == 0 {
                ensure!(quotes % 2 == 0, "line {begin}: a quote is not closed");
                break;
            }
            self.bytes += read as u64;
            self.line += u64::from(raw.ends_with(b"\n"));
            quotes += raw.iter().skip(before).filter(|byte| **byte == b'"').count();
        }
        Ok(raw)
    }
}

impl<R: BufRead> Iterator for Reader<R> {
    type Item = anyhow::Result<Row>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_row().transpose()
    }
}

fn cells(raw: &str, delimiter: char) -> anyhow::Result<Vec<String>> {
    let mut cells = Vec::new();
    let mut rest = raw;
    loop {
        let (cell, behind) = cell(rest, delimiter).with_context(|| format!("cell {}", cells.len() + 1))?;
        cells.push(cell);
        match behind {
            Some(behind) => rest = behind,
            None => return Ok(cells),
        }
    }
}

/// The first cell, and what comes behind the delimiter if there is one.
fn cell(rest: &str, delimiter: char) -> anyhow::Result<(String, Option<&str>)> {
    let Some(mut quoted) = rest.strip_prefix('"') else {
        return Ok(match rest.split_once(delimiter) {
            Some((cell, behind)) => (cell.to_owned(), Some(behind)),
            None => (rest.to_owned(), None),
        });
    };
    let mut cell = String::new();
    loop {
        let (inside, behind) = quoted.split_once('"').context("a quote is not closed")?;
        cell.push_str(inside);
        if let Some(more) = behind.strip_prefix('"') {
            cell.push('"');
            quoted = more;
        } else if behind.is_empty() {
            return Ok((cell, None));
        } else if let Some(behind) = behind.strip_prefix(delimiter) {
            return Ok((cell, Some(behind)));
        } else {
            bail!("there is text behind a closing quote");
        }
    }
}

/// A cell as it is written.
pub(super) fn written(cell: &str, delimiter: char) -> Cow<'_, str> {
    if cell.contains(['"', '\n', '\r', delimiter]) {
        Cow::Owned(format!("\"{}\"", cell.replace('"', "\"\"")))
    } else {
        Cow::Borrowed(cell)
    }
}

/// A row as it is written, without a line's end.
pub(super) fn row<'a>(cells: impl IntoIterator<Item = &'a str>, delimiter: char) -> String {
    let mut out = String::new();
    for (index, cell) in cells.into_iter().enumerate() {
        if index > 0 {
            out.push(delimiter);
        }
        out.push_str(&written(cell, delimiter));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> anyhow::Result<Vec<(u64, Vec<String>)>> {
        Reader::new(text.as_bytes(), ',').map(|row| row.map(|row| (row.line, row.cells))).collect()
    }

    #[test]
    fn rows_are_read_with_the_lines_they_begin_in() {
        let rows = read("\u{feff}a,b\r\n1,\"x, \"\"y\"\"\nz\"\n\n2,\n").unwrap();
        let want = |cells: [&str; 2]| cells.map(str::to_owned).to_vec();
        assert_eq!(rows, [(1, want(["a", "b"])), (2, want(["1", "x, \"y\"\nz"])), (5, want(["2", ""]))]);
        assert_eq!(read("").unwrap(), []);
        assert_eq!(read("a;b").unwrap(), [(1, vec!["a;b".to_owned()])]);
    }

    #[test]
    fn what_is_read_and_written_is_the_same() {
        for cells in [vec!["a", "b c", ""], vec!["1,5", "say \"x\"", "two\nlines"], vec!["ä€", "'", " x "]]
        {
            let text = row(cells.iter().copied(), ',');
            assert_eq!(
                read(&text).unwrap(),
                [(1, cells.iter().map(ToString::to_string).collect())],
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_table_is_refused_with_its_line() {
        let said = |text: &str| format!("{:#}", read(text).unwrap_err());
        assert_eq!(said("a\n\"b\n"), "line 2: a quote is not closed");
        assert_eq!(said("a,b\n1,\"b\"c\n"), "line 2: cell 2: there is text behind a closing quote");
        let mut rows = Reader::new(&b"a\n\xff\n"[..], ',');
        assert!(rows.by_ref().nth(1).unwrap().unwrap_err().to_string().contains("line 2 is not UTF-8"));
    }
}
