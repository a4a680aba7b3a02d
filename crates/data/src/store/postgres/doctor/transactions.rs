//! Whose transactions hold something up, and what they hold.

use std::collections::{BTreeMap, BTreeSet};

use tokio_postgres::types::Type;

use super::{Patient, Severity};
use crate::store::postgres::{fault::Fault, words};

/// What the names of transactions of two-phase commit begin with.
const COORDINATED: &str = "quorate:";

/// Locks named in one finding at most.
const NAMED: usize = 8;

/// What one transaction has locked.
#[derive(Default)]
struct Held {
    /// Tables of this database, with the lock's mode.
    tables: Vec<String>,
    /// Whether one of them is the store's.
    is_ours: bool,
    /// Advisory locks of this database.
    advisory: usize,
    is_sequencing: bool,
    /// Locks in other databases, which cannot be named from here.
    elsewhere: usize,
}

impl Held {
    /// As the end of a sentence.
    fn told(&self) -> String {
        let mut told: Vec<String> = self.tables.iter().take(NAMED).cloned().collect();
        if self.tables.len() > NAMED {
            told.push(format!("{} more tables", self.tables.len() - NAMED));
        }
        if self.is_sequencing {
            told.push("the sequencer's lock, so that nobody gives positions".to_owned());
        }
        if self.advisory > 0 {
            told.push(format!("{} advisory locks, for which appends may wait", self.advisory));
        }
        if self.elsewhere > 0 {
            told.push(format!("{} locks in its database", self.elsewhere));
        }
        if told.is_empty() { "no lock on a table".to_owned() } else { told.join(", ") }
    }

    fn severity(&self) -> Severity {
        if self.is_ours || self.is_sequencing || self.advisory > 0 { Severity::Danger } else { Severity::Warning }
    }
}

impl Patient {
    /// Sessions, prepared transactions and replication slots. `store`: the store's number, if there is one.
    pub(super) async fn transactions(&mut self, store: Option<u64>) -> Result<(), Fault> {
        let held = self.held(store).await?;
        self.sessions(&held).await?;
        let decided = match store {
            Some(_) => {
                let looked = self.decided().await;
                self.unless_locked(looked).await?.unwrap_or_default()
            }
            None => BTreeSet::new(),
        };
        self.prepared(&held, &decided).await?;
        self.slots().await
    }

    /// What transactions hold, by their virtual number, which prepared ones have too.
    async fn held(&self, store: Option<u64>) -> Result<BTreeMap<String, Held>, Fault> {
        const LOOK: &str = "SELECT l.virtualtransaction, l.locktype, l.database = d.oid, n.nspname || '.' || c.relname,
                n.nspname = $1, l.mode, (l.classid::bigint << 32) | l.objid::bigint, l.objsubid = 1
            FROM pg_locks l JOIN pg_database d ON d.datname = current_database()
            LEFT JOIN pg_class c ON l.locktype = 'relation' AND l.database = d.oid AND c.oid = l.relation
            LEFT JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE l.granted AND l.pid IS DISTINCT FROM pg_backend_pid()
              AND (l.locktype = 'advisory' OR l.locktype = 'relation' AND l.database <> 0
                   AND (c.oid IS NULL OR c.relkind IN ('r', 'p', 'm', 'f') AND n.nspname NOT IN ('pg_catalog', 'pg_toast')))
            ORDER BY 4, l.mode";
        let sequencing = store.map(words::sequencing);
        let mut held: BTreeMap<String, Held> = BTreeMap::new();
        for row in self.client.query_typed(LOOK, &[(&self.schema, Type::TEXT)]).await? {
            let held = held.entry(row.try_get(0)?).or_default();
            let (kind, is_here): (&str, Option<bool>) = (row.try_get(1)?, row.try_get(2)?);
            let table: Option<&str> = row.try_get(3)?;
            match (kind, is_here, table) {
                ("advisory", Some(true), _) => {
                    let (number, is_one): (Option<i64>, Option<bool>) = (row.try_get(6)?, row.try_get(7)?);
                    if is_one == Some(true) && number.is_some() && number == sequencing {
                        held.is_sequencing = true;
                    } else {
                        held.advisory += 1;
                    }
                }
                ("relation", Some(true), Some(table)) => {
                    let mode: &str = row.try_get(5)?;
                    held.is_ours |= row.try_get::<_, Option<bool>>(4)? == Some(true) && mode != "AccessShareLock";
                    held.tables.push(format!("{} on {table}", mode.trim_end_matches("Lock")));
                }
                (_, Some(true), _) => {}
                _ => held.elsewhere += 1,
            }
        }
        Ok(held)
    }

