//! The embedded store behind the [`Backend`] port.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Weak, atomic::Ordering},
    time::Duration,
};

use quorate_foundations::name::Name;
use quorate_runtime::{BoxFuture, Env, disk::Disk};
use tokio::sync::{OwnedMutexGuard, OwnedSemaphorePermit, Semaphore, oneshot, watch};

use super::{
    archive, backup,
    batch::{self, Ready},
    conditions,
    connection::failed,
    erase, expiry,
    index::{STREAM_COLUMNS, StreamRow},
    inquire, keys, ledger, metadata,
    open::beside,
    queue::Queue,
    read::{self, Glance, Scan, Sight},
    shared::{Reader, Shared},
    sql, verify,
    writer::Job,
};
use crate::{
    event::{ArchiveId, Position, Recorded},
    schema::SchemaRegistry,
    store::{
        AppendBatch, AppendError, Appended, Archive, ArchiveError, ArchiveOrder, Backend, Capabilities, CheckedBatch,
        Committed, Findings, Follower, Inquiry, Limits, LogPage, Looked, Progress, ReadLog, ReadStream, Row, Scope,
        SetMetadata, SqlError, Statistics, StoreError, StreamHead, StreamPage, StreamSummary, TableColumn, Timeline,
        Unit, UnitError, Value, Verified,
        erasure::{DataSubject, Entry, Erased},
    },
};

/// After so long without an append the tail goes into the index tables: memory is given back, and opening is quick.
const IDLE: Duration = Duration::from_secs(1);

/// What this engine can and cannot do.
pub const CAPABILITIES: Capabilities = Capabilities {
    engine: "sqlite",
    durable_before_reply: true,
    several_writers: false,
    application_tables: true,
    view_tables: true,
    online_backup: true,
    erasure: true,
    metadata: true,
    retention: true,
    inline_views: true,
    tokens_are_positions: true,
    own_log_in_transaction: true,
};

pub(super) struct SqliteBackend {
    env: Env,
    shared: Arc<Shared>,
    queue: Arc<Queue>,
    /// Places for reading: each takes a thread, a connection, and what it reads before anybody can count it.
    reading: Arc<Semaphore>,
    archiving: Arc<tokio::sync::Mutex<()>>,
    /// Whoever writes a copy: a second one of its name would take its unfinished file away.
    copying: Arc<tokio::sync::Mutex<()>>,
}

/// A bug of the museum: expectations that whoever asks finds to be right are not checked again when it is the writer's turn.
#[cfg(feature = "museum")]
impl SqliteBackend {
    async fn checked_outside(&self, mut batch: CheckedBatch) -> Result<CheckedBatch, AppendError> {
        use crate::store::{Direction, ExpectedVersion};
        if !self.env.planted("expected-version-outside") {
            return Ok(batch);
        }
        for part in &mut batch.batch.streams {
            let read = ReadStream { direction: Direction::Backward, ..ReadStream::forward(part.stream.clone(), 1) };
            if part.expected.accepts(self.read_stream(read).await?.head.version) {
                part.expected = ExpectedVersion::Any;
            }
        }
        Ok(batch)
    }
}

impl SqliteBackend {
    pub(super) fn new(env: &Env, shared: Arc<Shared>, queue: Arc<Queue>) -> Self {
        env.tasks().spawn("store/idle-flush", flush_when_idle(env.clone(), Arc::downgrade(&shared), queue.clone()));
        let reading = Arc::new(Semaphore::new(Limits::READERS));
        Self { env: env.clone(), shared, queue, reading, archiving: Arc::default(), copying: Arc::default() }
    }

    /// How many events a page has at most, of which `limit` were asked for: a page may always end early.
    fn short(&self, limit: usize) -> usize {
        if limit > 1 && self.env.buggify("store: a page ends early") { 1 } else { limit }
    }

    /// Submits the job that `make` makes of a reply's sender, and waits for the reply.
    async fn ask<T, E: From<StoreError>>(
        &self,
        make: impl FnOnce(oneshot::Sender<Result<T, E>>) -> Job,
    ) -> Result<T, E> {
        let (reply, answer) = oneshot::channel();
        self.queue.submit(make(reply))?;
        // The writer answers every job; if it is gone it died on the way, with the job done or not.
        answer.await.unwrap_or_else(|_| Err(StoreError::OutcomeUnknown.into()))
    }

