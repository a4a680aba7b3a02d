//! The room's tables, and their rows in and out.
//!
//! `epoch` is the fence of a shard: whoever owns it has the highest, and every write of an owner says which epoch it
//! believes in and which checkpoint it starts from. `revision` rises with everything that somebody else changes of a shard
//! (a replay, a skip, a reason that was erased), so that an owner who remembers less reads again before it writes. `inline` is the opening of the store
//! in which appends keep the shard; 0: they do not. `looked`, `handed` and `handed_sum` count what was read, `applied`, `parked`,
//! `skipped` and `checksum` what was done: two counts of the same, each kept where it comes about.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    Build, Fingerprint, Mode, OnPoison, Switch, ViewError, ViewName,
    machine::{Handed, Ordered, Trouble},
    presence::Opening,
};
use crate::{
    event::Position,
    store::{DynTx, RoomTables, Row, SqlError, Statement, Store, Value},
};

/// The tables, by version.
pub(crate) const TABLES: RoomTables = RoomTables {
    room: "view",
    versions: &[
        "
        CREATE TABLE quorate_view (
            name TEXT PRIMARY KEY,
            live BIGINT,
            switched BIGINT NOT NULL);
        CREATE TABLE quorate_view_build (
            build BIGINT PRIMARY KEY,
            view TEXT NOT NULL,
            version BIGINT NOT NULL,
            fingerprint TEXT NOT NULL,
            tables TEXT NOT NULL,
            shards BIGINT NOT NULL,
            mode TEXT NOT NULL,
            on_poison TEXT NOT NULL,
            switch TEXT NOT NULL,
            paused BIGINT NOT NULL,
            begun BIGINT NOT NULL,
            effects_after TEXT NOT NULL,
            created_ns BIGINT NOT NULL,
            dropped BIGINT NOT NULL);
        CREATE INDEX quorate_view_build_view ON quorate_view_build (view);
        CREATE TABLE quorate_view_shard (
            build BIGINT NOT NULL,
            shard BIGINT NOT NULL,
            epoch BIGINT NOT NULL,
            owner TEXT NOT NULL,
            beat BIGINT NOT NULL,
            revision BIGINT NOT NULL,
            checkpoint BIGINT NOT NULL,
            inline BIGINT NOT NULL,
            applied BIGINT NOT NULL,
            parked BIGINT NOT NULL,
            skipped BIGINT NOT NULL,
            checksum BIGINT NOT NULL,
            trouble BIGINT NOT NULL,
            attempts BIGINT NOT NULL,
            reason TEXT NOT NULL,
            ordered TEXT NOT NULL,
            PRIMARY KEY (build, shard));
        CREATE TABLE quorate_view_parked (
            build BIGINT NOT NULL,
            position BIGINT NOT NULL,
            shard BIGINT NOT NULL,
            order_key TEXT NOT NULL,
            kind TEXT NOT NULL,
            reason TEXT NOT NULL,
            subject TEXT NOT NULL,
            attempts BIGINT NOT NULL,
            parked_ns BIGINT NOT NULL,
            PRIMARY KEY (build, position));
        CREATE INDEX quorate_view_parked_key ON quorate_view_parked (build, order_key, position);
        CREATE TABLE quorate_view_skipped (
            build BIGINT NOT NULL,
            position BIGINT NOT NULL,
            order_key TEXT NOT NULL,
            kind TEXT NOT NULL,
            reason TEXT NOT NULL,
            subject TEXT NOT NULL,
            skipped_by TEXT NOT NULL,
            skipped_ns BIGINT NOT NULL,
            PRIMARY KEY (build, position));
        CREATE TABLE quorate_view_effect (
            view TEXT NOT NULL,
            position BIGINT NOT NULL,
            ordinal BIGINT NOT NULL,
            held BIGINT NOT NULL,
            key_hash BIGINT NOT NULL,
            kind TEXT NOT NULL,
            payload TEXT NOT NULL,
            subject TEXT NOT NULL,
            attempts BIGINT NOT NULL,
            reason TEXT NOT NULL,
            PRIMARY KEY (view, position, ordinal, held));
        CREATE TABLE quorate_view_subject (
            build BIGINT NOT NULL,
            subject TEXT NOT NULL,
            first_ns BIGINT NOT NULL,
            PRIMARY KEY (build, subject));
        CREATE INDEX quorate_view_subject_subject ON quorate_view_subject (subject)
    ",
        "
        ALTER TABLE quorate_view_build ADD COLUMN effects_except TEXT NOT NULL DEFAULT ''
    ",
        "
        CREATE TABLE quorate_view_feed (
            build BIGINT NOT NULL,
            source TEXT NOT NULL,
            said_ns BIGINT,
            arrived_ns BIGINT,
            heard_ns BIGINT NOT NULL,
            PRIMARY KEY (build, source))
    ",
        // Counting begins where shards are: of what went before, only a recount tells.
        "
        ALTER TABLE quorate_view_shard ADD COLUMN looked BIGINT NOT NULL DEFAULT 0;
        ALTER TABLE quorate_view_shard ADD COLUMN handed BIGINT NOT NULL DEFAULT 0;
        ALTER TABLE quorate_view_shard ADD COLUMN handed_sum BIGINT NOT NULL DEFAULT 0;
        UPDATE quorate_view_shard SET looked = checkpoint, handed = applied + parked + skipped, handed_sum = checksum;
        ALTER TABLE quorate_view_shard ADD COLUMN ordered_by TEXT NOT NULL DEFAULT '';
        ALTER TABLE quorate_view_build ADD COLUMN was_live BIGINT NOT NULL DEFAULT 0;
        UPDATE quorate_view_build SET was_live = 1
            WHERE build < (SELECT live FROM quorate_view WHERE quorate_view.name = quorate_view_build.view)
    ",
    ],
};

