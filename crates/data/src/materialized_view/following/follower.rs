//! One follower of one table.

use std::time::Duration;

use tokio::sync::watch;

use super::{
    super::{
        BuildRow, Namespace, View, ViewError,
        query::{AnswerColumn, AsOf, RowsQuery, TableDescription, named, page_of},
        rows::{self, ShardRow},
        switch,
    },
    changes::{self, CHUNK, Changed, Place},
    recording::{self, Followed},
    told::{Batch, Change, ChangeKind, FollowQuery, Of, Reset, State, Told},
};
use crate::{
    event::Position,
    store::{Bounds, Found, Inquiry, Row, Scope, SqlError, Statement, Value},
};

/// How long a follower rests between looks at least: what changes meanwhile comes together.
const REST: Duration = Duration::from_millis(5);
/// How often in a row a record may be gone that was there a moment ago.
const MOST_LOSSES: u32 = 100;
/// How often to look where nobody here tells when something changed.
const LOOK_AROUND: Duration = Duration::from_millis(50);
/// How often to look although nothing seems to have changed.
const SELDOM: Duration = Duration::from_secs(2);

/// Follows a table of a view.
pub struct Follower {
    view: View,
    query: FollowQuery,
    state: State,
    /// Keeps the recording.
    followed: Option<Followed>,
    progress: watch::Receiver<u64>,
    head: watch::Receiver<Position>,
    nudge: watch::Receiver<u64>,
}

/// What one look found.
struct Look {
    found: Found,
    last: i64,
    as_of: AsOf,
}

/// Why a look found nothing.
enum Lost {
    Reset(Reset),
    Failed(ViewError),
}

impl From<ViewError> for Lost {
    fn from(failed: ViewError) -> Self {
        Self::Failed(failed)
    }
}

impl View {
    /// Follows a table: all rows first, then those that change. `cursor`: what the last thing came with that the follower was
    /// told before, to be told what changed since.
    ///
    /// # Errors
    /// [`ViewError::NotBuilt`] before the first build has caught up; [`ViewError::InvalidQuery`] where the table has no key, or a
    /// column or a value is none.
    pub async fn follow(&self, query: FollowQuery, cursor: Option<&str>) -> Result<Follower, ViewError> {
        let live = self.live().await?;
        let tables = self.shared.tables.of(&self.shared, &live).await?;
        check(&query, named(&live, &tables, &query.table)?)?;
        let place = cursor.map(Place::read);
        let reason = if place.is_some() { Reset::Outdated } else { Reset::Begun };
        Ok(Follower {
            view: self.clone(),
            query,
            state: State::Begin { place: place.flatten(), reason },
            followed: None,
            progress: self.shared.progress.subscribe(),
            head: self.shared.store.watch_head(),
            nudge: self.shared.nudge.subscribe(),
        })
    }
}

/// Refuses what can't be followed.
fn check(query: &FollowQuery, table: &TableDescription) -> Result<(), ViewError> {
    if table.key.is_empty() {
        let what = format!("table `{}` has no key, so that nobody could say which row changed", table.name);
        return Err(ViewError::InvalidQuery { what });
    }
    if query.conditions.len() > RowsQuery::MAX_CONDITIONS {
        let max = RowsQuery::MAX_CONDITIONS;
        return Err(ViewError::InvalidQuery { what: format!("a query has at most {max} conditions") });
    }
    for condition in &query.conditions {
        condition.sql(table, "", &mut Vec::new())?;
    }
    query.columns.iter().try_for_each(|name| table.column(name).map(|_| ()))
}

