//! Who takes part in transactions that the node coordinates, and how long it waits for them.

use std::{collections::BTreeSet, time::Duration};

use quorate_consistency::two_phase_commit::{self, PostgresConfig};
use quorate_data::store::postgres::Address;
use quorate_foundations::name::Name;
use serde::{Deserialize, Serialize};

use super::{ConfigError, Network, TransactionSettings};

/// A PostgreSQL database that takes part in transactions, as people write it: `[[participant]]` in `quorate.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct ParticipantSettings {
    /// Its name in transactions, and in what the server calls them: 1 to 64 letters, digits, `.`, `_` and `-`. Never changed while it holds
    /// something.
    pub name: String,
    /// The server, the database and the user: `postgres://user:password@host/database`, with `sslmode` and what belongs to it as libpq has
    /// them.
    pub address: String,
    /// Connections for work at most, and as many again for ending it. 1 to 1,000. Default 16.
    pub connections: usize,
    /// How long a statement may run, or wait for a lock. 1 ms to 24 h. Default 5 s.
    #[serde(with = "humantime_serde")]
    pub statement_timeout: Duration,
}

/// How the node coordinates transactions.
#[derive(Clone, Debug)]
pub struct TransactionConfig {
    /// Addresses at which participants may be although they are not public.
    pub targets: Vec<Network>,
    /// How long participants may take to vote.
    pub prepare_timeout: Duration,
    /// How long a participant may take for anything else before it is asked again.
    pub call_timeout: Duration,
    /// The databases that take part, in order of their names.
    pub databases: Vec<(Name, PostgresConfig)>,
}

/// The most databases that take part.
pub(crate) const MAX_PARTICIPANTS: usize = 64;
const MAX_CONNECTIONS: usize = 1_000;
const SPANS: (Duration, Duration) = (Duration::from_millis(1), two_phase_commit::Config::MAX_SPAN);

impl Default for ParticipantSettings {
    fn default() -> Self {
        Self { name: String::new(), address: String::new(), connections: 16, statement_timeout: Duration::from_secs(5) }
    }
}

impl TransactionConfig {
    pub(super) fn new(settings: TransactionSettings, all: Vec<ParticipantSettings>) -> Result<Self, ConfigError> {
        let TransactionSettings { allow: targets, prepare_timeout, call_timeout, .. } = settings;
        let spans = [("transactions.prepare-timeout", prepare_timeout), ("transactions.call-timeout", call_timeout)];
        let (least, most) = SPANS;
        if let Some((key, value)) = spans.into_iter().find(|(_, span)| !(least..=most).contains(span)) {
            return Err(ConfigError::OutOfRange { key, value, least, most });
        }
        Ok(Self { targets, prepare_timeout, call_timeout, databases: databases(all)? })
    }
}

fn databases(all: Vec<ParticipantSettings>) -> Result<Vec<(Name, PostgresConfig)>, ConfigError> {
    let wrong = |name: &str, what: String| ConfigError::Participant { name: name.to_owned(), what };
    if all.len() > MAX_PARTICIPANTS {
        let what = format!("there are {} participants, and a node has at most {MAX_PARTICIPANTS}", all.len());
        return Err(wrong("", what));
    }
    let (mut names, mut databases) = (BTreeSet::new(), Vec::with_capacity(all.len()));
    for settings in all {
        let ParticipantSettings { name, address, connections, statement_timeout } = settings;
        let is_plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        if !is_plain || name.is_empty() || name.len() > 64 {
            return Err(wrong(&name, "`name` is 1 to 64 letters, digits, `.`, `_` and `-`".to_owned()));
        }
        let address: Address = address.parse().map_err(|cause| wrong(&name, format!("`address`: {cause}")))?;
        if !(1..=MAX_CONNECTIONS).contains(&connections) {
            return Err(wrong(&name, format!("`connections` is 1 to {MAX_CONNECTIONS}, {connections} is not")));
        }
        let (least, most) = SPANS;
        if !(least..=most).contains(&statement_timeout) {
            let what = format!("`statement-timeout` is {least:?} to {most:?}, {statement_timeout:?} is not");
            return Err(wrong(&name, what));
        }
        let called = Name::new(&*name).map_err(|cause| wrong(&name, format!("`name`: {cause}")))?;
        if !names.insert(called.clone()) {
            return Err(wrong(&name, "there are two of this name".to_owned()));
        }
        let database = PostgresConfig { connections, statement_timeout, ..PostgresConfig::at(address, name) };
        databases.push((called, database));
    }
    databases.sort_by(|(one, _), (other, _)| one.cmp(other));
    Ok(databases)
}

#[cfg(test)]
mod tests {
    use crate::config::{Layers, TransactionConfig};

    fn file(text: &str) -> Result<TransactionConfig, String> {
        let layers = Layers::defaults().file("q.toml", text).map_err(|wrong| wrong.to_string())?;
        layers.config().map(|config| config.transactions).map_err(|wrong| wrong.to_string())
    }

    #[test]
    fn a_participant_is_read_from_a_file_and_what_is_wrong_with_it_is_named() {
        let good = "[[participant]]\nname = 'ledger'\naddress = 'postgres://ada:secret@db/books'";
        let config = file(&format!("{good}\nconnections = 4\nstatement-timeout = '2s'")).unwrap();
        let (name, database) = &config.databases[0];
        assert_eq!((name.as_str(), &*database.branch, database.connections), ("ledger", "ledger", 4));
        for (text, named) in [
            ("connections = 0", "`connections`"),
            ("statement-timeout = '0s'", "`statement-timeout`"),
            ("[[participant]]\nname = 'ledger'\naddress = 'postgres://ada@db/b'", "two of this name"),
            ("[[participant]]\nname = 'a:b'\naddress = 'postgres://ada@db/b'", "`name`"),
            ("[[participant]]\nname = 'c'\naddress = 'http://db'", "`address`"),
            ("[transactions]\nprepare-timeout = '0s'", "transactions.prepare-timeout"),
            ("[transactions]\ncall-timeout = '2days'", "transactions.call-timeout"),
        ] {
            let said = file(&format!("{good}\n{text}")).unwrap_err();
            assert!(said.contains(named) && !said.contains("secret"), "{said}");
        }
    }
}
