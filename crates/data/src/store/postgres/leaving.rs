//! The store of several nodes as one that is left: see [`moving`](crate::store::moving).
//!
//! Nodes may run. What keeps them from writing is one transaction: it gives every table of events
//! and rooms a trigger that refuses whatever changes it, and waits for each table until whoever was writing to it is done.
//! Until it commits, others wait for it, and nothing is refused; if it never does, nothing was. A node of an older version is
//! refused as well: it is the database that does it.

use std::time::Duration;

use futures_util::TryStreamExt;
use quorate_runtime::Env;
use tokio_postgres::{Client, RowStream, types::Type};

use super::{
    Config,
    address::Server,
    connect::Connector,
    fault::{Fault, MOVED},
    open::{check_names, check_server},
    sql::value,
    statements::Statements,
    tables::{self, Purpose, Told},
    verify, words,
};
use crate::{
    event::{Position, Recorded},
    store::{
        Progress, SqlError, StoreError, Value, Verified,
        moving::{self, Answer, Column, Gone, Leaving, MoveError, Place, Shape, Standing, TableSum},
        rooms::room_sum,
    },
};

pub(super) const MOVING: &str = "moving the store";

/// How often the hold is tried where it and others wait for each other.
const ATTEMPTS: u32 = 5;
/// How long others go on in between, times the number of the attempt.
const PAUSE: Duration = Duration::from_millis(300);

/// A connection to the database of a store that moves.
pub(super) struct Site {
    pub(super) client: Client,
    pub(super) sql: Statements,
    pub(super) told: Told,
    pub(super) schema: String,
}

/// Connects to the store of `config`; `None` where there is none.
pub(super) async fn connect(env: &Env, config: &Config, purpose: Purpose) -> Result<Option<Site>, MoveError> {
    let (schema, application) = (&config.schema, &config.application);
    check_names(schema, application)?;
    let client = Connector::new(env, config.address.0.clone()).connect().await.map_err(moving)?;
    let flush = check_server(&client).await?;
    let Some(told) = tables::prepare(env, &client, schema, application, purpose).await? else { return Ok(None) };
    let sequencing = words::sequencing(told.timeline.store);
    let sql = Statements::new(schema, application, sequencing, flush, config.limits.unit_time);
    Ok(Some(Site { client, sql, told, schema: schema.clone() }))
}

pub(super) fn moving(fault: impl Into<Fault>) -> MoveError {
    MoveError::Store(fault.into().into_store(MOVING))
}

/// The store that is left.
pub(in crate::store) struct PostgresLeaving {
    env: Env,
    address: Server,
    site: Site,
    application: String,
    reading: Option<std::pin::Pin<Box<RowStream>>>,
}

/// Connects to the store of `config` to leave it, or to go on with that.
pub(in crate::store) async fn leave(env: &Env, config: &Config) -> Result<PostgresLeaving, MoveError> {
    let Some(site) = connect(env, config, Purpose::Leave).await? else {
        return Err(moving::absent(&Place::Postgres(Box::new(config.clone()))));
    };
    if site.told.arriving.is_some() {
        return Err(crate::store::OpenError::Arriving { path: config.schema.clone().into() }.into());
    }
    let (env, address, application) = (env.clone(), config.address.0.clone(), config.application.clone());
    Ok(PostgresLeaving { env, address, site, application, reading: None })
}

impl PostgresLeaving {
    async fn obstacles(&mut self) -> Result<Vec<String>, Fault> {
        const TABLES: &str = "SELECT c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE n.nspname = $1 AND c.relkind IN ('r', 'p', 'v', 'm', 'f') ORDER BY 1 LIMIT 3";
        let kept = format!("SELECT name FROM {}.stream WHERE metadata > 0 ORDER BY 1 LIMIT 3", self.site.sql.schema);
        let tables = self.site.client.query_typed(TABLES, &[(&self.application, Type::TEXT)]).await?;
        let kept = self.site.client.query_typed(&kept, &[]).await?;
        let mut obstacles = Vec::new();
        for (rows, what) in [
            (kept, "streams with metadata, which are not carried over yet"),
            (tables, "tables of the application, which has to carry them over by itself"),
        ] {
            let names = rows.iter().map(|row| Ok(format!("`{}`", row.try_get::<_, &str>(0)?)));
            let names = names.collect::<Result<Vec<_>, Fault>>()?;
            if !names.is_empty() {
                obstacles.push(format!("{what}: {} …", names.join(", ")));
            }
        }
        Ok(obstacles)
    }

