//! Checking every stored byte. The log is read in order; of streams, a bounded number is remembered at a time: see
//! [`chains`](crate::store::chains).

use bytes::Bytes;
use tokio_postgres::{Client, Row, types::Type};

use super::{backend::Shared, fault::Fault, metadata, statements::Statements};
use crate::{
    event::{Position, Recorded},
    store::{
        Progress, StoreError, Verified,
        chains::{Chains, MOST},
        shape::identity,
    },
};

/// Rows that are looked at together.
const PAGE: i64 = 2_000;

/// What of an event is looked at, but for its position.
const EVENT: &str =
    "e.id, e.stream, e.version, e.key, e.kind, e.category, array_to_string(e.tags, ' '), e.body, s.name";

/// Checks positions, bytes, chains, and what is derived of them, as of one moment.
pub(super) async fn run(shared: &Shared, client: &Client, progress: &Progress) -> Result<Verified, StoreError> {
    // What is committed has a position in the snapshot that follows.
    let _late = shared.env.timeout(shared.patience, shared.sequencer.catch_up()).await;
    let checked = check(&shared.sql, client, progress).await;
    checked.map_err(|fault| fault.into_store("verifying"))
}

/// The same of a store that nobody need have open.
pub(super) async fn check(sql: &Statements, client: &Client, progress: &Progress) -> Result<Verified, Fault> {
    let s = &sql.schema;
    client.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    let row = client.query_typed_opt(&sql.end, &[]).await?;
    let end: i64 = row.map_or(Ok(0), |row| row.try_get(0))?;
    let newest = client.query_typed(&format!("SELECT coalesce(max(id), 0) FROM {s}.stream"), &[]).await?;
    let newest: i64 = newest.first().map_or(Ok(0), |row| row.try_get(0))?;
    let chains = Chains::new(MOST, newest.cast_unsigned());
    let mut check = Check { client, schema: s, found: Verified::default(), chains, again: false };
    loop {
        check.log(end, progress).await?;
        check.pending().await?;
        check.streams().await?;
        if !check.chains.next_pass() {
            break;
        }
        check.again = true;
    }
    check.lost().await?;
    check.metadata().await?;
    client.batch_execute("COMMIT").await?;
    Ok(check.found)
}

struct Check<'c> {
    client: &'c Client,
    schema: &'c str,
    found: Verified,
    chains: Chains,
    /// What is read for the rest of the streams was looked at before, but for their chains.
    again: bool,
}

