//! The rules of the breaker at their edges, and for any sequence of inputs.

use std::{num::NonZeroU32, time::Duration};

use proptest::prelude::*;
use quorate_foundations::{machine::Machine as _, time::Mono};

use super::*;
use crate::circuit_breaker::config::{Open, Window};

fn n(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).unwrap()
}

fn at(millis: u64) -> Mono {
    Mono::ZERO + Duration::from_millis(millis)
}

/// Two failures in a row open it for a second; no rates.
fn plain() -> Config {
    Config {
        consecutive: Some(n(2)),
        failure_rate: None,
        slow_rate: None,
        window: Window::Time(Duration::from_secs(10)),
        open: Open { min: Duration::from_secs(1), max: Duration::from_secs(8), jitter: 0.0 },
        ..Config::default()
    }
}

fn rates(window: Window) -> Config {
    Config { consecutive: None, failure_rate: Some(0.5), minimum_calls: n(4), window, ..plain() }
}

/// A circuit with its story: what was said to it and what it did.
struct Story {
    circuit: Circuit,
    successes: u64,
    changes: Vec<Change>,
}

impl Story {
    fn of(config: Config) -> Self {
        config.check().unwrap();
        Self { circuit: Circuit::new(config, Dice::seeded(1), Mono::ZERO), successes: 0, changes: Vec::new() }
    }

    fn step(&mut self, now: u64, input: Input) -> Option<Result<Ticket, Rejected>> {
        let mut effects = Vec::new();
        self.circuit.successes(at(now), self.successes);
        self.circuit.step(at(now), input, &mut effects);
        let mut answer = None;
        for effect in effects {
            match effect {
                Effect::Admit(ticket) => answer = Some(Ok(ticket)),
                Effect::Refuse(rejected) => answer = Some(Err(rejected)),
                Effect::Changed(change) => self.changes.push(change),
            }
        }
        answer
    }

    fn acquire(&mut self, now: u64) -> Result<Ticket, Rejected> {
        self.step(now, Input::Acquire).expect("whoever asks is answered")
    }

    fn admitted(&mut self, now: u64) -> Ticket {
        self.acquire(now).expect("admitted")
    }

    fn settle(&mut self, now: u64, ticket: Ticket, weight: Weight) {
        self.step(now, Input::Settle { ticket, weight, slow: false, retry_after: None });
    }

    fn call(&mut self, now: u64, weight: Weight) {
        let ticket = self.admitted(now);
        match weight {
            Weight::Success if ticket.probe.is_none() => self.successes += 1,
            weight => self.settle(now, ticket, weight),
        }
    }

    fn fail(&mut self, now: u64, times: u32) {
        (0..times).for_each(|_| self.call(now, Weight::Failure));
    }

    fn state(&self) -> State {
        self.circuit.state()
    }
}

#[test]
fn a_thousand_callers_at_the_instant_of_half_open_send_one_probe() {
    let mut story = Story::of(plain());
    story.fail(0, 2);
    let admitted = (0..1_000).filter(|_| story.acquire(1_000).is_ok()).count();
    assert_eq!(admitted, 1);
}

#[test]
fn a_dropped_probe_lets_the_next_caller_probe_at_once() {
    let mut story = Story::of(plain());
    story.fail(0, 2);
    let probe = story.admitted(1_000);
    assert!(story.acquire(1_000).is_err());
    story.step(1_001, Input::GiveBack(probe));
    assert!(story.admitted(1_001).probe.is_some());
}

#[test]
fn a_probe_that_ends_in_an_ignored_error_returns_its_permit_and_changes_nothing() {
    let mut story = Story::of(plain());
    story.fail(0, 2);
    let probe = story.admitted(1_000);
    story.settle(1_001, probe, Weight::Nothing);
    assert_eq!(story.state(), State::HalfOpen);
    assert!(story.acquire(1_001).is_ok());
}

