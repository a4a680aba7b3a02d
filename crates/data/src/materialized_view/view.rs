//! One view, as its readers have it.

use std::{sync::Arc, time::Duration};

use quorate_foundations::time::Mono;

use super::{
    Build, BuildRow, Config, FeedStanding, Fingerprint, Mode, Namespace, Standing, ViewError, ViewName,
    advance::digest,
    effects,
    look::{Asked, Look},
    query::{AsOf, Ask, Freshness, Tables},
    rows::{self, ShardRow},
    shared::Shared,
    switch,
};
use crate::{
    event::{Position, Recorded},
    store::{Query, ReadLog, Row, SqlError, Statement, Token, TokenError, Value},
};

/// One view. Cheap to clone; clones are the same.
#[derive(Clone)]
pub struct View {
    pub(super) shared: Arc<Shared>,
    pub(super) name: ViewName,
}

/// Rows of a view, and what they hold.
#[derive(Clone, Debug)]
pub struct Reading {
    /// The rows.
    pub rows: Vec<Row>,
    /// The build they are from.
    pub build: Build,
    /// Its version.
    pub version: u32,
    /// They hold every event up to here, and none behind; of several shards, this is how far the last one is.
    pub position: Position,
    /// But for so many events that are parked.
    pub parked: u64,
}

/// How a view stands.
#[derive(Clone, Debug)]
pub struct Description {
    /// Its name.
    pub name: ViewName,
    /// The last position of the log.
    pub head: Position,
    /// The build that readers have.
    pub live: Option<Build>,
    /// Effects that wait to be carried out, and those that were given up after their last attempt.
    pub effects: (u64, u64),
    /// Declared versions that could not be started in this process, and why: nobody keeps their builds up to date.
    pub not_started: Vec<(u32, String)>,
    /// Its builds, oldest first.
    pub builds: Vec<BuildDescription>,
}

/// How a build stands.
#[derive(Clone, Debug)]
pub struct BuildDescription {
    /// Its number.
    pub build: Build,
    /// The version of its code.
    pub version: u32,
    /// The fingerprint of its code.
    pub fingerprint: Fingerprint,
    /// Whether readers have it.
    pub live: bool,
    /// Whether it is paused.
    pub paused: bool,
    /// In which transaction events are applied.
    pub mode: Mode,
    /// Its tables.
    pub tables: Vec<String>,
    /// Everything up to here that matters to it is in its rows, parked or skipped.
    pub position: Position,
    /// Positions of the log behind that.
    pub lag_events: u64,
    /// How long ago the oldest event behind that was recorded which matters to it; zero where there is none. `None` where
    /// its code does not run here, so that nobody knows which events matter.
    pub lag: Option<Duration>,
    /// How the feeds stand that it is made of; none for one without, or whose code does not run here.
    pub feeds: Vec<FeedStanding>,
    /// Its shards.
    pub shards: Vec<ShardDescription>,
}

/// How a shard stands.
#[derive(Clone, Debug)]
pub struct ShardDescription {
    /// Its number, counted from 0.
    pub shard: u32,
    /// Its owner's epoch.
    pub epoch: u64,
    /// Everything up to here was dealt with, durably.
    pub checkpoint: Position,
    /// Events applied.
    pub applied: u64,
    /// Events that are parked.
    pub parked: u64,
    /// Events that were left out.
    pub skipped: u64,
    /// Positions that were looked at and do not matter to it: together with the events above they are the checkpoint.
    pub filtered: u64,
    /// By how much they are not, and what was done is not what was to be done: 0 unless something was lost on the way, or taken
    /// twice. It is always known; [`View::audit`] also finds what the log's own index left out.
    pub unaccounted: u64,
    /// How it stands with its owner in this process.
    pub standing: Standing,
}

impl BuildDescription {
    /// What is unaccounted for in its [shards](ShardDescription::unaccounted): 0 unless something was lost, or taken twice.
    pub fn unaccounted(&self) -> u64 {
        self.shards.iter().map(|shard| shard.unaccounted).fold(0, u64::saturating_add)
    }
}