impl ShardRow {
    /// Whether every append keeps it up to date, for as long as the store is open this time.
    ///
    /// What the row says of an earlier opening is over: until its runner has caught up again, nobody knows whether all
    /// appends since were made with the view's code beside them.
    pub(super) fn is_inline(&self, opening: Opening) -> bool {
        self.inline == opening.stored()
    }
}

/// Whether every append keeps all shards up to date.
pub(super) fn are_inline(shards: &[ShardRow], opening: Opening) -> bool {
    !shards.is_empty() && shards.iter().all(|shard| shard.is_inline(opening))
}

/// A build's row.
#[derive(Clone, Debug)]
pub(super) struct BuildRow {
    pub(super) build: Build,
    pub(super) view: ViewName,
    pub(super) version: u32,
    pub(super) fingerprint: Fingerprint,
    pub(super) tables: Vec<String>,
    pub(super) shards: u32,
    pub(super) mode: Mode,
    pub(super) on_poison: OnPoison,
    pub(super) switch: Switch,
    pub(super) paused: bool,
    /// Where the log ended when it was begun.
    pub(super) begun: Position,
    pub(super) created_ns: i64,
    /// Up to where other builds carried effects out: for each of their shards.
    pub(super) effects_after: Vec<Position>,
    /// Which of the events up to there the build before had parked, so that nobody has carried out their effects.
    pub(super) effects_except: BTreeSet<Position>,
    pub(super) live: bool,
    /// Whether readers were given another one after it.
    pub(super) was_live: bool,
}

/// A shard's row.
#[derive(Clone, Debug)]
pub(super) struct ShardRow {
    pub(super) shard: u32,
    pub(super) epoch: u64,
    pub(super) owner: String,
    pub(super) beat: u64,
    pub(super) revision: u64,
    pub(super) checkpoint: Position,
    /// The opening of the store in which every append keeps it; see [`is_inline`](Self::is_inline).
    inline: i64,
    pub(super) applied: u64,
    pub(super) parked: u64,
    pub(super) skipped: u64,
    pub(super) checksum: i64,
    /// What it was handed up to its checkpoint.
    pub(super) handed: Handed,
    pub(super) trouble: Option<Trouble>,
}

const BUILD: &str =
    "b.build, b.view, b.version, b.fingerprint, b.tables, b.shards, b.mode, b.on_poison, b.switch, b.paused,
    b.begun, b.created_ns, b.effects_after, b.effects_except, CASE WHEN v.live = b.build THEN 1 ELSE 0 END, b.was_live";
const SHARD: &str =
    "shard, epoch, owner, beat, revision, checkpoint, inline, applied, parked, skipped, checksum, trouble,
    attempts, reason, ordered, ordered_by, looked, handed, handed_sum";

/// Where rows are read from: inside a transaction, or outside.
pub(super) trait Rows {
    async fn rows(&mut self, sql: &str, params: Vec<Value>) -> Result<Vec<Row>, SqlError>;
}

impl Rows for DynTx {
    async fn rows(&mut self, sql: &str, params: Vec<Value>) -> Result<Vec<Row>, SqlError> {
        self.room_query(sql, &params).await
    }
}

impl Rows for &Store {
    async fn rows(&mut self, sql: &str, params: Vec<Value>) -> Result<Vec<Row>, SqlError> {
        self.room_query(sql, params).await
    }
}

