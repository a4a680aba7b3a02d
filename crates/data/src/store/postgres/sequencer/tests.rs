//! The lemmas of ADR 19, tried by random courses of a few sessions over a real server, step by step against a model.
//!
//! Every step is one statement, and the course says whose turn it is, so that what fails shrinks. What needs true
//! concurrency, whole nodes and lost connections is tried in `tests/postgres/log.rs`, with lemmas 10 and 11.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "this is the world outside of the store")]

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use proptest::{
    collection::vec,
    prelude::{Just, Strategy, any},
    prop_oneof,
    test_runner::{Config as Runs, TestRunner},
};
use quorate_runtime::Env;
use tokio_postgres::{Client, types::Type};

use super::super::{
    address,
    connect::Connector,
    server,
    statements::Statements,
    tables::{self, Purpose},
    words,
};

const SESSIONS: usize = 4;
const STREAMS: usize = 3;
const READERS: usize = 2;

/// What happens next.
#[derive(Clone, Debug)]
enum Step {
    /// A session appends to a stream, in the transaction it has open or a new one.
    Append {
        session: usize,
        stream: usize,
        events: usize,
    },
    Commit {
        session: usize,
    },
    Rollback {
        session: usize,
    },
    /// Its transaction outlives the session's hold on it.
    Prepare {
        session: usize,
    },
    /// The oldest prepared transaction ends.
    End {
        commits: bool,
    },
    /// A node makes a run, or two nodes do at once.
    Run {
        both: bool,
    },
    /// A reader takes a snapshot and keeps it.
    Open {
        reader: usize,
    },
    /// It reads the log as its snapshot has it.
    Read {
        reader: usize,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let session = 0..SESSIONS;
    let append = (session.clone(), 0..STREAMS, 1..4_usize).prop_map(|(session, stream, events)| Step::Append {
        session,
        stream,
        events,
    });
    let step = prop_oneof![
        6 => append,
        3 => session.clone().prop_map(|session| Step::Commit { session }),
        1 => session.clone().prop_map(|session| Step::Rollback { session }),
        1 => session.prop_map(|session| Step::Prepare { session }),
        1 => any::<bool>().prop_map(|commits| Step::End { commits }),
        3 => Just(Step::Run { both: false }),
        1 => Just(Step::Run { both: true }),
        1 => (0..READERS).prop_map(|reader| Step::Open { reader }),
        2 => (0..READERS).prop_map(|reader| Step::Read { reader }),
    ];
    vec(step, 1..60)
}

/// A transaction that is not over.
#[derive(Default)]
struct Open {
    streams: BTreeSet<usize>,
    events: Vec<i64>,
    /// When it first appended.
    begun: u64,
}

/// A transaction that committed.
struct Committed {
    events: Vec<i64>,
    begun: u64,
    /// When its commit was answered.
    ended: u64,
}

/// What ought to be.
#[derive(Default)]
struct Model {
    now: u64,
    open: BTreeMap<usize, Open>,
    prepared: Vec<(String, Open)>,
    committed: Vec<Committed>,
    /// Of each event: stream and version.
    places: BTreeMap<i64, (usize, i64)>,
    /// The log as it was last seen.
    log: Vec<i64>,
    /// What each reader's snapshot showed first.
    snapshots: BTreeMap<usize, Vec<i64>>,
    gids: usize,
}

impl Model {
    fn is_locked(&self, stream: usize, by_others_than: usize) -> bool {
        let others = self.open.iter().filter(|(session, _)| **session != by_others_than).map(|(_, open)| open);
        others.chain(self.prepared.iter().map(|(_, open)| open)).any(|open| open.streams.contains(&stream))
    }

    fn commit(&mut self, open: Open) {
        self.committed.push(Committed { events: open.events, begun: open.begun, ended: self.now });
    }