    /// Who holds the sequencer's lock, or holds up whoever does, and how to end that.
    pub(super) async fn sequencing(&self, store: u64) -> Result<Option<String>, Fault> {
        const LOOK: &str = "SELECT l.pid, x.gid, (pg_blocking_pids(l.pid))[1] FROM pg_locks l
            LEFT JOIN pg_locks own ON l.pid IS NULL AND own.virtualtransaction = l.virtualtransaction
                AND own.locktype = 'transactionid' AND own.granted
            LEFT JOIN pg_prepared_xacts x ON x.transaction = own.transactionid
            WHERE l.granted AND l.locktype = 'advisory' AND l.objsubid = 1
              AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
              AND (l.classid::bigint << 32) | l.objid::bigint = $1";
        let row = self.client.query_typed_opt(LOOK, &[(&words::sequencing(store), Type::INT8)]).await?;
        let Some(row) = row else { return Ok(None) };
        let (pid, gid, blocking): (Option<i32>, Option<&str>, Option<i32>) =
            (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        let end = |pid: i32| format!("end it with SELECT pg_terminate_backend({pid})");
        Ok(Some(match (pid, gid, blocking) {
            // That is how the server names a prepared transaction that somebody waits for.
            (Some(_), _, Some(0)) => {
                "a prepared transaction holds the sequencer up: another finding names it".to_owned()
            }
            (Some(_), _, Some(other)) => format!("session {other} holds the sequencer up: {}", end(other)),
            (Some(pid), _, None) => format!("session {pid} holds the sequencer's lock: {}", end(pid)),
            (None, Some(gid), _) => format!("prepared transaction {} holds the sequencer's lock: end it", literal(gid)),
            (None, None, _) => "a prepared transaction holds the sequencer's lock: another finding names it".to_owned(),
        }))
    }

    async fn sessions(&mut self, held: &BTreeMap<String, Held>) -> Result<(), Fault> {
        const LOOK: &str = "SELECT a.pid, coalesce(a.usename, '?'), coalesce(a.application_name, ''),
                coalesce(host(a.client_addr), 'a local socket'), coalesce(a.state, '?'),
                extract(epoch FROM clock_timestamp() - a.xact_start)::float8, a.backend_xmin IS NOT NULL OR a.backend_xid IS NOT NULL,
                (SELECT l.virtualtransaction FROM pg_locks l WHERE l.pid = a.pid AND l.locktype = 'virtualxid' LIMIT 1)
            FROM pg_stat_activity a
            WHERE a.datname = current_database() AND a.pid <> pg_backend_pid() AND a.backend_type = 'client backend'
              AND a.xact_start <= clock_timestamp() - $1 * interval '1 second'
            ORDER BY a.xact_start";
        let old = self.thresholds.old.as_secs_f64();
        for row in self.client.query_typed(LOOK, &[(&old, Type::FLOAT8)]).await? {
            let (pid, user, application): (i32, &str, &str) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
            let (from, state, seconds): (&str, &str, f64) = (row.try_get(3)?, row.try_get(4)?, row.try_get(5)?);
            let number: Option<&str> = row.try_get(7)?;
            let nothing = Held::default();
            let held = number.and_then(|number| held.get(number)).unwrap_or(&nothing);
            let pins = if row.try_get(6)? { "pins xmin, so that vacuum leaves what died since; it " } else { "" };
            let what = format!(
                "session {pid} of user `{user}` (application `{application}`, from {from}) has had a transaction open for \
                 {seconds:.0} s, {state}: it {pins}holds {}",
                held.told()
            );
            let end = if state == "active" { "pg_cancel_backend" } else { "pg_terminate_backend" };
            let advice = format!(
                "if nobody needs it: SELECT {end}({pid}); idle_in_transaction_session_timeout ends such sessions by itself"
            );
            self.find(held.severity(), "session", what, advice);
        }
        Ok(())
    }

    /// Prepared transactions of coordinators of two-phase commit that this store's log says are to be committed.
    async fn decided(&self) -> Result<BTreeSet<String>, Fault> {
        let look = format!(
            "SELECT s.name FROM {0}.stream s JOIN {0}.event e ON e.stream = s.id AND e.kind = 'quorate.txn.decided'
             WHERE s.name IN (SELECT 'txn-' || split_part(x.gid, ':', 1) || ':' || split_part(x.gid, ':', 2) || ':'
                || split_part(x.gid, ':', 3) FROM pg_prepared_xacts x WHERE starts_with(x.gid, $1))",
            self.schema
        );
        let rows = self.client.query_typed(&look, &[(&COORDINATED, Type::TEXT)]).await?;
        Ok(rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?)
    }

    async fn prepared(&mut self, held: &BTreeMap<String, Held>, decided: &BTreeSet<String>) -> Result<(), Fault> {
        const LOOK: &str = "SELECT x.gid, x.owner::text, x.database::text, x.database = current_database(),
                extract(epoch FROM clock_timestamp() - x.prepared)::float8,
                (SELECT l.virtualtransaction FROM pg_locks l WHERE l.locktype = 'transactionid'
                    AND l.transactionid = x.transaction AND l.granted AND l.pid IS NULL LIMIT 1)
            FROM pg_prepared_xacts x WHERE x.prepared <= clock_timestamp() - $1 * interval '1 second' ORDER BY x.prepared";
        let old = self.thresholds.old.as_secs_f64();
        for row in self.client.query_typed(LOOK, &[(&old, Type::FLOAT8)]).await? {
            let (gid, owner, database): (&str, &str, &str) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
            let (is_here, seconds): (bool, f64) = (row.try_get(3)?, row.try_get(4)?);
            let number: Option<&str> = row.try_get(5)?;
            let nothing = Held::default();
            let held = number.and_then(|number| held.get(number)).unwrap_or(&nothing);
            let pins = match is_here {
                true => "it pins xmin, so that vacuum leaves what died since",
                false => {
                    "no event of this store waits for it, but whoever reads behind the server's oldest transaction does"
                }
            };
            let stream = coordinated(gid);
            let gid = literal(gid);
            let what = format!(
                "transaction {gid} of `{owner}` in database `{database}` has been prepared for {seconds:.0} s: {pins}; it holds {} \
                 until it is ended, also across restarts",
                held.told()
            );
            let advice = match stream {
                Some(stream) if decided.contains(&stream) => format!(
                    "a coordinator of quorate decided to commit it (stream `{stream}` of this store), and does so as soon as it runs and \
                     reaches `{database}`; only if it never will, connected to `{database}`: COMMIT PREPARED {gid}"
                ),
                Some(stream) => format!(
                    "a coordinator of quorate prepared it, and ends it as soon as it runs and reaches `{database}`: nothing in this \
                     store says that it was decided. Only if it never will: COMMIT PREPARED {gid} where stream `{stream}` of the \
                     coordinator's store has a decision, ROLLBACK PREPARED {gid} where it has none"
                ),
                None => format!(
                    "ask whoever coordinates it; connected to `{database}`: COMMIT PREPARED {gid} if the others committed, \
                     ROLLBACK PREPARED {gid} if not"
                ),
            };
            self.find(held.severity(), "prepared-transaction", what, advice);
        }
        Ok(())
    }

    async fn slots(&mut self) -> Result<(), Fault> {
        const LOOK: &str = "SELECT slot_name::text, xmin IS NOT NULL OR catalog_xmin IS NOT NULL,
                coalesce(pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
                    ELSE pg_current_wal_lsn() END, restart_lsn), 0)::bigint
            FROM pg_replication_slots
            WHERE NOT active AND (xmin IS NOT NULL OR catalog_xmin IS NOT NULL OR restart_lsn IS NOT NULL)";
        for row in self.client.query_typed(LOOK, &[]).await? {
            let (name, pins, kept): (&str, bool, i64) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
            let pins = if pins { "pins xmin and " } else { "" };
            let what = format!(
                "nobody reads from replication slot `{name}`: it {pins}keeps {} MiB of the write-ahead log, until the disk is full",
                kept.max(0) >> 20
            );
            let advice = format!(
                "start its standby or consumer again, or give it up: SELECT pg_drop_replication_slot({})",
                literal(name)
            );
            self.warn("replication-slot", what, advice);
        }
        Ok(())
    }
}

/// The stream that a coordinator of two-phase commit decides in, where it is one's transaction: `quorate:<uuid>:<txn>:<branch>`.
fn coordinated(gid: &str) -> Option<String> {
    let parts: Vec<&str> = gid.strip_prefix(COORDINATED)?.splitn(3, ':').collect();
    let [coordinator, transaction, _] = parts[..] else { return None };
    Some(format!("txn-{COORDINATED}{coordinator}:{transaction}"))
}

/// A text as SQL writes it.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