/// The builds of a view that were not dropped, oldest first.
pub(super) async fn builds(from: &mut impl Rows, view: &ViewName) -> Result<Vec<BuildRow>, ViewError> {
    let sql = format!(
        "SELECT {BUILD} FROM quorate_view_build b JOIN quorate_view v ON v.name = b.view
         WHERE b.view = $1 AND b.dropped = 0 ORDER BY b.build"
    );
    from.rows(&sql, vec![text(view)]).await?.iter().map(build_row).collect()
}

/// A build that was not dropped.
pub(super) async fn build(from: &mut impl Rows, build: Build) -> Result<Option<BuildRow>, ViewError> {
    let sql = format!(
        "SELECT {BUILD} FROM quorate_view_build b JOIN quorate_view v ON v.name = b.view
         WHERE b.build = $1 AND b.dropped = 0"
    );
    from.rows(&sql, vec![of(build)]).await?.first().map(build_row).transpose()
}

/// The build that readers of a view have.
pub(super) async fn live(from: &mut impl Rows, view: &ViewName) -> Result<Option<BuildRow>, ViewError> {
    let Statement { sql, params } = live_statement(view);
    from.rows(&sql, params).await?.first().map(build_row).transpose()
}

/// What [`live`] asks: a [`build_row`], if any.
pub(super) fn live_statement(view: &ViewName) -> Statement {
    let sql = format!(
        "SELECT {BUILD} FROM quorate_view v JOIN quorate_view_build b ON b.build = v.live
         WHERE v.name = $1 AND b.dropped = 0"
    );
    Statement::new(sql, [text(view)])
}

/// Names of views in order.
pub(super) async fn names(from: &mut impl Rows) -> Result<Vec<ViewName>, ViewError> {
    let rows = from.rows("SELECT name FROM quorate_view ORDER BY name", Vec::new()).await?;
    rows.iter().map(|row| view_name(row.at(0))).collect()
}

/// The shards of a build, in order.
pub(super) async fn shards(from: &mut impl Rows, build: Build) -> Result<Vec<ShardRow>, ViewError> {
    let Statement { sql, params } = shards_statement(build);
    from.rows(&sql, params).await?.iter().map(shard_row).collect()
}

/// What [`shards`] asks: [`shard_row`]s.
pub(super) fn shards_statement(build: Build) -> Statement {
    Statement::new(format!("SELECT {SHARD} FROM quorate_view_shard WHERE build = $1 ORDER BY shard"), [of(build)])
}

/// One shard of a build.
pub(super) async fn shard(from: &mut impl Rows, build: Build, shard: u32) -> Result<Option<ShardRow>, ViewError> {
    let sql = format!("SELECT {SHARD} FROM quorate_view_shard WHERE build = $1 AND shard = $2");
    from.rows(&sql, vec![of(build), shard.into()]).await?.first().map(shard_row).transpose()
}

/// The keys of a shard that have parked events.
pub(super) async fn parked_keys(
    from: &mut impl Rows,
    build: Build,
    shard: u32,
) -> Result<BTreeSet<Arc<str>>, ViewError> {
    let sql = "SELECT DISTINCT order_key FROM quorate_view_parked WHERE build = $1 AND shard = $2";
    let rows = from.rows(sql, vec![of(build), shard.into()]).await?;
    rows.iter().map(|row| string(row.at(0), "order_key").map(Arc::from)).collect()
}

/// A build's parked events: their positions, and the keys they belong to.
pub(super) async fn parked(from: &mut impl Rows, build: Build) -> Result<BTreeMap<Position, String>, ViewError> {
    let sql = "SELECT position, order_key FROM quorate_view_parked WHERE build = $1";
    let rows = from.rows(sql, vec![of(build)]).await?;
    let one =
        |row: &Row| Ok((Position::new(unsigned(row.at(0), "position")?), string(row.at(1), "order_key")?.to_owned()));
    rows.iter().map(one).collect()
}

/// Writes down, or forgets, what holds a shard up; `false` if somebody else owns it, or changed something of it, by now.
pub(super) async fn write_trouble(
    tx: &mut DynTx,
    build: Build,
    shard: u32,
    (epoch, revision): (u64, u64),
    trouble: &Trouble,
) -> Result<bool, SqlError> {
    let sql = "UPDATE quorate_view_shard SET trouble = $1, attempts = $2, reason = $3, ordered = '', ordered_by = ''
        WHERE build = $4 AND shard = $5 AND epoch = $6 AND revision = $7";
    let params = [
        position(trouble.position),
        trouble.attempts.into(),
        trouble.reason.clone().into(),
        of(build),
        shard.into(),
        number(epoch),
        number(revision),
    ];
    tx.room_execute(sql, &params).await.map(|rows| rows > 0)
}

