//! The embedded store as one that is moved into: see [`moving`](crate::store::moving).
//!
//! It grows in a file that gets its name when it is complete, as a restored one does: until then there is no store. So that
//! an open store is there or not, and nothing in between, the last transaction takes the mark off, and then the file gets
//! its name; whoever finds it without the mark has but to name it.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use quorate_foundations::name::Name;
use quorate_runtime::{
    BoxFuture, Env,
    disk::{Lock, unfinished},
};
use rusqlite::{Connection, params};

use super::{
    Config, checkpoint,
    connection::{corrupt, failed},
    core::Core,
    leaving::{streams, sum},
    open::{begin, canonical, damaged, has_bytes, not_lost, take_lock},
    sql, tables, tail, verify,
};
use crate::{
    event::{Position, Recorded},
    store::{
        OpenError, Progress, StoreError, Timeline, Value, Verified,
        moving::{Answer, Arriving, Mark, MoveError, Place, Shape, TableSum, Version},
        rooms::room_sum,
    },
};

const ARRIVING: &str = "taking in a store";

/// The row of `quorate_meta` that says of which timeline a store is being moved into; 0 once it was.
const MARK: &str = "arriving";
/// The row that says which number the destination drew.
const ARRIVAL: &str = "arrival";

/// The store that is moved into.
pub(in crate::store) struct SqliteArriving {
    env: Env,
    arrival: u64,
    is_open: bool,
    site: Arc<Mutex<Site>>,
}

struct Site {
    env: Env,
    path: PathBuf,
    partial: PathBuf,
    timeline: Timeline,
    /// `None` once it has its name.
    core: Option<Core>,
    _lock: Box<dyn Lock>,
}

/// Begins a store at `path`, or goes on with one.
pub(in crate::store) async fn arrive(env: &Env, path: PathBuf, mark: Mark) -> Result<SqliteArriving, MoveError> {
    let of_work = env.clone();
    let (site, arrival, is_open) = env.run_blocking(move || open(&of_work, &path, mark)).await?;
    Ok(SqliteArriving { env: env.clone(), arrival, is_open, site: Arc::new(Mutex::new(site)) })
}

fn open(env: &Env, path: &Path, mark: Mark) -> Result<(Site, u64, bool), MoveError> {
    let path = canonical(env, path)?;
    let lock = take_lock(env, &path)?;
    let partial = unfinished::of(&path).map_err(|cause| OpenError::Io { path: path.clone(), cause })?;
    let occupied = || MoveError::Occupied { place: Place::Embedded(path.clone()).to_string() };
    let site = |core| Site {
        env: env.clone(),
        path: path.clone(),
        partial: partial.clone(),
        timeline: mark.from,
        core,
        _lock: lock,
    };
    if has_bytes(env, &path)? {
        let arrival = mark.arrival.ok_or_else(occupied)?;
        return if arrived(env, &path, mark.from, arrival)? {
            Ok((site(None), arrival, true))
        } else {
            Err(occupied())
        };
    }
    not_lost(env, &path)?;
    let is_new = !has_bytes(env, &partial)?;
    if is_new && mark.arrival.is_some() {
        return Err(MoveError::Absent { place: Place::Embedded(path).to_string() });
    }
    let core = begin(env.clone(), Config::at(partial.clone()), Some(mark.from.store), tables::prepare)?;
    let found = (tables::meta_if_any(&core.connection, MARK)?, tables::meta_if_any(&core.connection, ARRIVAL)?);
    let timeline = core.shared.timeline;
    let arrival = match found {
        // Somebody died before it was marked.
        (None, None)
            if core.shared.tail().end() == 0 && timeline.store == mark.from.store && mark.arrival.is_none() =>
        {
            let drawn = env.random("move/arrival").u64() >> 1;
            set_mark(&core.connection, mark.from.epoch, drawn).map_err(failed(ARRIVING))?;
            drawn
        }
        (Some(epoch), Some(arrival)) if timeline.store == mark.from.store => {
            let arrival = arrival.cast_unsigned();
            let is_ours = epoch == i64::from(mark.from.epoch) || epoch == 0;
            if !is_ours || mark.arrival.is_some_and(|wanted| wanted != arrival) {
                return Err(occupied());
            }
            if epoch == 0 {
                let mut site = site(Some(core));
                site.name()?;
                return Ok((site, arrival, true));
            }
            arrival
        }
        _ => return Err(occupied()),
    };
    Ok((site(Some(core)), arrival, false))
}

