//! Steps: what becomes of them when they fail, and how often and how fast they are tried.

use std::{sync::Arc, time::Duration};

use quorate_resilience::retry::Backoff;

use super::{Action, check_word};
use crate::saga::event::Direction;

/// What becomes of a saga when a step fails, and what of the step when the saga does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It can be made up for. Where it fails, the saga turns back.
    Compensatable,
    /// The point of no return: once it is done the saga only goes ahead. Where it is refused, the saga turns back.
    Pivot,
    /// It stands behind the pivot, and is tried until it is done; where its attempts run out, it is stuck.
    Retriable,
}

/// What makes up for a saga of its own where nothing else is said.
static UNDO: Action = Action::Undo;

/// A step of a definition.
#[derive(Clone)]
pub struct Step {
    pub(in crate::saga) name: Arc<str>,
    pub(in crate::saga) kind: Kind,
    pub(in crate::saga) forward: Action,
    pub(in crate::saga) compensation: Option<Action>,
    pub(in crate::saga) attempts: Option<u32>,
    pub(in crate::saga) compensation_attempts: u32,
    pub(in crate::saga) backoff: Option<Backoff>,
    pub(in crate::saga) time: Option<Duration>,
    pub(in crate::saga) quiet: Option<Duration>,
    pub(in crate::saga) may_be_refused: bool,
}

impl Step {
    /// The most attempts of a step.
    pub const MAX_ATTEMPTS: u32 = 1_000_000;
    /// The longest that an attempt may take, and the longest quiet time.
    pub const MAX_TIME: Duration = Duration::from_secs(7 * 86_400);

    /// How often a step is tried that can be made up for, or is the pivot: with the usual rests for some ten seconds.
    pub const USUAL_ATTEMPTS: u32 = 10;
    /// How often a step is tried that has to be done at last, behind the pivot or on the way back: with the usual rests for half a day.
    pub const USUAL_ATTEMPTS_AT_LAST: u32 = 1_000;

    /// How long an attempt may take.
    pub const USUAL_TIME: Duration = Duration::from_secs(30);

    /// A step that `forward` does. Compensatable, with nothing that makes up for it; [so many](Self::USUAL_ATTEMPTS) attempts forward and
    /// [so many](Self::USUAL_ATTEMPTS_AT_LAST) back, 30 s each. Rests grow from 100 ms to 5 s, and to a minute where it has to be done at last.
    pub fn new(name: &str, forward: Action) -> Self {
        Self {
            name: name.into(),
            kind: Kind::Compensatable,
            forward,
            compensation: None,
            attempts: None,
            compensation_attempts: Self::USUAL_ATTEMPTS_AT_LAST,
            backoff: None,
            time: None,
            quiet: None,
            may_be_refused: false,
        }
    }

    /// Made up for by `action`.
    #[must_use]
    pub fn compensated_by(mut self, action: Action) -> Self {
        self.compensation = Some(action);
        self
    }

    /// The point of no return.
    #[must_use]
    pub fn pivot(mut self) -> Self {
        self.kind = Kind::Pivot;
        self
    }

    /// Behind the point of no return: tried until it is done.
    #[must_use]
    pub fn retriable(mut self) -> Self {
        self.kind = Kind::Retriable;
        self
    }

    /// With so many attempts forward, and so many of its compensation. With 1 a call is never repeated: one without an
    /// answer is compensated, or stuck behind the pivot.
    #[must_use]
    pub fn attempts(mut self, forward: u32, compensation: u32) -> Self {
        (self.attempts, self.compensation_attempts) = (Some(forward), compensation);
        self
    }

