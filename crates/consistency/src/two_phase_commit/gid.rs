//! What a transaction is called: at its coordinator, and everywhere else.

use std::{fmt, str::FromStr};

use quorate_foundations::name::Name;
use uuid::Uuid;

/// What every gid of ours begins with.
const PREFIX: &str = "quorate:";

/// Whose transactions they are: a coordinator on one timeline of its store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CoordinatorId(Uuid);

/// A transaction's name at its coordinator: under which takeover it was begun, and as the how manieth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TxnId {
    /// The takeover, counted from 1.
    pub takeover: u64,
    /// Its number under that takeover, counted from 1.
    pub number: u64,
}

/// A transaction's name everywhere: `quorate:<uuid>:<takeover>-<number>`. It is drawn anew for each attempt, and at most 84 bytes long.
///
/// # Example
/// ```
/// use quorate_consistency::two_phase_commit::Gid;
/// let gid: Gid = "quorate:0197f2a0-0000-7000-8000-000000000001:3-17".parse()?;
/// assert_eq!((gid.txn.takeover, gid.txn.number), (3, 17));
/// assert!("another:17".parse::<Gid>().is_err());
/// # Ok::<_, quorate_consistency::two_phase_commit::GidError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Gid {
    /// Whose it is.
    pub coordinator: CoordinatorId,
    /// Which one of that coordinator.
    pub txn: TxnId,
}

/// A text that is not the name of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GidError {
    /// Somebody else's, or none at all.
    #[error("a transaction of ours is called quorate:<uuid>:<takeover>-<number>")]
    Gid,
    /// No transaction of a coordinator.
    #[error("a transaction is called <takeover>-<number>, as in 3-17")]
    Txn,
    /// No coordinator.
    #[error("a coordinator is called by a UUID in lower case, with hyphens")]
    Coordinator,
}

impl CoordinatorId {
    pub(super) fn new(uuid: Uuid) -> Self {
        Self(uuid)
    }

    /// Its 16 bytes.
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// What the gids of its transactions begin with.
    pub fn prefix(&self) -> String {
        format!("{PREFIX}{}:", self.0)
    }
}

impl Gid {
    /// The stream that tells what became of it.
    pub fn stream(&self) -> Name {
        Name::new(format!("txn-{self}"))
            .unwrap_or_else(|_| unreachable!("a gid is short, and without control characters"))
    }

    /// The transaction that a stream of [`stream`](Self::stream) tells of.
    pub fn of_stream(stream: &str) -> Option<Self> {
        stream.strip_prefix("txn-")?.parse().ok()
    }
}

impl fmt::Display for CoordinatorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for TxnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.takeover, self.number)
    }
}

impl fmt::Display for Gid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}:{}", self.coordinator, self.txn)
    }
}

impl FromStr for CoordinatorId {
    type Err = GidError;

    fn from_str(text: &str) -> Result<Self, GidError> {
        let id = Uuid::try_parse(text).map(Self).map_err(|_| GidError::Coordinator)?;
        // One text for each: texts are compared by others.
        if id.to_string() == text { Ok(id) } else { Err(GidError::Coordinator) }
    }
}

impl FromStr for TxnId {
    type Err = GidError;

    fn from_str(text: &str) -> Result<Self, GidError> {
        // As large as what it is kept in.
        let number = |part: &str| part.parse().ok().filter(|number| (1..=i64::MAX as u64).contains(number));
        let (takeover, counted) = text.split_once('-').ok_or(GidError::Txn)?;
        let id = number(takeover).zip(number(counted)).map(|(takeover, number)| Self { takeover, number });
        id.filter(|id| id.to_string() == text).ok_or(GidError::Txn)
    }
}

impl FromStr for Gid {
    type Err = GidError;

    fn from_str(text: &str) -> Result<Self, GidError> {
        let (coordinator, txn) =
            text.strip_prefix(PREFIX).and_then(|rest| rest.split_once(':')).ok_or(GidError::Gid)?;
        match (coordinator.parse(), txn.parse()) {
            (Ok(coordinator), Ok(txn)) => Ok(Self { coordinator, txn }),
            _ => Err(GidError::Gid),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gid_is_read_as_it_is_written_and_in_no_other_form() {
        let text = "quorate:0197f2a0-0000-7000-8000-00000000000a:3-17";
        let gid: Gid = text.parse().unwrap();
        assert_eq!(gid.to_string(), text);
        assert_eq!(Gid::of_stream(gid.stream().as_str()), Some(gid));
        let longest = Gid { txn: TxnId { takeover: i64::MAX as u64, number: i64::MAX as u64 }, ..gid };
        assert_eq!((longest.to_string().len(), longest.to_string().parse()), (84, Ok(longest)));
        for other in [
            "",
            "quorate:",
            "other:0197f2a0-0000-7000-8000-00000000000a:3-17",
            "quorate:0197F2A0-0000-7000-8000-00000000000A:3-17",
            "quorate:0197f2a0000070008000-00000000000a:3-17",
            "quorate:0197f2a0-0000-7000-8000-00000000000a:3-017",
            "quorate:0197f2a0-0000-7000-8000-00000000000a:+3-17",
            "quorate:0197f2a0-0000-7000-8000-00000000000a:0-17",
            "quorate:0197f2a0-0000-7000-8000-00000000000a:3-17:1",
            "quorate:0197f2a0-0000-7000-8000-00000000000a:3",
            "quorate:0197f2a0-0000-7000-8000-00000000000a:3-9223372036854775808",
        ] {
            assert!(other.parse::<Gid>().is_err(), "{other}");
        }
    }
}