/// What a recount of the log says of a build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Audit {
    /// The build.
    pub build: Build,
    /// Events that the log has for it, up to its checkpoints.
    pub expected: u64,
    /// Events that it applied, parked or skipped.
    pub handled: u64,
    /// Whether they are the same events: a checksum over their positions agrees.
    pub same: bool,
}

impl Audit {
    /// Whether every event was dealt with, and none twice.
    pub fn is_whole(&self) -> bool {
        self.same && self.expected == self.handled
    }
}

impl View {
    pub(super) fn new(shared: Arc<Shared>, name: ViewName) -> Self {
        Self { shared, name }
    }

    /// Its name.
    pub fn name(&self) -> &ViewName {
        &self.name
    }

    /// The rows of a query over the build that readers have, in which `{loan}` stands for the table `loan` and `$1`, `$2`, …
    /// for the parameters. It sees one moment of the view, is read-only, and reaches no other table.
    ///
    /// # Errors
    /// [`ViewError::NotBuilt`] before the first build has caught up.
    pub async fn query(&self, sql: &str, params: Vec<Value>) -> Result<Reading, ViewError> {
        self.query_fresh(Freshness::default(), sql, params).await
    }

    /// As [`query`](Self::query), once the view is as fresh as asked for: read your writes.
    ///
    /// # Errors
    /// [`ViewError::Behind`] says how far the view is where time ran out; nothing was read.
    pub async fn query_fresh(&self, fresh: Freshness, sql: &str, params: Vec<Value>) -> Result<Reading, ViewError> {
        let rows = self.query_limits().rows;
        let make = |build: &BuildRow, _: &Tables| {
            let sql = Namespace::new(build.view.clone(), build.build).expand(sql);
            Ok(((), Ask { statement: Statement::new(sql, params.clone()), rows }))
        };
        let read = self.read(fresh, make).await?;
        if let Some(cut) = read.found.cut {
            return Err(SqlError::Exceeded(cut).into());
        }
        let AsOf { build, version, position, parked, .. } = read.as_of;
        Ok(Reading { rows: read.found.rows, build, version, position, parked })
    }

    /// The position that a token stands for, once it is readable here; waits for that as long as a read may.
    ///
    /// # Errors
    /// [`ViewError::Behind`] where it is not readable in time.
    pub(super) async fn wanted(&self, token: Option<Token>, within: Duration) -> Result<Position, ViewError> {
        let Some(token) = token else { return Ok(Position::ZERO) };
        let store = &self.shared.store;
        if token.timeline() != store.timeline() {
            return Err(TokenError.into());
        }
        // There a token says by itself which position it stands for, also where that is not readable yet.
        if store.capabilities().tokens_are_positions {
            return Ok(Position::new(token.append()));
        }
        match store.reach(token, within).await? {
            Some(place) => Ok(place),
            None => {
                let (_, _, applied) = self.reached().await?;
                Err(ViewError::Behind { view: self.name.clone(), applied, wanted: store.head().next() })
            }
        }
    }

    /// Waits until the view has seen what `token` stands for; how far it then is.
    ///
    /// # Errors
    /// As [`query_fresh`](Self::query_fresh).
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn wait(&self, token: Token, within: Duration) -> Result<Position, ViewError> {
        let deadline = self.shared.store.env().mono() + within;
        let wanted = self.wanted(Some(token), within).await?;
        let within = deadline.saturating_since(self.shared.store.env().mono());
        self.wait_until(wanted, within).await.map(|(_, _, position)| position)
    }

