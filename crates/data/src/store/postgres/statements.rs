//! The SQL, with the schema's name in its place.

use std::time::Duration;

/// Every statement of a store.
pub(super) struct Statements {
    /// Begins the transaction of a group of appends.
    pub(super) begin: String,
    /// Begins a transaction with a closure.
    pub(super) begin_unit: String,
    /// Begins the transaction of a statement that only reads.
    pub(super) begin_query: String,
    /// What follows is the application's, with its rights and among its tables.
    pub(super) as_application: String,
    /// What follows is quorate's own, and finds the tables of rooms.
    pub(super) as_own: String,
    /// The count of changes of the schemas.
    pub(super) schemas: String,
    /// The same, which does not change until the transaction has ended. A transaction that began before a change fails.
    pub(super) schemas_held: String,
    /// Counts one more.
    pub(super) schemas_change: String,
    /// `$1`: numbers of words in order, `$2`: whether each is wanted alone.
    pub(super) words: &'static str,
    /// `$1`: names. Makes those that are not there.
    pub(super) new_streams: String,
    /// `$1`: names. Locks them in order: id, name, version, hash.
    pub(super) lock_streams: String,
    /// `$1`: keys. Events that are known: key, id, body.
    pub(super) known: String,
    /// `$1` … `$7`: stream, version, key, type, category, tags, body. Returns id, stream, version.
    pub(super) insert: String,
    /// `$1`, `$2`, `$3`: stream, version, hash.
    pub(super) advance: String,
    /// One run of the sequencer; the last row is the end of the log: position, event.
    pub(super) sequence: String,
    /// Has the server tell of every run that gave positions.
    pub(super) listen: String,
    /// The end of the log: position, event; no row while it is empty.
    pub(super) end: String,
    /// `$1`: ids of events. Event, position.
    pub(super) places: String,
    /// `$1`: a name. id, version, the position of its last event, and that event.
    pub(super) stream: String,
    /// `$1`: a name, as [`stream`](Self::stream) inside a transaction: id, version.
    pub(super) own_stream: String,
    /// `$1`: prefix, `$2`: begins behind, `$3`: limit. name, version.
    pub(super) streams: String,
    pub(super) schema: String,
}

