//! `quorate sim backoff`: what strategies of backing off do to a crowd that wants the same row.
//!
//! The model of "Exponential Backoff And Jitter" (Brooker, AWS Architecture Blog, 2015): all clients start together, and each
//! must update one row once by optimistic concurrency. A client reads the row over the network and writes it back over the
//! network; if somebody else wrote it in between it backs off and reads again. Messages take a normally distributed
//! time.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    num::{NonZeroU32, NonZeroU64},
    time::Duration,
};

use clap::{Args, ValueEnum};
use quorate_resilience::{
    dice::Dice,
    retry::{Backoff, Jitter},
};
use serde_json::json;

use crate::{
    exit::{Exit, Failure},
    output::{Column, Format, Out, Table},
};

/// The crowd, its strategy and its network.
#[derive(Args, Debug, Clone)]
pub(crate) struct Options {
    /// How many clients start together
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    clients: u32,
    /// How they back off
    #[arg(long, value_enum)]
    strategy: Strategy,
    /// The first wait
    #[arg(long, value_name = "SPAN", default_value = "5ms", value_parser = crate::span)]
    base: Duration,
    /// The longest wait before jitter
    #[arg(long, value_name = "SPAN", default_value = "2s", value_parser = crate::span)]
    cap: Duration,
    /// How long a message takes, on average
    #[arg(long, value_name = "SPAN", default_value = "10ms", value_parser = crate::span)]
    net_mean: Duration,
    /// The standard deviation of that
    #[arg(long, value_name = "SPAN", default_value = "2ms", value_parser = crate::span)]
    net_stddev: Duration,
    /// How many runs are averaged
    #[arg(long, value_name = "N", default_value = "100")]
    runs: NonZeroU32,
    /// What the dice begin with: the same seed, the same figures
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// How a client waits after a conflict.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Strategy {
    /// Not at all
    None,
    /// Twice as long each time, without jitter
    Exponential,
    /// Between half of that and all of it
    Equal,
    /// Between nothing and all of it
    Full,
    /// Between the base and three times the wait before
    Decorrelated,
}

/// The averages of all runs.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Averages {
    /// Until the last client was done.
    completion_ms: f64,
    /// Writes attempted.
    calls: f64,
}

/// No run takes more writes: a strategy that never gets done is an error, not a hang.
const MOST_CALLS: u64 = 500_000_000;

/// Runs the model and prints the averages.
pub(super) fn run(options: &Options, format: Format) -> Result<(), Failure> {
    if options.cap < options.base {
        return Err(Failure::new(Exit::Usage, "--cap is shorter than --base".to_owned()));
    }
    let Averages { completion_ms, calls } = average(options)?;
    let mut out = Out::new();
    if format == Format::Json {
        let name = options.strategy.to_possible_value();
        let name = name.as_ref().map(|value| value.get_name());
        out.json(&json!({
            "clients": options.clients, "strategy": name, "runs": options.runs, "seed": options.seed,
            "completion_ms": completion_ms, "calls": calls,
        }))?;
        return out.flush();
    }
    let mut table = Table::new([Column::Left("AVERAGE"), Column::Right("VALUE"), Column::Left("UNIT")]);
    table.row(["completion".to_owned(), format!("{completion_ms:.1}"), "ms".to_owned()]);
    table.row(["calls".to_owned(), format!("{calls:.1}"), "writes".to_owned()]);
    table.print(&mut out)
}

fn average(options: &Options) -> Result<Averages, Failure> {
    let mut dice = Dice::seeded(options.seed);
    let (mut completion, mut calls, runs) = (0.0, 0_u64, options.runs.get());
    for _ in 0..runs {
        let Some((ended, attempted)) = once(options, &mut dice) else {
            let why = format!("a run was given up after {MOST_CALLS} writes");
            return Err(Failure::new(Exit::Failed, why).advise("fewer clients, or a strategy that waits"));
        };
        completion += ended.as_secs_f64() * 1e3;
        calls += attempted;
    }
    Ok(Averages { completion_ms: completion / f64::from(runs), calls: calls as f64 / f64::from(runs) })
}

/// A message that arrives at the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Arrival {
    Read,
    /// With the version that was read.
    Write(u64),
}

