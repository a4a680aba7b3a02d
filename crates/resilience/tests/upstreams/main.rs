//! Stacks around real clients, against upstreams on real sockets of this machine that die, dawdle, refuse and lie about who
//! they are.

#![expect(clippy::unwrap_used, reason = "a test ends where it is surprised")]

mod certificates;
mod own_client;
mod upstream;
mod with_reqwest;
mod with_tonic;

use std::{num::NonZeroU32, time::Duration};

use quorate_resilience::{
    circuit_breaker,
    retry::{self, Backoff, BudgetConfig},
    stack::{Builder, Stack},
};

/// Three attempts that hardly wait, in ten seconds: what a test awaits ends long before.
fn policies() -> Builder {
    let backoff = Backoff { base: Duration::from_millis(1), cap: Duration::from_millis(2), ..Backoff::default() };
    let attempts = const { NonZeroU32::new(3).unwrap() };
    let config = retry::Config { attempts, backoff, longest_retry_after: Duration::from_secs(1) };
    Stack::builder("upstream".parse().unwrap()).total(Duration::from_secs(10)).retry(config, BudgetConfig::default())
}

/// A circuit that opens at the first failure.
fn quick() -> circuit_breaker::Config {
    circuit_breaker::Config { consecutive: Some(const { NonZeroU32::MIN }), ..Default::default() }
}

/// How many calls ended as `word` says.
fn count(counts: &[(&'static str, u64)], word: &str) -> u64 {
    counts.iter().find(|(known, _)| *known == word).unwrap_or_else(|| panic!("{word} is counted")).1
}