fn set_mark(connection: &Connection, epoch: u32, arrival: u64) -> rusqlite::Result<()> {
    connection.execute_batch("BEGIN IMMEDIATE")?;
    tables::set_meta(connection, MARK, epoch.into())?;
    tables::set_meta(connection, ARRIVAL, arrival.cast_signed())?;
    connection.execute_batch("COMMIT")
}

/// Whether the store at `path` is what `from` was moved into under this number.
fn arrived(env: &Env, path: &Path, from: Timeline, arrival: u64) -> Result<bool, MoveError> {
    let connection = tables::prepare(&**env.disk(), path, 0)?;
    let store = tables::timeline(&connection).map_err(|cause| damaged(path, cause))?.store;
    let found = tables::meta_if_any(&connection, ARRIVAL)?;
    Ok(store == from.store && found == Some(arrival.cast_signed()))
}

impl Site {
    fn core(&mut self) -> Result<&mut Core, MoveError> {
        self.core.as_mut().ok_or(MoveError::Store(StoreError::Closed))
    }

    fn adopt(&mut self, events: Vec<Recorded>) -> Result<(), MoveError> {
        let core = self.core()?;
        core.begin_group();
        for event in events {
            if let Err(cause) = take(core, event) {
                core.roll_back();
                return Err(cause.into());
            }
        }
        core.commit()?;
        core.flush_if_due();
        core.checkpoint_if_due();
        core.refusal().map_or(Ok(()), |cause| Err(cause.into()))
    }

    fn furnish(&mut self, rooms: &[Version]) -> Result<(), MoveError> {
        let core = self.core()?;
        core.begin()?;
        for room in rooms {
            furnish(&core.connection, room).map_err(failed(ARRIVING))?;
        }
        Ok(())
    }

    fn put(&mut self, table: &Shape, rows: &[Vec<Value>]) -> Result<(), MoveError> {
        let connection = &self.core()?.connection;
        let sql = format!("INSERT INTO \"{}\" ({}) VALUES ({})", table.name, table.list(), table.params());
        let mut insert = connection.prepare_cached(&sql).map_err(failed(ARRIVING))?;
        for row in rows {
            let refused = |what: String| MoveError::Table { table: table.name.clone(), what };
            sql::bind(&mut insert, row).map_err(|cause| refused(cause.to_string()))?;
            insert.raw_execute().map_err(failed(ARRIVING))?;
        }
        Ok(())
    }

    /// Takes the mark off, and gives the file its name.
    fn open(&mut self) -> Result<(), MoveError> {
        let later = self.timeline.later(&self.env);
        let core = self.core()?;
        let later = later.ok_or_else(|| corrupt("quorate_meta, row `epoch`", "there is no later timeline"))?;
        core.begin()?;
        tables::set_meta(&core.connection, "epoch", later.epoch.into())
            .and_then(|()| tables::set_meta(&core.connection, MARK, 0))
            .map_err(failed(ARRIVING))?;
        core.make_durable(ARRIVING)?;
        self.name()
    }

    fn name(&mut self) -> Result<(), MoveError> {
        let Some(core) = self.core.take() else { return Ok(()) };
        let Core { connection, .. } = core;
        checkpoint::complete(connection)?;
        let disk = self.env.disk();
        let io = |cause| OpenError::Io { path: self.path.clone(), cause };
        disk.rename(&self.partial, &self.path).map_err(io)?;
        Ok(())
    }
}

