//! What a run has used up.

use std::{collections::BTreeMap, sync::Arc};

use regex::Regex;
use regex_syntax::hir::{Hir, HirKind};

use super::{Failed, Limits, value::Value};

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
/// Steps that it costs to read a regular expression.
const REGEX_STEPS: u64 = 1_000;
/// The most memory of a regular expression's automaton, in bytes.
const REGEX_BYTES: usize = 256 << 10;
/// The most regular expressions that a run keeps read.
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
    regexes: BTreeMap<String, Arc<Searched>>,
}

impl Meter {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, steps: 0, bytes: 0, depth: 0, labels: 0, regexes: BTreeMap::new() }
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

    /// A regular expression, which is read once in a run.
    pub(super) fn regex(&mut self, text: &str, flags: RegexFlags) -> Step<Arc<Searched>> {
        let key = format!("{flags:?} {text}");
        if let Some(known) = self.regexes.get(&key) {
            return Ok(known.clone());
        }
        self.step(REGEX_STEPS + text.len() as u64)?;
        let regex = Arc::new(read(text, flags).map_err(Stop::raise)?);
        if self.regexes.len() == REGEXES {
            self.regexes.clear();
        }
        self.regexes.insert(key, regex.clone());
        Ok(regex)
    }

    /// A search read `taken` bytes up to where it ended, and may have looked at all of what was `left` behind.
    pub(super) fn search(&mut self, regex: &Searched, taken: usize, left: usize) -> Step {
        self.step(1)?;
        self.step((taken / 16 + left / 128) as u64 * regex.weight)
    }
}

/// How a regular expression is read.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RegexFlags {
    pub(super) ignore_case: bool,
    pub(super) extended: bool,
    pub(super) dot_matches_newline: bool,
}

/// A regular expression with what a byte of a search with it may cost.
pub(super) struct Searched {
    pub(super) regex: Regex,
    weight: u64,
}

/// Reads a regular expression.
///
/// # Errors
/// Why it is none, in a line.
pub(super) fn read(text: &str, flags: RegexFlags) -> Result<Searched, String> {
    let wrong = |cause: &dyn std::fmt::Display| {
        let cause = cause.to_string();
        let why = cause.lines().last().unwrap_or_default().trim_start_matches("error: ");
        format!("`{text}` is no regular expression: {why}")
    };
    let parsed = regex_syntax::ParserBuilder::new()
        .case_insensitive(flags.ignore_case)
        .ignore_whitespace(flags.extended)
        .dot_matches_new_line(flags.dot_matches_newline)
        .nest_limit(50)
        .build()
        .parse(text);
    let parsed = parsed.map_err(|cause| wrong(&cause))?;
    let regex = regex::RegexBuilder::new(text)
        .case_insensitive(flags.ignore_case)
        .ignore_whitespace(flags.extended)
        .dot_matches_new_line(flags.dot_matches_newline)
        .size_limit(REGEX_BYTES)
        .dfa_size_limit(REGEX_BYTES)
        .nest_limit(50)
        .build()
        .map_err(|cause| wrong(&cause))?;
    Ok(Searched { regex, weight: 1 + states(&parsed) / 8 })
}

/// About how many states an expression's automaton has: where nothing quicker fits, a search tries all of them at each byte.
fn states(parsed: &Hir) -> u64 {
    match parsed.kind() {
        HirKind::Empty | HirKind::Look(_) => 1,
        HirKind::Literal(literal) => literal.0.len() as u64,
        HirKind::Class(_) => 2,
        HirKind::Repetition(repeated) => {
            let times = u64::from(repeated.max.unwrap_or(repeated.min + 1).max(1));
            states(&repeated.sub).saturating_mul(times)
        }
        HirKind::Capture(group) => states(&group.sub),
        HirKind::Concat(all) | HirKind::Alternation(all) => {
            all.iter().map(states).fold(0_u64, |sum, more| sum.saturating_add(more))
        }
    }
}
