//! One course of a process: what has happened in it, what is expected, and what is overdue. No clock, no log, no store.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use quorate_data::event::Position;
use quorate_foundations::time::Wall;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Process;

/// How a course stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// Events came, and not yet the one that begins it. Nothing is due before.
    #[default]
    Unbegun,
    /// Nothing is overdue.
    OnTime,
    /// Something expected did not come in time, and has not come since.
    Overdue,
    /// It has come to its end.
    Ended,
    /// It was undone.
    Undone,
    /// It was stopped: its events go round in circles, or a process manager could not react.
    Stopped,
}

impl Standing {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Unbegun, Self::OnTime, Self::Overdue, Self::Ended, Self::Undone, Self::Stopped];

    /// Those that have not come to an end: a stopped course waits for somebody who has it go on.
    pub const OPEN: [Self; 4] = [Self::Unbegun, Self::OnTime, Self::Overdue, Self::Stopped];

    /// In words.
    pub fn word(self) -> &'static str {
        match self {
            Self::Unbegun => "unbegun",
            Self::OnTime => "on-time",
            Self::Overdue => "overdue",
            Self::Ended => "ended",
            Self::Undone => "undone",
            Self::Stopped => "stopped",
        }
    }

    /// The standing of this word.
    pub fn named(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.word() == word)
    }

    /// Whether nothing that comes changes it.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Ended | Self::Undone | Self::Stopped)
    }
}

/// What is kept of a course beside its [events](Seen).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Course {
    /// How it stands.
    pub standing: Standing,
    /// Whether the event that begins it has come.
    pub begun: bool,
    /// What is expected, the oldest first.
    pub pending: Vec<Pending>,
    /// The `id`s of expected events that came before what they are expected behind, by what [names](Pending::names) them.
    pub early: BTreeMap<Arc<str>, Arc<str>>,
    /// Events that came behind its end.
    pub late: u64,
    /// Events that came once more.
    pub repeated: u64,
    /// Why it was stopped.
    pub reason: Option<Arc<str>>,
    /// What the process manager keeps.
    pub state: Value,
    /// Of what was expected when it was stopped, what had been told to be overdue: it is not told again.
    #[serde(default)]
    pub told: Vec<Pending>,
    /// The position from which chains of causes are counted: that of the event behind which it was [resumed](Self::resumed) last.
    #[serde(default)]
    pub counted_from: u64,
}

/// Something that is expected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// The type behind which it is expected.
    pub after: Arc<str>,
    /// The event of that type.
    pub event: Arc<str>,
    /// Where that stands in the log.
    pub position: u64,
    /// The types of which one is expected.
    pub any_of: Vec<Arc<str>>,
    /// Within how many nanoseconds.
    pub within_nanos: u64,
    /// Until when, in nanoseconds by the clock of the process; `None` before it has begun.
    pub due_nanos: Option<i64>,
    /// Whether it is overdue, and was told to be.
    pub overdue: bool,
}

/// An event of a course.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Where it stands in the log.
    pub position: Position,
    /// Its `source`.
    pub source: Arc<str>,
    /// Its `id`.
    pub id: Arc<str>,
    /// Its type.
    pub kind: Arc<str>,
    /// Its stream.
    pub stream: Arc<str>,
    /// Its `causationid`.
    pub causation: Option<Arc<str>>,
    /// How many events of the course led to it, one by one.
    pub depth: u32,
    /// When the store recorded it.
    pub at: Wall,
}

/// What became of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It came for the first time: whoever reacts to it does. The event is the last one now.
    New,
    /// It was there before.
    Repeated,
    /// The course was over before it came.
    Late,
    /// It stopped the course.
    Stopped,
}

/// The longest reason that a course is stopped for, in bytes; what is beyond it is cut off.
const MAX_REASON_BYTES: usize = 1_000;
/// So much of one course is told to be overdue at once.
const MAX_RUNG: usize = 1_000;

