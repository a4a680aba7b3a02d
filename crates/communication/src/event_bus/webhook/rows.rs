//! The tables of webhooks, and their rows in and out.
//!
//! `revision` is the compare-and-set of what people change: whoever changes an endpoint writes `revision + 1` if the row still says
//! `revision`. What attempts say of the endpoint is written beside it, if nothing was forgiven (`forgiven`) since the revision that they
//! were made at: over another number of places it holds, over another address it does not.

use std::{collections::BTreeSet, time::Duration};

use quorate_data::{
    event::Position,
    store::{DynTx, RoomTables, Row, SqlError, Store, Value},
};
use quorate_foundations::{name::Name, time::Wall};

use super::{Attempt, Config, WebhookError, machine::Endpoint, secret::Keyring, service::Disabled};

/// The tables, by version.
pub(crate) const TABLES: RoomTables = RoomTables {
    room: "webhook",
    versions: &[
        "
        CREATE TABLE quorate_webhook (
            id BIGINT PRIMARY KEY,
            name TEXT NOT NULL UNIQUE,
            config TEXT NOT NULL,
            secrets TEXT NOT NULL,
            revision BIGINT NOT NULL,
            deleting BIGINT NOT NULL,
            disabled_ns BIGINT,
            disabled_why TEXT,
            failing_ns BIGINT,
            failing_ms BIGINT NOT NULL);
        CREATE TABLE quorate_webhook_attempt (
            webhook BIGINT NOT NULL,
            fence BIGINT NOT NULL,
            position BIGINT NOT NULL,
            message TEXT NOT NULL,
            kind TEXT NOT NULL,
            attempt BIGINT NOT NULL,
            began_ns BIGINT NOT NULL,
            took_us BIGINT NOT NULL,
            status BIGINT,
            outcome TEXT NOT NULL,
            PRIMARY KEY (webhook, fence))
    ",
        // Whether the node disabled it by itself, and until when it is left alone.
        "
        ALTER TABLE quorate_webhook ADD COLUMN automatic BIGINT;
        ALTER TABLE quorate_webhook ADD COLUMN paused_ns BIGINT
    ",
        // The revision that forgave last.
        "
        ALTER TABLE quorate_webhook ADD COLUMN forgiven BIGINT NOT NULL DEFAULT 0
    ",
    ],
};

/// Attempts that are kept of an endpoint, at least.
pub(super) const KEPT: u64 = 1_000;
/// The first of so many numbers to be written down has older ones forgotten.
pub(super) const STRIDE: u64 = 16;

const COLUMNS: &str =
    "id, name, config, secrets, revision, deleting, disabled_ns, disabled_why, failing_ns, failing_ms,
    automatic, paused_ns, forgiven";

/// An endpoint's row.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Head {
    pub(super) id: u64,
    pub(super) name: Name,
    pub(super) config: Config,
    pub(super) secrets: Keyring,
    pub(super) revision: u64,
    pub(super) is_deleting: bool,
    pub(super) disabled: Option<Disabled>,
    pub(super) failing: Option<(Wall, Duration)>,
    /// Until when it is left alone, as it asked for.
    pub(super) paused: Option<Wall>,
    /// The revision at which its failures, and what it asked for, were forgotten last: what was sent before says nothing about it.
    pub(super) forgiven: u64,
}

impl Head {
    /// A new one, which has no subscription yet.
    pub(super) fn new(id: u64, name: Name, config: Config, secrets: Keyring) -> Self {
        let (revision, forgiven, is_deleting) = (0, 0, false);
        Self { id, name, config, secrets, revision, is_deleting, disabled: None, failing: None, paused: None, forgiven }
    }

    /// The same, sent to again if it was the node that disabled it: it is called otherwise now.
    pub(super) fn given_another_chance(self) -> Self {
        Self { disabled: self.disabled.filter(|disabled| !disabled.is_automatic), ..self }
    }

    pub(super) fn endpoint(&self) -> Endpoint {
        Endpoint::restored(self.failing)
    }

    /// What its subscription is called.
    ///
    /// It names the row as well, so that nobody takes it for that of another webhook of the name, before or after this one.
    pub(super) fn subscription(&self) -> Result<Name, WebhookError> {
        let too_long = |_| WebhookError::Invalid { what: "a webhook's name has at most 480 bytes".to_owned() };
        Name::new(format!("{PREFIX}{}:{:016x}", self.name, self.id)).map_err(too_long)
    }
}

/// What the names of webhooks' subscriptions begin with.
pub(super) const PREFIX: &str = super::super::WEBHOOK_PREFIX;

/// The row that a subscription of this name belongs to, if it is one of a webhook's.
pub(super) fn row_of(subscription: &Name) -> Option<u64> {
    let (_, id) = subscription.as_str().strip_prefix(PREFIX)?.rsplit_once(':')?;
    if id.len() == 16 { u64::from_str_radix(id, 16).ok() } else { None }
}

