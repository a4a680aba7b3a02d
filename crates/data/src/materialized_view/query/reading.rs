//! The one way in which a view is read: as of one moment, of one build.

use std::time::Duration;

use super::{
    super::{
        Build, BuildRow, FeedStanding, Feeds, Kind, View, ViewError, WhenStale, feed,
        rows::{self, ShardRow},
        switch,
    },
    Freshness, QueryLimits,
    table::{ColumnDescription, TableDescription, Tables},
};
use crate::{
    event::Position,
    store::{Findings, Found, Inquiry, Row, Scope, SqlError, Statement, Value},
};

/// As of when an answer is, and of what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AsOf {
    /// The build that was read.
    pub build: Build,
    /// The version of its code.
    pub version: u32,
    /// The rows hold every event up to here that matters to the view, and none behind; of a view with several shards, this is how
    /// far the last of them is, and the rows of the others may hold later events.
    pub position: Position,
    /// Where the log ended when it was read.
    pub head: Position,
    /// How old the oldest event behind `position` is that matters to the view; zero where there is none. `None` where nobody
    /// here knows.
    pub lag: Option<Duration>,
    /// Events up to there that are parked, so that the rows are without them.
    pub parked: u64,
    /// How the feeds stand that the view is made of; none for one without, or whose code does not run here.
    pub feeds: Vec<FeedStanding>,
    /// It is older than was asked for, or than the view's contract allows.
    pub stale: bool,
}

/// Rows of a view, as of one moment.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its columns, in order.
    pub columns: Vec<AnswerColumn>,
    /// Its rows, in order. Their values may go on behind those of the columns.
    pub rows: Vec<Row>,
    /// Where the next page begins; `None` where this is the last one.
    pub next: Option<String>,
    /// As of when it is.
    pub as_of: AsOf,
}

/// A column of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnswerColumn {
    /// Its name.
    pub name: String,
    /// How its values are shown; `None`: as they are.
    pub kind: Option<Kind>,
}

impl AnswerColumn {
    pub(in super::super) fn of(column: &ColumnDescription) -> Self {
        Self { name: column.name.clone(), kind: column.kind }
    }
}

impl Answer {
    pub(super) fn new(columns: Vec<AnswerColumn>, rows: Vec<Row>, as_of: AsOf) -> Self {
        Self { columns, rows, next: None, as_of }
    }

    pub(super) fn with_next(self, next: Option<String>) -> Self {
        Self { next, ..self }
    }

    /// A row as it is shown: an object with a member for each column, in order.
    pub fn shown<'a>(&'a self, row: &'a Row) -> impl serde::Serialize + 'a {
        Shown { columns: &self.columns, row }
    }

    /// About how many bytes it takes in memory.
    pub fn bytes(&self) -> usize {
        self.rows.iter().map(row_bytes).sum()
    }
}

/// About how many bytes a row takes in memory.
pub(in super::super) fn row_bytes(row: &Row) -> usize {
    let size = |value: &Value| match value {
        Value::Text(text) => text.len(),
        Value::Blob(bytes) => bytes.len(),
        _ => 0,
    };
    row.values.iter().map(|value| 32 + size(value)).sum()
}

/// A row with these columns, as it is shown.
pub(in super::super) struct Shown<'a> {
    pub(in super::super) columns: &'a [AnswerColumn],
    pub(in super::super) row: &'a Row,
}

impl serde::Serialize for Shown<'_> {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let value = |(column, value): (&'_ AnswerColumn, &'_ Value)| column.kind.unwrap_or(Kind::Text).show(value);
        let members = self.columns.iter().zip(&self.row.values).map(|both| (&both.0.name, value(both)));
        to.collect_map(members)
    }
}

/// What to ask of a build.
pub(in super::super) struct Ask {
    pub(in super::super) statement: Statement,
    /// Rows at most.
    pub(in super::super) rows: usize,
}

/// What was asked, and what was found.
pub(in super::super) struct Read<M> {
    pub(in super::super) made: M,
    pub(in super::super) found: Found,
    pub(in super::super) as_of: AsOf,
}

impl View {
    /// What queries may take.
    pub fn query_limits(&self) -> &QueryLimits {
        &self.shared.gate.limits
    }

    /// The tables that readers have.
    ///
    /// # Errors
    /// [`ViewError::NotBuilt`] before the first build has caught up.
    pub async fn tables(&self) -> Result<Vec<TableDescription>, ViewError> {
        let live = self.live().await?;
        Ok(self.shared.tables.of(&self.shared, &live).await?.to_vec())
    }

    /// Asks what `make` makes of the build that readers have, once the view is as fresh as wanted.
    pub(in super::super) async fn read<M>(
        &self,
        fresh: Freshness,
        make: impl Fn(&BuildRow, &Tables) -> Result<(M, Ask), ViewError>,
    ) -> Result<Read<M>, ViewError> {
        let env = self.shared.store.env();
        let deadline = env.mono() + fresh.wait;
        let wanted = self.wanted(fresh.at_least, fresh.wait).await?;
        loop {
            let left = deadline.saturating_since(env.mono());
            let (live, ..) = self.wait_until(wanted, left).await?;
            let tables = self.shared.tables.of(&self.shared, &live).await?;
            let (made, ask) = make(&live, &tables)?;
            let Some((found, as_of)) = self.ask(&live, ask).await? else { continue };
            // Whoever was shown a position before it was read again sees no less.
            if as_of.position < wanted {
                continue;
            }
            match self.judged(as_of, &live, fresh) {
                Ok(as_of) => return Ok(Read { made, found, as_of }),
                Err(stale) => {
                    let now = env.mono();
                    // Looking again makes no feed younger: only its next word does, which may be hours away.
                    if now >= deadline || matches!(stale, ViewError::FeedStale { .. }) {
                        return Err(stale);
                    }
                    self.step(deadline.min(now + LOOK_AGAIN)).await;
                }
            }
        }
    }

