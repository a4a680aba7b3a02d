//! What happened in a run, as one number: two runs with the same hash did the same things in the same order.

use std::{
    io::{self, Write as _},
    sync::{Arc, Mutex},
};

use crate::{executor::lock, host::HostId};

/// Hashes what happens as it happens. Cheap to clone; clones are the same trace.
#[derive(Clone)]
pub(crate) struct Trace(Arc<Mutex<Hashed>>);

struct Hashed {
    hasher: blake3::Hasher,
    buffer: Vec<u8>,
    steps: u64,
    /// Whether each step is printed: to find where two runs part.
    printed: bool,
}

/// So many bytes go to the hash at once.
const CHUNK: usize = 16 << 10;

impl Trace {
    pub(crate) fn new(printed: bool) -> Self {
        let hashed =
            Hashed { hasher: blake3::Hasher::new(), buffer: Vec::with_capacity(CHUNK + 256), steps: 0, printed };
        Self(Arc::new(Mutex::new(hashed)))
    }

    /// A task of `host` is about to be polled.
    pub(crate) fn step(&self, at: u64, host: HostId, task: &'static str) {
        lock(&self.0).add(at, host, task, 0);
    }

    /// Something else happened at `host`; `detail` is a number of its own kind: bytes, an operation, a port.
    pub(crate) fn note(&self, at: u64, host: HostId, what: &'static str, detail: u64) {
        lock(&self.0).add(at, host, what, detail);
    }

    /// These bytes arrived at `host`.
    pub(crate) fn bytes(&self, at: u64, host: HostId, what: &'static str, bytes: &[u8]) {
        let mut hashed = lock(&self.0);
        hashed.add(at, host, what, bytes.len() as u64);
        hashed.buffer.extend_from_slice(bytes);
    }

    /// How many things happened.
    pub(crate) fn steps(&self) -> u64 {
        lock(&self.0).steps
    }

    /// The hash of everything so far, in hexadecimal.
    pub(crate) fn hash(&self) -> String {
        let mut hashed = lock(&self.0);
        hashed.flush();
        hashed.hasher.finalize().to_hex()[..32].to_owned()
    }
}

/// Prints a step for people, who may have stopped listening: that is no reason for a world to end otherwise.
pub(crate) fn say(step: std::fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "trace {step}");
}

impl Hashed {
    fn add(&mut self, at: u64, host: HostId, what: &str, detail: u64) {
        self.steps += 1;
        if self.printed {
            say(format_args!("{at} {host} {what} {detail}"));
        }
        self.buffer.extend_from_slice(&at.to_le_bytes());
        self.buffer.push(host.0);
        self.buffer.extend_from_slice(&detail.to_le_bytes());
        self.buffer.extend_from_slice(what.as_bytes());
        self.buffer.push(b'\n');
        if self.buffer.len() >= CHUNK {
            self.flush();
        }
    }

    fn flush(&mut self) {
        self.hasher.update(&self.buffer);
        self.buffer.clear();
    }
}
