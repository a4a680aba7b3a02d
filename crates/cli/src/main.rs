//! `quorate`: the node, and every verb of it at the command line.
//!
//! Each module translates one family of verbs between arguments, HTTP and tables; what is done is done in the node.

mod archive;
mod arguments;
mod bench;
mod breaker;
mod client;
mod collection;
mod configuration;
mod declarations;
mod demo;
mod doctor;
mod erasure;
mod event;
mod event_type;
mod exit;
#[cfg(test)]
mod fuzzing;
mod guarantees;
mod import;
mod inbox;
mod input;
mod limit;
mod log;
mod moving;
mod output;
mod pages;
mod patterns;
mod policy;
mod process;
mod queue;
mod relay;
mod request;
mod saga;
mod schema;
mod serve;
mod settling;
mod sim;
mod small_pages;
mod store;
mod stream;
mod subscription;
mod txn;
mod view;
mod webhook;

use std::{process::ExitCode, time::Duration};

use clap::Parser as _;

use crate::{
    arguments::Arguments,
    exit::{Exit, Failure},
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let ended = runtime().and_then(|runtime| {
        let ended = runtime.block_on(arguments.run());
        // A thread that still waits for standard input would hold the process up.
        runtime.shutdown_background();
        ended
    });
    ended.map_or_else(|failure| failure.report(), |()| ExitCode::SUCCESS)
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.enable_all().build().map_err(|cause| Failure::of(Exit::Failed, &cause))
}

/// A span of time as people write it: `500ms`, `30s`, `5m`.
fn span(text: &str) -> Result<Duration, String> {
    humantime_serde::re::humantime::parse_duration(text).map_err(|wrong| wrong.to_string())
}