impl Pending {
    /// What names the expectation that it is of.
    pub fn names(after: &str, any_of: &[Arc<str>]) -> Arc<str> {
        // A type has no control characters in it that could make two names one.
        format!("{after}\n{}", any_of.join("\n")).into()
    }

    fn name(&self) -> Arc<str> {
        Self::names(&self.after, &self.any_of)
    }

    /// Whether it is the same that is expected. Events of two sources may have one id: where it stands says which it is.
    fn is_same(&self, other: &Self) -> bool {
        (self.position, &self.after, &self.any_of) == (other.position, &other.after, &other.any_of)
    }
}

impl Course {
    /// Takes in an event, in the order of the log. `trail`: all that came before; what is new is added. `now`: by the clock of the process; `lag`: how
    /// long ago the event was recorded.
    pub fn take(
        &mut self,
        process: &Process,
        trail: &mut Vec<Seen>,
        mut event: Seen,
        lag: Duration,
        now: Wall,
    ) -> Taken {
        if trail.iter().any(|known| known.id == event.id && known.source == event.source) {
            self.repeated += 1;
            return Taken::Repeated;
        }
        let chain = chain(trail, &event);
        event.depth = u32::try_from(chain.len()).unwrap_or(u32::MAX);
        let (kind, position, id) = (event.kind.clone(), event.position, event.id.clone());
        let full = trail.len() >= Process::MAX_EVENTS;
        let counted = chain.iter().take_while(|at| trail[**at].position.get() >= self.counted_from).count();
        let circling = goes_round(process, trail, &chain[..counted], &event);
        let causes: Vec<Arc<str>> = chain.iter().map(|at| trail[*at].id.clone()).collect();
        if !full {
            trail.push(event);
        }
        if self.standing.is_over() {
            self.late += 1;
            return Taken::Late;
        }
        if full {
            self.stop(format!("more than {} events", Process::MAX_EVENTS));
            return Taken::Stopped;
        }
        if let Some(reason) = circling {
            self.stop(reason);
            return Taken::Stopped;
        }
        self.answer(process, &kind, &id);
        for rule in process.expectations.iter().filter(|rule| rule.after == kind) {
            self.await_one(rule, (&id, &causes), position, lag, now);
        }
        if process.begins.contains(&kind) && !self.begun {
            self.begin(lag, now);
        }
        if process.ends.contains(&kind) {
            self.end(Standing::Ended);
        } else if process.undone.contains(&kind) {
            self.end(Standing::Undone);
        } else {
            self.stand();
        }
        Taken::New
    }

    /// Stops it, until somebody has it [go on](Self::resumed).
    pub fn stop(&mut self, reason: impl Into<String>) {
        let mut reason: String = reason.into();
        reason.truncate(reason.floor_char_boundary(MAX_REASON_BYTES));
        self.reason = Some(reason.into());
        self.told = self.pending.extract_if(.., |one| one.overdue).collect();
        self.end(Standing::Stopped);
    }

    /// Says what is overdue by now and was not before: at most a thousand at once.
    pub fn ring(&mut self, now: Wall) -> Vec<Pending> {
        let now = now.unix_nanos();
        let due = |one: &&mut Pending| !one.overdue && one.due_nanos.is_some_and(|due| due <= now);
        let mut rung = Vec::new();
        for one in self.pending.iter_mut().filter(due).take(MAX_RUNG) {
            one.overdue = true;
            rung.push(one.clone());
        }
        if !rung.is_empty() {
            self.stand();
        }
        rung
    }

    /// When something is due next, in nanoseconds by the clock of the process.
    pub fn due_nanos(&self) -> Option<i64> {
        self.pending.iter().filter(|one| !one.overdue).filter_map(|one| one.due_nanos).min()
    }

