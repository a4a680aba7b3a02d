//! Limits of the surface that cannot be set, in one place for whoever shows them.

pub(crate) use super::{
    json::MAX_DEPTH as JSON_DEPTH,
    sending::LEAST,
    subscriptions::{MAX_LEASES as LEASES, MAX_PULL as PULL},
};

/// Bytes of request bodies that an HTTP/2 client may have under way on one connection before anybody reads them: over a way
/// of a tenth of a second, ten megabytes a second. They are read as they come, and counted then (`http.body-memory`); bodies
/// that nobody reads are thrown away.
pub(crate) const WINDOW: u32 = 1 << 20;
/// Streams of a connection that a client reset before they were looked at, and streams that were reset since it broke the
/// rules: beyond it the connection ends (CVE-2023-44487 and what came after it).
pub(crate) const RESETS: usize = 20;
/// Bytes of a reply that wait in an HTTP/2 stream for it to become writable.
pub(crate) const SEND_BUFFER: usize = 64 << 10;