/// Inserts an endpoint; false if there is one of its name.
pub(super) async fn insert(tx: &mut DynTx, head: &Head) -> Result<bool, SqlError> {
    let sql = "INSERT INTO quorate_webhook (id, name, config, secrets, revision, deleting, failing_ms)
        VALUES ($1, $2, $3, $4, $5, 0, 0) ON CONFLICT (name) DO NOTHING";
    let params = [
        number(head.id),
        Value::from(&head.name),
        head.config.to_json().into(),
        secrets(&head.secrets),
        number(head.revision),
    ];
    tx.room_execute(sql, &params).await.map(|rows| rows > 0)
}

/// Writes what people change of an endpoint, if its row still is of the revision before; whether it was.
pub(super) async fn update(tx: &mut DynTx, head: &Head) -> Result<bool, SqlError> {
    let sql = "UPDATE quorate_webhook SET config = $3, secrets = $4, revision = $5, deleting = $6, disabled_ns = $7,
        disabled_why = $8, automatic = $9 WHERE id = $1 AND revision = $2";
    let params = [
        number(head.id),
        number(head.revision - 1),
        head.config.to_json().into(),
        secrets(&head.secrets),
        number(head.revision),
        head.is_deleting.into(),
        head.disabled.as_ref().map(|disabled| disabled.since.unix_nanos()).into(),
        head.disabled.as_ref().map(|disabled| disabled.why.clone()).into(),
        head.disabled.as_ref().map(|disabled| i64::from(disabled.is_automatic)).into(),
    ];
    tx.room_execute(sql, &params).await.map(|rows| rows > 0)
}

/// Deletes up to `limit` attempts of an endpoint; how many there were.
pub(super) async fn delete_attempts(tx: &mut DynTx, id: u64, limit: u32) -> Result<u64, SqlError> {
    let sql = "DELETE FROM quorate_webhook_attempt WHERE webhook = $1 AND fence IN
        (SELECT fence FROM quorate_webhook_attempt WHERE webhook = $1 ORDER BY fence LIMIT $2)";
    tx.room_execute(sql, &[number(id), limit.into()]).await
}

/// Deletes an endpoint's row.
pub(super) async fn delete(tx: &mut DynTx, id: u64) -> Result<(), SqlError> {
    tx.room_execute("DELETE FROM quorate_webhook WHERE id = $1", &[number(id)]).await.map(drop)
}

/// How many endpoints there are.
pub(super) async fn count(tx: &mut DynTx) -> Result<usize, SqlError> {
    let rows = tx.room_query("SELECT count(*) FROM quorate_webhook", &[]).await?;
    Ok(rows.first().and_then(|row| row.at(0).as_i64()).and_then(|n| usize::try_from(n).ok()).unwrap_or(0))
}

/// The endpoint of that name.
pub(super) async fn find(store: &Store, name: &Name) -> Result<Option<Head>, WebhookError> {
    let sql = format!("SELECT {COLUMNS} FROM quorate_webhook WHERE name = $1");
    store.room_query(&sql, vec![name.into()]).await?.first().map(head).transpose()
}

/// Endpoints in order of their names, those whose rows cannot be read left out.
pub(super) async fn list(store: &Store, after: Option<&Name>, limit: u32) -> Result<Vec<Head>, WebhookError> {
    let sql = format!("SELECT {COLUMNS} FROM quorate_webhook WHERE name > $1 ORDER BY name LIMIT $2");
    let rows = store.room_query(&sql, vec![after.map_or("", Name::as_str).into(), limit.into()]).await?;
    Ok(readable(&rows))
}

/// All endpoints whose rows can be read; of others it says so in the log.
pub(super) async fn all(store: &Store) -> Result<Vec<Head>, WebhookError> {
    let sql = format!("SELECT {COLUMNS} FROM quorate_webhook ORDER BY name");
    Ok(readable(&store.room_query(&sql, Vec::new()).await?))
}

fn readable(rows: &[Row]) -> Vec<Head> {
    let read = |row: &Row| {
        let head = head(row);
        head.inspect_err(|cause| tracing::error!(webhook = ?row.at(1), %cause, "a webhook cannot be read")).ok()
    };
    rows.iter().filter_map(read).collect()
}

/// The numbers of all endpoints, also of those whose rows cannot be read otherwise.
pub(super) async fn ids(store: &Store) -> Result<BTreeSet<u64>, WebhookError> {
    let rows = store.room_query("SELECT id FROM quorate_webhook", Vec::new()).await?;
    rows.iter().map(|row| unsigned(row, 0)).collect()
}

