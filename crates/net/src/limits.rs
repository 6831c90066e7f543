//! What a client may make the server hold, and for how long.
use std::time::Duration;

/// Limits of the network side; none is unlimited. `docs/guide/configuration.md` has their flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Open connections of one listener, over all I/O cores.
    pub max_connections: usize,
    /// A request's head (HTTP/1.1) or header list (HTTP/2), in bytes.
    pub max_header_bytes: u32,
    /// Headers of a request.
    pub max_headers: usize,
    /// From the first byte of a head to its end.
    pub header_timeout: Duration,
    /// A connection on which nothing happens.
    pub idle_timeout: Duration,
    /// A body that does not come, or an answer that is not read, 16 KiB of it at least.
    pub stall_timeout: Duration,
    /// One body of HTTP, in bytes; what reads it enforces it.
    pub max_body_bytes: usize,
    /// One gRPC message, in bytes, compressed and decompressed.
    pub max_message_bytes: usize,
    /// Requests that are being read or wait for their answer, and answers that wait to be read, in bytes, over all I/O
    /// cores: an equal share each. One that is alone on its core always fits.
    pub max_buffered_bytes: usize,
    /// Open streams of one HTTP/2 connection.
    pub max_concurrent_streams: u32,
    /// Streams that a client reset before they were answered and that are still remembered; one more ends the
    /// connection (CVE-2023-44487).
    pub max_pending_resets: usize,
    /// Pieces a body may come in if they are smaller than 64 bytes on average, so that a body in one-byte chunks costs
    /// no more than a short one.
    pub max_body_pieces: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 10_000,
            max_header_bytes: 32 << 10,
            max_headers: 100,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(300),
            stall_timeout: Duration::from_secs(30),
            max_body_bytes: 64 << 20,
            max_message_bytes: 64 << 20,
            max_buffered_bytes: 1 << 30,
            max_concurrent_streams: 256,
            max_pending_resets: 64,
            max_body_pieces: 65_536,
        }
    }
}
