//! The rules of one transaction: who is asked what, when it is decided, and who is told.
//!
//! ```text
//!             all yes, or read-only          in the log
//!  Preparing ────────────────────▶ Deciding ───────────▶ Committing ─▶ Ended
//!      │ a no, no answer                │ refused for good
//!      └────────────────▶ Aborting ◀────┘
//! ```
//! Invariant: no commit is sent before the decision is in the log, and no abort after it may be there. What may be there is
//! neither: then the log is asked again until it says ([`Input::Unclear`]).

use super::Vote;

/// The place of a branch in its transaction, counted from 0.
pub type Branch = usize;

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// It begins.
    Begin,
    /// A participant answered a prepare; `None` where its answer did not come in time.
    Voted(Branch, Option<Vote>),
    /// A participant that was to do it in one phase answered, or did not.
    Ended(Branch, Option<Vote>),
    /// The decision is in the log.
    Logged,
    /// The decision is not in the log, and will never be.
    Refused(String),
    /// The decision may be in the log.
    Unclear,
    /// A participant has done what it was told, or has nothing to do any more.
    Done(Branch),
    /// An abort could not be brought to a participant: it will be found in doubt.
    GivenUp(Branch),
}

/// What is to be done, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Ask a participant to prepare.
    Prepare(Branch),
    /// Ask the only participant to do it in one phase.
    OnePhase(Branch),
    /// Append the decision to commit, or append it again with the same ids.
    Decide,
    /// Tell a participant to commit, until it has.
    Commit(Branch),
    /// Tell a participant to abort, a few times.
    Abort(Branch),
    /// Tell the caller.
    Answer(Outcome),
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All of it is done, or will be.
    Committed,
    /// Nothing of it is left, or will be.
    Aborted {
        /// Which branch said no, where it was one; otherwise the log did.
        by: Option<Branch>,
        /// Why, for a person.
        why: String,
    },
    /// It may be either.
    Unknown,
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Participants are being asked.
    Preparing,
    /// The only participant does all of it.
    OnePhase,
    /// The decision is on its way to the log.
    Deciding,
    /// It is decided: participants are being told to commit.
    Committing,
    /// It will not be: participants are being told to abort.
    Aborting,
    /// Nobody has to be told anything more.
    Ended,
}

/// How far a branch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    /// It was asked, and has not answered.
    Asked,
    /// It holds what it promised.
    Yes,
    /// It was told how it ends, and has not confirmed.
    Told,
    /// It holds nothing.
    Free,
}

/// One transaction.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Transaction {
    branches: Vec<State>,
    phase: Phase,
    /// Something goes into the log although nobody votes yes.
    has_events: bool,
    /// Its one branch can do all of it in one step.
    one_phase: bool,
    is_answered: bool,
}

impl Transaction {
    /// One of so many branches. `has_events`: events are appended with the decision. `one_phase`: where there is one
    /// branch and no event, whether its participant can do it in one step.
    pub fn new(branches: usize, has_events: bool, one_phase: bool) -> Self {
        let one_phase = one_phase && branches == 1 && !has_events;
        let branches = vec![State::Asked; branches];
        Self { branches, phase: Phase::Preparing, has_events, one_phase, is_answered: false }
    }

    /// How far it is.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// The branches whose participants have something to do that they did not confirm.
    pub fn unconfirmed(&self) -> impl Iterator<Item = Branch> {
        self.branches.iter().enumerate().filter(|(_, state)| **state != State::Free).map(|(branch, _)| branch)
    }

