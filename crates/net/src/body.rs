//! Reading a body within its limit, and the compressions of HTTP and gRPC.
//!
//! Invariant: no more than the limit is ever kept, before or after decompression, whatever the length header says.
use crate::{
    budget::{Budget, Hold},
    conn::{Conn, Phase},
};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use std::{
    io::{Read as _, Write as _},
    rc::Rc,
};

/// A request body that has not been read.
#[derive(Debug)]
pub struct Body {
    incoming: Incoming,
    conn: Rc<Conn>,
    budget: Rc<Budget>,
    max_pieces: usize,
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
    #[error("the server is reading as many bodies as it has memory for")]
    NoRoom,
    /// The caller went away or broke the framing.
    #[error("body ended early or is framed wrongly")]
    Broken(#[source] hyper::Error),
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
    pub(crate) fn new(incoming: Incoming, conn: Rc<Conn>, budget: Rc<Budget>, max_pieces: usize) -> Self {
        Self { incoming, conn, budget, max_pieces }
    }

    /// Reads the body whole.
    ///
    /// # Errors
    /// It passes `limit_bytes`, comes in too many pieces, there is no room for it now, or the caller went away.
    pub async fn read(mut self, limit_bytes: usize) -> Result<Bytes, ReadError> {
        self.conn.enter(Phase::Body);
        let whole = self.read_within(limit_bytes).await;
        self.conn.enter(Phase::Busy);
        whole
    }

    async fn read_within(&mut self, limit_bytes: usize) -> Result<Bytes, ReadError> {
        let promised = usize::try_from(self.incoming.size_hint().lower()).unwrap_or(usize::MAX);
        if promised > limit_bytes {
            return Err(ReadError::TooLarge { limit_bytes });
        }
        let Some(first) = self.next().await? else { return Ok(Bytes::new()) };
        if first.len() > limit_bytes {
            return Err(ReadError::TooLarge { limit_bytes });
        }
        // Almost every body comes in one piece and stays the view on the connection's buffer that it is.
        if self.incoming.is_end_stream() {
            return Ok(first);
        }
        self.gather(first, limit_bytes).await
    }

    async fn gather(&mut self, first: Bytes, limit_bytes: usize) -> Result<Bytes, ReadError> {
        let mut hold = Hold::new(Rc::clone(&self.budget));
        let mut whole = BytesMut::new();
        let mut pieces = 1;
        let mut next = Some(first);
        while let Some(piece) = next {
            if whole.len() + piece.len() > limit_bytes {
                return Err(ReadError::TooLarge { limit_bytes });
            }
            hold.grow(piece.len()).map_err(|_| ReadError::NoRoom)?;
            whole.extend_from_slice(&piece);
            pieces += 1;
            if pieces > self.max_pieces {
                return Err(ReadError::TooManyPieces { limit: self.max_pieces });
            }
            next = self.next().await?;
        }
        Ok(whole.freeze())
    }

    async fn next(&mut self) -> Result<Option<Bytes>, ReadError> {
        while let Some(frame) = self.incoming.frame().await {
            if let Ok(data) = frame.map_err(ReadError::Broken)?.into_data()
                && !data.is_empty()
            {
                return Ok(Some(data));
            }
        }
        Ok(None)
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

    /// Decompresses, stopping one byte past the limit.
    ///
    /// # Errors
    /// Corrupt data, or more than `limit_bytes` of it.
    #[expect(clippy::disallowed_types, reason = "this is the capped reader")]
    pub fn decompress(self, data: &[u8], limit_bytes: usize) -> Result<Bytes, ReadError> {
        let cap = limit_bytes as u64 + 1;
        let mut out = Vec::new();
        let read = match self {
            Self::Gzip => flate2::read::GzDecoder::new(data).take(cap).read_to_end(&mut out),
            Self::Deflate => flate2::read::ZlibDecoder::new(data).take(cap).read_to_end(&mut out),
        };
        read.map_err(|_| ReadError::Corrupt { encoding: self.as_str() })?;
        if out.len() > limit_bytes { Err(ReadError::TooLarge { limit_bytes }) } else { Ok(out.into()) }
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
    fn data_that_is_not_what_its_header_says_is_corrupt() {
        for encoding in [Encoding::Gzip, Encoding::Deflate] {
            let error = encoding.decompress(b"not compressed at all", 1000).unwrap_err();
            assert!(matches!(error, ReadError::Corrupt { .. }), "{error:?}");
        }
    }
}