    /// Asks, together with which build is live and how far it is. `None`: readers have another build by now.
    async fn ask(&self, live: &BuildRow, ask: Ask) -> Result<Option<(Found, AsOf)>, ViewError> {
        let store = &self.shared.store;
        let turn = self.shared.gate.enter(store.env()).await?;
        // Ordering: how far appends and runners are, before the moment that is read: nothing up to there is missing then.
        let head = store.head();
        let reached = self.shared.local(live.build).map(|local| local.reached()).unwrap_or_default();
        let bounds = self.query_limits().bounds(ask.rows);
        let feeds = self.feeds_of(live);
        let mut room = vec![rows::live_statement(&self.name), rows::shards_statement(live.build)];
        room.extend(feeds.as_ref().map(|_| feed::statement(live.build)));
        let inquiry =
            Inquiry { room, own: Some(ask.statement), scope: Scope::ViewRead(live.build), bounds, turn: Some(turn) };
        let Findings { mut room, own } = match store.inquire(inquiry).await {
            Ok(findings) => findings,
            // Its tables may have been dropped in the meantime, after readers were given another build.
            Err(SqlError::Failed { .. } | SqlError::Refused { .. }) if self.live().await?.build != live.build => {
                return Ok(None);
            }
            Err(failed) => return Err(failed.into()),
        };
        let heard = if feeds.is_some() { room.pop() } else { None };
        let [now, shards] =
            <[Vec<Row>; 2]>::try_from(room).map_err(|_| ViewError::corrupt("an inquiry", "it was answered in part"))?;
        if now.first().map(rows::build_row).transpose()?.is_none_or(|now| now.build != live.build) {
            return Ok(None);
        }
        let shards: Vec<ShardRow> = shards.iter().map(rows::shard_row).collect::<Result<_, _>>()?;
        let inline = rows::are_inline(&shards, store.presence().opening());
        let position = switch::least(&shards).max(if inline { head } else { reached });
        let found = own.ok_or_else(|| ViewError::corrupt("an inquiry", "it was answered in part"))?;
        let as_of = AsOf {
            build: live.build,
            version: live.version,
            position,
            head: head.max(position),
            lag: self.lag(live, position).await?,
            parked: shards.iter().map(|shard| shard.parked).sum(),
            feeds: match feeds.zip(heard) {
                Some((feeds, heard)) => feed::standings(&feeds, &heard, store.env().wall())?,
                None => Vec::new(),
            },
            stale: false,
        };
        Ok(Some((found, as_of)))
    }

    /// The feeds that a build is made of, where its code runs here.
    fn feeds_of(&self, build: &BuildRow) -> Option<Feeds> {
        self.shared.code_of(build).and_then(|code| code.config.feeds.clone())
    }

    /// How the feeds stand that a build is made of; none for one without.
    pub(in super::super) async fn feeds(&self, build: &BuildRow) -> Result<Vec<FeedStanding>, ViewError> {
        let Some(feeds) = self.feeds_of(build) else { return Ok(Vec::new()) };
        let (store, statement) = (&self.shared.store, feed::statement(build.build));
        let heard = store.room_query(&statement.sql, statement.params).await?;
        feed::standings(&feeds, &heard, store.env().wall())
    }

    /// Whether an answer is as fresh as the reader wants, or the view's contract says; or whether it may say that it is not.
    fn judged(&self, as_of: AsOf, live: &BuildRow, fresh: Freshness) -> Result<AsOf, ViewError> {
        let contract = self.shared.code_of(live).and_then(|code| code.config.staleness);
        let (max_lag, max_events) = match fresh.max_lag {
            Some(asked) => (Some(asked), None),
            None => {
                let contract = contract.unwrap_or_default();
                (contract.max_seconds.map(Duration::from_secs), contract.max_events)
            }
        };
        let behind = as_of.head.get().saturating_sub(as_of.position.get());
        let lag = if behind == 0 { Some(Duration::ZERO) } else { as_of.lag };
        let is_young = max_lag.is_none_or(|most| lag.is_some_and(|lag| lag <= most));
        let is_up_to_date = is_young && max_events.is_none_or(|most| behind <= most);
        let late = FeedStanding::worst(as_of.feeds.iter().filter(|feed| feed.stale)).cloned();
        if is_up_to_date && late.is_none() {
            return Ok(as_of);
        }
        match (fresh.beyond.or(contract.map(|contract| contract.then)).unwrap_or_default(), late) {
            (WhenStale::Flag, _) => Ok(AsOf { stale: true, ..as_of }),
            (WhenStale::Refuse, Some(FeedStanding { source, said, lag, .. })) if is_up_to_date => {
                let max_lag = self.feeds_of(live).and_then(|feeds| feeds.max_lag).unwrap_or_default();
                Err(ViewError::FeedStale { view: live.view.clone(), feed: source, said, lag, max_lag })
            }
            (WhenStale::Refuse, _) => {
                let (view, applied) = (live.view.clone(), as_of.position);
                Err(ViewError::Stale { view, applied, behind, lag: as_of.lag, max_lag, max_events })
            }
        }
    }
}

/// How often to look again at a view that is too old.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