    async fn events(&mut self, after: u64) -> Result<Vec<Recorded>, Fault> {
        let s = &self.site.sql.schema;
        let page = format!(
            "SELECT position, body FROM (
                 SELECT l.position, e.body, coalesce(sum(octet_length(e.body)) OVER (
                     ORDER BY l.position ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS before
                 FROM {s}.log l JOIN {s}.event e ON e.id = l.event
                 WHERE l.position > $1 ORDER BY l.position LIMIT $2) AS wanted
             WHERE before <= $3 ORDER BY position"
        );
        let number = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        let params = [after.cast_signed(), number(moving::PAGE), number(moving::PAGE_BYTES)];
        let params = params.each_ref().map(|number| (number as _, Type::INT8));
        let rows = self.site.client.query_typed(&page, &params).await?;
        rows.iter().map(|row| event(row.try_get(0)?, row.try_get(1)?)).collect()
    }

    async fn rooms(&mut self) -> Result<Vec<(String, u64)>, MoveError> {
        let select = format!("SELECT room, version, sum FROM {}.quorate_room ORDER BY room", self.site.sql.schema);
        let mut rooms = Vec::new();
        for row in self.site.client.query_typed(&select, &[]).await.map_err(moving)? {
            let read = || Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?));
            let (room, version, sum): (String, i64, i64) =
                read().map_err(|wrong: tokio_postgres::Error| moving(wrong))?;
            if sum != room_sum(&room, version) {
                let place = format!("quorate_room, row `{room}`");
                return Err(StoreError::Corrupt { place, what: "the checksum does not match".to_owned() }.into());
            }
            rooms.push((room, version.cast_unsigned()));
        }
        Ok(rooms)
    }

    async fn hold(&mut self, gone: &Gone, last: &[&str]) -> Result<(), Fault> {
        let mut attempt = 1;
        loop {
            let Err(fault) = self.try_to_hold(gone, last).await else { return Ok(()) };
            self.site.client.batch_execute("ROLLBACK").await?;
            // Nothing mends that it was left meanwhile, which is what `Stale` says here.
            if !fault.is_conflict() || matches!(fault, Fault::Stale) || attempt == ATTEMPTS {
                return Err(fault);
            }
            self.env.sleep(PAUSE * attempt).await;
            attempt += 1;
        }
    }

    async fn try_to_hold(&mut self, gone: &Gone, last: &[&str]) -> Result<(), Fault> {
        let Site { client, sql, schema, .. } = &self.site;
        let s = &sql.schema;
        // Whoever writes while this waits waits behind it: so a machine that is gone must not hold the store for hours.
        let begin = format!(
            "{}; SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0; \
             SET LOCAL lock_timeout = '2s'; SET LOCAL tcp_keepalives_idle = 10; SET LOCAL tcp_keepalives_interval = 5; \
             SET LOCAL tcp_keepalives_count = 3; SET LOCAL tcp_user_timeout = '30s'",
            sql.begin
        );
        client.batch_execute(&begin).await?;
        // Ordering: whoever makes tables of a room writes here first, and so does whoever holds a store. Behind this lock it is
        // known which tables there are, and whether another process left the store, which may have been killed since.
        client.batch_execute(&format!("LOCK TABLE {s}.quorate_room IN SHARE ROW EXCLUSIVE MODE")).await?;
        if tables::told(client, s).await?.gone.is_some() {
            return Err(Fault::Stale);
        }
        let refuse = format!("BEGIN RAISE EXCEPTION USING ERRCODE = '{MOVED}', MESSAGE = {}; END", literal(&gone.to));
        client
            .batch_execute(&format!(
                "CREATE OR REPLACE FUNCTION {s}.quorate_moved() RETURNS trigger LANGUAGE plpgsql AS {}",
                literal(&refuse)
            ))
            .await?;
        let tables = tables_of_rooms(client, schema).await?;
        let rooms = || tables.iter().map(|table| &*table.name);
        for table in rooms() {
            client.batch_execute(&format!("LOCK TABLE {s}.\"{table}\" IN SHARE ROW EXCLUSIVE MODE")).await?;
        }
        // Ordering: behind whatever others wrote, and before nobody writes, not even this.
        client.batch_execute(&format!("SET LOCAL search_path TO {s}, pg_temp")).await?;
        for statement in last {
            client.batch_execute(statement).await?;
        }
        // Ordering: as appends come by them.
        for table in ["quorate_room"].into_iter().chain(rooms()).chain(["stream", "event"]) {
            client
                .batch_execute(&format!(
                    "CREATE TRIGGER quorate_moved BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON {s}.\"{table}\"
                     FOR EACH STATEMENT EXECUTE FUNCTION {s}.quorate_moved()"
                ))
                .await?;
        }
        // Whoever has appended has committed, or has not and never will. Positions are given beside this transaction: readers see
        // them, and wait for nothing.
        let beside = Connector::new(&self.env, self.address.clone()).connect().await?;
        beside.simple_query(&sql.sequence_silently).await?;
        let go = format!("UPDATE {s}.meta SET moved_to = $1, moved_arrival = $2");
        let arrival = gone.arrival.cast_signed();
        client.query_typed(&go, &[(&gone.to, Type::TEXT), (&arrival, Type::INT8)]).await?;
        Ok(())
    }

    async fn rows(&mut self) -> Result<Vec<Vec<Value>>, MoveError> {
        let Some(stream) = &mut self.reading else { return Ok(Vec::new()) };
        let (mut rows, mut bytes) = (Vec::new(), 0);
        while rows.len() < moving::PAGE && bytes < moving::PAGE_BYTES {
            let Some(row) = stream.try_next().await.map_err(moving)? else {
                self.reading = None;
                break;
            };
            let values = read(&row)?;
            bytes += values.iter().map(super::sql::large).sum::<usize>();
            rows.push(values);
        }
        Ok(rows)
    }
}

