//! What every peer's runner shares: the arguments, the events, the producers, the answer.
//!
//! A runner takes arguments that `quorate bench log` takes, too, and answers in its JSON, so that whoever compares treats
//! all alike: `--only` names a figure, and standard output is `{"results": [{"name": …, "unit": …, "value": …}, …]}`.
//! A runner measures once; rounds are for whoever takes turns between several.
//!
//! What a peer does for a figure is its [`Log`]; how often it is asked, by whom and for how long is decided here.

mod event;
mod figures;
mod options;
mod rate;

use std::path::Path;

pub use anyhow::{Context, Result, anyhow, bail, ensure};

pub use self::event::{Event, Happened, STREAMS, TYPE};

// The allocator that quorate is built with, so that allocators are not what is compared.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A log with streams, as a peer offers it at its lowest level: no aggregate, no command, no cache above it.
pub trait Log: Clone + Send + Sync + 'static {
    /// Opens a new store in `folder`, set up so that nothing is acknowledged before it is synced.
    fn open(folder: &Path) -> impl Future<Output = Result<Self>> + Send;

    /// Appends `events`, all or none; returns when they are synced.
    fn append(&self, events: Vec<Event>) -> impl Future<Output = Result<()>> + Send;

    /// Loads the newest events of `event`'s stream, at least a hundred, and appends `event` if the stream still is as
    /// it was loaded. `event.version` says nothing here. Returns how many were loaded.
    fn load_and_append(&self, event: Event) -> impl Future<Output = Result<usize>> + Send;

    /// Reads every event there is, from the first, and returns how many they were.
    fn read_everything(&self) -> impl Future<Output = Result<u64>> + Send;
}

/// Measures what the arguments name, and prints it.
///
/// # Errors
/// What went wrong, at the first operation that failed: a figure is of successes alone.
pub fn main<L: Log>() -> Result<()> {
    let options = <options::Options as clap::Parser>::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let figures = runtime.block_on(figures::measure::<L>(&options))?;
    println!("{}", figures.to_json());
    runtime.shutdown_background();
    Ok(())
}