    /// Takes in what happened. What no longer matters changes nothing.
    pub fn step(&mut self, input: Input, effects: &mut Vec<Effect>) {
        match (self.phase, input) {
            (Phase::Preparing, Input::Begin) if self.one_phase => {
                self.phase = Phase::OnePhase;
                effects.push(Effect::OnePhase(0));
            }
            (Phase::Preparing, Input::Begin) => {
                effects.extend((0..self.branches.len()).map(Effect::Prepare));
                self.decide_if_ready(effects);
            }
            (Phase::Preparing, Input::Voted(branch, vote)) => self.vote(branch, vote, effects),
            (Phase::OnePhase, Input::Ended(branch, vote)) => self.one_phase_ended(branch, vote, effects),
            // Whoever says yes when it is lost already is told so.
            (Phase::Aborting, Input::Voted(branch, vote)) if self.is(branch, State::Asked) => {
                self.branches[branch] = if holds(vote.as_ref()) { State::Told } else { State::Free };
                if self.is(branch, State::Told) {
                    effects.push(Effect::Abort(branch));
                }
            }
            (Phase::Deciding, Input::Logged) => {
                self.phase = Phase::Committing;
                self.tell(Effect::Commit, effects);
                self.answer(Outcome::Committed, effects);
            }
            (Phase::Deciding, Input::Refused(why)) => self.abort(None, why, effects),
            (Phase::Deciding, Input::Unclear) => {
                self.answer(Outcome::Unknown, effects);
                effects.push(Effect::Decide);
            }
            (Phase::Committing | Phase::Aborting, Input::Done(branch)) if self.is(branch, State::Told) => {
                self.branches[branch] = State::Free;
            }
            (Phase::Aborting, Input::GivenUp(branch)) if self.is(branch, State::Told) => {
                self.branches[branch] = State::Free;
            }
            _ => {}
        }
        let is_over = matches!(self.phase, Phase::Committing | Phase::Aborting);
        if is_over && self.branches.iter().all(|state| *state == State::Free) {
            self.phase = Phase::Ended;
        }
    }

    fn is(&self, branch: Branch, state: State) -> bool {
        self.branches.get(branch) == Some(&state)
    }

    fn vote(&mut self, branch: Branch, vote: Option<Vote>, effects: &mut Vec<Effect>) {
        if !self.is(branch, State::Asked) {
            return;
        }
        match vote {
            Some(Vote::Yes) => self.branches[branch] = State::Yes,
            Some(Vote::ReadOnly) => self.branches[branch] = State::Free,
            Some(Vote::No { why }) => {
                self.branches[branch] = State::Free;
                return self.abort(Some(branch), why, effects);
            }
            // It may have prepared.
            None => {
                self.branches[branch] = State::Yes;
                return self.abort(Some(branch), "its vote did not come in time".to_owned(), effects);
            }
        }
        self.decide_if_ready(effects);
    }

    fn decide_if_ready(&mut self, effects: &mut Vec<Effect>) {
        if self.branches.contains(&State::Asked) {
            return;
        }
        if self.branches.contains(&State::Yes) || self.has_events {
            self.phase = Phase::Deciding;
            effects.push(Effect::Decide);
        } else {
            // Nobody holds anything, and nothing goes into the log: nothing can be lost.
            self.phase = Phase::Ended;
            self.answer(Outcome::Committed, effects);
        }
    }

    fn one_phase_ended(&mut self, branch: Branch, vote: Option<Vote>, effects: &mut Vec<Effect>) {
        self.phase = Phase::Ended;
        self.branches[0] = State::Free;
        let outcome = match vote {
            Some(Vote::Yes | Vote::ReadOnly) => Outcome::Committed,
            Some(Vote::No { why }) => Outcome::Aborted { by: Some(branch), why },
            None => Outcome::Unknown,
        };
        self.answer(outcome, effects);
    }

    /// Those that have not answered yet are told when they do, or when their time is up.
    fn abort(&mut self, by: Option<Branch>, why: String, effects: &mut Vec<Effect>) {
        self.phase = Phase::Aborting;
        self.answer(Outcome::Aborted { by, why }, effects);
        self.tell(Effect::Abort, effects);
    }

    fn tell(&mut self, what: fn(Branch) -> Effect, effects: &mut Vec<Effect>) {
        for (branch, state) in self.branches.iter_mut().enumerate() {
            if *state == State::Yes {
                *state = State::Told;
                effects.push(what(branch));
            }
        }
    }

    fn answer(&mut self, outcome: Outcome, effects: &mut Vec<Effect>) {
        if !std::mem::replace(&mut self.is_answered, true) {
            effects.push(Effect::Answer(outcome));
        }
    }
}

/// Whether a participant that answered so may hold something.
fn holds(vote: Option<&Vote>) -> bool {
    !matches!(vote, Some(Vote::No { .. } | Vote::ReadOnly))
}

#[cfg(test)]
mod tests;