    /// Writes a stream's events to an archive, and then has them become stubs.
    ///
    /// The turn goes where the file is written: a caller that goes away leaves that running, and it must not meet the next.
    async fn archive_alone(&self, order: ArchiveOrder, turn: OwnedMutexGuard<()>) -> Result<Archive, ArchiveError> {
        // What is copied is read from the tables.
        self.ask(Job::Flush).await?;
        let (env, shared) = (self.env.clone(), self.shared.clone());
        let (copied, _turn) = self.env.run_blocking(move || (archive::copy(&env, &shared, &order), turn)).await;
        let copied = copied?;
        match copied {
            archive::Copied::Known(archive) => Ok(archive),
            archive::Copied::Made(made) => self.ask(|reply| Job::Archived(made, reply)).await,
        }
    }

    /// Has `copy` write a copy, once nobody else writes one.
    ///
    /// The turn goes where the file is written, as that of archives does.
    async fn copy_alone(
        &self,
        copy: impl FnOnce(&Shared, &Arc<dyn Disk>) -> Result<u64, StoreError> + Send + 'static,
    ) -> Result<u64, StoreError> {
        let turn = self.copying.clone().lock_owned().await;
        let (disk, shared) = (self.env.disk().clone(), self.shared.clone());
        let copying = move || {
            let _turn = turn;
            copy(&shared, &disk)
        };
        self.env.run_blocking(copying).await
    }

    /// `events` with what their sealed data says.
    async fn opened(&self, events: Vec<Recorded>) -> Result<Vec<Recorded>, StoreError> {
        if !keys::any_sealed(&events) {
            return Ok(events);
        }
        let shared = self.shared.clone();
        self.env.run_blocking(move || shared.keys.open_all(events)).await
    }

    /// `read` as it is; tells where damage was found.
    fn noted<T>(&self, read: Result<T, StoreError>) -> Result<T, StoreError> {
        if let Err(StoreError::Corrupt { .. }) = &read {
            self.env.reached("store: damage was found while reading");
        }
        read
    }

    /// Runs `read` on a connection, away from the async threads.
    async fn reading<T, E>(
        &self,
        read: impl FnOnce(&Shared, &mut Reader) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let place = self.place_to_read().await;
        self.reading_for_long(move |shared, reader| {
            // Held to the end of the reading, also where nobody waits for it any more.
            let _place = place;
            read(shared, reader)
        })
        .await
    }

    /// Waits for a place among those who read. `None`: there are no places any more, which does not happen.
    async fn place_to_read(&self) -> Option<OwnedSemaphorePermit> {
        self.reading.clone().acquire_owned().await.ok()
    }

    /// As [`reading`](Self::reading), beside all others: for what takes so long that nobody should wait for it.
    async fn reading_for_long<T, E>(
        &self,
        read: impl FnOnce(&Shared, &mut Reader) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let shared = self.shared.clone();
        self.env.run_blocking(move || shared.reading(|reader| read(&shared, reader))).await
    }
}

impl Drop for SqliteBackend {
    fn drop(&mut self) {
        // Whoever did not close gets what close does, without the wait.
        let _ = self.queue.submit(Job::Close(oneshot::channel().0));
    }
}

async fn flush_when_idle(env: Env, shared: Weak<Shared>, queue: Arc<Queue>) {
    let mut seen = 0;
    loop {
        tokio::select! {
            biased;
            () = env.tasks().stop().cancelled() => return,
            () = env.sleep(IDLE) => {}
        }
        let Some(shared) = shared.upgrade() else { return };
        let (published, waits) = {
            let tail = shared.tail();
            (tail.published(), tail.len() > 0 || tail.retiring().is_due() || tail.retiring().is_delayed())
        };
        // What is refused because of damage is taken again once that is gone.
        let due = waits || shared.lingering.load(Ordering::Relaxed) || shared.refusal().is_some();
        if published == seen && due {
            // A store too busy for this is looked at again; a closed one is not.
            if let Err(StoreError::Closed) = queue.submit(Job::Flush(oneshot::channel().0)) {
                return;
            }
        }
        seen = published;
    }
}

impl From<StoreError> for UnitError {
    fn from(cause: StoreError) -> Self {
        Self::Store(cause)
    }
}

impl Backend for SqliteBackend {
    fn capabilities(&self) -> Capabilities {
        CAPABILITIES
    }

    fn limits(&self) -> &Limits {
        &self.shared.limits
    }

    fn timeline(&self) -> Timeline {
        self.shared.timeline
    }

    fn statistics(&self) -> Statistics {
        // Ordering: a count for people; nothing is decided by it.
        let commits = self.shared.commits.load(Ordering::Relaxed);
        let wal_bytes = self.env.disk().size(&beside(&self.shared.path, "-wal")).unwrap_or(0);
        let retiring = self.shared.tail().retiring().clone();
        let (forgetting, not_wiped) = (retiring.len() as u64, retiring.aside() as u64);
        Statistics { commits, waiting: self.queue.waiting(), wal_bytes, forgetting, not_wiped }
    }

