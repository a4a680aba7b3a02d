//! The SQL, with the schema's name in its place.

use std::time::Duration;

/// Every statement of a store.
pub(super) struct Statements {
    /// Begins a transaction that appends.
    pub(super) begin: String,
    /// Begins the transaction of a group that waits for nobody for long.
    pub(super) begin_hurried: String,
    /// Begins a transaction with a closure: no schema is registered until it has ended.
    pub(super) begin_unit: String,
    /// Begins one that may register schemas: nobody else's closure is at work until it has ended.
    pub(super) begin_unit_alone: String,
    /// Begins the transaction of a statement that only reads.
    pub(super) begin_query: String,
    /// What follows is the application's, with its rights and among its tables.
    pub(super) as_application: String,
    /// What follows is quorate's own, and finds the tables of rooms.
    pub(super) as_own: String,
    /// The count of changes of the schemas.
    pub(super) schemas: String,
    /// Counts one more.
    pub(super) schemas_change: String,
    /// `$1`: numbers of words in order, `$2`: whether each is wanted alone.
    pub(super) words: &'static str,
    /// `$1`: numbers of words in order, `$2`: whether each is wanted alone, `$3`: names. Locks the words and the streams, which
    /// are made if they are not there: id, name, version, hash.
    pub(super) lock_streams: String,
    /// The same in a transaction with a closure.
    pub(super) hold_streams: String,
    /// `$1`: keys. Events that are known: key, id, body.
    pub(super) known: String,
    /// `$1` … `$7`: stream, version, key, type, category, tags, body; `$8` … `$10`: stream, version, hash. Returns id, stream,
    /// version.
    pub(super) write: String,
    /// The same in a transaction with a closure, with names of streams as `$8`. What is known is not among the answers.
    pub(super) write_held: String,
    /// One run of the sequencer; the last row is the end of the log: position, event.
    pub(super) sequence: String,
    /// The same, of which nobody is told.
    pub(super) sequence_silently: String,
    /// Has the server tell of every run that gave positions.
    pub(super) listen: String,
    /// The end of the log: position, event; no row while it is empty.
    pub(super) end: String,
    /// `$1`: ids of events. Event, position.
    pub(super) places: String,
    /// `$1`: a name. id, version, the position of its last event, that event, and how often its metadata were set.
    pub(super) stream: String,
    /// `$1`: a name, as [`stream`](Self::stream) inside a transaction: id, version, how often its metadata were set.
    pub(super) own_stream: String,
    /// `$1`: prefix, `$2`: begins behind, `$3`: limit. name, version, how often its metadata were set.
    pub(super) streams: String,
    /// `$1`: a name. id, how often its metadata were set, the values and their checksum.
    pub(super) metadata: String,
    /// `$1`: a name. Makes the stream if it is not there, and holds it: id, how often its metadata were set, which does not change until the
    /// transaction has ended.
    pub(super) metadata_held: String,
    /// `$1`: a stream, `$2`: its name, `$3`: how often its metadata are set with these, `$4`: their values, `$5`: the checksum.
    pub(super) set_metadata: String,
    pub(super) schema: String,
}

