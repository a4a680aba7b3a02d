//! May the schema of an event type change like this?
//!
//! Think of every document as a letter and every schema as a reader who returns letters that do not suit. A change is
//! *backward* compatible if the new reader returns no letter that the old one kept; *forward* compatible if the old
//! reader returns no letter that the new one keeps. The check compares the two readers' rules keyword by keyword; it
//! never looks at letters. Where it finds no proof it says so and refuses: a change that passes is safe, a change that
//! is refused may only be too clever for it.
//!
//! The vocabulary of modes is Confluent's; theirs compares with the last version, or with all (*transitive*), too.

mod arrays;
mod conjunction;
mod kinds;
mod numbers;
mod objects;
mod prover;
mod scalars;
mod vacuity;

use super::document::{Schema, clipped};
pub(super) use prover::EFFORT;
use prover::Prover;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// Which changes of a schema are allowed.
///
/// # Example
/// ```
/// use quorate_data::schema::Compatibility;
/// assert_eq!("backward-transitive".parse(), Ok(Compatibility::BackwardTransitive));
/// assert_eq!(Compatibility::default().to_string(), "backward");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Compatibility {
    /// Anything goes.
    None,
    /// New readers accept what the latest schema allowed. The default: a log is read long after it was written.
    #[default]
    Backward,
    /// New readers accept what any earlier schema allowed.
    BackwardTransitive,
    /// Readers of the latest schema accept what the new one allows.
    Forward,
    /// Readers of any earlier schema accept what the new one allows.
    ForwardTransitive,
    /// Backward and forward.
    Full,
    /// Backward and forward, towards every earlier schema.
    FullTransitive,
}

/// The text names no [`Compatibility`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("compatibility is one of none, backward, forward and full, the last three also with -transitive")]
pub struct UnknownCompatibility;

impl Compatibility {
    /// Every mode.
    pub const ALL: [Self; 7] = [
        Self::None,
        Self::Backward,
        Self::BackwardTransitive,
        Self::Forward,
        Self::ForwardTransitive,
        Self::Full,
        Self::FullTransitive,
    ];

    /// The mode's name in settings and addresses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Backward => "backward",
            Self::BackwardTransitive => "backward-transitive",
            Self::Forward => "forward",
            Self::ForwardTransitive => "forward-transitive",
            Self::Full => "full",
            Self::FullTransitive => "full-transitive",
        }
    }

    /// Whether every earlier version counts, not only the latest.
    pub fn is_transitive(self) -> bool {
        matches!(self, Self::BackwardTransitive | Self::ForwardTransitive | Self::FullTransitive)
    }

    /// The directions that have to hold.
    pub fn directions(self) -> &'static [Direction] {
        match self {
            Self::None => &[],
            Self::Backward | Self::BackwardTransitive => &[Direction::Backward],
            Self::Forward | Self::ForwardTransitive => &[Direction::Forward],
            Self::Full | Self::FullTransitive => &[Direction::Backward, Direction::Forward],
        }
    }
}

impl fmt::Display for Compatibility {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Compatibility {
    type Err = UnknownCompatibility;
    fn from_str(text: &str) -> Result<Self, UnknownCompatibility> {
        Self::ALL.into_iter().find(|mode| mode.as_str() == text).ok_or(UnknownCompatibility)
    }
}

/// Who reads whose documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// The new schema reads documents of the old one.
    Backward,
    /// The old schema reads documents of the new one.
    Forward,
}

/// What is assumed of properties that a schema neither declares nor forbids.
///
/// An object schema without `additionalProperties` lets any property pass. Taken at its word, giving a meaning to a
/// new optional property is therefore never backward compatible: some old document might already carry it as
/// something else. Producers that write only what they declare are better described by [`Undeclared::Absent`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Undeclared {
    /// They may occur, as the schema says. The default; every document that the writer's schema accepts is considered.
    #[default]
    Possible,
    /// They do not occur: only documents without undeclared properties are considered. A property is declared where
    /// anything that might apply to the object speaks of it by name: `properties`, `required` and what depends on
    /// properties, also in alternatives. An explicit `additionalProperties` still counts as a declaration.
    Absent,
}

/// How sure a [`Finding`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Certainty {
    /// The reader's rule excludes what the writer's rule allows.
    Refused,
    /// No proof was found that it does not; the change may be harmless.
    Unproved,
}

