//! `quorate bench`: measures this machine, each figure beside its physical limit, taken in the same run.
//!
//! A figure is the median of interleaved rounds: limit, ours, limit, ours, …, so that a machine whose speed drifts drifts
//! for both. Ratios travel between machines; absolute numbers do not.

#![expect(clippy::disallowed_methods, reason = "a bench stands outside the world it measures")]

mod events;
mod figure;
mod log;
mod over_http;
mod segment;
mod slow_disk;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use quorate_runtime::Env;

use crate::{
    exit::Failure,
    output::{Format, Out},
};

/// What to measure.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// The log: appends, reads, catch-up, HTTP, opening
    Log(Options),
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
    /// Measure only figures whose names begin with this
    #[arg(long, value_name = "PREFIX", default_value = "")]
    only: String,
    /// Where to put files, on the disk to be measured; they are removed at the end
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    folder: PathBuf,
}

impl Command {
    /// Measures and prints.
    pub(crate) async fn run(self, env: &Env, output: Format) -> Result<(), Failure> {
        let Self::Log(options) = self;
        let json = options.json || output == Format::Json;
        let figures = log::measure(env, &options).await?;
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
    fn wants(&self, name: &str) -> bool {
        name.starts_with(&self.only) || self.only.starts_with(name)
    }
}

/// Something of the bench itself went wrong.
fn failed(doing: &str, cause: impl std::fmt::Display) -> Failure {
    Failure::new(crate::exit::Exit::Failed, format!("the bench failed while {doing}: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::figure::Figures;

    #[test]
    fn a_ratio_is_of_medians_and_counts_the_right_way() {
        let mut figures = Figures::default();
        figures.put("append/in-process/1", "events/s", &[1.0, 5.0, 3.0], Some(&[10.0, 2.0, 6.0]));
        let json = figures.to_json();
        assert_eq!(json["results"][0]["value"], 3.0);
        assert_eq!(json["results"][0]["ratio"], 0.5);
    }
}
