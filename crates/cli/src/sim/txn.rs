//! `quorate sim txn`: every course of a transaction by two-phase commit, and what becomes of it by what strikes it first.

use std::collections::BTreeSet;

use clap::{Args, ValueEnum};
use quorate_consistency::two_phase_commit::crashes::{Ballot, End, Faults, Told, explore};
use serde_json::json;

use crate::{
    exit::{Exit, Failure},
    output::{Column, Format, Out, Table},
};

/// Who votes how, and what may go wrong.
#[derive(Args, Debug, Clone)]
pub(crate) struct Options {
    /// How each participant votes; two to four of them
    #[arg(long, value_enum, value_delimiter = ',', default_value = "yes,yes")]
    votes: Vec<Vote>,
    /// How often the coordinator dies, at most
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=3))]
    crashes: u8,
    /// How often another one takes over while it lives, at most
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=3))]
    replacements: u8,
    /// How many messages are lost, at most; a participant's death is such a loss
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=3))]
    losses: u8,
    /// How many messages arrive twice, at most
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=3))]
    duplicates: u8,
    /// How many votes are given up on while they are on their way, at most
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=3))]
    late: u8,
}

/// What a participant says.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Vote {
    /// It can
    Yes,
    /// It has changed nothing
    ReadOnly,
    /// It cannot
    No,
}

/// Looks at every course, and prints what becomes of them. A course that breaks the promise is printed step by step, and fails.
pub(super) fn run(options: &Options, format: Format) -> Result<(), Failure> {
    if !(2..=4).contains(&options.votes.len()) {
        return Err(Failure::new(Exit::Usage, "`--votes` names two to four participants"));
    }
    let ballots: Vec<Ballot> = options
        .votes
        .iter()
        .map(|vote| match vote {
            Vote::Yes => Ballot::Yes,
            Vote::ReadOnly => Ballot::ReadOnly,
            Vote::No => Ballot::No,
        })
        .collect();
    let Options { crashes, replacements, losses, duplicates, late, .. } = *options;
    let faults = Faults { crashes, replacements, losses, duplicates, late };
    let table = explore(&ballots, faults).map_err(|broken| Failure::of(Exit::Failed, &broken))?;
    if table.is_cut {
        let told = format!("there are more than {} states: not all were looked at", table.states);
        return Err(Failure::new(Exit::Failed, told).advise("allow fewer faults at once"));
    }
    let mut out = Out::new();
    if format == Format::Json {
        let row = |(first, ends): (&String, &BTreeSet<(End, Told)>)| {
            let ends = ends.iter().map(|(end, told)| json!({"ends": end.to_string(), "told": told.to_string()}));
            json!({ "first": first, "outcomes": ends.collect::<Vec<_>>() })
        };
        out.json(&json!({ "states": table.states, "rows": table.rows.iter().map(row).collect::<Vec<_>>() }))?;
        return out.flush();
    }
    let mut rows = Table::new([
        Column::Left("what goes wrong first"),
        Column::Left("it ends"),
        Column::Left("the caller is told"),
    ]);
    for (first, ends) in &table.rows {
        for (n, (end, told)) in ends.iter().enumerate() {
            let first = if n == 0 { first.clone() } else { String::new() };
            rows.row([first, end.to_string(), told.to_string()]);
        }
    }
    rows.print(&mut out)?;
    out.line(&format!("{} states: everybody ends the same in each, and as the caller was told", table.states))?;
    out.flush()
}