    /// Judges a look at the whole log by somebody who keeps no snapshot. `is_after_run`: nothing was committed since a run.
    fn judge(&mut self, rows: &[(i64, i64)], is_after_run: bool) {
        let positions: Vec<i64> = rows.iter().map(|(position, _)| *position).collect();
        assert!(positions.iter().copied().eq(1..=positions.len() as i64), "dense (lemmas 2 and 3): {positions:?}");
        let log: Vec<i64> = rows.iter().map(|(_, event)| *event).collect();
        assert!(log.starts_with(&self.log), "nothing moves, and runs only add (lemmas 1 and 4)");
        let at: BTreeMap<i64, usize> = log.iter().copied().zip(1..).collect();
        assert_eq!(at.len(), log.len(), "no event has two positions (lemma 5)");
        let known: BTreeSet<i64> = self.committed.iter().flat_map(|done| &done.events).copied().collect();
        assert!(log.iter().all(|event| known.contains(event)), "only what was committed (lemma 1)");
        if is_after_run {
            assert_eq!(log.len(), known.len(), "a run takes all that was committed before (lemmas 5 and 9)");
        }
        for done in &self.committed {
            let seen = done.events.iter().filter(|event| at.contains_key(event)).count();
            assert!(seen == 0 || seen == done.events.len(), "a transaction is there whole or not at all (lemma 8)");
        }
        let mut versions = BTreeMap::new();
        for event in &log {
            let (stream, version) = self.places[event];
            let last = versions.insert(stream, version).unwrap_or(0);
            assert_eq!(version, last + 1, "a stream's versions go up with positions (lemma 6)");
        }
        for (first, then) in self.committed.iter().flat_map(|a| self.committed.iter().map(move |b| (a, b))) {
            if first.ended >= then.begun {
                continue;
            }
            let last = first.events.iter().map(|event| at.get(event).copied().unwrap_or(usize::MAX)).max();
            let next = then.events.iter().filter_map(|event| at.get(event).copied()).min();
            assert!(next.is_none_or(|next| last.is_none_or(|last| last < next)), "causes come first (lemma 7)");
        }
        self.log = log;
    }
}

struct Place {
    schema: &'static str,
    sessions: Vec<Client>,
    sequencers: Vec<Client>,
    readers: Vec<Client>,
    sql: Statements,
    next_key: i64,
}

impl Place {
    async fn new(database: &str, schema: &'static str) -> Self {
        let env = Env::real();
        let connector = Connector::new(&env, address::server(database).unwrap());
        let mut clients = Vec::new();
        for _ in 0..SESSIONS + 2 + READERS {
            let client = connector.connect().await.unwrap();
            // Whatever waits here would wait for ever: lemma 9 is that runs do not.
            client.batch_execute("SET lock_timeout = '10s'").await.unwrap();
            clients.push(client);
        }
        let timeline =
            tables::prepare(&env, &clients[0], schema, "lemmas_app", Purpose::Open(1)).await.unwrap().unwrap().timeline;
        let sequencing = words::sequencing(timeline.store);
        let sql = Statements::new(schema, "lemmas_app", sequencing, false, Duration::from_secs(10));
        let readers = clients.split_off(SESSIONS + 2);
        let sequencers = clients.split_off(SESSIONS);
        Self { schema, sessions: clients, sequencers, readers, sql, next_key: 0 }
    }

    /// Makes the sequencer anew, as `change` makes it.
    async fn make_sequencer(&self, change: impl Fn(&str) -> String) {
        let functions = include_str!("../functions.sql");
        let begins = functions.find("CREATE FUNCTION {s}.give_positions").unwrap();
        let made = change(&functions[begins..]).replacen("CREATE", "CREATE OR REPLACE", 1);
        self.sessions[0].batch_execute(&made.replace("{s}", self.schema)).await.unwrap();
    }

    /// Goes through `steps` from an empty log on.
    async fn play(&mut self, steps: &[Step]) {
        self.clear().await;
        let s = self.schema;
        let empty = format!("TRUNCATE {s}.event, {s}.stream, {s}.pending, {s}.log RESTART IDENTITY");
        self.sessions[0].batch_execute(&empty).await.unwrap();
        let mut model = Model::default();
        for step in steps {
            model.now += 1;
            self.step(&mut model, step).await;
        }
        self.clear().await;
        super::once(&self.sequencers[0], &self.sql.sequence).await.unwrap();
        model.judge(&self.look(&self.sessions[0]).await, true);
    }

    /// Ends whatever was left open, by a course that failed as well.
    async fn clear(&self) {
        for client in self.sessions.iter().chain(&self.readers) {
            client.batch_execute("ROLLBACK").await.unwrap();
        }
        let left = format!("SELECT gid FROM pg_prepared_xacts WHERE starts_with(gid, '{}-')", self.schema);
        for row in self.sessions[0].query_typed(&left, &[]).await.unwrap() {
            let end = format!("ROLLBACK PREPARED '{}'", row.get::<_, &str>(0));
            self.sessions[0].batch_execute(&end).await.unwrap();
        }
    }