impl Statements {
    /// Those of the store in `schema`, whose sequencer holds lock `sequencing`. `flush`: commits are to be waited for, whatever
    /// the server's default is.
    pub(super) fn new(schema: &str, application: &str, sequencing: i64, flush: bool, unit_time: Duration) -> Self {
        let s = format!("\"{schema}\"");
        let flush = if flush { "; SET LOCAL synchronous_commit = on" } else { "" };
        let unit = unit_time.as_millis().max(1);
        let as_own = format!("SET LOCAL ROLE NONE; SET LOCAL search_path TO {s}, pg_temp; ");
        Self {
            // Not READ WRITE: where somebody set `default_transaction_read_only`, or made a standby of it, that holds.
            // Whoever is stopped in the middle of an append holds rows that others wait for.
            begin: format!(
                "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL statement_timeout = '30s'; \
                 SET LOCAL lock_timeout = '10s'; SET LOCAL idle_in_transaction_session_timeout = '5s'{flush}"
            ),
            begin_unit: format!(
                "BEGIN ISOLATION LEVEL SERIALIZABLE; SET LOCAL statement_timeout = '{unit}ms'; \
                 SET LOCAL lock_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = '{idle}ms'{flush}; \
                 SET LOCAL standard_conforming_strings = on; {as_own}",
                idle = unit + 5_000
            ),
            begin_query: format!(
                "BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY; SET LOCAL statement_timeout = '{unit}ms'; \
                 SET LOCAL standard_conforming_strings = on; "
            ),
            as_application: format!(
                "SET LOCAL ROLE \"{application}\"; SET LOCAL search_path TO \"{application}\", pg_temp; "
            ),
            as_own,
            schemas: format!("SELECT schemas FROM {s}.meta"),
            schemas_held: format!("SELECT schemas FROM {s}.meta FOR SHARE"),
            schemas_change: format!("UPDATE {s}.meta SET schemas = schemas + 1"),
            words: "SELECT CASE WHEN alone THEN pg_advisory_xact_lock(word) ELSE pg_advisory_xact_lock_shared(word) END \
                    FROM unnest($1::bigint[], $2::boolean[]) AS w (word, alone)",
            new_streams: format!(
                "INSERT INTO {s}.stream (name) SELECT n FROM unnest($1::text[]) AS g (n) \
                 WHERE NOT EXISTS (SELECT FROM {s}.stream WHERE name = n) ORDER BY n COLLATE \"C\" \
                 ON CONFLICT (name) DO NOTHING"
            ),
            lock_streams: format!(
                "SELECT id, name, version, hash FROM {s}.stream WHERE name = ANY($1::text[]) ORDER BY name FOR UPDATE"
            ),
            known: format!("SELECT key, id, body FROM {s}.event WHERE key = ANY($1::bytea[])"),
            insert: format!(
                "WITH made AS (
                     INSERT INTO {s}.event (stream, version, key, kind, category, tags, body)
                     SELECT stream, version, key, kind, category, string_to_array(tags, ' '), body
                     FROM unnest($1::bigint[], $2::bigint[], $3::bytea[], $4::text[], $5::text[], $6::text[], $7::bytea[])
                          WITH ORDINALITY AS g (stream, version, key, kind, category, tags, body, n)
                     ORDER BY n
                     RETURNING id, stream, version),
                 queued AS (INSERT INTO {s}.pending (event) SELECT id FROM made)
                 SELECT id, stream, version FROM made"
            ),
            advance: format!(
                "UPDATE {s}.stream AS s SET version = g.version, hash = g.hash
                 FROM unnest($1::bigint[], $2::bigint[], $3::bytea[]) AS g (id, version, hash) WHERE s.id = g.id"
            ),
            sequence: sequence(&s, &channel(schema), sequencing, flush),
            listen: format!("LISTEN \"{}\"", channel(schema)),
            end: format!("SELECT position, event FROM {s}.log ORDER BY position DESC LIMIT 1"),
            places: format!("SELECT event, position FROM {s}.log WHERE event = ANY($1::bigint[])"),
            stream: format!(
                "SELECT s.id, s.version, l.position, l.event FROM {s}.stream s
                 LEFT JOIN {s}.event e ON e.stream = s.id AND e.version = s.version
                 LEFT JOIN {s}.log l ON l.event = e.id WHERE s.name = $1"
            ),
            own_stream: format!("SELECT id, version FROM {s}.stream WHERE name = $1"),
            streams: format!(
                "SELECT name, version FROM {s}.stream
                 WHERE name >= $1 AND name > $2 AND starts_with(name, $1) AND version > 0 ORDER BY name LIMIT $3"
            ),
            schema: s,
        }
    }
}

/// By what name the server tells of runs. Names of schemas leave room for it.
fn channel(schema: &str) -> String {
    format!("{schema}_positions")
}

/// One run, as one message: the server goes through it without waiting for anybody who sent it.
///
/// Whoever listens is told of it if it gave positions. That stands in no transaction but this one: those of appends can be
/// prepared, and do not queue for the lock that notifications are committed under.
fn sequence(s: &str, channel: &str, lock: i64, flush: &str) -> String {
    format!(
        "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL statement_timeout = '30s'{flush};
         SELECT pg_advisory_xact_lock({lock});
         WITH taken AS (DELETE FROM {s}.pending RETURNING event),
              numbered AS (SELECT event, row_number() OVER (ORDER BY event) AS n FROM taken),
              placed AS (INSERT INTO {s}.log (position, event)
                  SELECT (SELECT coalesce(max(position), 0) FROM {s}.log) + n, event FROM numbered RETURNING position)
         SELECT pg_notify('{channel}', '') WHERE EXISTS (SELECT FROM placed);
         SELECT position, event FROM {s}.log ORDER BY position DESC LIMIT 1;
         COMMIT"
    )
}
