//! When calls may pass: the rules of a circuit breaker, without clock, lock or calls.
//!
//! ```text
//!                 too many failures, or too many slow calls
//!       closed ───────────────────────────────────────────────▶ open
//!         ▲                                                     │  ▲
//!         │ all probes succeeded              its time has passed│  │ a probe failed, was throttled
//!         │                                                     ▼  │ or has not ended in time
//!         └───────────────────────────────────────────────── half open
//! ```
//!
//! * Every change of state begins a *generation*. A call carries the generation it was admitted in; what becomes of it in
//!   a later one says nothing about the upstream of today, and is not counted.
//! * A probe is *reserved* when it is admitted. It ends in one of four ways: it succeeds, it fails, it is given back
//!   (ignored, cancelled: the next caller may probe), or its time runs out, which is a failure.
//! * Quick successes are not inputs, for there would be too many: whoever counts them says with every other input how many
//!   there have been in all.

mod window;

use std::time::Duration;

use quorate_foundations::{machine::Machine, time::Mono};

use super::config::{Config, Weight};
use crate::dice::Dice;
pub use window::Counts;
use window::Tally;

/// Where a circuit stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Calls pass.
    Closed,
    /// Calls are refused.
    Open,
    /// A few calls may try.
    HalfOpen,
}

/// What an operator has asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Mode {
    /// It opens and closes by its rules.
    #[default]
    Automatic,
    /// Refuses everything, whatever the upstream does.
    ForcedOpen,
    /// Lets everything pass and counts nothing.
    Disabled,
    /// Follows its rules and says so, but refuses nothing.
    MetricsOnly,
}

/// What can happen to a circuit.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// Somebody wants to call.
    Acquire,
    /// A call ended, and was not a quick success.
    Settle {
        /// The ticket it was admitted with.
        ticket: Ticket,
        /// What its outcome is to the breaker.
        weight: Weight,
        /// Whether it was slow.
        slow: bool,
        /// When the upstream asked to be called again.
        retry_after: Option<Duration>,
    },
    /// A call ended without saying anything about the upstream, or nobody waits for it any more.
    GiveBack(Ticket),
    /// An operator changed the mode.
    Operate(Mode),
    /// An operator wants the circuit closed, with everything forgotten.
    Reset,
    /// Other rules hold from now on. What was counted stays, unless the window is another.
    Configure(Box<Config>),
}

/// What should happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The call may be made; its end is told with the ticket.
    Admit(Ticket),
    /// The call is refused.
    Refuse(Rejected),
    /// The state changed.
    Changed(Change),
}

/// What a call was admitted with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// In which generation.
    pub generation: u64,
    /// As which probe of it; `None` for a call like any other.
    pub probe: Option<u32>,
}

/// Why a call was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the circuit is {}", match self.state { State::HalfOpen => "half open, and others are trying it", _ => "open" })]
pub struct Rejected {
    /// Open, or half open with no probe left.
    pub state: State,
    /// How long until a call may try; `None` when nobody can say: an operator opened it, or others are trying.
    pub remaining: Option<Duration>,
}

/// A change of state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// Before.
    pub from: State,
    /// After.
    pub to: State,
    /// Why.
    pub why: Why,
    /// The generation that begins with it.
    pub generation: u64,
    /// Whether calls are refused by it: not so in [`Mode::MetricsOnly`].
    pub enforced: bool,
}

/// Why the state changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Why {
    /// So many failures in a row.
    Consecutive,
    /// Too large a part failed.
    FailureRate,
    /// Too large a part was slow.
    SlowRate,
    /// It has been open for its time.
    TimePassed,
    /// A probe failed or was throttled.
    ProbeFailed,
    /// A probe did not end in time.
    ProbeTimeout,
    /// As many probes as are needed succeeded.
    ProbesSucceeded,
    /// An operator asked for it.
    Operator,
}

impl Why {
    /// A word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Consecutive => "consecutive",
            Self::FailureRate => "failure_rate",
            Self::SlowRate => "slow_rate",
            Self::TimePassed => "time_passed",
            Self::ProbeFailed => "probe_failed",
            Self::ProbeTimeout => "probe_timeout",
            Self::ProbesSucceeded => "probes_succeeded",
            Self::Operator => "operator",
        }
    }
}

/// The rules of one circuit.
#[derive(Clone, Debug)]
pub struct Circuit {
    config: Config,
    mode: Mode,
    dice: Dice,
    phase: Phase,
    generation: u64,
    tally: Tally,
    /// Quick successes in all, as last heard.
    successes: u64,
    /// Times it has opened in a row without having been closed for long.
    openings: u32,
    /// When it was last closed, and for how long it had been open.
    closed: Option<(Mono, Duration)>,
}

/// A state with what belongs to it.
#[derive(Clone, Debug)]
enum Phase {
    Closed,
    Open {
        until: Mono,
        span: Duration,
    },
    HalfOpen {
        /// Probes that have not ended: their number, and when their time runs out.
        trying: Vec<(u32, Mono)>,
        next: u32,
        succeeded: u32,
        /// Those of them that were slow.
        slow: u32,
        span: Duration,
    },
}