#[test]
fn a_probe_that_never_ends_has_failed_once_its_time_is_up() {
    let mut story = Story::of(Config { probe_timeout: Duration::from_millis(500), ..plain() });
    story.fail(0, 2);
    let lost = story.admitted(1_000);
    assert_eq!(story.circuit.wake_at(), Some(at(1_500)));
    let refused = story.acquire(1_500).unwrap_err();
    assert_eq!(refused, Rejected { state: State::Open, remaining: Some(Duration::from_secs(2)) });
    story.settle(1_600, lost, Weight::Success);
    assert_eq!(story.state(), State::Open, "the result came a generation too late");
    assert!(story.admitted(3_500).probe.is_some());
}

#[test]
fn the_result_of_a_call_admitted_before_the_trip_changes_nothing_after_it() {
    let mut story = Story::of(plain());
    let early: Vec<Ticket> = (0..4).map(|_| story.admitted(0)).collect();
    story.fail(0, 2);
    let probe = story.admitted(1_000);
    early.iter().take(2).for_each(|ticket| story.settle(1_001, *ticket, Weight::Failure));
    assert_eq!(story.state(), State::HalfOpen, "neither reopened");
    story.settle(1_002, probe, Weight::Success);
    early.iter().skip(2).for_each(|ticket| story.settle(1_003, *ticket, Weight::Failure));
    assert_eq!(story.state(), State::Closed, "nor opened again");
}

#[test]
fn failures_that_never_come_in_a_row_trip_the_rate() {
    let mut story = Story::of(Config { consecutive: Some(n(7)), ..rates(Window::Time(Duration::from_secs(10))) });
    for call in 0..4 {
        assert_eq!(story.state(), State::Closed);
        story.call(call, if call % 2 == 0 { Weight::Success } else { Weight::Failure });
    }
    assert_eq!(story.changes.last().unwrap().why, Why::FailureRate);
}

#[test]
fn one_failure_of_one_call_does_not_open_a_circuit_by_its_rate() {
    let mut story = Story::of(rates(Window::Calls(n(10))));
    story.fail(0, 1);
    assert_eq!(story.state(), State::Closed);
}

#[test]
fn a_rate_exactly_at_the_threshold_opens_and_one_below_does_not() {
    let mut below = Story::of(Config { minimum_calls: n(5), ..rates(Window::Calls(n(5))) });
    (0..3).for_each(|_| below.call(0, Weight::Success));
    below.fail(0, 2);
    assert_eq!(below.state(), State::Closed, "2 of 5 is below one half");
    let mut at_it = Story::of(rates(Window::Calls(n(10))));
    (0..2).for_each(|_| at_it.call(0, Weight::Success));
    at_it.fail(0, 2);
    assert_eq!(at_it.state(), State::Open, "2 of 4 is one half");
}

#[test]
fn a_window_of_calls_forgets_what_is_further_back_than_its_length() {
    let mut story = Story::of(Config { minimum_calls: n(4), ..rates(Window::Calls(n(4))) });
    story.fail(0, 1);
    (0..3).for_each(|_| story.call(0, Weight::Success));
    story.call(0, Weight::Failure);
    assert_eq!(story.circuit.counts(), Counts { calls: 4, failures: 1, slow: 0 });
    assert_eq!(story.state(), State::Closed);
}

#[test]
fn a_window_of_time_forgets_what_is_older_than_its_span() {
    let mut story = Story::of(rates(Window::Time(Duration::from_secs(10))));
    story.fail(0, 3);
    story.call(12_000, Weight::Success);
    story.fail(12_000, 1);
    assert_eq!(story.circuit.counts(), Counts { calls: 2, failures: 1, slow: 0 });
}

#[test]
fn successes_are_credited_to_the_part_of_the_window_they_came_in() {
    let mut story = Story::of(rates(Window::Time(Duration::from_secs(10))));
    story.successes = 100;
    story.circuit.successes(at(1_500), 100);
    assert_eq!(story.circuit.turns_at(), Some(at(2_000)));
    story.fail(12_500, 3);
    assert_eq!(story.circuit.counts().calls, 3, "the hundred are too old");
}