/// One reason why a change is incompatible.
///
/// # Example
/// ```
/// use quorate_data::schema::{Direction, Limits, Schema, Undeclared, incompatibilities};
/// use serde_json::json;
///
/// let parse = |json| Schema::parse(&json, &Limits::default()).unwrap();
/// let old = parse(json!({"type": "object", "properties": {"amount": {"type": "integer"}}}));
/// let new = parse(json!({"type": "object", "properties": {"amount": {"type": "integer"}}, "required": ["amount"]}));
/// let found = incompatibilities(&old, &new, Direction::Backward, Undeclared::Possible);
/// assert_eq!(
///     found[0].to_string(),
///     "`/properties/amount`: was optional, became required: old events without it would be refused by new readers",
/// );
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Finding {
    /// Which direction is broken.
    pub direction: Direction,
    /// The JSON pointer of the place in the old schema, cut where it is longer than 1,000 bytes.
    pub old: String,
    /// The JSON pointer of the place in the new schema, cut likewise.
    pub new: String,
    /// What the old schema says there.
    pub was: String,
    /// What the new schema says there.
    pub became: String,
    /// Which documents suffer, as words to follow "old events" or "new events".
    pub affected: String,
    /// How sure this is.
    pub certainty: Certainty,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { direction, old, new, was, became, affected, certainty } = self;
        write!(f, "`{new}`")?;
        if old != new {
            write!(f, " (before: `{old}`)")?;
        }
        let (written, read) = match direction {
            Direction::Backward => ("old", "new"),
            Direction::Forward => ("new", "old"),
        };
        let verdict = match certainty {
            Certainty::Refused => "would be refused",
            Certainty::Unproved => "may be refused (the contrary cannot be proved)",
        };
        write!(f, ": was {was}, became {became}: {written} events {affected} {verdict} by {read} readers")
    }
}

/// Most findings of one comparison; more would not be read.
pub const MAX_FINDINGS: usize = 32;

/// Most bytes of a pointer in a finding, and of what else it quotes; longer ones are cut.
const MAX_QUOTED_BYTES: usize = 1_000;

/// What stands in the way of `new` following `old` in `direction`; nothing if the change is proved safe.
///
/// Sound: with an empty answer, every document that the writing schema accepts (and that is `undeclared` allows) is
/// accepted by the reading one. Not complete: `not`, `if`, `contains`, `unevaluated…`, overlapping alternatives and
/// differing regular expressions are proved only in simple cases. At most [`MAX_FINDINGS`], in a fixed order. Bounded
/// in time: very entangled schemas end in a finding that says so.
///
/// Source: the conjunct-wise subsumption of Habib et al., "Finding data compatibility bugs with JSON subschema
/// checking" (ISSTA 2021), without their rewriting into normal form, so that findings keep their pointers.
pub fn incompatibilities(old: &Schema, new: &Schema, direction: Direction, undeclared: Undeclared) -> Vec<Finding> {
    compare(old, new, direction, undeclared, &mut usize::MAX.clone())
}

/// The same, with no more effort than there is `left`, from which it is taken. What could not be compared for want of it
/// is a finding.
pub(super) fn compare(
    old: &Schema,
    new: &Schema,
    direction: Direction,
    undeclared: Undeclared,
    left: &mut usize,
) -> Vec<Finding> {
    let (writer, reader) = match direction {
        Direction::Backward => (old, new),
        Direction::Forward => (new, old),
    };
    if writer == reader {
        return vec![];
    }
    let (gaps, spent) = Prover::new(writer, reader, undeclared, *left).gaps();
    *left = left.saturating_sub(spent);
    let mut findings: Vec<_> = gaps.into_iter().map(|gap| gap.facing(direction)).collect();
    let mut seen = std::collections::BTreeSet::new();
    findings.retain(|finding| seen.insert(finding.clone()));
    findings.truncate(MAX_FINDINGS);
    findings
}

/// A rule of the reader that the writer does not guarantee.
#[derive(Clone, Debug)]
struct Gap {
    writer_at: String,
    reader_at: String,
    /// What the writer's schema says.
    writer: String,
    /// What the reader's schema says.
    reader: String,
    affected: String,
    certainty: Certainty,
}

impl Gap {
    fn facing(self, direction: Direction) -> Finding {
        let cut = |text| clipped(text, MAX_QUOTED_BYTES);
        let (writer_at, reader_at) = (cut(self.writer_at), cut(self.reader_at));
        let (writer, reader, affected) = (cut(self.writer), cut(self.reader), cut(self.affected));
        let (old, new, was, became) = match direction {
            Direction::Backward => (writer_at, reader_at, writer, reader),
            Direction::Forward => (reader_at, writer_at, reader, writer),
        };
        Finding { direction, old, new, was, became, affected, certainty: self.certainty }
    }
}

#[cfg(test)]
mod soundness;
#[cfg(test)]
mod tests;