impl Follower {
    /// What there is to be told next; waits until there is something.
    ///
    /// # Errors
    /// [`ViewError::NotFound`] and [`ViewError::NotBuilt`] where the view was deleted meanwhile; the store's own failures.
    ///
    /// # Cancel safety
    /// Cancel safe: what was not returned is told the next time.
    pub async fn next_batch(&mut self) -> Result<Batch, ViewError> {
        let mut losses = 0;
        loop {
            self.progress.mark_unchanged();
            self.head.mark_unchanged();
            self.nudge.mark_unchanged();
            let forgotten = *self.view.shared.forgotten.borrow();
            let before = self.state.clone();
            let live = self.view.live().await?;
            let tables = self.view.shared.tables.of(&self.view.shared, &live).await?;
            let table = named(&live, &tables, &self.query.table)?;
            let looked = match before.clone() {
                State::Begin { place, reason } => {
                    check(&self.query, table)?;
                    self.begin(&live, table, place, reason).await.map(|()| None)
                }
                State::All { of, since, after, reset } => self.all(&live, table, of, since, after, reset).await,
                State::Changes { of, seq, told } => self.changed(&live, table, of, seq, told).await,
            };
            match looked {
                Ok(Some(batch)) => return Ok(Batch { before, forgotten, ..batch }),
                Ok(None) if matches!(self.state, State::Changes { told: Told::All, .. }) => self.wait().await?,
                Ok(None) => {}
                Err(Lost::Reset(_)) if losses >= MOST_LOSSES => {
                    return Err(ViewError::corrupt("the record of a view's changes", "it cannot be read"));
                }
                Err(Lost::Reset(reason)) => {
                    losses += 1;
                    self.state = State::Begin { place: None, reason };
                    self.view.shared.store.env().sleep(REST).await;
                }
                Err(Lost::Failed(failed)) => return Err(failed),
            }
        }
    }

    /// Whether something was erased since `batch` was read: then it is not to be handed on.
    pub fn is_stale(&self, batch: &Batch) -> bool {
        *self.view.shared.forgotten.borrow() != batch.forgotten
    }

    /// Goes back to before `batch`, which was not handed on, or not all of it: it is read again.
    pub fn go_back(&mut self, batch: &Batch) {
        self.state = match &batch.before {
            State::Begin { .. } | State::All { .. } => {
                State::Begin { place: None, reason: batch.reset.unwrap_or(Reset::Rerecorded) }
            }
            changes @ State::Changes { .. } => changes.clone(),
        };
    }

    /// Finds, or begins, the record of changes, and goes on behind `place` if it is on it.
    async fn begin(
        &mut self,
        live: &BuildRow,
        table: &TableDescription,
        place: Option<Place>,
        reason: Reset,
    ) -> Result<(), Lost> {
        let shared = &self.view.shared;
        self.followed = Some(Followed::new(shared, live.build, &table.name));
        recording::ensure(shared, live, table).await?;
        let namespace = Namespace::new(live.view.clone(), live.build);
        let Statement { sql, params } = recording::recording_statement(live.build, &table.name);
        let row = shared.store.room_query(&sql, params).await.map_err(ViewError::from)?;
        let number = |n: usize| row.first().and_then(|row| row.at(n).as_i64()).ok_or(Lost::Reset(Reset::Rerecorded));
        let (recording, kept) = (number(0)?, number(1)?);
        let tag = Place::tag(&shared.store, live.build.get(), recording, &self.query);
        let of = Of { build: live.build, recording, kept, tag };
        let last = changes::last_statement(&namespace, &table.name);
        let last = shared.store.room_query(&last.sql, last.params).await.map_err(lost)?;
        let last = last.first().and_then(|row| row.at(0).as_i64()).unwrap_or_default();
        self.state = match place {
            Some(place) if place.tag == tag && place.seq <= last && place.seq >= last - kept => {
                State::Changes { of, seq: place.seq, told: Told::Changes }
            }
            _ => State::All { of, since: last, after: None, reset: Some(reason) },
        };
        Ok(())
    }

