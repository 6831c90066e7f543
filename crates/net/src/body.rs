//! Reading a body within its limit, and the compressions of HTTP and gRPC.
//!
//! Invariant: no more than the limit is ever kept, before or after decompression, whatever the length header says.
pub use crate::http1::{BrokenBody, Refusal};
use crate::{
    budget::Hold,
    conn::{Conn, Phase},
    gather::{Excess, Gather},
    http1::Wire,
    reactor::Core,
};
use bytes::Bytes;
use std::{
    io::{Read as _, Write as _},
    ops::Deref,
    rc::Rc,
};

/// A request body that has not been read.
#[derive(Debug)]
pub struct Body {
    source: Source,
    core: Rc<Core>,
}

/// Where a body is.
#[derive(Debug)]
enum Source {
    /// Came whole with its head.
    Here(Bytes),
    /// Is still to come, at least in part.
    Coming(Rc<Wire>, Rc<Conn>),
}

/// A body that was read. As long as this lives, its memory counts against the core's.
#[derive(Debug)]
pub struct Received {
    bytes: Bytes,
    hold: Hold,
}

impl Deref for Received {
    type Target = Bytes;

    fn deref(&self) -> &Bytes {
        &self.bytes
    }
}

impl Received {
    /// Decompresses it within `limit_bytes`; what comes out counts in its place.
    ///
    /// # Errors
    /// As [`Encoding::decompress`], or there is no room now.
    pub fn decompress(mut self, encoding: Encoding, limit_bytes: usize) -> Result<Self, ReadError> {
        let bytes = encoding.decompress(&self.bytes, limit_bytes)?;
        self.count(bytes.len())?;
        self.hold.give_back(self.bytes.len());
        self.bytes = bytes;
        Ok(self)
    }

    /// Counts memory that was made of this body as well.
    ///
    /// # Errors
    /// There is no room for it now.
    pub fn count(&mut self, bytes: usize) -> Result<(), ReadError> {
        self.hold.grow(bytes).map_err(|_| ReadError::NoRoom)
    }
}

/// Why a body could not be had.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Passes the limit, by its header or by what came.
    #[error("body is larger than {limit_bytes} bytes")]
    TooLarge {
        /// The limit.
        limit_bytes: usize,
    },
    /// Comes in more pieces than a sane client makes.
    #[error("body comes in more than {limit} pieces; send it in larger ones")]
    TooManyPieces {
        /// The limit.
        limit: usize,
    },
    /// All bodies being read at this moment fill the server's memory for them.
    #[error("the requests being read and waiting fill the memory for them")]
    NoRoom,
    /// The caller went away or broke the framing.
    #[error("body ended early or is framed wrongly")]
    Broken(#[source] BrokenBody),
    /// Not what its content encoding says.
    #[error("body is not valid {encoding}")]
    Corrupt {
        /** `gzip` or `deflate`. */
        encoding: &'static str,
    },
}

/// A compression that both sides may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// RFC 1952.
    Gzip,
    /// RFC 1950, which HTTP calls deflate.
    Deflate,
}

impl Body {
    pub(crate) fn here(bytes: Bytes, core: Rc<Core>) -> Self {
        Self { source: Source::Here(bytes), core }
    }

    pub(crate) fn coming(wire: Rc<Wire>, conn: Rc<Conn>, core: Rc<Core>) -> Self {
        Self { source: Source::Coming(wire, conn), core }
    }

    /// Reads the body whole.
    ///
    /// # Errors
    /// It passes `limit_bytes`, comes in too many pieces, there is no room for it now, or the caller went away.
    pub async fn read(self, limit_bytes: usize) -> Result<Received, ReadError> {
        let Self { source, core } = self;
        let mut gather = Gather::new(&core.budget, limit_bytes, core.limits.max_body_pieces);
        let excess = |excess| match excess {
            Excess::Bytes => ReadError::TooLarge { limit_bytes },
            Excess::Pieces => ReadError::TooManyPieces { limit: core.limits.max_body_pieces },
            Excess::Room => ReadError::NoRoom,
        };
        match source {
            Source::Here(bytes) => gather.push(bytes).map_err(excess)?,
            Source::Coming(wire, conn) => {
                if wire.pipe().inbox.owed_bytes().is_some_and(|owed| owed > limit_bytes as u64) {
                    return Err(ReadError::TooLarge { limit_bytes });
                }
                conn.enter(Phase::Body);
                let _busy = Busy(&conn);
                while let Some(piece) = wire.piece().await.map_err(ReadError::Broken)? {
                    gather.push(piece).map_err(excess)?;
                }
            }
        }
        core.expect_work();
        let (bytes, hold) = gather.finish();
        Ok(Received { bytes, hold })
    }
}

