//! What checkers answer: a claim, and whether it holds.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::history::OpId;

/// How many violations of one claim are told one by one; the others are counted.
pub const VIOLATIONS_TOLD: usize = 20;

/// What kind of promise was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Kind {
    /// Something acknowledged, or seen before, is not there.
    Lost,
    /// One thing is there twice.
    Doubled,
    /// What failed, or what nobody asked for, is there.
    Uncalled,
    /// A position or version is missing or out of order.
    Gap,
    /// Two observers saw different things at one place.
    Disagreement,
    /// A later reader saw less than an earlier one.
    StaleRead,
    /// Nothing explains the answers in any order.
    NotLinearizable,
    /// An append took effect at another version than it expected.
    WrongVersion,
    /// An append took effect although an event matched its condition.
    ConditionIgnored,
    /// A read did not see what its token stands for.
    TokenIgnored,
    /// One idempotency key got two answers.
    KeyIgnored,
    /// A clock's stamps did not grow.
    ClockBackwards,
    /// Two holders at once, or a fencing token that went back.
    LeaseShared,
    /// A rule of a scenario's own.
    Rule,
}

/// One broken promise: what, where and by which operations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// What kind of promise.
    pub kind: Kind,
    /// The stream (or key, subscriber, resource, node) it is about.
    pub place: Option<String>,
    /// The position, version, line or fence within it.
    pub number: Option<u64>,
    /// The operations involved, to be marked in a timeline.
    pub operations: Vec<OpId>,
    /// The whole story in one sentence for people.
    pub sentence: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)
    }
}

impl Violation {
    /// A violation that still lacks where and by whom.
    pub fn new(kind: Kind, sentence: impl Into<String>) -> Self {
        Self { kind, place: None, number: None, operations: Vec::new(), sentence: sentence.into() }
    }

    /// Says where.
    #[must_use]
    pub fn at(mut self, place: impl Into<String>, number: u64) -> Self {
        self.place = Some(place.into());
        self.number = Some(number);
        self
    }

    /// Says in which stream, or with which key, subscriber, resource or node.
    #[must_use]
    pub fn of(mut self, place: impl Into<String>) -> Self {
        self.place = Some(place.into());
        self
    }

    /// Says by which operations.
    #[must_use]
    pub fn by(mut self, operations: impl IntoIterator<Item = OpId>) -> Self {
        self.operations.extend(operations);
        self
    }
}

/// What a checker found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "finding", rename_all = "kebab-case")]
pub enum Finding {
    /// The claim holds.
    Holds {
        /// How many things it was held against. Zero means that the scenario never reached what the checker is about.
        examined: u64,
    },
    /// The claim does not hold.
    Violated {
        /// At most [`VIOLATIONS_TOLD`], in the order in which they were found.
        violations: Vec<Violation>,
        /// How many more there are.
        more: u64,
    },
    /// The checker gave up within its budget; nothing wrong was found.
    Undecided {
        /// What ran out.
        why: String,
    },
}

/// A claim, and what a checker found about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// The promise, as a sentence that is true when it holds.
    pub claim: String,
    /// Whether it is.
    #[serde(flatten)]
    pub finding: Finding,
}

impl Verdict {
    /// Whether the claim was found to hold.
    pub fn holds(&self) -> bool {
        matches!(self.finding, Finding::Holds { .. })
    }

    /// How many things the claim was held against; `None` where it is broken or undecided.
    pub fn examined(&self) -> Option<u64> {
        match &self.finding {
            Finding::Holds { examined } => Some(*examined),
            Finding::Violated { .. } | Finding::Undecided { .. } => None,
        }
    }

    /// Whether the claim was found broken.
    pub fn is_violated(&self) -> bool {
        matches!(self.finding, Finding::Violated { .. })
    }

    /// The violations told one by one.
    pub fn violations(&self) -> &[Violation] {
        match &self.finding {
            Finding::Violated { violations, .. } => violations,
            Finding::Holds { .. } | Finding::Undecided { .. } => &[],
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.finding {
            Finding::Holds { examined: 0 } => write!(f, "not examined {}", self.claim),
            Finding::Holds { examined } => write!(f, "holds      {} ({examined} examined)", self.claim),
            Finding::Undecided { why } => write!(f, "undecided  {} ({why})", self.claim),
            Finding::Violated { violations, more } => {
                write!(f, "VIOLATED   {}", self.claim)?;
                for violation in violations {
                    write!(f, "\n           - {violation}")?;
                }
                if *more > 0 {
                    write!(f, "\n           - and {more} more")?;
                }
                Ok(())
            }
        }
    }
}

/// The verdicts on one world.
///
/// ```
/// use quorate_sim::check::{Report, log};
///
/// let mut report = Report::new();
/// report.add(log::dense(&[]));
/// assert!(report.holds());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    verdicts: Vec<Verdict>,
}

impl Report {
    /// A report without verdicts.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a verdict.
    pub fn add(&mut self, verdict: Verdict) {
        self.verdicts.push(verdict);
    }

    /// The verdicts in the order in which they were added.
    pub fn verdicts(&self) -> &[Verdict] {
        &self.verdicts
    }

    /// Whether nothing was found broken. What is undecided is not broken.
    pub fn holds(&self) -> bool {
        !self.verdicts.iter().any(Verdict::is_violated)
    }

    /// All violations that are told.
    pub fn violations(&self) -> impl Iterator<Item = &Violation> {
        self.verdicts.iter().flat_map(Verdict::violations)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for verdict in &self.verdicts {
            writeln!(f, "{verdict}")?;
        }
        Ok(())
    }
}

/// Gathers what one checker finds.
pub(super) struct Gathering {
    claim: &'static str,
    examined: u64,
    violations: Vec<Violation>,
    more: u64,
    undecided: Option<String>,
}

impl Gathering {
    pub(super) fn on(claim: &'static str) -> Self {
        Self { claim, examined: 0, violations: Vec::new(), more: 0, undecided: None }
    }

    pub(super) fn examined(&mut self, things: usize) {
        self.examined += things as u64;
    }

    pub(super) fn found(&mut self, violation: Violation) {
        if self.violations.len() < VIOLATIONS_TOLD {
            self.violations.push(violation);
        } else {
            self.more += 1;
        }
    }

    pub(super) fn undecided(&mut self, why: String) {
        self.undecided.get_or_insert(why);
    }

    pub(super) fn verdict(self) -> Verdict {
        let finding = match (self.violations.is_empty(), self.undecided) {
            (false, _) => Finding::Violated { violations: self.violations, more: self.more },
            (true, Some(why)) => Finding::Undecided { why },
            (true, None) => Finding::Holds { examined: self.examined },
        };
        Verdict { claim: self.claim.to_owned(), finding }
    }
}
