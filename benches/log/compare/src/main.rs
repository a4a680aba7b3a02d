//! Measures quorate's log, the bare file and the peers in turns, and prints the medians.
//!
//! A machine's speed drifts from minute to minute, so each figure is measured for everybody before it is measured again,
//! and what counts is the ratio of medians. Every measurement is a process of its own with a store of its own.

mod contender;
mod machine;
mod results;
mod table;

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use clap::Parser;

use crate::{contender::Contender, results::Results};

/// What is measured at once, by the names of `quorate bench log`.
const GROUPS: [&str; 5] =
    ["append/in-process/1", "append/in-process/16", "append/in-process/256", "load-100-append", "read/catch-up"];

/// How to compare.
#[derive(Parser, Debug)]
#[command(about = "Measures quorate's log beside its peers, in turns", name = "bench-peers")]
struct Options {
    /// The binary `quorate`, built for release
    #[arg(long, value_name = "FILE")]
    quorate: PathBuf,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
    /// One short round: shows that it works, proves nothing
    #[arg(long)]
    quick: bool,
    /// How often to measure each figure [default: 5, quick: 1]
    #[arg(long, value_name = "COUNT")]
    rounds: Option<usize>,
    /// How long to measure each rate [default: 1s, quick: 300ms]
    #[arg(long, value_name = "SPAN", value_parser = humantime::parse_duration)]
    span: Option<Duration>,
    /// How many events catch-up reads [default: 100000, quick: 20000]
    #[arg(long, value_name = "COUNT")]
    events: Option<u64>,
    /// Where to put files, on the disk to be measured; they are removed at the end
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    folder: PathBuf,
}

/// How long and how often, and where.
pub(crate) struct Effort {
    rounds: usize,
    span: Duration,
    events: u64,
    folder: PathBuf,
}

fn main() -> ExitCode {
    match compare(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-peers: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn compare(options: &Options) -> Result<()> {
    let folder = Folder::make(&options.folder)?;
    let effort = Effort::of(options, folder.0.clone());
    let contenders = Contender::all(&options.quorate)?;
    let begun = Instant::now();
    let mut results = Results::default();
    for round in 0..effort.rounds {
        for group in GROUPS {
            for contender in in_turn(&contenders, round) {
                let took = Instant::now();
                results.add(contender.measure(group, &effort)?);
                let (rounds, took) = (effort.rounds, took.elapsed().as_secs_f64());
                eprintln!("round {}/{rounds}  {group:<22} {:<12} {took:>5.1} s", round + 1, contender.name);
            }
        }
    }
    let (rounds, span, took) = (effort.rounds, effort.span, begun.elapsed().as_secs_f64());
    let how = format!("rounds: {rounds}, of {span:?} for each rate; {took:.0} s in all; {}", machine::description());
    if options.json {
        println!("{}", results.to_json(&contenders, &how));
    } else {
        print!("{}", table::of(&results, &contenders, &how));
    }
    Ok(())
}

/// Everybody, another one first in each round: nobody always follows the same neighbour.
fn in_turn(contenders: &[Contender], round: usize) -> impl Iterator<Item = &Contender> {
    let (before, after) = contenders.split_at(round % contenders.len());
    after.iter().chain(before)
}

impl Effort {
    fn of(options: &Options, folder: PathBuf) -> Self {
        let (rounds, span, events) = match options.quick {
            true => (1, Duration::from_millis(300), 20_000),
            false => (5, Duration::from_secs(1), 100_000),
        };
        Self {
            rounds: options.rounds.unwrap_or(rounds).max(1),
            span: options.span.unwrap_or(span),
            events: options.events.unwrap_or(events),
            folder,
        }
    }
}

/// A folder that is removed with everything in it.
struct Folder(PathBuf);

impl Folder {
    fn make(below: &Path) -> Result<Self> {
        let folder = below.join(format!("bench-peers-{}", std::process::id()));
        fs::create_dir_all(&folder).with_context(|| format!("{} could not be made", folder.display()))?;
        Ok(Self(folder))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