#[test]
fn slow_calls_open_it_although_none_failed() {
    let mut story = Story::of(Config { failure_rate: None, slow_rate: Some(0.75), ..rates(Window::Calls(n(8))) });
    for _ in 0..4 {
        let ticket = story.admitted(0);
        story.step(9, Input::Settle { ticket, weight: Weight::Success, slow: true, retry_after: None });
    }
    assert_eq!(story.changes.last().unwrap().why, Why::SlowRate);
}

#[test]
fn throttling_counts_for_the_rate_and_not_in_a_row_and_never_closes() {
    let mut story = Story::of(Config { consecutive: Some(n(2)), ..rates(Window::Calls(n(10))) });
    (0..3).for_each(|_| story.call(0, Weight::Throttled));
    assert_eq!(story.state(), State::Closed);
    story.call(0, Weight::Throttled);
    assert_eq!(story.changes.last().unwrap().why, Why::FailureRate);
    let probe = story.admitted(1_000);
    story.settle(1_001, probe, Weight::Throttled);
    assert_eq!(story.state(), State::Open);
}

#[test]
fn retry_after_lengthens_the_time_open_up_to_its_cap() {
    for (asked, open) in [(5, 5), (3_600, 8), (0, 1)] {
        let mut story = Story::of(Config { consecutive: Some(n(1)), ..plain() });
        let (ticket, retry_after) = (story.admitted(0), Some(Duration::from_secs(asked)));
        story.step(0, Input::Settle { ticket, weight: Weight::Failure, slow: false, retry_after });
        assert_eq!(story.circuit.open_until(), Some(at(open * 1_000)), "asked for {asked} s");
    }
}

#[test]
fn the_time_open_doubles_with_each_failed_probe_and_starts_over_after_a_time_of_health() {
    let mut story = Story::of(plain());
    story.fail(0, 2);
    let mut now = 0;
    for seconds in [1, 2, 4, 8, 8] {
        assert_eq!(story.circuit.open_until(), Some(at(now + seconds * 1_000)));
        now += seconds * 1_000;
        story.call(now, Weight::Failure);
    }
    now += 8_000;
    story.call(now, Weight::Success);
    assert_eq!(story.state(), State::Closed);
    story.fail(now + 100, 2);
    assert_eq!(story.circuit.open_until(), Some(at(now + 8_100)), "it was well for too short a time");
    now += 8_100;
    story.call(now, Weight::Success);
    story.fail(now + 9_000, 2);
    assert_eq!(story.circuit.open_until(), Some(at(now + 10_000)), "something new");
}

#[test]
fn jitter_only_lengthens_the_time_open() {
    let config = Config { open: Open { jitter: 0.5, ..plain().open }, ..plain() };
    for seed in 0..100 {
        let mut story = Story::of(config.clone());
        story.circuit.dice = Dice::seeded(seed);
        story.fail(0, 2);
        let until = story.circuit.open_until().unwrap();
        assert!((at(1_000)..at(1_500)).contains(&until), "{until:?}");
    }
}

#[test]
fn several_probes_must_all_succeed() {
    let mut story = Story::of(Config { probes: n(3), ..plain() });
    story.fail(0, 2);
    let probes: Vec<Ticket> = (0..3).map(|_| story.admitted(1_000)).collect();
    assert!(story.acquire(1_000).is_err());
    story.settle(1_001, probes[0], Weight::Success);
    story.settle(1_001, probes[1], Weight::Success);
    assert!(story.acquire(1_001).is_err(), "as many as are needed have been admitted");
    story.settle(1_002, probes[2], Weight::Success);
    assert_eq!(story.state(), State::Closed);
}

#[test]
fn fewer_probes_by_configuration_close_a_circuit_that_has_proved_enough() {
    let mut story = Story::of(Config { probes: n(3), ..plain() });
    story.fail(0, 2);
    let probe = story.admitted(1_000);
    story.settle(1_001, probe, Weight::Success);
    story.step(1_002, Input::Configure(Box::new(plain())));
    assert_eq!(story.state(), State::Closed);
}