impl Statements {
    /// Those of the store in `schema`, whose sequencer holds lock `sequencing`. `flush`: commits are to be waited for, whatever
    /// the server's default is.
    pub(super) fn new(schema: &str, application: &str, sequencing: i64, flush: bool, unit_time: Duration) -> Self {
        let s = format!("\"{schema}\"");
        let flush = if flush { "; SET LOCAL synchronous_commit = on" } else { "" };
        let unit = unit_time.as_millis().max(1);
        let quarter = (unit / 4).max(1);
        let as_own = format!("SET LOCAL ROLE NONE; SET LOCAL search_path TO {s}, pg_temp; ");
        // Not READ WRITE: where somebody set `default_transaction_read_only`, or made a standby of it, that holds.
        // Whoever is stopped in the middle of an append holds rows that others wait for.
        let begin = |waiting: &str| {
            format!(
                "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL statement_timeout = '30s'; \
                 SET LOCAL lock_timeout = '{waiting}'; SET LOCAL idle_in_transaction_session_timeout = '5s'{flush}"
            )
        };
        // The lock comes before the snapshot, which is taken by the first statement that reads. Whoever wants it alone waits for
        // moments: as long as it waits, everybody who comes later waits behind it. Whoever waits for others is run again before
        // its time is over: what they hold may be what this is in the way of.
        let begin_unit = |lock: &str, waiting: u128| {
            format!(
                "BEGIN ISOLATION LEVEL SERIALIZABLE; SET LOCAL statement_timeout = '{unit}ms'; \
                 SET LOCAL lock_timeout = '{waiting}ms'; SET LOCAL idle_in_transaction_session_timeout = '{idle}ms'{flush}; \
                 SET LOCAL standard_conforming_strings = on; {as_own}LOCK TABLE {s}.meta IN {lock} MODE; \
                 SET LOCAL lock_timeout = '{quarter}ms'",
                idle = unit + 5_000
            )
        };
        Self {
            begin: begin("10s"),
            begin_hurried: begin("50ms"),
            begin_unit: begin_unit("ROW SHARE", quarter),
            begin_unit_alone: begin_unit("EXCLUSIVE", quarter.min(100)),
            begin_query: format!(
                "BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY; SET LOCAL statement_timeout = '{unit}ms'; \
                 SET LOCAL standard_conforming_strings = on; "
            ),
            as_application: format!(
                "SET LOCAL ROLE \"{application}\"; SET LOCAL search_path TO \"{application}\", pg_temp; "
            ),
            as_own,
            schemas: format!("SELECT schemas FROM {s}.meta"),
            schemas_change: format!("UPDATE {s}.meta SET schemas = schemas + 1"),
            words: "SELECT CASE WHEN alone THEN pg_advisory_xact_lock(word) ELSE pg_advisory_xact_lock_shared(word) END \
                    FROM unnest($1::bigint[], $2::boolean[]) AS w (word, alone)",
            lock_streams: format!("SELECT id, name, version, hash FROM {s}.lock_streams($1, $2, $3)"),
            hold_streams: format!("SELECT id, name, version, hash FROM {s}.hold_streams($1, $2, $3)"),
            known: format!("SELECT key, id, body FROM {s}.known_events($1)"),
            write: format!("SELECT id, stream, version FROM {s}.write_events($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"),
            write_held: format!(
                "SELECT id, stream, version FROM {s}.write_held_events($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"
            ),
            sequence: sequence(&s, Some(&channel(schema)), sequencing, flush),
            sequence_silently: sequence(&s, None, sequencing, flush),
            listen: format!("LISTEN \"{}\"", channel(schema)),
            end: format!("SELECT position, event FROM {s}.log ORDER BY position DESC LIMIT 1"),
            places: format!("SELECT event, position FROM {s}.log WHERE event = ANY($1::bigint[])"),
            stream: format!(
                "SELECT s.id, s.version, l.position, l.event, s.metadata FROM {s}.stream s
                 LEFT JOIN {s}.event e ON e.stream = s.id AND e.version = s.version
                 LEFT JOIN {s}.log l ON l.event = e.id WHERE s.name = $1"
            ),
            own_stream: format!("SELECT id, version, metadata FROM {s}.stream WHERE name = $1"),
            streams: format!(
                "SELECT name, version, metadata FROM {s}.stream
                 WHERE name >= $1 AND name > $2 AND starts_with(name, $1) AND version > 0 ORDER BY name LIMIT $3"
            ),
            metadata: format!(
                "SELECT s.id, s.metadata, m.body, m.sum FROM {s}.stream s LEFT JOIN {s}.metadata m ON m.stream = s.id
                 WHERE s.name = $1"
            ),
            // As in `hold_streams`, nothing is read: unrelated transactions would be in each other's way by that.
            metadata_held: format!(
                "INSERT INTO {s}.stream AS s (name) VALUES ($1)
                 ON CONFLICT (name) DO UPDATE SET metadata = s.metadata RETURNING s.id, s.metadata"
            ),
            set_metadata: format!(
                "WITH counted AS (INSERT INTO {s}.stream AS s (name, metadata) VALUES ($2, $3)
                     ON CONFLICT (name) DO UPDATE SET metadata = excluded.metadata)
                 INSERT INTO {s}.metadata (stream, body, sum) VALUES ($1, $4, $5)
                 ON CONFLICT (stream) DO UPDATE SET body = excluded.body, sum = excluded.sum"
            ),
            schema: s,
        }
    }

    /// Begins the transaction of an append that has patience left for so long. It looks again now and then: a wait that is as long as a
    /// statement may take would end with the statement, and not with the patience.
    pub(super) fn begin_patient(&self, left: Duration) -> String {
        const LONGEST: Duration = Duration::from_secs(10);
        format!("{}; SET LOCAL lock_timeout = '{}ms'", self.begin, left.min(LONGEST).as_millis().max(1))
    }
}

/// By what name the server tells of runs. Names of schemas leave room for it.
fn channel(schema: &str) -> String {
    format!("{schema}_positions")
}

/// One run, as one message: the server goes through it without waiting for anybody who sent it.
///
/// Whoever listens is told of it if it gave positions. That stands in no transaction but this one: those of appends can be
/// prepared, and do not queue for the lock that notifications are committed under. The queue of notifications is the whole
/// server's, and a listener in an open transaction fills it: without a `channel` nobody is told.
fn sequence(s: &str, channel: Option<&str>, lock: i64, flush: &str) -> String {
    let channel = channel.map_or_else(|| "NULL".to_owned(), |channel| format!("'{channel}'"));
    format!(
        "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL statement_timeout = '30s'{flush}; \
         SELECT position, event FROM {s}.give_positions({lock}, {channel}); COMMIT"
    )
}