    async fn step(&mut self, model: &mut Model, step: &Step) {
        match *step {
            Step::Append { session, stream, events } if !model.is_locked(stream, session) => {
                self.append(model, session, stream, events).await;
            }
            Step::Append { .. } => {}
            Step::Commit { session } => {
                if let Some(open) = model.open.remove(&session) {
                    self.sessions[session].batch_execute("COMMIT").await.unwrap();
                    model.commit(open);
                }
            }
            Step::Rollback { session } => {
                if model.open.remove(&session).is_some() {
                    self.sessions[session].batch_execute("ROLLBACK").await.unwrap();
                }
            }
            Step::Prepare { session } => {
                if let Some(open) = model.open.remove(&session) {
                    model.gids += 1;
                    let gid = format!("{}-{}", self.schema, model.gids);
                    self.sessions[session].batch_execute(&format!("PREPARE TRANSACTION '{gid}'")).await.unwrap();
                    model.prepared.push((gid, open));
                }
            }
            Step::End { commits } if !model.prepared.is_empty() => {
                let (gid, open) = model.prepared.remove(0);
                let verb = if commits { "COMMIT" } else { "ROLLBACK" };
                // By a session of its own: one that has a transaction open cannot.
                self.sequencers[0].batch_execute(&format!("{verb} PREPARED '{gid}'")).await.unwrap();
                if commits {
                    model.commit(open);
                }
            }
            Step::End { .. } => {}
            Step::Run { both } => {
                // The second one tells nobody: positions are the same.
                let sql = [&self.sql.sequence, &self.sql.sequence_silently];
                let run = |n: usize| super::once(&self.sequencers[n], sql[n]);
                let end = if both {
                    let (one, other) = futures_util::future::join(run(0), run(1)).await;
                    let (one, other) = (one.unwrap(), other.unwrap());
                    if one.position > other.position { one } else { other }
                } else {
                    run(0).await.unwrap()
                };
                let rows = self.look(&self.sequencers[0]).await;
                let last = rows.last().copied().unwrap_or_default();
                let told = (end.position.cast_signed(), end.event.cast_signed());
                assert_eq!(told, last, "a run tells where the log ends");
                model.judge(&rows, true);
            }
            Step::Open { reader } => {
                let open = "ROLLBACK; BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
                self.readers[reader].batch_execute(open).await.unwrap();
                let seen: Vec<i64> =
                    self.look(&self.readers[reader]).await.into_iter().map(|(_, event)| event).collect();
                assert_eq!(seen, model.log, "a new snapshot has what all runs gave");
                model.snapshots.insert(reader, seen);
            }
            Step::Read { reader } => {
                if let Some(snapshot) = model.snapshots.get(&reader) {
                    let rows = self.look(&self.readers[reader]).await;
                    let seen: Vec<i64> = rows.into_iter().map(|(_, event)| event).collect();
                    assert_eq!(seen, *snapshot, "a snapshot stands still");
                    assert!(model.log.starts_with(&seen), "whoever sees a position sees all before it (lemma 4)");
                }
            }
        }
    }

    /// The log as `client` sees it.
    async fn look(&self, client: &Client) -> Vec<(i64, i64)> {
        let log = format!("SELECT position, event FROM {}.log ORDER BY position", self.schema);
        let rows = client.query_typed(&log, &[]).await.unwrap();
        rows.into_iter().map(|row| (row.get(0), row.get(1))).collect()
    }