    /// Resting between attempts as `backoff` says.
    #[must_use]
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = Some(backoff);
        self
    }

    /// Taking at most so long for an attempt; then it is given up, and its outcome is unknown.
    #[must_use]
    pub fn time(mut self, time: Duration) -> Self {
        self.time = Some(time);
        self
    }

    /// How long an attempt that was given up may still take effect at the participant: for so long it is not compensated. As
    /// long as an attempt may take, if nothing is said. Zero is right where the participant has a [barrier](crate::saga::Barrier).
    #[must_use]
    pub fn quiet(mut self, quiet: Duration) -> Self {
        self.quiet = Some(quiet);
        self
    }

    /// A definite refusal of it does not turn the saga back: the plan looks at it
    /// ([`Journal::is_refused`](crate::saga::Journal::is_refused)) and decides.
    #[must_use]
    pub fn may_be_refused(mut self) -> Self {
        self.may_be_refused = true;
        self
    }

    pub(in crate::saga) fn action(&self, direction: Direction) -> Option<&Action> {
        match direction {
            Direction::Forward => Some(&self.forward),
            Direction::Compensation if self.compensation.is_none() && self.is_child() => {
                (self.kind == Kind::Compensatable).then_some(&UNDO)
            }
            Direction::Compensation => self.compensation.as_ref(),
        }
    }

    /// Whether there is something that makes up for it.
    pub(in crate::saga) fn can_be_undone(&self) -> bool {
        self.action(Direction::Compensation).is_some()
    }

    /// Whether it is a saga of its own.
    fn is_child(&self) -> bool {
        matches!(self.forward, Action::Child(_))
    }

    /// How long an attempt may take.
    pub(in crate::saga) fn attempt_time(&self) -> Duration {
        self.time.unwrap_or(Self::USUAL_TIME)
    }

    pub(in crate::saga) fn allowed(&self, direction: Direction) -> u32 {
        match direction {
            Direction::Forward if self.kind == Kind::Retriable => self.attempts.unwrap_or(Self::USUAL_ATTEMPTS_AT_LAST),
            Direction::Forward => self.attempts.unwrap_or(Self::USUAL_ATTEMPTS),
            Direction::Compensation => self.compensation_attempts,
        }
    }

    /// How it rests between attempts.
    pub(in crate::saga) fn pace(&self, direction: Direction) -> Backoff {
        let at_last = direction == Direction::Compensation || self.kind == Kind::Retriable;
        let cap = Duration::from_secs(if at_last { 60 } else { 5 });
        self.backoff.unwrap_or(Backoff { base: Duration::from_millis(100), cap, ..Backoff::default() })
    }

    pub(in crate::saga) fn quiet_time(&self) -> Duration {
        // What a saga may still do is known: it has ended, or it has not.
        let usual = if self.is_child() { Duration::ZERO } else { self.attempt_time() };
        self.quiet.unwrap_or(usual)
    }

    pub(super) fn check(&self) -> Result<(), String> {
        let Self { name, compensation_attempts, .. } = self;
        let time = self.attempt_time();
        let attempts = &self.allowed(Direction::Forward);
        let max = Self::MAX_ATTEMPTS;
        check_word("a step's name", name)?;
        for attempts in [attempts, compensation_attempts] {
            if !(1..=max).contains(attempts) {
                return Err(format!("step `{name}` has 1 to {max} attempts, not {attempts}"));
            }
        }
        let max = Self::MAX_TIME;
        for (what, span) in
            [("time", time), ("quiet time", self.quiet_time()), ("rest", self.pace(Direction::Forward).cap)]
        {
            if span > max {
                return Err(format!("the {what} of step `{name}` is at most {max:?}, not {span:?}"));
            }
        }
        if time.is_zero() {
            return Err(format!("an attempt of step `{name}` needs some time"));
        }
        if self.is_child() && (self.time.is_some() || self.quiet.is_some()) {
            return Err(format!(
                "step `{name}` is a saga of its own, which has neither time nor quiet time: give it a deadline where it is defined"
            ));
        }
        if matches!(self.forward, Action::Undo) || (matches!(self.compensation, Some(Action::Undo)) && !self.is_child())
        {
            return Err(format!("step `{name}` has no saga undone, for it starts none"));
        }
        if self.kind != Kind::Compensatable && self.compensation.is_some() {
            return Err(format!(
                "step `{name}` cannot be undone, being {:?}, and has a compensation: make it compensatable",
                self.kind
            ));
        }
        Ok(())
    }
}