    pub(super) async fn wait_until(
        &self,
        wanted: Position,
        within: Duration,
    ) -> Result<(BuildRow, Vec<ShardRow>, Position), ViewError> {
        /// How often to look for what other processes did.
        const LOOK_AROUND: Duration = Duration::from_millis(50);
        let env = self.shared.store.env();
        let deadline = env.mono() + within;
        let mut progress = self.shared.progress.subscribe();
        let mut head = self.shared.store.watch_head();
        let mut waiting: Option<(Arc<Look>, Asked)> = None;
        loop {
            progress.mark_unchanged();
            head.mark_unchanged();
            let found = match &waiting {
                None => self.reached().await,
                Some((look, asked)) => look.share(*asked, self.reached()).await,
            };
            let (failed, inline) = match found {
                Ok((live, shards, applied)) if applied < wanted => {
                    let inline = live.mode == Mode::Inline;
                    (ViewError::Behind { view: live.view, applied, wanted }, inline || shards.is_empty())
                }
                Err(building @ ViewError::NotBuilt { .. }) => (building, false),
                ended => return ended,
            };
            let now = env.mono();
            if now >= deadline {
                return Err(failed);
            }
            // Whoever else looks around meanwhile does so for this as well.
            let look = waiting.map_or_else(|| self.shared.look_at(&self.name), |(look, _)| look);
            let mut asked = look.ask();
            tokio::select! {
                biased;
                _ = progress.changed() => asked = look.ask(),
                _ = head.changed(), if inline => asked = look.ask(),
                () = env.sleep_until(deadline.min(now + LOOK_AROUND)) => {}
            }
            waiting = Some((look, asked));
        }
    }

    /// Waits until a view may have got further, or until then.
    pub(super) async fn step(&self, until: Mono) {
        let mut progress = self.shared.progress.subscribe();
        tokio::select! {
            biased;
            _ = progress.changed() => {}
            () = self.shared.store.env().sleep_until(until) => {}
        }
    }

    pub(super) async fn live(&self) -> Result<BuildRow, ViewError> {
        if let Some(live) = rows::live(&mut &self.shared.store, &self.name).await? {
            return Ok(live);
        }
        let builds = rows::builds(&mut &self.shared.store, &self.name).await?;
        let newest = builds.last().ok_or_else(|| ViewError::NotFound { view: self.name.clone() })?;
        let shards = rows::shards(&mut &self.shared.store, newest.build).await?;
        let applied = self.position(newest, &shards, Position::ZERO);
        Err(ViewError::NotBuilt { view: self.name.clone(), applied, head: self.shared.store.head() })
    }

    async fn reached(&self) -> Result<(BuildRow, Vec<ShardRow>, Position), ViewError> {
        let head = self.shared.store.head();
        let live = self.live().await?;
        let shards = rows::shards(&mut &self.shared.store, live.build).await?;
        let position = self.position(&live, &shards, head);
        Ok((live, shards, position))
    }

    /// How far a build is. `head`: where the log ended before its rows were read.
    fn position(&self, build: &BuildRow, shards: &[ShardRow], head: Position) -> Position {
        if rows::are_inline(shards, self.shared.store.presence().opening()) {
            return head;
        }
        let local = self.shared.local(build.build).map(|local| local.reached()).unwrap_or_default();
        switch::least(shards).max(local)
    }

    /// How the view and each of its builds stand.
    pub async fn describe(&self) -> Result<Description, ViewError> {
        let head = self.shared.store.head();
        let rows = rows::builds(&mut &self.shared.store, &self.name).await?;
        if rows.is_empty() {
            return Err(ViewError::NotFound { view: self.name.clone() });
        }
        let live = rows.iter().find(|build| build.live).map(|build| build.build);
        let mut builds = Vec::with_capacity(rows.len());
        for row in rows {
            builds.push(self.describe_build(row, head).await?);
        }
        let effects = effects::waiting(&self.shared.store, &self.name, self.effect_attempts()).await?;
        let not_started = self.shared.not_started();
        let not_started = not_started.iter().filter(|((view, _), _)| *view == self.name);
        let not_started = not_started.map(|((_, version), reason)| (*version, reason.clone())).collect();
        Ok(Description { name: self.name.clone(), head, live, effects, not_started, builds })
    }

    /// Which events its code takes: that of the build that readers have, or else of the newest. `None` where that code does not run here.
    pub async fn filter(&self) -> Result<Option<Query>, ViewError> {
        let builds = rows::builds(&mut &self.shared.store, &self.name).await?;
        Ok(builds.iter().find(|build| build.live).or(builds.last()).and_then(|build| self.query_of(build)))
    }