    /// A page of all rows. What changes while they are read is told behind them.
    async fn all(
        &mut self,
        live: &BuildRow,
        table: &TableDescription,
        of: Of,
        since: i64,
        after: Option<String>,
        reset: Option<Reset>,
    ) -> Result<Option<Batch>, Lost> {
        let query = RowsQuery {
            table: self.query.table.clone(),
            columns: self.query.columns.clone(),
            conditions: self.query.conditions.clone(),
            order: Vec::new(),
            limit: CHUNK,
            after,
        };
        let (page, statement) = page_of(&query, live, table)?;
        let Look { found, .. } = self.look(live, &of, table, statement, CHUNK, Scope::ViewRead(of.build)).await?;
        let shown = page.shown.len();
        let next = match (found.cut, found.rows.last()) {
            (Some(_), Some(last)) => Some(page.end(last).write()?),
            (Some(cut), None) => return Err(ViewError::from(SqlError::Exceeded(cut)).into()),
            (None, _) => None,
        };
        let changes = found.rows.iter().map(|row| Change {
            kind: ChangeKind::Inserted,
            // The order of a page is the key's, whose values stand behind the shown ones.
            key: cut_out(row, shown, table.key.len()),
            row: cut_out(row, 0, shown),
            cursor: None,
        });
        let batch = Batch { reset, ..self.batch(table, changes.collect()) };
        self.state = match next {
            Some(next) => State::All { of, since, after: Some(next), reset: None },
            None => State::Changes { of, seq: since, told: Told::Changes },
        };
        Ok(Some(batch))
    }

    /// Changes behind `seq`. `None`: there are none.
    async fn changed(
        &mut self,
        live: &BuildRow,
        table: &TableDescription,
        of: Of,
        seq: i64,
        told: Told,
    ) -> Result<Option<Batch>, Lost> {
        let namespace = Namespace::new(live.view.clone(), live.build);
        let shown: Vec<String> = match &*self.query.columns {
            [] => table.columns.iter().map(|column| column.name.clone()).collect(),
            named => named.to_vec(),
        };
        let statement = changes::statement(&namespace, table, &shown, &self.query.conditions, seq)?;
        let scope = Scope::View(of.build);
        let Look { found, last, as_of } = self.look(live, &of, table, statement, CHUNK, scope).await?;
        if seq < last - of.kept {
            return Err(Lost::Reset(Reset::Outdated));
        }
        if found.rows.is_empty() {
            if let Some(cut) = found.cut {
                return Err(ViewError::from(SqlError::Exceeded(cut)).into());
            }
            if told == Told::All {
                return Ok(None);
            }
        }
        let mut changes = Vec::with_capacity(found.rows.len());
        let mut end = seq;
        for row in &found.rows {
            let changed = Changed::of(row, table.key.len());
            end = changed.seq;
            let kind = match changed.is_there {
                false => ChangeKind::Deleted,
                true if changed.born > seq => ChangeKind::Inserted,
                true => ChangeKind::Updated,
            };
            let bare = |values: &[Value]| Row { columns: row.columns.clone(), values: values.to_vec() };
            changes.push(Change {
                kind,
                key: bare(changed.key),
                row: bare(if changed.is_there { changed.values } else { &[] }),
                cursor: Some(Place { tag: of.tag, seq: end }.write()),
            });
        }
        let mut batch = self.batch(table, changes);
        batch.cursor = Some(Place { tag: of.tag, seq: end }.write());
        let is_all = found.cut.is_none();
        batch.caught_up = is_all.then_some(as_of);
        let told = if is_all { Told::All } else { Told::Changes };
        self.state = State::Changes { of, seq: end, told };
        Ok(Some(batch))
    }

    fn batch(&self, table: &TableDescription, changes: Vec<Change>) -> Batch {
        let of = |name: &String| table.columns.iter().find(|column| column.name == *name).map(AnswerColumn::of);
        let columns = match &*self.query.columns {
            [] => table.columns.iter().map(AnswerColumn::of).collect(),
            named => named.iter().filter_map(of).collect(),
        };
        let key = table.key.iter().filter_map(of).collect();
        let before = self.state.clone();
        Batch { reset: None, changes, caught_up: None, columns, key, cursor: None, before, forgotten: 0 }
    }