/// Writes down that an endpoint has been failing since, and for how long so far, if nothing was forgiven since `revision`: what one failed
/// at that was called otherwise says nothing about it.
pub(super) async fn failing(
    tx: &mut DynTx,
    (id, revision): (u64, u64),
    since: Wall,
    so_far: Duration,
) -> Result<(), SqlError> {
    // Others see the same failures: what the longest of them saw holds.
    let sql = "UPDATE quorate_webhook SET failing_ns = $3, failing_ms = $4
        WHERE id = $1 AND forgiven <= $2 AND (failing_ns IS NULL OR failing_ms < $4)";
    let params = [number(id), number(revision), since.unix_nanos().into(), millis(so_far)];
    tx.room_execute(sql, &params).await.map(drop)
}

/// Writes down until when an endpoint is to be left alone, if nothing was forgiven since `revision`.
pub(super) async fn pause(tx: &mut DynTx, (id, revision): (u64, u64), until: Wall) -> Result<(), SqlError> {
    let sql = "UPDATE quorate_webhook SET paused_ns = $3
        WHERE id = $1 AND forgiven <= $2 AND (paused_ns IS NULL OR paused_ns < $3)";
    tx.room_execute(sql, &[number(id), number(revision), until.unix_nanos().into()]).await.map(drop)
}

/// Forgets how an endpoint failed and what it asked for, from `revision` on.
pub(super) async fn forgive(tx: &mut DynTx, (id, revision): (u64, u64)) -> Result<(), SqlError> {
    let sql =
        "UPDATE quorate_webhook SET failing_ns = NULL, failing_ms = 0, paused_ns = NULL, forgiven = $2 WHERE id = $1";
    tx.room_execute(sql, &[number(id), number(revision)]).await.map(drop)
}

/// Writes down that an endpoint has taken something again, if nothing was forgiven since `revision`: what another address took says
/// nothing about it.
pub(super) async fn recovered(tx: &mut DynTx, (id, revision): (u64, u64)) -> Result<(), SqlError> {
    let sql = "UPDATE quorate_webhook SET failing_ns = NULL, failing_ms = 0
        WHERE id = $1 AND forgiven <= $2 AND failing_ns IS NOT NULL";
    tx.room_execute(sql, &[number(id), number(revision)]).await.map(drop)
}

/// Whether an endpoint has taken something since it began to fail, as far as its list of attempts goes; never where it is not failing.
pub(super) async fn has_taken_since(tx: &mut DynTx, id: u64, failing: Option<Wall>) -> Result<bool, SqlError> {
    let Some(since) = failing else { return Ok(false) };
    let sql = "SELECT 1 FROM quorate_webhook_attempt
        WHERE webhook = $1 AND began_ns >= $2 AND status BETWEEN 200 AND 299 LIMIT 1";
    Ok(!tx.room_query(sql, &[number(id), since.unix_nanos().into()]).await?.is_empty())
}

/// Disables an endpoint of which nothing was forgiven since `revision`, and that is not disabled; whether it was. What was judged `by_rules`
/// counts only while they are those of that revision.
pub(super) async fn disable(
    tx: &mut DynTx,
    (id, revision): (u64, u64),
    by_rules: bool,
    disabled: &Disabled,
) -> Result<bool, SqlError> {
    let sql = "UPDATE quorate_webhook SET disabled_ns = $3, disabled_why = $4, automatic = $5, revision = revision + 1
        WHERE id = $1 AND forgiven <= $2 AND (revision = $2 OR $6 = 0) AND disabled_ns IS NULL AND deleting = 0";
    let (since, why) = (disabled.since.unix_nanos().into(), disabled.why.clone().into());
    let (automatic, by_rules) = (i64::from(disabled.is_automatic).into(), i64::from(by_rules).into());
    let params = [number(id), number(revision), since, why, automatic, by_rules];
    tx.room_execute(sql, &params).await.map(|rows| rows > 0)
}

/// Writes an attempt down, and forgets what is too old for the list; false if the endpoint is gone.
pub(super) async fn record(tx: &mut DynTx, id: u64, attempt: &Attempt) -> Result<bool, SqlError> {
    let there = "SELECT 1 FROM quorate_webhook WHERE id = $1 AND deleting = 0";
    if tx.room_query(there, &[number(id)]).await?.is_empty() {
        return Ok(false);
    }
    let is_first = is_first_of_its_stride(tx, id, attempt.number).await?;
    let sql = "INSERT INTO quorate_webhook_attempt
        (webhook, fence, position, message, kind, attempt, began_ns, took_us, status, outcome)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT (webhook, fence) DO NOTHING";
    let params = [
        number(id),
        number(attempt.number),
        number(attempt.position.get()),
        attempt.message.as_str().into(),
        attempt.kind.as_str().into(),
        attempt.attempt.into(),
        attempt.began.unix_nanos().into(),
        i64::try_from(attempt.took.as_micros()).unwrap_or(i64::MAX).into(),
        attempt.status.map(i32::from).into(),
        attempt.outcome.as_str().into(),
    ];
    tx.room_execute(sql, &params).await?;
    // Numbers have gaps, so the rows are counted; now and then, since that looks at all that are kept.
    if is_first {
        let sql = "DELETE FROM quorate_webhook_attempt WHERE webhook = $1 AND fence <=
            (SELECT fence FROM quorate_webhook_attempt WHERE webhook = $1 ORDER BY fence DESC LIMIT 1 OFFSET $2)";
        tx.room_execute(sql, &[number(id), number(KEPT)]).await?;
    }
    Ok(true)
}

