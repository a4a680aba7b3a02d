//! The store of several nodes as one that is moved into: see [`moving`](crate::store::moving).
//!
//! An event's id is its position, so that what kept a token's number means the same here; ids that are drawn later lie
//! behind all of them. Each batch looks at the mark under a lock on its row: of two that move into one store, one is
//! refused by where the log ends.

use std::collections::BTreeMap;

use futures_util::future::try_join_all;
use quorate_runtime::Env;
use tokio_postgres::types::{ToSql, Type};

use super::{
    Config,
    dialect::Statement,
    fault::Fault,
    leaving::{Site, connect, event, moving, streams, sum},
    sql::{self, Failed},
    tables::{self, Purpose},
    verify,
};
use crate::{
    event::{ChainHash, Position, Recorded},
    schema::rows::TABLES as SCHEMAS,
    store::{
        Progress, Scope, SqlError, StoreError, Value, Verified,
        moving::{Answer, Arriving, Mark, MoveError, Place, Shape, TableSum, Version},
        rooms::room_sum,
        shape::identity,
    },
};

/// The store that is moved into.
pub(in crate::store) struct PostgresArriving {
    site: Site,
    arrival: u64,
    env: Env,
}

/// Begins a store as `config` says, or goes on with one.
pub(in crate::store) async fn arrive(env: &Env, config: &Config, mark: Mark) -> Result<PostgresArriving, MoveError> {
    let place = || Place::Postgres(Box::new(config.clone())).to_string();
    let drawn = env.random("move/arrival").u64() >> 1;
    let site = connect(env, config, Purpose::Arrive(mark, drawn)).await?;
    let site = site.ok_or_else(|| MoveError::Absent { place: place() })?;
    let told = &site.told;
    let arrival = told.arrival.filter(|arrival| {
        let is_ours = told.timeline.store == mark.from.store && told.gone.is_none();
        let is_arriving = told.arriving == Some(mark.from.epoch);
        // One that is open already is the right one only where the store was left for it.
        is_ours
            && mark.arrival.map_or(is_arriving, |wanted| wanted == *arrival && (is_arriving || told.arriving.is_none()))
    });
    let arrival = arrival.ok_or_else(|| MoveError::Occupied { place: place() })?;
    Ok(PostgresArriving { site, arrival, env: env.clone() })
}

impl PostgresArriving {
    /// Begins a transaction in which nobody else takes in anything.
    async fn begin(&mut self) -> Result<(), Fault> {
        let Site { client, sql, told, .. } = &self.site;
        let s = &sql.schema;
        let begin = format!(
            "{}; SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0; \
             SET LOCAL search_path TO {s}, pg_temp; SELECT FROM {s}.meta FOR UPDATE",
            sql.begin
        );
        client.batch_execute(&begin).await?;
        let now = tables::told(client, s).await?;
        if now.arriving == told.arriving && now.arrival == told.arrival {
            return Ok(());
        }
        // Another process ended it meanwhile: one that was killed, and whose last word arrived late.
        Err(Fault::Stale)
    }

    async fn adopt(&mut self, events: &[Recorded]) -> Result<(), Fault> {
        self.begin().await?;
        let adopted = self.take(events).await;
        let end = if adopted.is_ok() { "COMMIT" } else { "ROLLBACK" };
        let ended = self.site.client.batch_execute(end).await;
        adopted?;
        Ok(ended?)
    }

    async fn take(&self, events: &[Recorded]) -> Result<(), Fault> {
        let Site { client, sql, .. } = &self.site;
        let s = &sql.schema;
        let end = client.query_typed_opt(&sql.end, &[]).await?.map_or(Ok(0), |row| row.try_get::<_, i64>(0))?;
        if events.first().is_some_and(|event| event.position() != Position::new(end.cast_unsigned() + 1)) {
            // As above: what it took in last is there now.
            return Err(Fault::Stale);
        }
        let mut names: Vec<&str> = events.iter().map(Recorded::stream).collect();
        names.sort_unstable();
        names.dedup();
        // Nobody appends here yet, and so nobody holds words.
        let (words, alone) = (Vec::<i64>::new(), Vec::<bool>::new());
        let lock: [(&(dyn ToSql + Sync), Type); 3] =
            [(&words, Type::INT8_ARRAY), (&alone, Type::BOOL_ARRAY), (&names, Type::TEXT_ARRAY)];
        let mut heads = BTreeMap::new();
        for row in client.query_typed(&sql.lock_streams, &lock).await? {
            let (id, name, version): (i64, String, i64) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
            let hash = row.try_get::<_, &[u8]>(3)?.try_into();
            let hash = hash.map_err(|_| Fault::Strange(format!("the hash of stream `{name}` is no hash")))?;
            heads.insert(name, (id, version.cast_unsigned(), ChainHash::from_bytes(hash)));
        }
        let mut of = Vec::with_capacity(events.len());
        for (event, position) in events.iter().zip(end.cast_unsigned() + 1..) {
            let head = heads.get_mut(event.stream());
            let Some((id, version, hash)) = head else {
                return Err(Fault::Strange("a stream is not there".to_owned()));
            };
            let follows = event.version().get() == *version + 1 && event.follows(hash);
            if event.position() != Position::new(position) || !follows {
                return Err(Fault::Strange(format!(
                    "event {} does not follow from the event before",
                    event.position()
                )));
            }
            (*version, *hash) = (event.version().get(), event.hash());
            of.push(*id);
        }
        insert(client, s, events, &of).await?;
        let (ids, versions): (Vec<i64>, Vec<i64>) = heads.values().map(|head| (head.0, head.1.cast_signed())).unzip();
        let hashes: Vec<&[u8]> = heads.values().map(|head| &head.2.as_bytes()[..]).collect();
        let advance: [(&(dyn ToSql + Sync), Type); 3] =
            [(&ids, Type::INT8_ARRAY), (&versions, Type::INT8_ARRAY), (&hashes, Type::BYTEA_ARRAY)];
        let sql = format!(
            "UPDATE {s}.stream AS s SET version = g.version, hash = g.hash
             FROM unnest($1::bigint[], $2::bigint[], $3::bytea[]) AS g (id, version, hash) WHERE s.id = g.id"
        );
        client.query_typed(&sql, &advance).await?;
        Ok(())
    }