/// Takes an event into the group, at its place.
fn take(core: &mut Core, event: Recorded) -> Result<(), StoreError> {
    let place = || format!("event {} (stream `{}`, version {})", event.position(), event.stream(), event.version());
    let stream = Name::new(event.stream()).map_err(|wrong| corrupt(place(), wrong))?;
    core.shared.tail_mut().make_room(1);
    core.remember(&stream)?;
    let mut tail = core.shared.tail_mut();
    let (version, hash) =
        tail.slot(event.stream()).map(|slot| (slot.version().next(), slot.hash())).unwrap_or_default();
    let follows = event.version() == version && event.follows(&hash);
    if event.position() != Position::new(tail.end() + 1) || !follows {
        return Err(corrupt(place(), "it does not follow from the event before"));
    }
    let identity = tail::identity(event.stream(), event.source(), event.id());
    tail.push(event, identity);
    Ok(())
}

fn furnish(connection: &Connection, room: &Version) -> rusqlite::Result<()> {
    for statement in room.statements() {
        connection.execute_batch(statement)?;
    }
    let (name, number) = (room.tables.room, i64::try_from(room.number).unwrap_or(i64::MAX));
    connection.execute(
        "INSERT INTO quorate_room (room, version, sum) VALUES (?1, ?2, ?3)",
        params![name, number, room_sum(name, number)],
    )?;
    Ok(())
}

impl SqliteArriving {
    fn on<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Site) -> Result<T, MoveError> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, MoveError>> {
        let (env, site) = (self.env.clone(), self.site.clone());
        let work = move || work(&mut site.lock().unwrap_or_else(PoisonError::into_inner));
        Box::pin(async move { env.run_blocking(work).await })
    }
}

impl Arriving for SqliteArriving {
    fn arrival(&self) -> u64 {
        self.arrival
    }

    fn is_open(&self) -> bool {
        self.is_open
    }

    fn newest(&mut self) -> Answer<'_, Option<Recorded>> {
        self.on(|site| {
            let core = site.core()?;
            let end = core.shared.tail().end();
            if end == 0 {
                return Ok(None);
            }
            Ok(Some(core.shared.event(core.shared.view(&core.connection), end)?))
        })
    }

    fn adopt(&mut self, events: Vec<Recorded>) -> Answer<'_, ()> {
        self.on(|site| site.adopt(events))
    }

    fn streams(&mut self) -> Answer<'_, TableSum> {
        self.on(|site| {
            let core = site.core()?;
            core.flush()?;
            Ok(streams(&core.connection).map_err(failed(ARRIVING))?)
        })
    }

    fn furnish(&mut self, rooms: Vec<Version>) -> Answer<'_, ()> {
        self.on(move |site| site.furnish(&rooms))
    }

    fn empty<'a>(&'a mut self, table: &'a Shape) -> Answer<'a, ()> {
        let sql = format!("DELETE FROM \"{}\"", table.name);
        self.on(move |site| Ok(site.core()?.connection.execute_batch(&sql).map_err(failed(ARRIVING))?))
    }

    fn put<'a>(&'a mut self, table: &'a Shape, rows: Vec<Vec<Value>>) -> Answer<'a, ()> {
        let table = table.clone();
        self.on(move |site| site.put(&table, &rows))
    }

    fn sum<'a>(&'a mut self, table: &'a Shape) -> Answer<'a, TableSum> {
        let table = table.clone();
        self.on(move |site| Ok(sum(&site.core()?.connection, &table)?))
    }

    fn open(&mut self) -> Answer<'_, ()> {
        self.on(Site::open)
    }

    fn verify(&mut self, progress: Progress) -> Answer<'_, Verified> {
        self.on(move |site| {
            let core = site.core()?;
            core.flush()?;
            Ok(verify::run_without_keys(&core.connection, &progress)?.0)
        })
    }
}