/// An event as the log has it.
pub(super) fn event(position: i64, body: &[u8]) -> Result<Recorded, Fault> {
    Recorded::decode(Position::new(position.cast_unsigned()), bytes::Bytes::copy_from_slice(body))
        .map_err(|wrong| Fault::Strange(format!("the event at position {position}: {wrong}")))
}

/// A row's values.
pub(super) fn read(row: &tokio_postgres::Row) -> Result<Vec<Value>, MoveError> {
    let strange = |cause: SqlError| match cause {
        SqlError::Store(cause) => cause.into(),
        other => moving(Fault::Strange(other.to_string())),
    };
    (0..row.len()).map(|n| value(row, n).map_err(strange)).collect()
}

/// A text as SQL has it.
fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// The tables of rooms, in order of their names.
pub(super) async fn tables_of_rooms(client: &Client, schema: &str) -> Result<Vec<Shape>, Fault> {
    const COLUMNS: &str = "SELECT c.relname::text, a.attname::text FROM pg_class c
        JOIN pg_namespace n ON n.oid = c.relnamespace
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        WHERE n.nspname = $1 AND c.relkind = 'r' AND starts_with(c.relname::text, 'quorate_') AND c.relname <> 'quorate_room'
        ORDER BY c.relname::text COLLATE \"C\", a.attnum";
    let mut shapes: Vec<Shape> = Vec::new();
    for row in client.query_typed(COLUMNS, &[(&schema, Type::TEXT)]).await? {
        let (table, name): (&str, String) = (row.try_get(0)?, row.try_get(1)?);
        if shapes.last().is_none_or(|shape| shape.name != table) {
            shapes.push(Shape { name: table.to_owned(), columns: Vec::new() });
        }
        let columns = shapes.last_mut().map(|shape| &mut shape.columns);
        columns.into_iter().for_each(|columns| columns.push(Column { name: name.clone() }));
    }
    Ok(shapes)
}

/// The streams, whatever order they come in.
pub(super) async fn streams(client: &Client, s: &str) -> Result<TableSum, MoveError> {
    let select = format!("SELECT name, version, hash FROM {s}.stream WHERE version > 0");
    sum(client, &select).await
}