    async fn furnish(&mut self, rooms: &[Version]) -> Result<(), Fault> {
        self.begin().await?;
        let client = &self.site.client;
        for room in rooms {
            for statement in room.statements() {
                let statement = Statement::new(statement, Scope::Room).map_err(|wrong| strange(&wrong))?;
                client.batch_execute(&statement.sql).await?;
            }
            let (name, number) = (room.tables.room, i64::try_from(room.number).unwrap_or(i64::MAX));
            let row: [(&(dyn ToSql + Sync), Type); 3] =
                [(&name, Type::TEXT), (&number, Type::INT8), (&room_sum(name, number), Type::INT8)];
            client.query_typed("INSERT INTO quorate_room (room, version, sum) VALUES ($1, $2, $3)", &row).await?;
        }
        Ok(())
    }

    async fn put(&mut self, table: &Shape, rows: Vec<Vec<Value>>) -> Result<(), MoveError> {
        let statement = format!(
            "INSERT INTO \"{}\" ({}) OVERRIDING SYSTEM VALUE VALUES ({})",
            table.name,
            table.list(),
            table.params()
        );
        let sql = Statement::new(&statement, Scope::Room).map_err(|wrong| moving(strange(&wrong)))?;
        // They go out side by side: the server takes them in order.
        let client = &self.site.client;
        let put = rows.iter().map(|row| sql::run(client, &sql, row, Scope::Room, None));
        let refused = |what: String| MoveError::Table { table: table.name.clone(), what };
        match try_join_all(put).await {
            Ok(_) => Ok(()),
            Err(Failed::Server(fault)) if fault.is_lost() => Err(moving(fault)),
            Err(Failed::Server(fault)) => Err(refused(fault.to_string())),
            Err(Failed::Answer(cause)) => Err(refused(cause.to_string())),
        }
    }