    /// Asks, as of one moment, together with which build and which recording there is.
    async fn look(
        &self,
        live: &BuildRow,
        of: &Of,
        table: &TableDescription,
        own: Statement,
        rows_at_most: usize,
        scope: Scope,
    ) -> Result<Look, Lost> {
        if live.build != of.build {
            return Err(Lost::Reset(Reset::Switched));
        }
        let shared = &self.view.shared;
        let _turn =
            shared.following.turns.acquire().await.map_err(|_| ViewError::from(crate::store::StoreError::Closed))?;
        let head = shared.store.head();
        let reached = shared.local(live.build).map(|local| local.reached()).unwrap_or_default();
        let limits = self.view.query_limits();
        let bounds =
            Bounds { time: limits.time, rows: rows_at_most, bytes: limits.bytes.min(1 << 20), memory: limits.memory };
        let namespace = Namespace::new(live.view.clone(), live.build);
        let room = vec![
            rows::live_statement(&live.view),
            rows::shards_statement(live.build),
            recording::recording_statement(live.build, &table.name),
            changes::last_statement(&namespace, &table.name),
        ];
        let inquiry = Inquiry { room, own: Some(own), scope, bounds, turn: None };
        let findings = shared.store.inquire(inquiry).await.map_err(lost)?;
        let room = <[Vec<Row>; 4]>::try_from(findings.room);
        let [now, shards, recording, last] =
            room.map_err(|_| ViewError::corrupt("an inquiry", "it was answered in part"))?;
        let number = |rows: &[Row]| rows.first().and_then(|row| row.at(0).as_i64());
        if now.first().map(rows::build_row).transpose()?.is_none_or(|now| now.build != of.build) {
            return Err(Lost::Reset(Reset::Switched));
        }
        if number(&recording) != Some(of.recording) {
            return Err(Lost::Reset(Reset::Rerecorded));
        }
        let shards: Vec<ShardRow> = shards.iter().map(rows::shard_row).collect::<Result<_, _>>()?;
        let inline = rows::are_inline(&shards, shared.store.presence().opening());
        let position = switch::least(&shards).max(if inline { head } else { reached });
        let found = findings.own.ok_or_else(|| ViewError::corrupt("an inquiry", "it was answered in part"))?;
        let as_of = AsOf {
            build: live.build,
            version: live.version,
            position,
            head: head.max(position),
            lag: None,
            parked: shards.iter().map(|shard| shard.parked).sum(),
            feeds: Vec::new(),
            stale: false,
        };
        Ok(Look { found, last: number(&last).unwrap_or_default(), as_of })
    }

    /// Waits until rows may have changed.
    async fn wait(&mut self) -> Result<(), ViewError> {
        let shared = self.view.shared.clone();
        let env = shared.store.env();
        env.sleep(REST).await;
        let (is_kept_here, inline) = match &self.state {
            State::Changes { of, .. } => match shared.local(of.build) {
                Some(local) => (true, local.standing(0) == super::super::Standing::Inline),
                None => (false, false),
            },
            _ => (false, false),
        };
        let span = if is_kept_here { SELDOM } else { LOOK_AROUND };
        tokio::select! {
            biased;
            moved = self.progress.changed() => moved.map_err(|_| crate::store::StoreError::Closed)?,
            _ = self.nudge.changed() => {}
            moved = self.head.changed(), if inline => moved.map_err(|_| crate::store::StoreError::Closed)?,
            () = env.sleep(span) => {}
        }
        Ok(())
    }
}

/// A statement over a table of changes, or of a build, that is there no more.
fn lost(failed: SqlError) -> Lost {
    match failed {
        SqlError::Failed { .. } | SqlError::Refused { .. } => Lost::Reset(Reset::Rerecorded),
        // Our own statement over a table that has just been dropped.
        SqlError::Store(crate::store::StoreError::Corrupt { place, .. }) if place == "the schema" => {
            Lost::Reset(Reset::Rerecorded)
        }
        failed => Lost::Failed(failed.into()),
    }
}

fn cut_out(row: &Row, from: usize, count: usize) -> Row {
    let values = row.values.iter().skip(from).take(count).cloned().collect();
    Row { columns: row.columns.clone(), values }
}