    fn check_writes(&self) -> Result<(), StoreError> {
        self.shared.check_open()?;
        self.shared.refusal().map_or(Ok(()), Err)
    }

    fn head(&self) -> watch::Receiver<Position> {
        self.shared.head.subscribe()
    }

    fn forgotten(&self) -> watch::Receiver<u64> {
        self.shared.forgotten.subscribe()
    }

    fn stream_moves(&self, stream: &Name) -> watch::Receiver<Position> {
        self.shared.streams.watch(stream.as_str())
    }

    fn schemas(&self) -> &SchemaRegistry {
        &self.shared.schemas
    }

    fn append(&self, batch: CheckedBatch) -> BoxFuture<'_, Result<Appended, AppendError>> {
        Box::pin(async move {
            #[cfg(feature = "museum")]
            let batch = self.checked_outside(batch).await?;
            let (secrets, shared) = (batch::has_secrets(&batch.batch), self.shared.clone());
            let ready = move || Ready::new(batch, &shared.limits, &shared.keys);
            let mut ready = Arc::new(if secrets { self.env.run_blocking(ready).await? } else { ready()? });
            // A key is made for what will be written, as far as can be told, and for nothing else: it stays.
            if ready.is_keyless() {
                if let Some(known) = self.ask(|reply| Job::Judge(ready.clone(), reply)).await? {
                    return Ok(known);
                }
                let shared = self.shared.clone();
                let keyed = move || ready.keyed(&shared.keys).map(|keyed| keyed.map_or(ready, Arc::new));
                ready = self.env.run_blocking(keyed).await?;
            }
            // Kept until the answer is there: freeing a batch is work that the one writer is spared.
            self.ask(|reply| Job::Append(ready.clone(), reply)).await
        })
    }

    fn look_ahead<'b>(&'b self, batch: &'b AppendBatch) -> BoxFuture<'b, Looked> {
        Box::pin(async move {
            if !conditions::is_worthwhile(&self.shared, batch) {
                return Looked::default();
            }
            let place = self.place_to_read().await;
            let (env, shared, asked) = (self.env.clone(), self.shared.clone(), batch.conditions.clone());
            let looking = move || {
                let _place = place;
                conditions::look(&env, &shared, &asked)
            };
            self.env.run_blocking(looking).await
        })
    }

    fn transact(&self, unit: Arc<dyn Unit>) -> BoxFuture<'_, Result<Committed, UnitError>> {
        Box::pin(self.ask(|reply| Job::Unit(unit, reply)))
    }

    fn follow(&self, follower: Arc<dyn Follower>) -> Result<(), StoreError> {
        self.shared.follow(follower);
        Ok(())
    }

    fn read_stream(&self, read: ReadStream) -> BoxFuture<'_, Result<StreamPage, StoreError>> {
        Box::pin(async move {
            let limits = &self.shared.limits;
            self.shared.check_open()?;
            read::check_limit(limits, read.limit)?;
            let read = ReadStream { limit: self.short(read.limit), ..read };
            for _ in 0..read::LOOKS {
                let glance = read::glance(&self.shared.tail(), &read, limits, &self.shared.expiry, Sight::Published);
                let of_read = read.clone();
                let page = match glance {
                    Glance::Page(page) => Some(page),
                    Glance::Part(newer) => {
                        let reading =
                            self.reading(move |shared, reader| read::stream(shared, reader.view(), &of_read, newer));
                        self.noted(reading.await)?
                    }
                    Glance::Aging(head) => {
                        let stream = of_read.stream;
                        self.reading(move |shared, reader| expiry::judge(shared, reader.view(), &stream, head)).await?;
                        None
                    }
                };
                if let Some(page) = page {
                    return Ok(StreamPage { events: self.opened(page.events).await?, ..page });
                }
            }
            Err(read::misplaced_stub(&read))
        })
    }

    fn read_log(&self, read: ReadLog) -> BoxFuture<'_, Result<LogPage, StoreError>> {
        Box::pin(async move {
            self.shared.check_open()?;
            read::check_limit(&self.shared.limits, read.limit)?;
            let read = ReadLog { limit: self.short(read.limit), ..read };
            let mut scan = Scan::new(read, &self.shared.limits);
            loop {
                let glance = scan.tail(&self.shared.tail(), Sight::Published);
                let until = match glance {
                    Ok(page) => return Ok(LogPage { events: self.opened(page.events).await?, ..page }),
                    Err(until) => until,
                };
                let scanned =
                    self.reading(move |shared, reader| scan.indexed(shared, reader.view(), until).map(|()| scan));
                scan = self.noted(scanned.await)?;
            }
        })
    }

    fn streams(
        &self,
        prefix: String,
        after: Option<Name>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<StreamSummary>, StoreError>> {
        Box::pin(async move {
            read::check_limit(&self.shared.limits, limit)?;
            self.reading(move |shared, reader| streams(shared, &reader.connection, &prefix, after.as_ref(), limit))
                .await
        })
    }

    fn query(&self, sql: String, params: Vec<Value>, scope: Scope) -> BoxFuture<'_, Result<Vec<Row>, SqlError>> {
        let env = self.env.clone();
        Box::pin(self.reading(move |shared, reader| {
            // A read transaction pins the write-ahead log, and its thread: it has as long as a transaction has.
            let limit = shared.limits.unit_time;
            let deadline = env.mono() + limit;
            let late = move || env.mono() > deadline;
            reader.interrupt_when(Some(late.clone()));
            let rows = sql::query(&reader.connection, &reader.guard, &sql, &params, scope, &shared.limits);
            reader.interrupt_when(None::<fn() -> bool>);
            match rows {
                Err(SqlError::Store(_)) if late() => {
                    Err(SqlError::Failed { what: format!("it took longer than {limit:?}") })
                }
                rows => rows,
            }
        }))
    }

    fn inquire(&self, inquiry: Inquiry) -> BoxFuture<'_, Result<Findings, SqlError>> {
        Box::pin(async move {
            let (env, shared) = (self.env.clone(), self.shared.clone());
            let gone = inquire::Gone::default();
            let _waiting = inquire::Waiting(gone.clone());
            let asked = move || shared.asking(|reader| inquire::run(&env, &shared, reader, &inquiry, &gone));
            self.env.run_blocking(asked).await
        })
    }

    fn table_columns(&self, table: String) -> BoxFuture<'_, Result<Vec<TableColumn>, StoreError>> {
        Box::pin(self.reading(move |_, reader| inquire::columns(&reader.connection, &table)))
    }

    fn settle(&self, stream: Option<Name>) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.ask(move |reply| Job::Settle(stream, reply)))
    }

    fn metadata(&self, stream: Name) -> BoxFuture<'_, Result<SetMetadata, StoreError>> {
        Box::pin(self.reading(move |_, reader| metadata::read(&reader.connection, &stream)))
    }

    fn ruled(&self, after: Option<Name>, limit: usize) -> BoxFuture<'_, Result<Vec<StreamSummary>, StoreError>> {
        Box::pin(self.reading(move |_, reader| ruled(&reader.connection, after.as_ref(), limit)))
    }

    fn archive(&self, order: ArchiveOrder) -> BoxFuture<'_, Result<Archive, ArchiveError>> {
        Box::pin(async move {
            // One at a time: whether a name is free is asked before it is taken.
            let turn = self.archiving.clone().lock_owned().await;
            self.archive_alone(order, turn).await
        })
    }

    fn archives(&self, stream: Name) -> BoxFuture<'_, Result<Vec<Archive>, StoreError>> {
        Box::pin(self.reading(move |_, reader| archive::of_stream(&reader.connection, &stream)))
    }

    fn all_archives(&self, after: ArchiveId, limit: usize) -> BoxFuture<'_, Result<Vec<Archive>, StoreError>> {
        Box::pin(self.reading(move |_, reader| archive::all(&reader.connection, after, limit)))
    }

    fn erase(&self, subject: Arc<str>) -> BoxFuture<'_, Result<Erased, StoreError>> {
        Box::pin(async move {
            let asked = subject.clone();
            let destroyed = self.ask(|reply| Job::Erase(asked, reply)).await?;
            let (before, generation) = destroyed.generations;
            let events =
                self.reading(move |shared, reader| erase::count(shared, reader.view(), &subject, (before, generation)));
            let events = events.await?;
            let (keys, entry) = (generation - before, destroyed.entry);
            let erased_at = entry.map(|entry| entry.erasure.erased_at);
            Ok(Erased { events, keys, generation, erased_at, entry: entry.map(|entry| entry.number) })
        })
    }

    fn erasures(&self, after: u64, limit: usize) -> BoxFuture<'_, Result<Vec<Entry>, StoreError>> {
        Box::pin(async move {
            read::check_limit(&self.shared.limits, limit)?;
            self.reading(move |_, reader| ledger::page(&reader.connection, after, limit)).await
        })
    }

    fn data_subject(&self, subject: Arc<str>) -> BoxFuture<'_, Result<DataSubject, StoreError>> {
        Box::pin(self.reading(move |shared, reader| {
            let name = shared.keys.hash(&subject);
            // Ordering: the ledger comes first, in an erasure, too: what is found afterwards lives in spite of it.
            let erasure = ledger::newest(&reader.connection, &name)?;
            let live = shared.keys.find(&name)?.and_then(|known| known.live);
            let erased = erasure.map_or(0, |entry| entry.erasure.generation);
            let live = live.map(|key| key.id().generation).filter(|generation| *generation > erased);
            // A key is made before the event that it seals, which may be refused in the end.
            let live = match live {
                Some(generation) => erase::has_sealed(shared, reader.view(), &subject, generation)?,
                None => false,
            };
            let key_missing = erase::misses_key(shared, reader.view(), &subject)?;
            Ok(DataSubject { name, erasure, live, key_missing, incomplete: shared.keys.is_doomed(&name) })
        }))
    }

    fn wipe(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        self.shared.lingering.store(true, Ordering::Relaxed);
        Box::pin(self.ask(Job::Flush))
    }

    fn backup_keys(&self, to: PathBuf) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(self.copy_alone(move |shared, disk| backup::keys(shared, &**disk, &to)))
    }

    fn backup(&self, to: PathBuf, progress: Progress) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(self.copy_alone(move |shared, disk| backup::run(shared, disk, &to, &progress)))
    }

    fn verify(&self, progress: Progress) -> BoxFuture<'_, Result<Verified, StoreError>> {
        Box::pin(self.reading_for_long(move |shared, reader| verify::run(&reader.connection, &shared.keys, &progress)))
    }

    fn close(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.ask(Job::Close))
    }
}