#[test]
fn operators_force_it_open_disable_it_and_watch_it() {
    let mut story = Story::of(plain());
    story.step(0, Input::Operate(Mode::ForcedOpen));
    assert_eq!(story.acquire(999_999).unwrap_err(), Rejected { state: State::Open, remaining: None });
    story.step(0, Input::Operate(Mode::Disabled));
    story.fail(0, 10);
    assert_eq!(story.state(), State::Closed);
    story.step(0, Input::Operate(Mode::MetricsOnly));
    story.fail(0, 2);
    assert_eq!(story.state(), State::Open);
    assert!(story.acquire(1).is_ok(), "nothing is refused");
    assert!(!story.changes.last().unwrap().enforced);
    story.step(2, Input::Operate(Mode::Automatic));
    story.fail(2, 2);
    assert!(story.acquire(3).is_err());
    story.step(4, Input::Reset);
    assert!(story.acquire(5).is_ok());
}

#[test]
fn configurations_that_could_never_act_are_refused_with_the_field() {
    let unreachable = rates(Window::Calls(n(3)));
    assert!(unreachable.check().unwrap_err().to_string().contains("`minimum_calls` is 4, more than the 3 calls"));
    let never = Config { consecutive: None, ..plain() };
    assert_eq!(never.check(), Err(crate::circuit_breaker::ConfigError::Nothing));
    let rate = Config { failure_rate: Some(f64::NAN), ..plain() };
    assert!(rate.check().is_err());
}

/// What a hostile world may do, each after some milliseconds.
#[derive(Clone, Debug)]
enum Act {
    Acquire,
    Succeed(usize),
    Settle(usize, Weight, bool, Option<u64>),
    GiveBack(usize),
    Forge(u64, Option<u32>),
    Reset,
    Probes(u32),
}

fn act() -> impl Strategy<Value = (u64, Act)> {
    let weight = prop_oneof![
        Just(Weight::Success),
        Just(Weight::Failure),
        Just(Weight::Failure),
        Just(Weight::Throttled),
        Just(Weight::Nothing)
    ];
    let act = prop_oneof![
        6 => Just(Act::Acquire),
        3 => any::<usize>().prop_map(Act::Succeed),
        5 => (any::<usize>(), weight, any::<bool>(), proptest::option::of(0_u64..20))
            .prop_map(|(which, weight, slow, after)| Act::Settle(which, weight, slow, after)),
        2 => any::<usize>().prop_map(Act::GiveBack),
        1 => (0_u64..9, proptest::option::of(0_u32..3)).prop_map(|(generation, probe)| Act::Forge(generation, probe)),
        1 => Just(Act::Reset),
        1 => (1_u32..4).prop_map(Act::Probes),
    ];
    (prop_oneof![4 => 0_u64..50, 1 => 0_u64..4_000], act)
}

