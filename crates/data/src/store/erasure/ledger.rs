//! The erasure ledger: who was erased, and when, without saying who.

use std::fmt;

use quorate_foundations::time::Wall;
use serde::{Deserialize, Serialize};

use crate::event::Timestamp;

/// A data subject as the ledger and the keys know it: a hash of its name, salted with the store's id.
///
/// Whoever knows the store's id can try names; a name that is a pseudonym gives nothing away.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubjectHash([u8; 32]);

impl SubjectHash {
    /// The hash of `subject` in `store`.
    pub fn of(store: u64, subject: &str) -> Self {
        let salt = blake3::derive_key("quorate 2026 data subject: name", &store.to_le_bytes());
        Self(*blake3::keyed_hash(&salt, subject.as_bytes()).as_bytes())
    }

    /// From its 32 bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for SubjectHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for SubjectHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One entry of the ledger: every key of the subject up to `generation` is destroyed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Erasure {
    /// Who.
    pub subject: SubjectHash,
    /// The last generation of keys that is destroyed, counted from 1.
    pub generation: u32,
    /// When.
    pub erased_at: Wall,
}

/// An erasure and where it stands in the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its number, counted from 1 without a gap.
    pub number: u64,
    /// What it says.
    pub erasure: Erasure,
}

/// All erasures of a store, oldest first. To be exported after each, and given to a restore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ledger {
    /// The store's id.
    pub store: u64,
    /// The erasures.
    pub erasures: Vec<Erasure>,
}

/// Why a text is no ledger.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// It is not the JSON of a ledger.
    #[error("this is not an exported erasure ledger")]
    Malformed(#[source] serde_json::Error),
    /// The store's id is none.
    #[error("the `store` of the erasure ledger is no store's id")]
    Store,
    /// An entry says something that no ledger says.
    #[error("entry {index} of the erasure ledger has a wrong `{member}`")]
    Wrong {
        /// Which entry, counted from 0.
        index: usize,
        /// Its member.
        member: &'static str,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    store: StoreId,
    erasures: Vec<Line>,
}

/// Written as a text, since many readers of JSON round a number beyond 2^53; ledgers exported earlier have a number.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum StoreId {
    Text(String),
    Number(u64),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    subject: String,
    generation: u32,
    erased_at: String,
}

impl From<&Erasure> for Line {
    fn from(erasure: &Erasure) -> Self {
        Self {
            subject: erasure.subject.to_string(),
            generation: erasure.generation,
            erased_at: Timestamp::from(erasure.erased_at).as_str().to_owned(),
        }
    }
}

impl Erasure {
    /// As JSON on one line: one of the `erasures` of an exported [`Ledger`].
    pub fn to_json(&self) -> String {
        serde_json::to_string(&Line::from(self)).unwrap_or_else(|_| unreachable!("numbers and texts have a JSON form"))
    }
}

impl Ledger {
    /// As JSON, for keeping beside the backups.
    pub fn to_json(&self) -> String {
        let text = Text {
            store: StoreId::Text(self.store.to_string()),
            erasures: self.erasures.iter().map(Line::from).collect(),
        };
        serde_json::to_string_pretty(&text).unwrap_or_else(|_| unreachable!("numbers and texts have a JSON form"))
    }

    /// From what [`to_json`](Self::to_json) wrote.
    pub fn from_json(json: &str) -> Result<Self, LedgerError> {
        let text: Text = serde_json::from_str(json).map_err(LedgerError::Malformed)?;
        let erasures = text.erasures.into_iter().enumerate().map(|(index, entry)| {
            let wrong = |member| LedgerError::Wrong { index, member };
            let subject = blake3::Hash::from_hex(&entry.subject).map_err(|_| wrong("subject"))?;
            if entry.generation == 0 {
                return Err(wrong("generation"));
            }
            let erased_at = entry.erased_at.parse::<Timestamp>().map_err(|_| wrong("erased_at"))?.instant();
            Ok(Erasure { subject: SubjectHash(*subject.as_bytes()), generation: entry.generation, erased_at })
        });
        let store = match text.store {
            StoreId::Text(digits) => digits.parse().map_err(|_| LedgerError::Store)?,
            StoreId::Number(number) => number,
        };
        Ok(Self { store, erasures: erasures.collect::<Result<_, _>>()? })
    }
}

#[cfg(test)]
mod tests {
    use quorate_foundations::time::Wall;

    use super::{Erasure, Ledger, LedgerError, SubjectHash};

    fn ledger() -> Ledger {
        let erasure = |name: &str, generation| Erasure {
            subject: SubjectHash::of(17, name),
            generation,
            erased_at: Wall::from_unix_nanos(1_700_000_000_123_456_789),
        };
        Ledger { store: 17, erasures: vec![erasure("anna", 1), erasure("bert", 2)] }
    }

    #[test]
    fn an_exported_ledger_comes_back() {
        let json = ledger().to_json();
        assert_eq!(Ledger::from_json(&json).unwrap(), ledger());
        assert!(!json.contains("anna"));
        let lines: Vec<String> = ledger().erasures.iter().map(Erasure::to_json).collect();
        let by_line = format!("{{\"store\":17,\"erasures\":[{}]}}", lines.join(","));
        assert_eq!(Ledger::from_json(&by_line).unwrap(), ledger());
    }

    #[test]
    fn the_id_of_the_store_is_a_text_and_a_number_of_an_earlier_export_is_taken() {
        let large = Ledger { store: u64::MAX - 1, ..ledger() };
        let json = large.to_json();
        assert!(json.contains("\"store\": \"18446744073709551614\""), "{json}");
        assert_eq!(Ledger::from_json(&json).unwrap(), large);
        let number = json.replace("\"18446744073709551614\"", "18446744073709551614");
        assert_eq!(Ledger::from_json(&number).unwrap(), large);
        let other = json.replace("18446744073709551614", "x");
        assert!(matches!(Ledger::from_json(&other), Err(LedgerError::Store)));
    }

    #[test]
    fn the_same_name_has_another_hash_in_another_store() {
        assert_ne!(SubjectHash::of(1, "anna"), SubjectHash::of(2, "anna"));
    }

    #[test]
    fn what_is_no_ledger_is_refused() {
        assert!(matches!(Ledger::from_json("{}"), Err(LedgerError::Malformed(_))));
        let cases = [("\"generation\": 2", "\"generation\": 0", "generation"), ("2023-", "2023/", "erased_at")];
        for (good, bad, member) in cases {
            let wrong = Ledger::from_json(&ledger().to_json().replace(good, bad)).unwrap_err();
            assert!(matches!(wrong, LedgerError::Wrong { member: m, .. } if m == member), "{wrong:?}");
        }
        let json = ledger().to_json().replace(&SubjectHash::of(17, "bert").to_string(), "bert");
        assert!(matches!(Ledger::from_json(&json), Err(LedgerError::Wrong { index: 1, member: "subject" })));
    }
}