    /// Appends as a group of the store does.
    async fn append(&mut self, model: &mut Model, session: usize, stream: usize, events: usize) {
        let client = &self.sessions[session];
        if !model.open.contains_key(&session) {
            client.batch_execute("BEGIN").await.unwrap();
        }
        let (words, alone, names) = (Vec::<i64>::new(), Vec::<bool>::new(), vec![format!("s-{stream}")]);
        let lock: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 3] =
            [(&words, Type::INT8_ARRAY), (&alone, Type::BOOL_ARRAY), (&names, Type::TEXT_ARRAY)];
        let row = client.query_typed_one(&self.sql.lock_streams, &lock).await.unwrap();
        let (id, version): (i64, i64) = (row.get(0), row.get(2));
        let count = events as i64;
        let versions: Vec<i64> = (version + 1..=version + count).collect();
        let keys: Vec<Vec<u8>> = (0..count).map(|n| (self.next_key + n).to_be_bytes().to_vec()).collect();
        self.next_key += count;
        let (streams, kinds, categories) = (vec![id; events], vec!["k"; events], vec!["s"; events]);
        let (tags, bodies) = (vec![None::<&str>; events], vec![&b""[..]; events]);
        let (ends, newest, hashes) = (vec![id], vec![version + count], vec![&[7_u8; 32][..]]);
        let rows = client
            .query_typed(
                &self.sql.write,
                &[
                    (&streams, Type::INT8_ARRAY),
                    (&versions, Type::INT8_ARRAY),
                    (&keys, Type::BYTEA_ARRAY),
                    (&kinds, Type::TEXT_ARRAY),
                    (&categories, Type::TEXT_ARRAY),
                    (&tags, Type::TEXT_ARRAY),
                    (&bodies, Type::BYTEA_ARRAY),
                    (&ends, Type::INT8_ARRAY),
                    (&newest, Type::INT8_ARRAY),
                    (&hashes, Type::BYTEA_ARRAY),
                ],
            )
            .await
            .unwrap();
        let begun = model.now;
        let open = model.open.entry(session).or_insert_with(|| Open { begun, ..Open::default() });
        open.streams.insert(stream);
        for row in rows {
            let (event, version): (i64, i64) = (row.get(0), row.get(2));
            open.events.push(event);
            model.places.insert(event, (stream, version));
        }
    }
}

/// Tries so many courses in a place of its own, with another sequencer if `change` makes one, and finds a shorter course that
/// fails as well in so many attempts.
fn try_courses(
    schema: &'static str,
    cases: u32,
    max_shrink_iters: u32,
    change: impl Fn(&str) -> String,
) -> Option<Result<(), String>> {
    let address = server::address()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let place = runtime.block_on(Place::new(&address, schema));
    runtime.block_on(place.make_sequencer(change));
    let place = tokio::sync::Mutex::new(place);
    let mut runner = TestRunner::new(Runs { cases, max_shrink_iters, failure_persistence: None, ..Runs::default() });
    let ran = runner.run(&steps(), |steps| {
        runtime.block_on(async { place.lock().await.play(&steps).await });
        Ok(())
    });
    Some(ran.map_err(|failed| failed.to_string()))
}

#[test]
fn what_was_written_together_stands_together() {
    let Some(address) = server::address() else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let place = Place::new(&address, "together").await;
        // Two transactions drew ids by turns, and one that knows nothing of firsts drew one between them.
        let drawn = "INSERT INTO together.pending (event, first) VALUES (5, 2), (4, 1), (3, NULL), (2, 2), (1, 1)";
        place.sessions[0].batch_execute(drawn).await.unwrap();
        super::once(&place.sequencers[0], &place.sql.sequence).await.unwrap();
        let order = "SELECT array_agg(event ORDER BY position) FROM together.log";
        let row = place.sessions[0].query_typed_one(order, &[]).await.unwrap();
        assert_eq!(row.get::<_, Vec<i64>>(0), [1, 4, 2, 5, 3]);
    });
}

#[test]
fn the_lemmas_hold_in_every_course_of_transactions_and_runs() {
    let cases = if std::env::var_os("QUORATE_LONG").is_some() { 2_000 } else { 60 };
    if let Some(Err(failed)) = try_courses("lemmas", cases, 500, str::to_owned) {
        panic!("{failed}");
    }
}

/// Do the courses see anything? Sequencers that others have had are found out.
#[test]
fn a_sequencer_that_breaks_a_lemma_is_found_out() {
    for (of, by, lemma) in [
        // In no order.
        ("(ORDER BY first, event)", "(ORDER BY -event)", "(lemma"),
        // Behind the largest number that was ever seen.
        (
            "pending RETURNING",
            "pending WHERE event > (SELECT coalesce(max(event), 0) FROM unsound.log) RETURNING",
            "(lemmas 5 and 9)",
        ),
        // A part of what is there.
        (
            "pending RETURNING",
            "pending WHERE event IN (SELECT event FROM unsound.pending ORDER BY event LIMIT 2) RETURNING",
            "(lemma",
        ),
    ] {
        let change = |sql: &str| {
            let changed = sql.replace(of, by);
            assert_ne!(changed, sql, "it is another one");
            changed
        };
        match try_courses("unsound", 200, 0, change) {
            None => return,
            Some(Ok(())) => panic!("{by} passes"),
            Some(Err(failed)) => assert!(failed.contains(lemma), "{by}: {failed}"),
        }
    }
}