/// Streams from the tables and from the tail, which knows the newer ones.
fn streams(
    shared: &Shared,
    connection: &rusqlite::Connection,
    prefix: &str,
    after: Option<&Name>,
    limit: usize,
) -> Result<Vec<StreamSummary>, StoreError> {
    const LISTING: &str = "listing streams";
    let begins = after.map_or(prefix, |after| after.as_str().max(prefix));
    let wanted = |name: &str| name.starts_with(prefix) && after.is_none_or(|after| name > after.as_str());
    let mut found: BTreeMap<String, StreamHead> = BTreeMap::new();
    {
        let tail = shared.tail();
        let live = tail
            .streams()
            .filter(|(name, _)| wanted(name))
            .map(|(name, slot)| (name.to_string(), slot.head(tail.published())));
        found.extend(live.filter(|(_, head)| head.version.get() > 0));
    }
    // Metadata can be set before there is a stream.
    let sql = format!(
        "SELECT {STREAM_COLUMNS} FROM quorate_stream WHERE name >= ?1 AND (version > 0 OR tombstoned) ORDER BY name"
    );
    let mut select = connection.prepare_cached(&sql).map_err(failed(LISTING))?;
    let rows = select.query_map([begins], StreamRow::read).map_err(failed(LISTING))?;
    for (n, row) in rows
        .filter(|row| !row.as_ref().is_ok_and(|row| after.is_some_and(|after| row.name == after.as_str())))
        .enumerate()
    {
        let row = row.map_err(failed(LISTING))?.check()?;
        if n == limit || !row.name.starts_with(prefix) {
            break;
        }
        found.entry(row.name).or_insert(row.head);
    }
    let summary = |(name, head): (String, StreamHead)| {
        let first = head.first.max(head.rules.first_counted(head.version));
        Name::new(name).ok().map(|stream| StreamSummary { stream, head: StreamHead { first, ..head } })
    };
    Ok(found.into_iter().filter_map(summary).take(limit).collect())
}

/// Streams with rules, in order of their names, as their rows have them.
fn ruled(
    connection: &rusqlite::Connection,
    after: Option<&Name>,
    limit: usize,
) -> Result<Vec<StreamSummary>, StoreError> {
    const LISTING: &str = "listing streams with rules";
    let sql = format!(
        "SELECT {STREAM_COLUMNS} FROM quorate_stream INDEXED BY quorate_stream_ruled
         WHERE (max_count > 0 OR max_age > 0) AND name > ?1 ORDER BY name LIMIT ?2"
    );
    let mut select = connection.prepare_cached(&sql).map_err(failed(LISTING))?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = select
        .query_map(rusqlite::params![after.map_or("", Name::as_str), limit], StreamRow::read)
        .map_err(failed(LISTING))?;
    let mut found = Vec::new();
    for row in rows {
        let row = row.map_err(failed(LISTING))?.check()?;
        found.extend(Name::new(row.name).ok().map(|stream| StreamSummary { stream, head: row.head }));
    }
    Ok(found)
}