/// A build.
pub(super) fn build_row(row: &Row) -> Result<BuildRow, ViewError> {
    let stored = |n: usize, column| string(row.at(n), column);
    let missing = |column| move || ViewError::corrupt(place(column), "no such value");
    Ok(BuildRow {
        build: Build::new(small(row.at(0), "build")?),
        view: view_name(row.at(1))?,
        version: small(row.at(2), "version")?,
        fingerprint: Fingerprint::stored(stored(3, "fingerprint")?),
        tables: stored(4, "tables")?.split(' ').map(str::to_owned).collect(),
        shards: small(row.at(5), "shards")?,
        mode: Mode::stored(stored(6, "mode")?).ok_or_else(missing("mode"))?,
        on_poison: OnPoison::stored(stored(7, "on_poison")?).ok_or_else(missing("on_poison"))?,
        switch: Switch::stored(stored(8, "switch")?).ok_or_else(missing("switch"))?,
        paused: unsigned(row.at(9), "paused")? != 0,
        begun: Position::new(unsigned(row.at(10), "begun")?),
        created_ns: row.at(11).as_i64().unwrap_or_default(),
        effects_after: positions(stored(12, "effects_after")?)?,
        effects_except: positions(stored(13, "effects_except")?)?.into_iter().collect(),
        live: unsigned(row.at(14), "live")? != 0,
        was_live: unsigned(row.at(15), "was_live")? != 0,
    })
}

/// A shard.
pub(super) fn shard_row(row: &Row) -> Result<ShardRow, ViewError> {
    let count = |n: usize, column| unsigned(row.at(n), column);
    let (ordered, by) = (string(row.at(14), "ordered")?, string(row.at(15), "ordered_by")?);
    let trouble = Trouble {
        position: Position::new(count(11, "trouble")?),
        attempts: small(row.at(12), "attempts")?,
        reason: string(row.at(13), "reason")?.to_owned(),
        ordered: OnPoison::stored(ordered).map(|verdict| Ordered { verdict, by: by.to_owned() }),
        certain: false,
    };
    Ok(ShardRow {
        shard: small(row.at(0), "shard")?,
        epoch: count(1, "epoch")?,
        owner: string(row.at(2), "owner")?.to_owned(),
        beat: count(3, "beat")?,
        revision: count(4, "revision")?,
        checkpoint: Position::new(count(5, "checkpoint")?),
        inline: row.at(6).as_i64().unwrap_or_default(),
        applied: count(7, "applied")?,
        parked: count(8, "parked")?,
        skipped: count(9, "skipped")?,
        checksum: row.at(10).as_i64().unwrap_or_default(),
        handed: Handed {
            positions: count(16, "looked")?,
            events: count(17, "handed")?,
            sum: row.at(18).as_i64().unwrap_or_default(),
        },
        trouble: (trouble.position > Position::ZERO).then_some(trouble),
    })
}

/// Positions as they are stored in one column.
pub(super) fn positions_text<'p>(positions: impl IntoIterator<Item = &'p Position>) -> String {
    positions.into_iter().map(|position| position.to_string()).collect::<Vec<_>>().join(" ")
}

fn positions(text: &str) -> Result<Vec<Position>, ViewError> {
    let parsed = text.split_ascii_whitespace().map(|number| number.parse().map(Position::new));
    parsed.collect::<Result<_, _>>().map_err(|cause| ViewError::corrupt(place("effects_after"), cause))
}

fn view_name(value: &Value) -> Result<ViewName, ViewError> {
    let name = string(value, "name")?;
    ViewName::new(name).map_err(|cause| ViewError::corrupt(place("name"), cause))
}

/// A view's name as a parameter.
pub(super) fn text(view: &ViewName) -> Value {
    view.as_str().into()
}

/// A build as a parameter.
pub(super) fn of(build: Build) -> Value {
    i64::from(build.get()).into()
}

/// A position as a parameter.
pub(super) fn position(position: Position) -> Value {
    number(position.get())
}

/// A count as a parameter.
pub(super) fn number(n: u64) -> Value {
    Value::Integer(n.cast_signed())
}

/// A count from a row.
pub(super) fn unsigned(value: &Value, column: &'static str) -> Result<u64, ViewError> {
    let number = value.as_i64().and_then(|n| u64::try_from(n).ok());
    number.ok_or_else(|| ViewError::corrupt(place(column), "it is not a count"))
}

fn small(value: &Value, column: &'static str) -> Result<u32, ViewError> {
    u32::try_from(unsigned(value, column)?).map_err(|cause| ViewError::corrupt(place(column), cause))
}

/// A text from a row.
pub(super) fn string<'v>(value: &'v Value, column: &'static str) -> Result<&'v str, ViewError> {
    value.as_str().ok_or_else(|| ViewError::corrupt(place(column), "it is not a text"))
}

fn place(column: &str) -> String {
    format!("the tables of views, column `{column}`")
}