    /// Sets what the database draws behind what was carried over, takes the mark off, and commits.
    async fn open(&mut self) -> Result<(), MoveError> {
        const DRAWN: &str = "SELECT c.relname::text, a.attname::text FROM pg_class c
            JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid
            WHERE n.nspname = $1 AND c.relkind = 'r' AND a.attidentity <> '' AND c.relname <> 'stream'";
        let Site { client, sql, schema, told } = &self.site;
        let s = &sql.schema;
        let later = told.timeline.later(&self.env).ok_or_else(|| {
            let (place, what) = ("meta, column epoch".to_owned(), "there is no later timeline".to_owned());
            StoreError::Corrupt { place, what }
        })?;
        for row in client.query_typed(DRAWN, &[(schema, Type::TEXT)]).await.map_err(moving)? {
            let (table, column): (&str, &str) = (row.try_get(0).map_err(moving)?, row.try_get(1).map_err(moving)?);
            let behind = format!(
                "SELECT setval(pg_get_serial_sequence('{s}.\"{table}\"', '{column}'),
                    (SELECT coalesce(max(\"{column}\"), 0) + 1 FROM {s}.\"{table}\"), false)"
            );
            client.query_typed(&behind, &[]).await.map_err(moving)?;
        }
        let open = format!(
            "UPDATE {s}.meta SET arriving = NULL, epoch = $1,
             schemas = (SELECT count(*) FROM {s}.quorate_room WHERE room = $2)"
        );
        let epoch = later.epoch.cast_signed();
        let params: [(&(dyn ToSql + Sync), Type); 2] = [(&epoch, Type::INT4), (&SCHEMAS.room, Type::TEXT)];
        client.query_typed(&open, &params).await.map_err(moving)?;
        client.batch_execute("COMMIT").await.map_err(|failed| match Fault::from(failed) {
            Fault::Lost(_) => StoreError::OutcomeUnknown.into(),
            other => moving(other),
        })
    }
}

async fn insert(client: &tokio_postgres::Client, s: &str, events: &[Recorded], streams: &[i64]) -> Result<(), Fault> {
    let numbers = |of: fn(&Recorded) -> u64| events.iter().map(|event| of(event).cast_signed()).collect::<Vec<i64>>();
    let positions = numbers(|event| event.position().get());
    let versions = numbers(|event| event.version().get());
    let key = |event: &Recorded| identity(event.stream(), event.source(), event.id()).to_be_bytes().to_vec();
    let keys: Vec<Vec<u8>> = events.iter().map(key).collect();
    let kinds: Vec<&str> = events.iter().map(Recorded::kind).collect();
    let categories: Vec<&str> = events.iter().map(Recorded::category).collect();
    let tags: Vec<Option<&str>> = events.iter().map(Recorded::tags_text).collect();
    let bodies: Vec<&[u8]> = events.iter().map(|event| &event.bytes()[..]).collect();
    let statement = format!(
        "WITH made AS (
             INSERT INTO {s}.event (id, stream, version, key, kind, category, tags, body) OVERRIDING SYSTEM VALUE
             SELECT id, stream, version, key, kind, category, string_to_array(tags, ' '), body
             FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bytea[], $5::text[], $6::text[], $7::text[], $8::bytea[])
                  AS g (id, stream, version, key, kind, category, tags, body)
             RETURNING id)
         INSERT INTO {s}.log (position, event) SELECT id, id FROM made"
    );
    let params: [(&(dyn ToSql + Sync), Type); 8] = [
        (&positions, Type::INT8_ARRAY),
        (&streams, Type::INT8_ARRAY),
        (&versions, Type::INT8_ARRAY),
        (&keys, Type::BYTEA_ARRAY),
        (&kinds, Type::TEXT_ARRAY),
        (&categories, Type::TEXT_ARRAY),
        (&tags, Type::TEXT_ARRAY),
        (&bodies, Type::BYTEA_ARRAY),
    ];
    client.query_typed(&statement, &params).await?;
    Ok(())
}

fn strange(wrong: &SqlError) -> Fault {
    Fault::Strange(wrong.to_string())
}

impl Arriving for PostgresArriving {
    fn arrival(&self) -> u64 {
        self.arrival
    }

    fn is_open(&self) -> bool {
        self.site.told.arriving.is_none()
    }

    fn newest(&mut self) -> Answer<'_, Option<Recorded>> {
        Box::pin(async {
            let s = &self.site.sql.schema;
            let newest = format!(
                "SELECT l.position, e.body FROM {s}.log l JOIN {s}.event e ON e.id = l.event ORDER BY l.position DESC LIMIT 1"
            );
            let row = self.site.client.query_typed_opt(&newest, &[]).await.map_err(moving)?;
            let Some(row) = row else { return Ok(None) };
            let read = || Ok((row.try_get(0)?, row.try_get(1)?));
            let (position, body): (i64, &[u8]) = read().map_err(|wrong: tokio_postgres::Error| moving(wrong))?;
            event(position, body).map(Some).map_err(moving)
        })
    }

    fn adopt(&mut self, events: Vec<Recorded>) -> Answer<'_, ()> {
        Box::pin(async move { self.adopt(&events).await.map_err(moving) })
    }

    fn streams(&mut self) -> Answer<'_, TableSum> {
        Box::pin(streams(&self.site.client, &self.site.sql.schema))
    }

    fn furnish(&mut self, rooms: Vec<Version>) -> Answer<'_, ()> {
        Box::pin(async move { self.furnish(&rooms).await.map_err(moving) })
    }

    fn empty<'a>(&'a mut self, table: &'a Shape) -> Answer<'a, ()> {
        Box::pin(async {
            let sql = format!("DELETE FROM \"{}\"", table.name);
            self.site.client.batch_execute(&sql).await.map_err(moving)
        })
    }

    fn put<'a>(&'a mut self, table: &'a Shape, rows: Vec<Vec<Value>>) -> Answer<'a, ()> {
        Box::pin(self.put(table, rows))
    }

    fn sum<'a>(&'a mut self, table: &'a Shape) -> Answer<'a, TableSum> {
        Box::pin(async {
            let select = format!("SELECT {} FROM {}.\"{}\"", table.list(), self.site.sql.schema, table.name);
            sum(&self.site.client, &select).await
        })
    }

    fn open(&mut self) -> Answer<'_, ()> {
        Box::pin(self.open())
    }

    fn verify(&mut self, progress: Progress) -> Answer<'_, Verified> {
        Box::pin(async move { verify::check(&self.site.sql, &self.site.client, &progress).await.map_err(moving) })
    }
}
