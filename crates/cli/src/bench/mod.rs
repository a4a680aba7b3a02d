//! `quorate bench`: measures this machine, each figure beside its physical limit, taken in the same run.
//!
//! A figure is the median of interleaved rounds: limit, ours, limit, ours, …, so that a machine whose speed drifts drifts
//! for both. Ratios travel between machines; absolute numbers do not.

#![expect(clippy::disallowed_methods, reason = "a bench stands outside the world it measures")]

mod events;
mod figure;
mod log;
mod node;
mod over_http;
mod over_postgres;
mod queue;
mod resilience;
mod saga;
mod segment;
mod slow_disk;
mod stack;
mod txn;
mod view;

use std::{num::NonZeroUsize, path::PathBuf, time::Duration};

use clap::{Args, Subcommand};
use quorate_runtime::Env;

use crate::{
    exit::Failure,
    output::{Format, Out},
};

/// What to measure.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// The log: appends, reads, catch-up, HTTP, opening; with --store, the log over that PostgreSQL
    Log(LogOptions),
    /// Views: catching up, what an inline one costs an append, lag under load, queries
    View(Options),
    /// Message queues: sending, receiving, acknowledging, every step durable; in process, over HTTP, and beside other brokers
    Queue(queue::QueueOptions),
    /// Two-phase commit: money between two stores; with --store, between PostgreSQL databases beside a coordinator by hand
    Txn(TxnOptions),
    /// Sagas of three steps: running, failing, recovering, every step durable
    Saga(Options),
    /// Resilience: what passing a policy costs a call that succeeds
    Resilience(resilience::Options),
}

/// How to measure the log, and where.
#[derive(Args, Debug)]
pub(crate) struct LogOptions {
    /// Measure over this PostgreSQL (postgres://user:password@host:port/database), in schemas of its own that are dropped at
    /// the end, beside bare inserts on the same server
    #[arg(long, value_name = "URL")]
    store: Option<String>,
    #[command(flatten)]
    options: Options,
}

/// How to measure transactions, and between whom.
#[derive(Args, Debug)]
pub(crate) struct TxnOptions {
    /// Measure between these PostgreSQL databases (postgres://user:password@host:port/database), one or two, in schemas of their
    /// own that are dropped at the end; max_prepared_transactions has to be 128 or more
    #[arg(long, value_name = "URL")]
    store: Vec<String>,
    #[command(flatten)]
    options: Options,
}

/// How to measure.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
    /// One short round of everything: shows that it works, proves nothing
    #[arg(long)]
    quick: bool,
    /// Measure only the figure of this name, or those below it: append/in-process/16, or append
    #[arg(long, value_name = "NAME", default_value = "")]
    only: String,
    /// How often to measure each figure, for its median [default: 5, quick: 1]
    #[arg(long, value_name = "COUNT")]
    rounds: Option<NonZeroUsize>,
    /// How long to measure each rate, at most an hour [default: 1500ms, quick: 300ms]
    #[arg(long, value_name = "SPAN", value_parser = span)]
    span: Option<Duration>,
    /// How many events the large store gets [default: 1000000, quick: 50000]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1_000..=100_000_000))]
    events: Option<u64>,
    /// Where to put files, on the disk to be measured; they are removed at the end
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    folder: PathBuf,
}

impl Command {
    /// Measures and prints.
    pub(crate) async fn run(self, env: &Env, output: Format) -> Result<(), Failure> {
        let (json, figures) = match self {
            Self::Log(LogOptions { store: Some(address), options }) => {
                (options.json, over_postgres::measure(env, &address, &options).await?)
            }
            Self::Log(LogOptions { store: None, options }) => (options.json, log::measure(env, &options).await?),
            Self::View(options) => (options.json, view::measure(env, &options).await?),
            Self::Queue(options) => (options.options.json, queue::measure(env, &options).await?),
            Self::Txn(TxnOptions { store, options }) => (options.json, txn::measure(env, &store, &options).await?),
            Self::Saga(options) => (options.json, saga::measure(env, &options).await?),
            Self::Resilience(options) => {
                let measured = env.run_blocking(move || (options.json, resilience::measure(&options))).await;
                (measured.0, measured.1?)
            }
        };
        let json = json || output == Format::Json;
        let mut out = Out::new();
        if json {
            out.json(&figures.to_json())?
        } else {
            figures.table(&mut out)?
        }
        out.flush()
    }
}

impl Options {
    /// Whether `name`, a figure or a group of them, or something below it is to be measured.
    fn wants(&self, name: &str) -> bool {
        is_within(name, &self.only) || is_within(&self.only, name)
    }
}

/// Whether `name` is `group` or below it, as in paths: `append/16` is not within `append/1`.
fn is_within(name: &str, group: &str) -> bool {
    let group = group.trim_end_matches('/');
    name.strip_prefix(group).is_some_and(|rest| group.is_empty() || rest.is_empty() || rest.starts_with('/'))
}

/// A span that a rate can be measured over.
fn span(text: &str) -> Result<Duration, String> {
    let span = crate::span(text)?;
    let possible = Duration::from_millis(1)..=Duration::from_secs(3_600);
    if possible.contains(&span) { Ok(span) } else { Err("a rate is measured over 1ms to 1h".to_owned()) }
}

/// Something of the bench itself went wrong.
fn failed(doing: &str, cause: impl std::fmt::Display) -> Failure {
    Failure::new(crate::exit::Exit::Failed, format!("the bench failed while {doing}: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::{figure::Figures, is_within, span};

    #[test]
    fn a_group_holds_what_is_below_it_and_nothing_that_merely_begins_the_same() {
        assert!(is_within("append/in-process/16", "append/in-process/"));
        assert!(is_within("append/in-process/16/syncs-per-event", "append/in-process/16"));
        assert!(is_within("append/in-process/16", ""));
        assert!(!is_within("append/in-process/16", "append/in-process/1"));
        assert!(!is_within("append/", "append/in-process/16"));
    }

    #[test]
    fn a_span_without_length_or_end_is_refused() {
        assert!(span("1s").is_ok());
        assert!(span("0s").is_err());
        assert!(span("2h").is_err());
    }

    #[test]
    fn a_ratio_is_of_medians_and_counts_the_right_way() {
        let mut figures = Figures::default();
        figures.put("append/in-process/1", "events/s", &[1.0, 5.0, 3.0], Some(&[10.0, 2.0, 6.0]));
        let json = figures.to_json();
        assert_eq!(json["results"][0]["value"], 3.0);
        assert_eq!(json["results"][0]["ratio"], 0.5);
    }
}