/// What the rows of a query are.
pub(super) async fn sum(client: &Client, select: &str) -> Result<TableSum, MoveError> {
    let mut rows = Box::pin(stream(client, select).await.map_err(moving)?);
    let mut sum = TableSum::default();
    while let Some(row) = rows.try_next().await.map_err(moving)? {
        sum.add(&read(&row)?);
    }
    Ok(sum)
}

async fn stream(client: &Client, select: &str) -> Result<RowStream, Fault> {
    Ok(client.query_typed_raw(select, std::iter::empty::<(i64, Type)>()).await?)
}

/// How a column is read: a command's token names its append, which is known elsewhere by the position of its last event.
fn columns(table: &Shape, s: &str) -> String {
    let column = |column: &Column| match (&*table.name, &*column.name) {
        ("quorate_command", "token") => {
            format!("coalesce((SELECT position FROM {s}.log WHERE event = t.token), 0) AS token")
        }
        (_, name) => format!("t.\"{name}\""),
    };
    table.columns.iter().map(column).collect::<Vec<_>>().join(", ")
}

impl Leaving for PostgresLeaving {
    fn standing(&self) -> Standing {
        let Told { timeline, gone, .. } = self.site.told.clone();
        Standing { timeline, gone }
    }

    fn obstacles(&mut self) -> Answer<'_, Vec<String>> {
        Box::pin(async { self.obstacles().await.map_err(moving) })
    }

    fn head(&mut self) -> Answer<'_, u64> {
        Box::pin(async {
            let row = self.site.client.query_typed_opt(&self.site.sql.end, &[]).await.map_err(moving)?;
            let end = row.map_or(Ok(0), |row| row.try_get::<_, i64>(0)).map_err(moving)?;
            Ok(end.cast_unsigned())
        })
    }

    fn events(&mut self, after: u64) -> Answer<'_, Vec<Recorded>> {
        Box::pin(async move { self.events(after).await.map_err(moving) })
    }

    fn rooms(&mut self) -> Answer<'_, Vec<(String, u64)>> {
        Box::pin(self.rooms())
    }

    fn tables(&mut self) -> Answer<'_, Vec<Shape>> {
        Box::pin(async { tables_of_rooms(&self.site.client, &self.site.schema).await.map_err(moving) })
    }

    fn is_empty<'a>(&'a mut self, table: &'a Shape) -> Answer<'a, bool> {
        Box::pin(async {
            let sql = format!("SELECT NOT EXISTS (SELECT FROM {}.\"{}\")", self.site.sql.schema, table.name);
            let row = self.site.client.query_typed_one(&sql, &[]).await.map_err(moving)?;
            row.try_get(0).map_err(moving)
        })
    }

    fn hold(&mut self, gone: Gone, last: Vec<&'static str>) -> Answer<'_, ()> {
        Box::pin(async move {
            if self.site.told.gone.is_some() {
                return Ok(());
            }
            self.hold(&gone, &last).await.map_err(moving)
        })
    }

    fn streams(&mut self) -> Answer<'_, TableSum> {
        Box::pin(streams(&self.site.client, &self.site.sql.schema))
    }

    fn read<'a>(&'a mut self, table: &'a Shape) -> Answer<'a, ()> {
        Box::pin(async {
            let s = &self.site.sql.schema;
            let select = format!("SELECT {} FROM {s}.\"{}\" AS t", columns(table, s), table.name);
            self.reading = Some(Box::pin(stream(&self.site.client, &select).await.map_err(moving)?));
            Ok(())
        })
    }

    fn rows(&mut self) -> Answer<'_, Vec<Vec<Value>>> {
        Box::pin(self.rows())
    }

    fn leave(&mut self) -> Answer<'_, ()> {
        Box::pin(async {
            if self.site.told.gone.is_some() {
                return Ok(());
            }
            let committed = self.site.client.batch_execute("COMMIT").await;
            committed.map_err(|failed| match Fault::from(failed) {
                Fault::Lost(_) => StoreError::OutcomeUnknown.into(),
                other => moving(other),
            })
        })
    }

    fn verify(&mut self, progress: Progress) -> Answer<'_, Verified> {
        Box::pin(async move { verify::check(&self.site.sql, &self.site.client, &progress).await.map_err(moving) })
    }
}