proptest! {
    /// Whatever happens: never more probes out than allowed, generations only grow, an open circuit has an end, and from
    /// anywhere on an upstream that is well again is found to be so.
    #[test]
    fn no_sequence_of_events_leaks_a_probe_or_leaves_the_circuit_stuck(
        acts in proptest::collection::vec(act(), 1..200),
        by_calls in any::<bool>(),
        probes in 1_u32..4,
    ) {
        let window = if by_calls { Window::Calls(n(8)) } else { Window::Time(Duration::from_secs(2)) };
        let config = Config {
            probes: n(probes), consecutive: Some(n(3)), slow_rate: Some(0.8),
            probe_timeout: Duration::from_millis(700), ..rates(window)
        };
        let mut story = Story::of(config.clone());
        let mut out: Vec<Ticket> = Vec::new();
        let mut now = 0;
        for (after, act) in acts {
            now += after;
            let generation = story.circuit.generation();
            let pick = |out: &mut Vec<Ticket>, which: usize| {
                (!out.is_empty()).then(|| out.swap_remove(which % out.len()))
            };
            match act {
                Act::Acquire => {
                    if let Ok(ticket) = story.acquire(now) {
                        prop_assert_eq!(ticket.generation, story.circuit.generation());
                        out.push(ticket);
                    }
                }
                Act::Succeed(which) => match pick(&mut out, which) {
                    Some(ticket) if ticket.probe.is_some() => story.settle(now, ticket, Weight::Success),
                    Some(ticket) if ticket.generation == story.circuit.generation() => story.successes += 1,
                    _ => {}
                },
                Act::Settle(which, weight, slow, after) => if let Some(ticket) = pick(&mut out, which) {
                    let retry_after = after.map(Duration::from_secs);
                    story.step(now, Input::Settle { ticket, weight, slow, retry_after });
                },
                Act::GiveBack(which) => if let Some(ticket) = pick(&mut out, which) {
                    story.step(now, Input::GiveBack(ticket));
                },
                Act::Forge(generation, probe) => {
                    let ticket = Ticket { generation: generation + 1_000, probe };
                    story.step(now, Input::Settle { ticket, weight: Weight::Success, slow: false, retry_after: None });
                }
                Act::Reset => { story.step(now, Input::Reset); }
                Act::Probes(probes) => {
                    story.step(now, Input::Configure(Box::new(Config { probes: n(probes), ..config.clone() })));
                }
            }
            prop_assert!(story.circuit.generation() >= generation);
            let current = story.circuit.generation();
            let probing = out.iter().filter(|ticket| ticket.generation == current && ticket.probe.is_some()).count();
            prop_assert!(probing <= 3, "{} probes out", probing);
            prop_assert_eq!(story.state() == State::Open, story.circuit.open_until().is_some());
            let counts = story.circuit.counts();
            prop_assert!(counts.failures <= counts.calls && counts.slow <= counts.calls);
        }
        // Nobody answers any more, and then the upstream is well: the circuit closes.
        now += 60_000;
        for _ in 0..20 {
            now += 10_000;
            if let Ok(ticket) = story.acquire(now) && ticket.probe.is_some() {
                story.settle(now, ticket, Weight::Success);
            }
        }
        prop_assert_eq!(story.state(), State::Closed);
    }
}

#[test]
fn a_probe_that_is_slow_does_not_close_what_slow_calls_open() {
    let mut story = Story::of(Config { failure_rate: None, slow_rate: Some(0.75), ..rates(Window::Calls(n(8))) });
    let slow = |ticket| Input::Settle { ticket, weight: Weight::Success, slow: true, retry_after: None };
    for _ in 0..4 {
        let ticket = story.admitted(0);
        story.step(0, slow(ticket));
    }
    let probe = story.admitted(1_000);
    story.step(1_001, slow(probe));
    assert_eq!(story.changes.last().unwrap().why, Why::ProbeFailed);
    let probe = story.admitted(3_001);
    story.settle(3_002, probe, Weight::Success);
    assert_eq!(story.state(), State::Closed);
}

#[test]
fn a_rest_without_a_cap_has_no_end_and_does_not_overflow() {
    let open = Open { min: Duration::from_secs(1), max: Duration::MAX, jitter: 1.0 };
    let mut story = Story::of(Config { consecutive: Some(n(1)), open, ..plain() });
    let (ticket, retry_after) = (story.admitted(0), Some(Duration::MAX));
    story.step(0, Input::Settle { ticket, weight: Weight::Failure, slow: false, retry_after });
    assert_eq!(story.state(), State::Open);
}

#[test]
fn as_many_slow_probes_as_are_tolerated_close_a_circuit() {
    let config = Config { probes: n(4), slow_rate: Some(0.75), ..plain() };
    let mut story = Story::of(config);
    story.fail(0, 2);
    for slow in [true, false, true, false] {
        let ticket = story.admitted(1_000);
        story.step(1_001, Input::Settle { ticket, weight: Weight::Success, slow, retry_after: None });
    }
    assert_eq!(story.state(), State::Closed);
}