/// Ends the phase in which a body is read, however it ends.
struct Busy<'a>(&'a Conn);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.enter(Phase::Busy);
    }
}

impl Encoding {
    /// The token in headers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
        }
    }

    /// Reads a header's token.
    pub fn parse(token: &str) -> Option<Self> {
        match token.trim() {
            t if t.eq_ignore_ascii_case("gzip") => Some(Self::Gzip),
            t if t.eq_ignore_ascii_case("deflate") => Some(Self::Deflate),
            _ => None,
        }
    }

    /// Decompresses, stopping one byte past the limit. Several gzip members one after another are one body.
    ///
    /// # Errors
    /// Corrupt data, something behind it, or more than `limit_bytes` of it.
    #[expect(clippy::disallowed_types, reason = "this is the capped reader")]
    pub fn decompress(self, data: &[u8], limit_bytes: usize) -> Result<Bytes, ReadError> {
        let cap = limit_bytes as u64 + 1;
        let (mut out, mut rest) = (Vec::new(), data);
        let read = match self {
            Self::Gzip => flate2::bufread::MultiGzDecoder::new(&mut rest).take(cap).read_to_end(&mut out),
            Self::Deflate => flate2::bufread::ZlibDecoder::new(&mut rest).take(cap).read_to_end(&mut out),
        };
        read.map_err(|_| ReadError::Corrupt { encoding: self.as_str() })?;
        match () {
            () if out.len() > limit_bytes => Err(ReadError::TooLarge { limit_bytes }),
            () if !rest.is_empty() => Err(ReadError::Corrupt { encoding: self.as_str() }),
            () => Ok(out.into()),
        }
    }

    /// Compresses, quickly rather than well.
    pub fn compress(self, data: &[u8]) -> Bytes {
        let level = flate2::Compression::fast();
        let written = match self {
            Self::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
                encoder.write_all(data).and_then(|()| encoder.finish())
            }
            Self::Deflate => {
                let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), level);
                encoder.write_all(data).and_then(|()| encoder.finish())
            }
        };
        // Writing into memory has no error to give.
        written.unwrap_or_default().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_compressed_comes_back_and_not_more_than_the_limit() {
        for encoding in [Encoding::Gzip, Encoding::Deflate] {
            let zeros = vec![0u8; 100_000];
            let packed = encoding.compress(&zeros);
            assert!(packed.len() < 1000);
            assert_eq!(encoding.decompress(&packed, 100_000).unwrap(), zeros);
            let bomb = encoding.decompress(&packed, 99_999).unwrap_err();
            assert!(matches!(bomb, ReadError::TooLarge { limit_bytes: 99_999 }), "{bomb:?}");
        }
    }

    #[test]
    fn several_members_are_one_body_and_what_stands_behind_is_corrupt() {
        let two = [Encoding::Gzip.compress(b"one "), Encoding::Gzip.compress(b"two")].concat();
        assert_eq!(Encoding::Gzip.decompress(&two, 100).unwrap(), "one two");
        for encoding in [Encoding::Gzip, Encoding::Deflate] {
            let behind = [&encoding.compress(b"one"), &b"junk"[..]].concat();
            let error = encoding.decompress(&behind, 100).unwrap_err();
            assert!(matches!(error, ReadError::Corrupt { .. }), "{encoding:?}: {error:?}");
        }
    }

    #[test]
    fn data_that_is_not_what_its_header_says_is_corrupt() {
        for encoding in [Encoding::Gzip, Encoding::Deflate] {
            let error = encoding.decompress(b"not compressed at all", 1000).unwrap_err();
            assert!(matches!(error, ReadError::Corrupt { .. }), "{error:?}");
        }
    }
}