impl Circuit {
    /// A closed circuit.
    pub fn new(config: Config, dice: Dice, now: Mono) -> Self {
        let tally = Tally::new(config.window, now, 0);
        Self {
            config,
            mode: Mode::default(),
            dice,
            phase: Phase::Closed,
            generation: 1,
            tally,
            successes: 0,
            openings: 0,
            closed: None,
        }
    }

    /// Tells how many quick successes there have been in all. Comes before every other input.
    pub fn successes(&mut self, now: Mono, successes: u64) {
        self.successes = successes;
        self.tally.turn(now, successes);
    }

    /// Where it stands.
    pub fn state(&self) -> State {
        match self.phase {
            Phase::Closed => State::Closed,
            Phase::Open { .. } => State::Open,
            Phase::HalfOpen { .. } => State::HalfOpen,
        }
    }

    /// What the operator asked for.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Its rules.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// How often the state has changed, counted from 1.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// When calls may try again, if it is open by its rules.
    pub fn open_until(&self) -> Option<Mono> {
        match self.phase {
            Phase::Open { until, .. } => Some(until),
            Phase::Closed | Phase::HalfOpen { .. } => None,
        }
    }

    /// When successes that follow belong to another part of the window.
    pub fn turns_at(&self) -> Option<Mono> {
        self.tally.turns_at()
    }

    /// Calls, failures and slow calls in the window.
    pub fn counts(&self) -> Counts {
        self.tally.counts(self.successes)
    }

    fn acquire(&mut self, now: Mono, effects: &mut Vec<Effect>) {
        let plain = Ticket { generation: self.generation, probe: None };
        match self.mode {
            Mode::ForcedOpen => {
                effects.push(Effect::Refuse(Rejected { state: State::Open, remaining: None }));
                return;
            }
            Mode::Disabled => {
                effects.push(Effect::Admit(Ticket { generation: 0, probe: None }));
                return;
            }
            Mode::Automatic | Mode::MetricsOnly => {}
        }
        self.tick(now, effects);
        let (remaining, state) = match &mut self.phase {
            Phase::Closed => {
                effects.push(Effect::Admit(plain));
                return;
            }
            Phase::HalfOpen { trying, next, succeeded, .. }
                if trying.len() as u64 + u64::from(*succeeded) < u64::from(self.config.probes.get()) =>
            {
                let probe = *next;
                *next = next.wrapping_add(1);
                trying.push((probe, now + self.config.probe_timeout));
                effects.push(Effect::Admit(Ticket { generation: self.generation, probe: Some(probe) }));
                return;
            }
            Phase::HalfOpen { .. } => (None, State::HalfOpen),
            Phase::Open { until, .. } => (Some(until.saturating_since(now)), State::Open),
        };
        effects.push(match self.mode {
            // Generation 0 is never current: what becomes of the call is not counted.
            Mode::MetricsOnly => Effect::Admit(Ticket { generation: 0, probe: None }),
            _ => Effect::Refuse(Rejected { state, remaining }),
        });
    }

    fn settle(
        &mut self,
        now: Mono,
        ticket: Ticket,
        (weight, slow): (Weight, bool),
        retry_after: Option<Duration>,
        effects: &mut Vec<Effect>,
    ) {
        if ticket.generation != self.generation {
            return;
        }
        match (&self.phase, weight) {
            (Phase::Closed, Weight::Nothing) => {}
            (Phase::Closed, _) => {
                self.tally.record(now, self.successes, weight, slow);
                if let Some(why) = self.verdict() {
                    self.open(now, why, retry_after, effects);
                }
            }
            (Phase::HalfOpen { .. }, _) => self.end_probe(now, ticket, (weight, slow), retry_after, effects),
            (Phase::Open { .. }, _) => {}
        }
    }

    fn end_probe(
        &mut self,
        now: Mono,
        ticket: Ticket,
        (weight, is_slow): (Weight, bool),
        retry_after: Option<Duration>,
        effects: &mut Vec<Effect>,
    ) {
        let Phase::HalfOpen { trying, succeeded, slow, .. } = &mut self.phase else { return };
        let Some(place) = trying.iter().position(|(probe, _)| Some(*probe) == ticket.probe) else { return };
        match weight {
            Weight::Nothing => {
                trying.swap_remove(place);
            }
            Weight::Success => {
                trying.swap_remove(place);
                *succeeded += 1;
                *slow += u32::from(is_slow);
                let (slow, probes) = (f64::from(*slow), f64::from(self.config.probes.get()));
                // What is as slow as what opens it has not been found well.
                if self.config.slow_rate.is_some_and(|rate| slow >= rate * probes) {
                    return self.open(now, Why::ProbeFailed, retry_after, effects);
                }
                self.close_if_proved(now, effects);
            }
            Weight::Failure | Weight::Throttled => self.open(now, Why::ProbeFailed, retry_after, effects),
        }
    }