    /// An event answers the oldest of each expectation that it answers; where nothing waits for it, it came early.
    fn answer(&mut self, process: &Process, kind: &Arc<str>, id: &Arc<str>) {
        // What is expected behind its own type answers the one before, and is no answer to itself.
        let answers = |rule: &&super::Expectation| rule.any_of.contains(kind) && rule.after != *kind;
        for rule in process.expectations.iter().filter(answers) {
            let name = Pending::names(&rule.after, &rule.any_of);
            if !self.pending.iter().any(|one| one.name() == name) {
                // One is remembered, not more: what comes twice and was expected once does not answer the next one too.
                self.early.insert(name, id.clone());
            }
        }
        let mut answered: Vec<Arc<str>> = Vec::new();
        self.pending.retain(|one| {
            let name = one.name();
            let stays = !one.any_of.contains(kind) || answered.contains(&name);
            if !stays {
                answered.push(name);
            }
            stays
        });
    }

    fn await_one(
        &mut self,
        rule: &super::Expectation,
        (id, causes): (&Arc<str>, &[Arc<str>]),
        position: Position,
        lag: Duration,
        now: Wall,
    ) {
        // What led to the question is no answer to it: behind a refusal that has it asked again, the next answer is waited for.
        let early = self.early.remove(&Pending::names(&rule.after, &rule.any_of));
        if early.is_some_and(|early| !causes.contains(&early)) {
            return;
        }
        let due_nanos = self.begun.then(|| (now + rule.within.saturating_sub(lag)).unix_nanos());
        self.pending.push(Pending {
            after: rule.after.clone(),
            event: id.clone(),
            position: position.get(),
            any_of: rule.any_of.clone(),
            within_nanos: u64::try_from(rule.within.as_nanos()).unwrap_or(u64::MAX),
            due_nanos,
            overdue: false,
        });
    }

    fn begin(&mut self, lag: Duration, now: Wall) {
        self.begun = true;
        for one in &mut self.pending {
            let within = Duration::from_nanos(one.within_nanos);
            one.due_nanos = Some((now + within.saturating_sub(lag)).unix_nanos());
        }
    }

    fn end(&mut self, standing: Standing) {
        self.standing = standing;
        self.pending.clear();
        self.early.clear();
    }

    fn stand(&mut self) {
        self.standing = match self.begun {
            false => Standing::Unbegun,
            true if self.pending.iter().any(|one| one.overdue) => Standing::Overdue,
            true => Standing::OnTime,
        };
    }
}

/// What led to `event`, the nearest cause first. Never longer than the trail: an event's cause stands before it there.
fn chain(trail: &[Seen], event: &Seen) -> Vec<usize> {
    let (mut chain, mut end, mut cause) = (Vec::new(), trail.len(), event.causation.clone());
    while let Some(id) = cause {
        let Some(at) = trail[..end].iter().rposition(|one| one.id == id) else { break };
        chain.push(at);
        (end, cause) = (at, trail[at].causation.clone());
    }
    chain
}

fn goes_round(process: &Process, trail: &[Seen], chain: &[usize], event: &Seen) -> Option<String> {
    let of_kind = 1 + chain.iter().filter(|at| trail[**at].kind == event.kind).count();
    let (depth, repeats) = (process.max_depth as usize, process.max_repeats as usize);
    let why = if of_kind > repeats {
        format!("`{}` came {of_kind} times on one chain of causes", event.kind)
    } else if chain.len() + 1 > depth {
        format!("a chain of causes has more than {depth} events")
    } else {
        return None;
    };
    // The way round, from the last time that it was at this type; or what led to it, if that is long.
    let from = chain.iter().position(|at| trail[*at].kind == event.kind).unwrap_or(7).min(7);
    let mut way: Vec<&str> = chain.iter().take(from + 1).map(|at| &*trail[*at].kind).collect();
    way.reverse();
    way.push(&event.kind);
    Some(format!("{why}: {}", way.join(" → ")))
}

mod resuming;

#[cfg(test)]
mod tests;
