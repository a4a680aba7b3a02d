//! The breaker as callers see it: a word to look at while all is well, and the machine behind a lock when it isn't.
//!
//! While the circuit is closed a call costs two loads and an add to a cell of its thread's own: no lock, no clock, no
//! line of memory that another core writes. The machine is asked when a call wasn't a quick success, when the part of the
//! window ends, and when the circuit is half open. While it is open a call is refused by two loads.

use std::{
    fmt,
    sync::{Arc, PoisonError},
    time::Duration,
};

use quorate_foundations::{machine::Machine as _, time::Mono};

use super::{
    config::{Config, ConfigError, Weight},
    machine::{Change, Circuit, Counts, Effect, Input, Mode, Rejected, State, Ticket},
    stripes::Stripes,
    sync::{AtomicU64, Mutex, Ordering, lane},
};
use crate::{
    dice::Dice,
    outcome::{Class, Outcome, Scope},
};

/// Hears of changes of state, after the lock was given back: two changes may be told in either order, and their
/// generations say which came first.
pub type Listener = Arc<dyn Fn(&Change) + Send + Sync>;

/// A circuit breaker. Share it by [`Arc`] or by reference; every method takes the time, so that one reading of the clock
/// serves all policies of a call.
pub struct Breaker {
    /// The generation, and in the last two bits the [`Gate`].
    word: AtomicU64,
    /// Until when calls are refused, while the gate is shut: nanoseconds of the monotonic clock.
    shut_until: AtomicU64,
    /// When the part of the window ends.
    turns_at: AtomicU64,
    /// From how many nanoseconds on a call is slow.
    slow_after: AtomicU64,
    /// After how many nanoseconds a probe that has not ended has failed.
    probe_timeout: AtomicU64,
    /// Whether an operator has asked anything of it: 0 or 1.
    operated: AtomicU64,
    /// Quick successes.
    successes: Stripes,
    refused: AtomicU64,
    circuit: Mutex<Circuit>,
    listener: Option<Listener>,
}

/// What a caller finds at the word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
enum Gate {
    /// Closed: pass, and tell how it went.
    Wide = 0,
    /// Disabled: pass.
    Free = 1,
    /// Open.
    Shut = 2,
    /// Ask the machine.
    Ask = 3,
}

const GATE: u64 = 3;

/// Leave for one call. Dropping it without [`settle`](Self::settle) gives it back: the call said nothing.
#[must_use = "a permit that is dropped says that the call was cancelled"]
pub struct Permit<'a> {
    breaker: &'a Breaker,
    ticket: Ticket,
    since: Mono,
}

/// A breaker at a moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Snapshot {
    /// Where it stands.
    pub state: State,
    /// What an operator asked for.
    pub mode: Mode,
    /// How often the state has changed, counted from 1.
    pub generation: u64,
    /// What is in the window.
    pub counts: Counts,
    /// Calls refused in all.
    pub refused: u64,
    /// How long until a call may try, while it is open.
    pub remaining: Option<Duration>,
}

impl Breaker {
    /// A closed breaker.
    ///
    /// # Errors
    /// [`ConfigError`]: the configuration can't be.
    pub fn new(config: Config, dice: Dice, now: Mono) -> Result<Self, ConfigError> {
        config.check()?;
        let circuit = Circuit::new(config, dice, now);
        let breaker = Self {
            word: AtomicU64::new(0),
            shut_until: AtomicU64::new(0),
            turns_at: AtomicU64::new(0),
            slow_after: AtomicU64::new(0),
            probe_timeout: AtomicU64::new(0),
            operated: AtomicU64::new(0),
            successes: Stripes::new(),
            refused: AtomicU64::new(0),
            circuit: Mutex::new(circuit),
            listener: None,
        };
        breaker.locked(now, |_, _| {});
        Ok(breaker)
    }

    /// The same, with somebody who hears of changes.
    #[must_use]
    pub fn with_listener(mut self, listener: Listener) -> Self {
        self.listener = Some(listener);
        self
    }