    /// Whether what was counted opens the circuit.
    fn verdict(&self) -> Option<Why> {
        if self.config.consecutive.is_some_and(|limit| self.tally.in_a_row() >= limit.get()) {
            return Some(Why::Consecutive);
        }
        let counts = self.counts();
        if counts.calls < u64::from(self.config.minimum_calls.get()) {
            return None;
        }
        let reaches = |part: u64, rate: Option<f64>| rate.is_some_and(|rate| part as f64 >= rate * counts.calls as f64);
        if reaches(counts.failures, self.config.failure_rate) {
            return Some(Why::FailureRate);
        }
        reaches(counts.slow, self.config.slow_rate).then_some(Why::SlowRate)
    }

    fn open(&mut self, now: Mono, why: Why, retry_after: Option<Duration>, effects: &mut Vec<Effect>) {
        // It was well for longer than it had been ill: whatever this is, it is something new.
        if self.closed.take_if(|(since, span)| now.saturating_since(*since) > *span).is_some() {
            self.openings = 0;
        }
        let grown = self.config.open.min.saturating_mul(1_u32.checked_shl(self.openings).unwrap_or(u32::MAX));
        let asked = retry_after.unwrap_or_default();
        let span = grown.max(asked).min(self.config.open.max);
        let span = span.saturating_add(span.mul_f64(self.config.open.jitter * self.dice.unit()));
        self.openings = self.openings.saturating_add(1);
        self.begin(Phase::Open { until: now + span, span }, now, why, effects);
    }

    fn begin(&mut self, phase: Phase, now: Mono, why: Why, effects: &mut Vec<Effect>) {
        let from = self.state();
        self.phase = phase;
        self.generation += 1;
        self.tally = Tally::new(self.config.window, now, self.successes);
        let enforced = self.mode != Mode::MetricsOnly;
        effects.push(Effect::Changed(Change { from, to: self.state(), why, generation: self.generation, enforced }));
    }

    fn operate(&mut self, mode: Mode, now: Mono, effects: &mut Vec<Effect>) {
        let before = std::mem::replace(&mut self.mode, mode);
        if before != mode {
            // Calls under way were admitted under other rules.
            self.openings = 0;
            self.closed = None;
            self.begin(Phase::Closed, now, Why::Operator, effects);
        }
    }

    fn configure(&mut self, config: Config, now: Mono, effects: &mut Vec<Effect>) {
        if config.window != self.config.window {
            self.tally = Tally::new(config.window, now, self.successes);
        }
        self.config = config;
        // Fewer probes may now be enough, and nobody would be admitted any more who could find that out.
        self.close_if_proved(now, effects);
    }

    fn close_if_proved(&mut self, now: Mono, effects: &mut Vec<Effect>) {
        if let Phase::HalfOpen { succeeded, span, .. } = self.phase
            && succeeded >= self.config.probes.get()
        {
            self.closed = Some((now, span));
            self.begin(Phase::Closed, now, Why::ProbesSucceeded, effects);
        }
    }
}

impl Machine for Circuit {
    type Input = Input;
    type Effect = Effect;

    fn step(&mut self, now: Mono, input: Input, effects: &mut Vec<Effect>) {
        match input {
            Input::Acquire => self.acquire(now, effects),
            Input::Settle { ticket, weight, slow, retry_after } => {
                self.settle(now, ticket, (weight, slow), retry_after, effects);
            }
            Input::GiveBack(ticket) => self.settle(now, ticket, (Weight::Nothing, false), None, effects),
            Input::Operate(mode) => self.operate(mode, now, effects),
            Input::Reset => {
                self.openings = 0;
                self.closed = None;
                self.begin(Phase::Closed, now, Why::Operator, effects);
            }
            Input::Configure(config) => self.configure(*config, now, effects),
        }
    }

    fn tick(&mut self, now: Mono, effects: &mut Vec<Effect>) {
        if matches!(self.mode, Mode::ForcedOpen | Mode::Disabled) {
            return;
        }
        match &self.phase {
            Phase::Open { until, span } if *until <= now => {
                let phase = Phase::HalfOpen { trying: Vec::new(), next: 0, succeeded: 0, slow: 0, span: *span };
                self.begin(phase, now, Why::TimePassed, effects);
            }
            Phase::HalfOpen { trying, .. } if trying.iter().any(|(_, due)| *due <= now) => {
                self.open(now, Why::ProbeTimeout, None, effects);
            }
            _ => {}
        }
    }

    fn wake_at(&self) -> Option<Mono> {
        match &self.phase {
            Phase::Closed => None,
            Phase::Open { until, .. } => Some(*until),
            Phase::HalfOpen { trying, .. } => trying.iter().map(|(_, due)| *due).min(),
        }
    }
}

#[cfg(test)]
mod tests;