/// Whether no attempt is written down whose number lies between the same two multiples of the stride: however wide the gaps between
/// numbers are, of at most so many in a row one is the first.
async fn is_first_of_its_stride(tx: &mut DynTx, id: u64, of: u64) -> Result<bool, SqlError> {
    let from = of - of % STRIDE;
    let sql = "SELECT 1 FROM quorate_webhook_attempt WHERE webhook = $1 AND fence >= $2 AND fence < $3 LIMIT 1";
    Ok(tx.room_query(sql, &[number(id), number(from), number(from + STRIDE)]).await?.is_empty())
}

/// Attempts, the newest first: `limit` of those before the one with the number `before`.
pub(super) async fn attempts(store: &Store, id: u64, before: u64, limit: u32) -> Result<Vec<Attempt>, WebhookError> {
    let sql = "SELECT fence, position, message, kind, attempt, began_ns, took_us, status, outcome
        FROM quorate_webhook_attempt WHERE webhook = $1 AND fence < $2 ORDER BY fence DESC LIMIT $3";
    let before = before.min(i64::MAX.unsigned_abs());
    let rows = store.room_query(sql, vec![number(id), number(before), limit.into()]).await?;
    rows.iter().map(attempt).collect()
}

fn head(row: &Row) -> Result<Head, WebhookError> {
    let name = Name::new(text(row, 1)?).map_err(WebhookError::corrupt)?;
    let disabled = row.at(6).as_i64().map(|since| Disabled {
        since: Wall::from_unix_nanos(since),
        why: row.at(7).as_str().unwrap_or_default().to_owned(),
        // One of an earlier build does not say: then a person did it.
        is_automatic: row.at(10).as_i64() == Some(1),
    });
    let failing = row.at(8).as_i64().map(Wall::from_unix_nanos);
    Ok(Head {
        id: unsigned(row, 0)?,
        name,
        config: Config::from_json(text(row, 2)?).map_err(WebhookError::corrupt)?,
        secrets: serde_json::from_str(text(row, 3)?)
            .map_err(|_| WebhookError::corrupt("its secrets cannot be read"))?,
        revision: unsigned(row, 4)?,
        is_deleting: integer(row, 5)? != 0,
        disabled,
        failing: failing
            .map(|since| Ok::<_, WebhookError>((since, Duration::from_millis(unsigned(row, 9)?))))
            .transpose()?,
        paused: row.at(11).as_i64().map(Wall::from_unix_nanos),
        forgiven: unsigned(row, 12)?,
    })
}

fn attempt(row: &Row) -> Result<Attempt, WebhookError> {
    let narrow = |_| WebhookError::corrupt("a number of an attempt is too large");
    Ok(Attempt {
        number: unsigned(row, 0)?,
        position: Position::new(unsigned(row, 1)?),
        message: text(row, 2)?.to_owned(),
        kind: text(row, 3)?.to_owned(),
        attempt: u32::try_from(unsigned(row, 4)?).map_err(narrow)?,
        began: Wall::from_unix_nanos(integer(row, 5)?),
        took: Duration::from_micros(unsigned(row, 6)?),
        status: row.at(7).as_i64().map(u16::try_from).transpose().map_err(narrow)?,
        outcome: text(row, 8)?.to_owned(),
    })
}

fn secrets(ring: &Keyring) -> Value {
    serde_json::to_string(ring).unwrap_or_else(|_| unreachable!("secrets have a JSON form")).into()
}

fn number(n: u64) -> Value {
    Value::Integer(n.cast_signed())
}

fn millis(span: Duration) -> Value {
    Value::Integer(i64::try_from(span.as_millis()).unwrap_or(i64::MAX))
}

fn integer(row: &Row, n: usize) -> Result<i64, WebhookError> {
    row.at(n).as_i64().ok_or_else(|| WebhookError::corrupt(format!("column {n} is no number")))
}

fn unsigned(row: &Row, n: usize) -> Result<u64, WebhookError> {
    integer(row, n).map(i64::cast_unsigned)
}

fn text(row: &Row, n: usize) -> Result<&str, WebhookError> {
    row.at(n).as_str().ok_or_else(|| WebhookError::corrupt(format!("column {n} is no text")))
}