/// A client's conflicts so far, and its last wait.
#[derive(Clone, Copy, Default)]
struct Client {
    conflicts: u32,
    waited: Duration,
}

/// When the last client was done, and how many writes that took; `None` when it took too many.
fn once(options: &Options, dice: &mut Dice) -> Option<(Duration, u64)> {
    let mut clients = vec![Client::default(); options.clients as usize];
    let mut arrivals = BinaryHeap::new();
    // Equal times are served in the order they were sent in.
    let mut sent = 0_u64;
    let mut send = |arrivals: &mut BinaryHeap<_>, at: Duration, client: usize, what: Arrival| {
        sent += 1;
        arrivals.push(Reverse((at, sent, client, what)));
    };
    for client in 0..clients.len() {
        send(&mut arrivals, travel(options, dice), client, Arrival::Read);
    }
    let (mut version, mut calls, mut ended) = (0_u64, 0_u64, Duration::ZERO);
    while let Some(Reverse((now, _, who, what))) = arrivals.pop() {
        let back = now + travel(options, dice);
        match what {
            Arrival::Read => send(&mut arrivals, back + travel(options, dice), who, Arrival::Write(version)),
            Arrival::Write(read) => {
                calls = NonZeroU64::new(calls + 1).filter(|calls| calls.get() <= MOST_CALLS)?.get();
                if read == version {
                    version += 1;
                    ended = ended.max(back);
                    continue;
                }
                let client = &mut clients[who];
                client.conflicts = client.conflicts.saturating_add(1);
                client.waited = options.wait(*client, dice);
                let again = back + client.waited + travel(options, dice);
                send(&mut arrivals, again, who, Arrival::Read);
            }
        }
    }
    Some((ended, calls))
}

impl Options {
    fn wait(&self, client: Client, dice: &mut Dice) -> Duration {
        let jitter = match self.strategy {
            Strategy::None => return Duration::ZERO,
            Strategy::Exponential => Jitter::None,
            Strategy::Equal => Jitter::Equal,
            Strategy::Full => Jitter::Full,
            Strategy::Decorrelated => Jitter::Decorrelated,
        };
        // The model doubles before its first wait already.
        let failed = client.conflicts.saturating_add(1);
        Backoff { base: self.base, cap: self.cap, jitter }.wait(failed, client.waited, dice)
    }
}

/// How long a message takes: normally distributed (Box and Muller, 1958), and never before it was sent.
fn travel(options: &Options, dice: &mut Dice) -> Duration {
    let radius = (-2.0 * (1.0 - dice.unit()).ln()).sqrt();
    let normal = radius * (std::f64::consts::TAU * dice.unit()).cos();
    let seconds = options.net_mean.as_secs_f64() + normal * options.net_stddev.as_secs_f64();
    Duration::from_secs_f64(seconds.abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(clients: u32, strategy: Strategy) -> Options {
        Options {
            clients,
            strategy,
            base: Duration::from_millis(5),
            cap: Duration::from_secs(2),
            net_mean: Duration::from_millis(10),
            net_stddev: Duration::from_millis(2),
            runs: NonZeroU32::new(30).unwrap(),
            seed: 1,
        }
    }

    #[test]
    fn one_client_meets_nobody_writes_once_and_is_done_after_four_messages() {
        for strategy in Strategy::value_variants() {
            let alone = average(&options(1, *strategy)).unwrap();
            assert_eq!(alone.calls, 1.0);
            assert!((38.0..42.0).contains(&alone.completion_ms), "{alone:?}");
        }
    }

    #[test]
    fn jitter_costs_fewer_calls_than_backing_off_in_step_and_that_fewer_than_not_at_all() {
        let of = |strategy| average(&options(100, strategy)).unwrap();
        let (none, exponential, full) = (of(Strategy::None), of(Strategy::Exponential), of(Strategy::Full));
        assert!(full.calls < 0.7 * exponential.calls, "{full:?} {exponential:?}");
        assert!(exponential.calls < none.calls, "{exponential:?} {none:?}");
        assert!(full.completion_ms < exponential.completion_ms, "{full:?} {exponential:?}");
    }

    #[test]
    fn the_same_seed_gives_the_same_figures() {
        let again = || average(&options(20, Strategy::Decorrelated)).unwrap();
        assert_eq!(again(), again());
    }
}