impl Check<'_> {
    async fn log(&mut self, end: i64, progress: &Progress) -> Result<(), Fault> {
        let s = self.schema;
        // For the rest of the streams, only what is of them.
        let of_streams = if self.again { "AND e.stream BETWEEN $3 AND $4" } else { "AND $3 <= $4" };
        let events = format!(
            "SELECT l.position, {EVENT} FROM {s}.log l LEFT JOIN {s}.event e ON e.id = l.event
             LEFT JOIN {s}.stream s ON s.id = e.stream WHERE l.position > $1 {of_streams} ORDER BY l.position LIMIT $2"
        );
        let mut position = 0_i64;
        loop {
            let (from, to) = self.interval();
            let params = [&position, &PAGE, &from, &to].map(|number| (number as _, Type::INT8));
            let rows = self.client.query_typed(&events, &params).await?;
            for row in &rows {
                let at: i64 = row.try_get(0)?;
                if at != position + 1 && !self.again {
                    self.found.find(format!("{s}.log"), format!("position {at} follows {position}"));
                }
                position = at;
                self.found.events += u64::from(!self.again);
                self.event(row)?;
            }
            let (done, of) = (position.cast_unsigned(), end.cast_unsigned());
            progress(self.chains.progress(done, of), of);
            if rows.len() < usize::try_from(PAGE).unwrap_or(usize::MAX) {
                return Ok(());
            }
        }
    }

    /// The streams that this pass remembers.
    fn interval(&self) -> (i64, i64) {
        let (from, to) = self.chains.interval();
        (from.cast_signed(), to.cast_signed())
    }

    /// Events that are committed and have no position in this snapshot: they go on where the log ends.
    async fn pending(&mut self) -> Result<(), Fault> {
        let s = self.schema;
        let waiting = format!(
            "SELECT NULL::bigint, {EVENT} FROM {s}.pending p LEFT JOIN {s}.event e ON e.id = p.event
             LEFT JOIN {s}.stream s ON s.id = e.stream ORDER BY p.event"
        );
        for row in self.client.query_typed(&waiting, &[]).await? {
            self.event(&row)?;
        }
        Ok(())
    }

    /// Rows of streams against the log.
    async fn streams(&mut self) -> Result<(), Fault> {
        let s = self.schema;
        let (from, to) = self.interval();
        let rows =
            format!("SELECT id, name, version, hash FROM {s}.stream WHERE id > $1 AND id <= $2 ORDER BY id LIMIT $3");
        let mut last = from - 1;
        loop {
            let params = [&last, &to, &PAGE].map(|number| (number as _, Type::INT8));
            let page = self.client.query_typed(&rows, &params).await?;
            for row in &page {
                last = row.try_get(0)?;
                self.found.streams += 1;
                let (version, hash): (i64, &[u8]) = (row.try_get(2)?, row.try_get(3)?);
                let chain = self.chains.get((last.cast_unsigned(), 0));
                let (ends, link) = chain.map_or((0, [0; 32]), |chain| (chain.version, *chain.hash.as_bytes()));
                if (ends, &link[..]) != (version.cast_unsigned(), hash) {
                    let what = format!("it says version {version}, its events end at {ends}, or with another hash");
                    self.found.find(format!("{s}.stream, row `{}`", row.try_get::<_, &str>(1)?), what);
                }
            }
            if page.len() < usize::try_from(PAGE).unwrap_or(usize::MAX) {
                return Ok(());
            }
        }
    }

    async fn lost(&mut self) -> Result<(), Fault> {
        let s = self.schema;
        let lost = format!(
            "SELECT e.id FROM {s}.event e WHERE NOT EXISTS (SELECT FROM {s}.log l WHERE l.event = e.id)
             AND NOT EXISTS (SELECT FROM {s}.pending p WHERE p.event = e.id) LIMIT 10"
        );
        for row in self.client.query_typed(&lost, &[]).await? {
            let id: i64 = row.try_get(0)?;
            self.found.find(format!("{s}.event, row {id}"), "it has no position, and waits for none");
        }
        Ok(())
    }

    /// Rows of metadata against how often they were set.
    async fn metadata(&mut self) -> Result<(), Fault> {
        let s = self.schema;
        let rows = format!(
            "SELECT s.id, s.metadata, m.body, m.sum, s.name FROM {s}.stream s LEFT JOIN {s}.metadata m ON m.stream = s.id
             WHERE s.id > $1 AND (s.metadata <> 0 OR m.stream IS NOT NULL) ORDER BY s.id LIMIT $2"
        );
        let mut last = 0_i64;
        loop {
            let params = [&last, &PAGE].map(|number| (number as _, Type::INT8));
            let page = self.client.query_typed(&rows, &params).await?;
            for row in &page {
                last = row.try_get(0)?;
                self.found.rows += 1;
                if let Err(wrong) = metadata::values(row)? {
                    self.found.find(format!("{s}.metadata, stream `{}`", row.try_get::<_, &str>(4)?), wrong);
                }
            }
            if page.len() < usize::try_from(PAGE).unwrap_or(usize::MAX) {
                break;
            }
        }
        let strays = format!(
            "SELECT m.stream FROM {s}.metadata m WHERE NOT EXISTS (SELECT FROM {s}.stream s WHERE s.id = m.stream) LIMIT 10"
        );
        for row in self.client.query_typed(&strays, &[]).await? {
            let id: i64 = row.try_get(0)?;
            self.found.find(format!("{s}.metadata, row {id}"), "there is no such stream");
        }
        Ok(())
    }

    fn event(&mut self, row: &Row) -> Result<(), Fault> {
        self.found.rows += u64::from(!self.again);
        let position: Option<i64> = row.try_get(0)?;
        let Some(id) = row.try_get::<_, Option<i64>>(1)? else {
            self.found.find(format!("log, position {}", position.unwrap_or(0)), "its event is not there");
            return Ok(());
        };
        let place = format!("event, row {id}");
        let (stream, version): (i64, i64) = (row.try_get(2)?, row.try_get(3)?);
        let body = Bytes::copy_from_slice(row.try_get(8)?);
        let event = match Recorded::decode(Position::new(position.unwrap_or(0).cast_unsigned()), body) {
            Ok(event) => event,
            Err(wrong) => {
                self.found.find(place, wrong.to_string());
                return Ok(());
            }
        };
        self.link(&place, &event, (stream.cast_unsigned(), version.cast_unsigned()));
        if self.again {
            return Ok(());
        }
        let name: Option<&str> = row.try_get(9)?;
        if name != Some(event.stream()) || event.version().get() != version.cast_unsigned() {
            self.found.find(&*place, "its bytes are those of another stream or version");
        }
        let key = identity(event.stream(), event.source(), event.id()).to_be_bytes();
        let (kind, category, tags): (&str, &str, Option<&str>) = (row.try_get(5)?, row.try_get(6)?, row.try_get(7)?);
        if row.try_get::<_, &[u8]>(4)? != &key[..]
            || (kind, category, tags) != (event.kind(), event.category(), event.tags_text())
        {
            self.found.find(place, "what it is found by is not what its bytes say");
        }
        Ok(())
    }

    /// Holds an event against the one before it in its stream, if this pass is about that.
    fn link(&mut self, place: &str, event: &Recorded, (stream, version): (u64, u64)) {
        let Some(chain) = self.chains.stream((stream, 0), true) else { return };
        if version != chain.version + 1 {
            let what = format!("version {version} of stream `{}` follows {}", event.stream(), chain.version);
            self.found.find(place, what);
        } else if !event.follows(&chain.hash) {
            self.found.find(place, "the hash chain is broken: it, or the event before it, was changed");
        }
        (chain.version, chain.hash) = (version, event.hash());
    }
}
