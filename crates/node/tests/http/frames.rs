//! The frames of HTTP/2, written by hand: for clients that do what no library would.

use std::net::SocketAddr;

const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A header whose name is in the static table, written out.
fn written(name: &[u8], text: &str) -> Vec<u8> {
    [name, &[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat()
}

/// What a client says first whose streams have this window, and which asks the node at `address` for `paths` on the
/// streams 1, 3, 5, …
pub(crate) fn opening(address: SocketAddr, window: u32, paths: &[&str]) -> Vec<u8> {
    let settings = [&[0, 4][..], &window.to_be_bytes()].concat();
    let mut bytes = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frame(SETTINGS, 0, 0, &settings)].concat();
    let host = address.to_string();
    for (n, path) in paths.iter().enumerate() {
        // `GET` and `http` from the static table.
        let block = [vec![0x82, 0x86], written(&[0x04], path), written(&[0x01], &host)].concat();
        bytes.extend(frame(HEADERS, END_STREAM | END_HEADERS, u32::try_from(2 * n + 1).unwrap(), &block));
    }
    bytes
}

/// That it has read the node's settings, which count from then on.
pub(crate) fn agreed() -> Vec<u8> {
    frame(SETTINGS, 1, 0, &[])
}

/// How it begins a request with a body on stream 1. `method`: `GET` or `POST`.
pub(crate) fn head(address: SocketAddr, method: &str, path: &str) -> Vec<u8> {
    let method = if method == "GET" { 0x82 } else { 0x83 };
    // The content type's name is the 31st of the table: more than a prefix of four bits holds.
    let media = written(&[0x0f, 0x10], "application/cloudevents+json");
    let block = [vec![method, 0x86], written(&[0x04], path), written(&[0x01], &address.to_string()), media].concat();
    frame(HEADERS, END_HEADERS, 1, &block)
}

/// That request's body, or its beginning.
pub(crate) fn body(bytes: &[u8], is_all: bool) -> Vec<u8> {
    let mut frames = Vec::new();
    let mut pieces = bytes.chunks(16 << 10).peekable();
    while let Some(piece) = pieces.next() {
        let flags = if is_all && pieces.peek().is_none() { END_STREAM } else { 0 };
        frames.extend(frame(0, flags, 1, piece));
    }
    frames
}
