//! What a run has used up.

use std::sync::Arc;

use super::{
    Failed, Limits,
    pattern::{self, Patterns, RegexFlags, Searched},
    value::Value,
};

/// Why a run, or a part of it, ends before its end.
#[derive(Debug)]
pub(super) enum Stop {
    /// An error of the program's, which `try` catches.
    Raised(Value),
    /// `break $label`, by the number that the label has in this run.
    Break(u64),
    /// What took an output wants no more, and has kept its reason.
    Downstream,
    /// A limit; nothing catches it.
    Limit(Failed),
}

impl Stop {
    /// An error with that message.
    pub(super) fn raise(message: impl AsRef<str>) -> Self {
        Self::Raised(Value::text(message))
    }
}

pub(super) type Step<T = ()> = Result<T, Stop>;

/// Bytes that cost as much as one step when they are looked at or copied.
const BYTES_PER_STEP: usize = 64;
/// The most regular expressions that a program, and a run of it, keep read.
const REGEXES: usize = 64;

/// Counts steps, bytes and depth. Everything that takes time or memory in proportion to anything passes here.
///
/// Invariant: a run with the same program, input and limits counts the same, on every machine.
pub(super) struct Meter {
    limits: Limits,
    steps: u64,
    bytes: usize,
    depth: u32,
    labels: u64,
    /// Those that were read with the program.
    known: Arc<Patterns>,
    regexes: Patterns,
}

impl Meter {
    pub(super) fn new(limits: Limits) -> Self {
        Self::knowing(Arc::default(), limits)
    }

    /// Counts a run of a program with which these expressions were read.
    pub(super) fn knowing(known: Arc<Patterns>, limits: Limits) -> Self {
        Self { limits, steps: 0, bytes: 0, depth: 0, labels: 0, known, regexes: Patterns::new() }
    }

    pub(super) fn step(&mut self, steps: u64) -> Step {
        self.steps = self.steps.saturating_add(steps);
        if self.steps > self.limits.steps {
            return Err(Stop::Limit(Failed::TooManySteps { limit: self.limits.steps }));
        }
        Ok(())
    }

    /// So many bytes are looked at.
    pub(super) fn look(&mut self, bytes: usize) -> Step {
        self.step((bytes / BYTES_PER_STEP) as u64)
    }

    /// So many bytes are written anew.
    pub(super) fn build(&mut self, bytes: usize) -> Step {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > self.limits.bytes {
            return Err(Stop::Limit(Failed::TooLarge { limit: self.limits.bytes }));
        }
        self.look(bytes)
    }

    /// How many bytes may still be written.
    pub(super) fn left(&self) -> usize {
        self.limits.bytes.saturating_sub(self.bytes)
    }

    /// Begins an evaluation inside another one.
    pub(super) fn enter(&mut self) -> Step {
        if self.depth == self.limits.depth {
            return Err(Stop::Limit(Failed::TooDeep { limit: self.limits.depth }));
        }
        self.step(1)?;
        self.depth += 1;
        Ok(())
    }

    pub(super) fn leave(&mut self) {
        self.depth -= 1;
    }

    /// A number that no other label of the run has.
    pub(super) fn label(&mut self) -> u64 {
        self.labels += 1;
        self.labels
    }

    /// A regular expression, which is read once in a run, or was read with the program.
    pub(super) fn regex(&mut self, text: &str, flags: RegexFlags) -> Step<Arc<Searched>> {
        pattern::check_length(text)?;
        self.look(text.len())?;
        let key = pattern::key(text, flags);
        if let Some(known) = self.known.get(&key).or_else(|| self.regexes.get(&key)) {
            return Ok(known.clone());
        }
        let regex = Arc::new(pattern::read(self, text, flags)?);
        if self.regexes.len() == REGEXES {
            self.regexes.clear();
        }
        self.regexes.insert(key, regex.clone());
        Ok(regex)
    }

    /// The expressions that were read.
    pub(super) fn patterns(self) -> Patterns {
        self.regexes
    }

    /// A search read `taken` bytes up to where it ended, and may have looked at all of what was `left` behind.
    pub(super) fn search(&mut self, regex: &Searched, taken: usize, left: usize) -> Step {
        self.step(1)?;
        self.step((taken / 16 + left / 128) as u64 * regex.weight)
    }
}