    /// Leave to make one call now.
    ///
    /// # Errors
    /// [`Rejected`], with the time until a call may try.
    #[inline]
    pub fn permit(&self, now: Mono) -> Result<Permit<'_>, Rejected> {
        Ok(Permit { breaker: self, ticket: self.acquire(now)?, since: now })
    }

    /// Leave to make one call now, without a guard: every ticket must come back through [`settle`](Self::settle) or
    /// [`give_back`](Self::give_back), also when the call is dropped.
    #[inline]
    pub(crate) fn acquire(&self, now: Mono) -> Result<Ticket, Rejected> {
        // Ordering: pairs with the release in `publish`, so that whoever sees a shut gate sees until when.
        let word = self.word.load(Ordering::Acquire);
        if word & GATE == Gate::Wide as u64 {
            return Ok(Ticket { generation: word >> 2, probe: None });
        }
        self.ask(word, now)
    }

    #[cold]
    fn ask(&self, word: u64, now: Mono) -> Result<Ticket, Rejected> {
        let shut_until = self.shut_until.load(Ordering::Relaxed);
        let answer = match word & GATE {
            free if free == Gate::Free as u64 => Ok(Ticket { generation: 0, probe: None }),
            shut if shut == Gate::Shut as u64 && now.as_nanos() < shut_until => {
                let remaining = Mono::from_nanos(shut_until).saturating_since(now);
                Err(Rejected { state: State::Open, remaining: (shut_until != u64::MAX).then_some(remaining) })
            }
            _ => self.step(now, Input::Acquire),
        };
        if answer.is_err() {
            self.refused.fetch_add(1, Ordering::Relaxed);
        }
        answer
    }

    /// Tells what became of a call that took `took`. `retry_after` is when the upstream asked to be called again.
    #[inline]
    pub(crate) fn settle(
        &self,
        now: Mono,
        ticket: Ticket,
        (outcome, took): (Outcome, Duration),
        retry_after: Option<Duration>,
    ) {
        let quick = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX) < self.slow_after.load(Ordering::Relaxed);
        if outcome == Outcome::Upstream(Class::Success) && quick && ticket.probe.is_none() {
            if now.as_nanos() >= self.turns_at.load(Ordering::Relaxed) {
                self.turn(now);
            }
            // A call of an earlier generation says nothing about this one. One that ends just while a generation begins
            // may still be counted in it, as a success: that changes no state.
            if self.word.load(Ordering::Relaxed) == ticket.generation << 2 | Gate::Wide as u64 {
                self.successes.raise(lane());
            }
            return;
        }
        self.tell(now, ticket, outcome, !quick, retry_after);
    }

    #[cold]
    fn tell(&self, now: Mono, ticket: Ticket, outcome: Outcome, slow: bool, retry_after: Option<Duration>) {
        if ticket.generation == 0 {
            return;
        }
        self.locked(now, |circuit, effects| {
            let weight = match outcome {
                // Whoever was to find out whether the upstream answers has found that it doesn't: if that said nothing, a circuit
                // before an upstream that hangs would stay half open. A probe whose caller left too little time has found nothing.
                Outcome::Timeout(Scope::Attempt) if ticket.probe.is_some() => Weight::Failure,
                outcome => circuit.config().counts.weigh(outcome),
            };
            circuit.step(now, Input::Settle { ticket, weight, slow, retry_after }, effects);
        });
    }

    /// How long a probe may take before it has failed.
    #[inline]
    pub(crate) fn probe_timeout(&self) -> Duration {
        Duration::from_nanos(self.probe_timeout.load(Ordering::Relaxed))
    }

    /// Whether an operator has asked anything of it that holds still.
    #[inline]
    pub(crate) fn is_operated(&self) -> bool {
        self.operated.load(Ordering::Relaxed) != 0
    }

    /// Tells that a call said nothing, or that nobody waits for it any more.
    pub(crate) fn give_back(&self, now: Mono, ticket: Ticket) {
        if ticket.probe.is_some() {
            self.locked(now, |circuit, effects| circuit.step(now, Input::GiveBack(ticket), effects));
        }
    }

    /// Begins another part of the window, unless somebody else is at it.
    #[cold]
    fn turn(&self, now: Mono) {
        if let Ok(mut circuit) = self.circuit.try_lock() {
            circuit.successes(now, self.successes.sum());
            self.publish(&circuit);
        }
    }

    /// Changes the mode.
    pub fn operate(&self, mode: Mode, now: Mono) {
        self.locked(now, |circuit, effects| circuit.step(now, Input::Operate(mode), effects));
    }

    /// Closes the circuit and forgets what was counted; the mode stays.
    pub fn reset(&self, now: Mono) {
        self.locked(now, |circuit, effects| circuit.step(now, Input::Reset, effects));
    }

    /// Lets other rules hold. State, generation and counts stay; only another window begins empty.
    ///
    /// # Errors
    /// [`ConfigError`]: the configuration can't be, and the old one stays.
    pub fn configure(&self, config: Config, now: Mono) -> Result<(), ConfigError> {
        config.check()?;
        self.locked(now, |circuit, effects| circuit.step(now, Input::Configure(Box::new(config)), effects));
        Ok(())
    }

    /// Where it stands. A state whose time is up is shown as the one it becomes.
    pub fn snapshot(&self, now: Mono) -> Snapshot {
        let refused = self.refused.load(Ordering::Relaxed);
        self.locked(now, |circuit, effects| {
            circuit.tick(now, effects);
            Snapshot {
                state: circuit.state(),
                mode: circuit.mode(),
                generation: circuit.generation(),
                counts: circuit.counts(),
                refused,
                remaining: circuit.open_until().map(|until| until.saturating_since(now)),
            }
        })
    }

    /// Whether it has nothing to remember that holds still: no operator has asked anything of it, and it isn't open, or its time is up.
    /// Changes nothing, so that nobody hears of it: it may be asked while locks are held.
    pub(crate) fn rests(&self, now: Mono) -> bool {
        let circuit = self.circuit.lock().unwrap_or_else(PoisonError::into_inner);
        let is_open = circuit.state() == State::Open && circuit.open_until().is_none_or(|until| now < until);
        circuit.mode() == Mode::Automatic && !is_open
    }

    fn step(&self, now: Mono, input: Input) -> Result<Ticket, Rejected> {
        self.locked(now, |circuit, effects| {
            circuit.step(now, input, effects);
            let answer = effects.iter().find_map(|effect| match effect {
                Effect::Admit(ticket) => Some(Ok(*ticket)),
                Effect::Refuse(rejected) => Some(Err(*rejected)),
                Effect::Changed(_) => None,
            });
            answer.unwrap_or_else(|| unreachable!("a circuit answers whoever asks"))
        })
    }

    fn locked<T>(&self, now: Mono, act: impl FnOnce(&mut Circuit, &mut Vec<Effect>) -> T) -> T {
        let mut effects = Vec::new();
        let done = {
            let mut circuit = self.circuit.lock().unwrap_or_else(PoisonError::into_inner);
            circuit.successes(now, self.successes.sum());
            let done = act(&mut circuit, &mut effects);
            self.publish(&circuit);
            done
        };
        if let Some(listener) = &self.listener {
            for effect in &effects {
                if let Effect::Changed(change) = effect {
                    listener(change);
                }
            }
        }
        done
    }

    /// Shows callers what the machine decided. Called with the lock held.
    fn publish(&self, circuit: &Circuit) {
        let nanos = |at: Option<Mono>| at.map_or(u64::MAX, Mono::as_nanos);
        let gate = match (circuit.mode(), circuit.state()) {
            (Mode::Disabled, _) => Gate::Free,
            (Mode::ForcedOpen, _) => Gate::Shut,
            (Mode::Automatic | Mode::MetricsOnly, State::Closed) => Gate::Wide,
            (Mode::Automatic, State::Open) => Gate::Shut,
            (Mode::MetricsOnly, State::Open) | (_, State::HalfOpen) => Gate::Ask,
        };
        let span = |span: Duration| u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        let (slow_after, probe_timeout) = (span(circuit.config().slow_after), span(circuit.config().probe_timeout));
        let shut_until = if circuit.mode() == Mode::ForcedOpen { None } else { circuit.open_until() };
        for (cell, value) in [
            (&self.slow_after, slow_after),
            (&self.probe_timeout, probe_timeout),
            (&self.operated, u64::from(circuit.mode() != Mode::Automatic)),
            (&self.turns_at, nanos(circuit.turns_at())),
            (&self.shut_until, nanos(shut_until)),
        ] {
            // Storing what is there already would take the line from everybody who only reads.
            if cell.load(Ordering::Relaxed) != value {
                cell.store(value, Ordering::Relaxed);
            }
        }
        let word = circuit.generation() << 2 | gate as u64;
        if self.word.load(Ordering::Relaxed) != word {
            self.word.store(word, Ordering::Release);
        }
    }
}

impl Permit<'_> {
    /// Whether the call is a probe of a half-open circuit.
    pub fn is_probe(&self) -> bool {
        self.ticket.probe.is_some()
    }

    /// Tells what became of the call, at `now`.
    #[inline]
    pub fn settle(self, now: Mono, outcome: Outcome, retry_after: Option<Duration>) {
        let (breaker, ticket, since) = (self.breaker, self.ticket, self.since);
        std::mem::forget(self);
        breaker.settle(now, ticket, (outcome, now.saturating_since(since)), retry_after);
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.breaker.give_back(self.since, self.ticket);
    }
}

impl fmt::Debug for Breaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = self.word.load(Ordering::Relaxed);
        f.debug_struct("Breaker")
            .field("generation", &(word >> 2))
            .field("gate", &(word & GATE))
            .finish_non_exhaustive()
    }
}