    async fn describe_build(&self, row: BuildRow, head: Position) -> Result<BuildDescription, ViewError> {
        let shards = rows::shards(&mut &self.shared.store, row.build).await?;
        let position = self.position(&row, &shards, head).min(head.max(switch::least(&shards)));
        let local = self.shared.local(row.build);
        let describe = |shard: &ShardRow| ShardDescription {
            shard: shard.shard,
            epoch: shard.epoch,
            checkpoint: shard.checkpoint,
            applied: shard.applied,
            parked: shard.parked,
            skipped: shard.skipped,
            filtered: shard.filtered(),
            unaccounted: shard.unaccounted(),
            standing: local.as_ref().map(|local| local.standing(shard.shard)).unwrap_or_default(),
        };
        Ok(BuildDescription {
            lag: self.lag(&row, position).await?,
            feeds: self.feeds(&row).await?,
            build: row.build,
            version: row.version,
            fingerprint: row.fingerprint,
            live: row.live,
            paused: row.paused,
            mode: row.mode,
            tables: row.tables,
            position,
            lag_events: head.get().saturating_sub(position.get()),
            shards: shards.iter().map(describe).collect(),
        })
    }

    pub(super) async fn lag(&self, build: &BuildRow, position: Position) -> Result<Option<Duration>, ViewError> {
        let Some(query) = self.query_of(build) else { return Ok(None) };
        let (store, mut after) = (&self.shared.store, position);
        loop {
            let page = store.read_log(ReadLog { query: query.clone(), after, limit: 1 }).await?;
            if let Some(oldest) = page.events.first() {
                return Ok(Some(store.env().wall().saturating_since(oldest.recorded_at())));
            }
            if page.scanned >= page.head {
                return Ok(Some(Duration::ZERO));
            }
            after = page.scanned;
        }
    }

    pub(super) fn effect_attempts(&self) -> u32 {
        let code = self.shared.code();
        let mine = code.iter().filter(|((view, _), _)| *view == self.name).map(|(_, code)| code.config.effect_attempts);
        mine.max().unwrap_or_else(|| Config::default().effect_attempts)
    }

    /// Whether nothing runs here that could carry effects of this view out.
    pub(super) fn is_without_code(&self) -> bool {
        !self.shared.code().keys().any(|(view, _)| *view == self.name)
    }

    fn query_of(&self, build: &BuildRow) -> Option<Query> {
        self.shared.code_of(build).map(|code| code.query.clone())
    }

    /// Recounts the log, event by event and without an index, and compares with what a build says it dealt with: whether it
    /// missed an event, or took one twice. It takes as long as reading the log.
    ///
    /// # Errors
    /// [`ViewError::NoCode`] where nobody here knows which events matter: the code that made it does not run here.
    pub async fn audit(&self, build: Build) -> Result<Audit, ViewError> {
        let store = &self.shared.store;
        let row = rows::build(&mut &*store, build).await?.filter(|row| row.view == self.name);
        let row = row.ok_or_else(|| ViewError::NoBuild { view: self.name.clone(), build })?;
        // Other code of the version may count other events.
        let code = self.shared.code_of(&row).filter(|code| code.fingerprint == row.fingerprint);
        let code = code.ok_or_else(|| ViewError::NoCode { view: self.name.clone() })?;
        let shards = rows::shards(&mut &*store, build).await?;
        let mut counts = vec![(0_u64, 0_i64); shards.len()];
        let end = shards.iter().map(|shard| shard.checkpoint).max().unwrap_or_default();
        let mut after = Position::ZERO;
        while after < end {
            let read = ReadLog { query: Query::EVERYTHING, after, limit: store.limits().page_events.min(1_000) };
            let page = store.read_log(read).await?;
            let is_counted = |event: &&Recorded| code.query.is_everything() || code.query.matches(event);
            for event in page.events.iter().filter(is_counted) {
                let owner = shards.iter().find(|shard| code.is_in(event, shard.shard, row.shards));
                if let Some(shard) = owner.filter(|shard| event.position() <= shard.checkpoint) {
                    let count = &mut counts[shard.shard as usize];
                    *count = (count.0 + 1, count.1.wrapping_add(digest(event.position())));
                }
            }
            after = page.scanned;
        }
        let handled = shards.iter().map(|shard| shard.applied + shard.parked + shard.skipped).sum();
        let same = shards.iter().zip(&counts).all(|(shard, (_, sum))| shard.checksum == *sum);
        Ok(Audit { build, expected: counts.iter().map(|(count, _)| count).sum(), handled, same })
    }
}
