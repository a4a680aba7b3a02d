//! The log on PostgreSQL, and the lemmas of ADR 19 that it stands on: under writers that hold, roll back and vanish.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "nodes and strangers of these tests run beside each other, in real time"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::future::join_all;
use quorate_data::{
    event::{NewEvent, Position, Recorded, Tags},
    store::{
        AppendBatch, AppendError, ExpectedVersion, OpenError, Query, QueryItem, ReadLog, Store, StoreError,
        StreamMetadata, TransactError, postgres as store,
    },
};
use quorate_foundations::time::{Boot, Mono, Wall};
use quorate_runtime::{
    Env,
    random::{Random, Rng},
};

use crate::shared::{self, Schema, batch, event};

macro_rules! schema {
    () => {
        match Schema::new() {
            Some(schema) => schema,
            None => return,
        }
    };
}

async fn page(store: &Store, after: u64) -> (Vec<Recorded>, u64) {
    let read = ReadLog { query: Query::EVERYTHING, after: Position::new(after), limit: 1_000 };
    let page = store.read_log(read).await.unwrap();
    (page.events, page.head.get())
}

/// The whole log, whose positions have no hole.
async fn whole(store: &Store) -> Vec<Recorded> {
    let mut log: Vec<Recorded> = Vec::new();
    loop {
        let (events, head) = page(store, log.len() as u64).await;
        log.extend(events);
        let dense = log.iter().zip(1..).all(|(event, position)| event.position().get() == position);
        assert!(dense, "positions are dense from 1 (lemma 3)");
        if log.len() as u64 >= head {
            return log;
        }
    }
}

async fn assert_sound(store: &Store) {
    let verified = store.verify(Arc::new(|_, _| {})).await.unwrap();
    assert!(verified.is_sound(), "{:?}", verified.findings);
}

/// What writers were told: the ids of events that are in the log, each group one transaction, and when that was said.
type Told = Vec<(Vec<String>, Mono)>;

/// Appends over a few streams, some in transactions that hold, some that say no; each writer's own order is kept.
async fn write(store: Store, mut rng: Rng, writer: u64, until: stop::Stop, told: Arc<Mutex<Told>>) {
    for round in 0_u64.. {
        if until.is_over() {
            return;
        }
        let streams = 1 + rng.below(3);
        let mut ids = Vec::new();
        let mut parts = AppendBatch::default();
        for n in 0..streams {
            let id = format!("{writer}-{round}-{n}");
            let stream = format!("s-{}", (rng.below(16) + n * 16) % 48);
            parts = parts.and_to(stream.parse().unwrap(), ExpectedVersion::Any, vec![event(&id)]);
            ids.push(id);
        }
        let (hold, says_no) = (Duration::from_micros(rng.below(4_000)), rng.below(10) == 0);
        let written = if rng.below(3) == 0 {
            store.append(parts).await.unwrap();
            true
        } else {
            let env = store.env().clone();
            let done = store.transact(move |tx| {
                let (env, parts) = (env.clone(), parts.clone());
                Box::pin(async move {
                    tx.append_batch(parts).await.map_err(|refused| refused.to_string())?;
                    env.sleep(hold).await;
                    if says_no { Err("no".to_owned()) } else { Ok(()) }
                })
            });
            match done.await {
                Ok(()) => true,
                Err(TransactError::Aborted(no)) if no == "no" => false,
                // Too many were in each other's way: it is not written, and says so.
                Err(TransactError::Store(_) | TransactError::TooLong { .. } | TransactError::Aborted(_)) => false,
                Err(other) => panic!("{other:?}"),
            }
        };
        if written {
            told.lock().unwrap().push((ids, store.env().mono()));
        }
    }
}

/// Reads behind the head, as hot as it goes, until told to stop and at the end; sees each position once, in order.
async fn follow(store: Store, until: stop::Stop) -> (Vec<(String, Mono)>, Vec<u64>) {
    let (mut seen, mut heads): (Vec<(String, Mono)>, Vec<u64>) = (Vec::new(), Vec::new());
    let mut moved = store.watch_head();
    loop {
        let is_over = until.is_over();
        let (events, head) = page(&store, seen.len() as u64).await;
        heads.push(head);
        for event in events {
            assert_eq!(event.position().get(), seen.len() as u64 + 1, "a reader sees a prefix (lemma 4)");
            seen.push((event.id().to_owned(), store.env().mono()));
        }
        heads.dedup();
        if is_over && seen.len() as u64 >= head {
            return (seen, heads);
        }
        let _woken = store.env().timeout(Duration::from_millis(20), moved.changed()).await;
    }
}

mod stop {
    use std::sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    };

    #[derive(Clone, Default)]
    pub(super) struct Stop(Arc<AtomicBool>);

    impl Stop {
        pub(super) fn now(&self) {
            self.0.store(true, Ordering::SeqCst);
        }

        pub(super) fn is_over(&self) -> bool {
            self.0.load(Ordering::SeqCst)
        }
    }
}

/// How long the storm lasts; a nightly run says how many seconds.
fn storm() -> Duration {
    let told = std::env::var("QUORATE_STORM").ok().map(|seconds| seconds.parse().unwrap());
    Duration::from_secs(told.unwrap_or(if std::env::var_os("QUORATE_LONG").is_some() { 60 } else { 6 }))
}

/// What is acknowledged is seen by everybody after this, on however busy a machine.
const LAG: Duration = Duration::from_secs(20);

/// Two nodes, 64 writers with random holds and rollbacks, an idle transaction, an orphan in another database, hot followers.
#[tokio::test(flavor = "multi_thread")]
async fn every_committed_event_is_seen_once_whatever_transactions_do() {
    let schema = schema!();
    let (a, _) = schema.node(|config| config.connections = 24).await;
    let (b, _) = schema.node(|config| config.connections = 24).await;

    let idle = schema.stranger().await;
    idle.batch_execute("BEGIN; SELECT pg_current_xact_id()").await.unwrap();
    let elsewhere = format!("other_{}", schema.name);
    idle_database(&schema, &elsewhere).await;

    let (told, enough, stop) = (Arc::new(Mutex::new(Told::default())), stop::Stop::default(), stop::Stop::default());
    let followers: Vec<_> =
        [&a, &a, &b, &b].map(|node| tokio::spawn(follow(node.clone(), stop.clone()))).into_iter().collect();
    let random = Random::from_seed([7; 32]);
    let writing: Vec<_> = (0..64)
        .map(|n| {
            let node = if n % 2 == 0 { &a } else { &b };
            tokio::spawn(write(node.clone(), random.stream(&n.to_string()), n, enough.clone(), told.clone()))
        })
        .collect();
    a.env().sleep(storm()).await;
    enough.now();
    for writer in join_all(writing).await {
        writer.unwrap();
    }
    stop.now();
    let told = std::mem::take(&mut *told.lock().unwrap());
    let expected: BTreeMap<&String, Mono> = told.iter().flat_map(|(ids, at)| ids.iter().map(|id| (id, *at))).collect();
    let mut lags = Vec::new();
    for follower in join_all(followers).await {
        let (seen, heads) = follower.unwrap();
        lags.extend(seen.iter().filter_map(|(id, at)| Some(at.saturating_since(*expected.get(id)?))));
        let seen: Vec<String> = seen.into_iter().map(|(id, _)| id).collect();
        let set: BTreeSet<&String> = seen.iter().collect();
        assert_eq!(set.len(), seen.len(), "no event twice (lemma 5)");
        assert!(
            set.iter().copied().eq(expected.keys().copied()),
            "what was committed, and nothing else (lemmas 1 and 5)"
        );
        assert!(heads.is_sorted());
        assert_whole(&told, &seen, &heads);
    }
    lags.sort_unstable();
    let (most, p99) = (lags[lags.len() - 1], lags[lags.len() * 99 / 100]);
    println!("{} events, seen after their acknowledgement: p99 {p99:?}, at most {most:?}", expected.len());
    assert!(most < LAG, "nobody's transaction delays others' events (lemma 9): {most:?}");
    let log = whole(&a).await;
    assert_streams_in_order(&log);
    assert_own_order(&log);
    assert_sound(&b).await;
    drop(idle);
    let other = shared::stranger(&schema.in_database(&elsewhere)).await;
    other.batch_execute("ROLLBACK PREPARED 'orphan'").await.unwrap();
}

/// A database with a prepared transaction that nobody will ever end.
async fn idle_database(schema: &Schema, name: &str) {
    schema.stranger().await.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
    let other = shared::stranger(&schema.in_database(name)).await;
    for statement in ["CREATE TABLE t (x integer)", "BEGIN", "INSERT INTO t VALUES (1)", "PREPARE TRANSACTION 'orphan'"]
    {
        other.batch_execute(statement).await.unwrap();
    }
}

/// Nobody saw a head inside a transaction (lemma 8).
fn assert_whole(transactions: &[(Vec<String>, Mono)], seen: &[String], heads: &[u64]) {
    let places: BTreeMap<&String, u64> = seen.iter().zip(1..).collect();
    for (ids, _) in transactions {
        let places: Vec<u64> = ids.iter().map(|id| places[id]).collect();
        let (first, last) = (places.iter().min().unwrap(), places.iter().max().unwrap());
        let next = heads.get(heads.partition_point(|head| head < first));
        assert!(next.is_none_or(|head| head >= last), "{ids:?} became visible in parts");
    }
}

/// Versions of a stream go up with positions (lemma 6).
fn assert_streams_in_order(log: &[Recorded]) {
    let mut versions: BTreeMap<&str, u64> = BTreeMap::new();
    for event in log {
        let version = versions.entry(event.stream()).or_default();
        *version += 1;
        assert_eq!(event.version().get(), *version, "stream `{}`", event.stream());
    }
}

/// What a writer appended after it was answered stands behind (lemma 7).
fn assert_own_order(log: &[Recorded]) {
    let mut rounds: BTreeMap<&str, u64> = BTreeMap::new();
    for event in log {
        let mut parts = event.id().split('-');
        let (writer, round) = (parts.next().unwrap(), parts.next().unwrap().parse::<u64>().unwrap());
        let last = rounds.entry(writer).or_default();
        assert!(round >= *last, "round {round} of writer {writer} stands behind round {last}");
        *last = round;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_transaction_delays_itself_alone() {
    let schema = schema!();
    let (node, _) = schema.node(|_| {}).await;
    node.append(batch("before", vec![event("first")])).await.unwrap();
    let (told, mut holding) = tokio::sync::mpsc::unbounded_channel();
    let release = Arc::new(tokio::sync::Notify::new());
    let released = release.clone();
    let slow = node.transact(move |tx| {
        let (released, told) = (released.clone(), told.clone());
        Box::pin(async move {
            tx.append(&"slow".parse().unwrap(), ExpectedVersion::NoStream, vec![event("slow")]).await?;
            told.send(()).unwrap();
            released.notified().await;
            Ok::<_, AppendError>(())
        })
    });
    let others = async {
        holding.recv().await;
        for n in 0..20 {
            node.append(batch(&format!("quick-{n}"), vec![event(n)])).await.unwrap();
        }
        let seen: Vec<String> = whole(&node).await.iter().map(|event| event.id().to_owned()).collect();
        assert_eq!(seen.len(), 21, "others are served and seen while it is open (lemma 9)");
        assert!(!seen.contains(&"slow".to_owned()), "it is not (lemma 1)");
        release.notify_one();
    };
    let (slow, ()) = tokio::join!(slow, others);
    slow.unwrap();
    assert_eq!(whole(&node).await.last().unwrap().id(), "slow", "it comes when it is committed, behind them");
}

fn decided(id: String, tags: &[String]) -> NewEvent {
    let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
    NewEvent { kind: "decided".into(), ..event(id) }.tagged(Tags::new(&tags).unwrap())
}

/// Decisions on overlapping tags, on two nodes, beside appends without a condition: each holds at its place in the log.
#[tokio::test(flavor = "multi_thread")]
async fn conditions_hold_in_the_order_of_the_log() {
    let schema = schema!();
    let (a, _) = schema.node(|_| {}).await;
    let (b, _) = schema.node(|_| {}).await;
    let held: Arc<Mutex<BTreeMap<String, (String, u64)>>> = Arc::default();
    let decide = |n: u64| {
        let (node, held) = (if n.is_multiple_of(2) { a.clone() } else { b.clone() }, held.clone());
        let mut rng = Random::from_seed([3; 32]).stream(&n.to_string());
        tokio::spawn(async move {
            for round in 0..25 {
                let (id, tag) = (format!("{n}-{round}"), format!("seat:{}", rng.below(4)));
                let other = format!("seat:{}", rng.below(4));
                let after = node.head().get();
                let append = batch(&format!("guest-{n}"), vec![decided(id.clone(), &[tag.clone(), other])]);
                if rng.below(3) == 0 {
                    node.append(append).await.unwrap();
                    continue;
                }
                let free = Query::of([QueryItem::tags([tag.clone()])]);
                let append = append.if_none_match(free, Position::new(after));
                let inside = rng.below(2) == 0;
                let done = if inside {
                    let done = node.transact(move |tx| Box::pin(tx.append_batch(append.clone()))).await;
                    done.map_err(|failed| match failed {
                        TransactError::Aborted(refused) => refused,
                        TransactError::Store(cause) => cause.into(),
                        other => panic!("{other:?}"),
                    })
                } else {
                    node.append(append).await
                };
                match done {
                    Ok(_) => drop(held.lock().unwrap().insert(id, (tag, after))),
                    Err(AppendError::ConditionFailed { position, .. }) => assert!(position.get() > after),
                    // Too many were in each other's way.
                    Err(AppendError::Store(cause)) if inside => assert!(!matches!(cause, StoreError::OutcomeUnknown)),
                    Err(other) => panic!("{other:?}"),
                }
            }
        })
    };
    for decider in join_all((0..8).map(decide)).await {
        decider.unwrap();
    }
    let (log, held) = (whole(&a).await, std::mem::take(&mut *held.lock().unwrap()));
    assert!(held.len() > 10, "{} decisions were made", held.len());
    for event in &log {
        let Some((tag, after)) = held.get(event.id()) else { continue };
        let between = &log[usize::try_from(*after).unwrap()..usize::try_from(event.position().get() - 1).unwrap()];
        let spoiled = between.iter().find(|earlier| earlier.tags().any(|carried| carried == tag));
        assert!(spoiled.is_none(), "{} was decided without {spoiled:?} (lemma 10)", event.id());
    }
    assert_sound(&b).await;
}

/// Whether the lost commit reached the server or not, the append is in the log once, and is answered.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_commit_is_looked_up_and_no_event_is_there_twice() {
    let schema = schema!();
    let (node, cable) = schema.node(|_| {}).await;
    for round in 0..20_u64 {
        cable.lose_commit(1, round % 2 == 0);
        let appended = node.append(batch("s", vec![event(round)])).await.unwrap();
        assert!(!appended.repeated, "it is new to whoever asked");
        assert_eq!(appended.version().get(), round + 1);
    }
    for round in 20..40_u64 {
        cable.lose_commit(1, round % 2 == 0);
        let done = node.transact(move |tx| {
            Box::pin(async move { tx.append(&"s".parse().unwrap(), ExpectedVersion::Any, vec![event(round)]).await })
        });
        match done.await {
            Ok(_) => {}
            // The mark by which it could be asked about may be lost as well.
            Err(TransactError::Store(StoreError::OutcomeUnknown)) => {}
            Err(other) => panic!("{other:?}"),
        }
        cable.lose_commit(0, true);
        let again = node.append(batch("s", vec![event(round)])).await.unwrap();
        assert_eq!(again.version().get(), round + 1, "sent again, it is there once (lemma 11)");
    }
    let ids: Vec<String> = whole(&node).await.iter().map(|event| event.id().to_owned()).collect();
    assert_eq!(ids, (0..40).map(|n| n.to_string()).collect::<Vec<_>>());
    assert_sound(&node).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_out_of_reach_is_said_to_be_and_comes_back() {
    let schema = schema!();
    let (node, cable) = schema.node(|config| config.patience = Duration::from_millis(300)).await;
    node.append(batch("s", vec![event("before")])).await.unwrap();
    cable.cut();
    let refused = node.append(batch("s", vec![event("during")])).await;
    assert!(matches!(&refused, Err(AppendError::Store(StoreError::Unreachable { .. }))), "{refused:?}");
    let refused = node.transact(|_| Box::pin(std::future::ready(Ok::<_, ()>(())))).await;
    assert!(matches!(&refused, Err(TransactError::Store(StoreError::Unreachable { .. }))), "{refused:?}");
    cable.mend();
    node.append(batch("s", vec![event("after")])).await.unwrap();
    let ids: Vec<String> = whole(&node).await.iter().map(|event| event.id().to_owned()).collect();
    assert_eq!(ids, ["before", "after"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_somebody_ends_are_replaced() {
    let schema = schema!();
    let (node, _) = schema.node(|_| {}).await;
    let stranger = schema.stranger().await;
    for n in 0..10 {
        let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1";
        let ended = stranger.query_typed(kill, &[(&schema.name, tokio_postgres::types::Type::TEXT)]).await.unwrap();
        assert!(n == 0 || !ended.is_empty());
        node.append(batch("s", vec![event(n)])).await.unwrap();
        assert_eq!(whole(&node).await.len(), n + 1);
    }
}

/// One node ends between its commit and the sequencer: another one gives the positions.
#[tokio::test(flavor = "multi_thread")]
async fn events_of_a_node_that_vanished_get_their_positions_from_another() {
    let schema = schema!();
    let (survivor, _) = schema.node(|_| {}).await;
    let mut expected = 0;
    for round in 0..10 {
        let (doomed, cable) = schema.node(|config| config.patience = Duration::from_millis(50)).await;
        // The commit arrives, its answer does not, and nothing more leaves the node.
        cable.lose_commit(1, true);
        let _cut = tokio::join!(doomed.append(batch("s", vec![event(round)])), async {
            postgres_pause().await;
            cable.cut();
        });
        drop(doomed);
        survivor.append(batch("t", vec![event(round)])).await.unwrap();
        let again = survivor.append(batch("s", vec![event(round)])).await.unwrap();
        assert_eq!(again.version().get(), round + 1);
        expected += 2;
        assert_eq!(whole(&survivor).await.len(), expected);
    }
    assert_sound(&survivor).await;
}

async fn postgres_pause() {
    tokio::time::sleep(Duration::from_millis(2)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_start_together_make_one_store() {
    let schema = schema!();
    let nodes = join_all((0..6).map(|_| schema.node(|config| config.connections = 2))).await;
    let first = nodes[0].0.timeline();
    assert!(nodes.iter().all(|(node, _)| node.timeline() == first));
    for (n, (node, _)) in nodes.iter().enumerate() {
        node.append(batch("s", vec![event(n)])).await.unwrap();
    }
    for (node, _) in &nodes {
        assert_eq!(whole(node).await.len(), 6, "a node sees what others appended");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_hold_a_store_is_refused() {
    let schema = schema!();
    let open = |config| async { store::open(&shared::env(), config).await.map(|_| ()) };
    let config = |name: &str| store::Config { schema: name.to_owned(), ..schema.config(Default::default()) };
    let long = "x".repeat(49);
    for name in ["", "Upper", "has space", "pg_mine", "a\"b", long.as_str()] {
        assert!(matches!(open(config(name)).await, Err(OpenError::Unsuitable { .. })), "{name}");
    }
    let stranger = schema.stranger().await;
    let foreign = format!("f_{}", schema.name);
    stranger.batch_execute(&format!("CREATE SCHEMA {foreign}; CREATE TABLE {foreign}.theirs (x int)")).await.unwrap();
    assert!(matches!(open(config(&foreign)).await, Err(OpenError::Unsuitable { .. })));
    open(config(&schema.name)).await.unwrap();
    stranger.batch_execute(&format!("UPDATE {}.meta SET version = 99", schema.name)).await.unwrap();
    let newer = open(config(&schema.name)).await;
    assert!(matches!(newer, Err(OpenError::Newer { found: 99, .. })), "{newer:?}");
}

/// What a flipped byte in any table of the log does: `verify` names it.
#[tokio::test(flavor = "multi_thread")]
async fn damage_is_named() {
    let schema = schema!();
    let s = &schema.name;
    let damages = [
        format!("UPDATE {s}.event SET body = set_byte(body, 60, get_byte(body, 60) # 1) WHERE id = 2"),
        format!("UPDATE {s}.event SET kind = 'other' WHERE id = 2"),
        format!("UPDATE {s}.event SET key = decode(repeat('00', 16), 'hex') WHERE id = 2"),
        format!("UPDATE {s}.stream SET hash = set_byte(hash, 3, get_byte(hash, 3) # 1)"),
        format!("DELETE FROM {s}.log WHERE position = 2"),
        format!("UPDATE {s}.log SET position = 7 WHERE position = 3"),
        format!("UPDATE {s}.metadata SET body = replace(body, 'ada', 'eve')"),
        format!("UPDATE {s}.metadata SET stream = stream + 100"),
        format!("UPDATE {s}.stream SET metadata = metadata + 1"),
        format!("DELETE FROM {s}.metadata"),
    ];
    let (node, _) = schema.node(|_| {}).await;
    node.append(batch("s", vec![event(1), event(2), event(3)])).await.unwrap();
    let owned = StreamMetadata { values: [("owner".to_owned(), "ada".to_owned())].into(), ..StreamMetadata::default() };
    node.set_metadata("s".parse().unwrap(), ExpectedVersion::Any, owned).await.unwrap();
    let stranger = schema.stranger().await;
    for damage in damages {
        stranger.batch_execute(&format!("BEGIN; CREATE TABLE {s}.kept AS SELECT * FROM {s}.event; CREATE TABLE {s}.line AS SELECT * FROM {s}.log; CREATE TABLE {s}.head AS SELECT * FROM {s}.stream; CREATE TABLE {s}.words AS SELECT * FROM {s}.metadata; {damage}; COMMIT")).await.unwrap();
        let verified = node.verify(Arc::new(|_, _| {})).await.unwrap();
        assert!(!verified.is_sound(), "{damage}");
        let read = node.metadata("s".parse().unwrap()).await;
        assert_eq!(read.is_err(), damage.contains("metadata"), "{damage}: {read:?}");
        let mend = format!(
            "BEGIN; UPDATE {s}.event e SET body = k.body, kind = k.kind, key = k.key FROM {s}.kept k WHERE k.id = e.id;
             DELETE FROM {s}.log; INSERT INTO {s}.log SELECT * FROM {s}.line;
             UPDATE {s}.stream t SET hash = h.hash, metadata = h.metadata FROM {s}.head h WHERE h.id = t.id;
             DELETE FROM {s}.metadata; INSERT INTO {s}.metadata SELECT * FROM {s}.words;
             DROP TABLE {s}.kept, {s}.line, {s}.head, {s}.words; COMMIT"
        );
        stranger.batch_execute(&mend).await.unwrap();
        assert_sound(&node).await;
    }
}

/// Clocks that let nobody ever wake by himself.
struct Asleep(Arc<dyn quorate_runtime::clock::Clocks>);

impl quorate_runtime::clock::Clocks for Asleep {
    fn wall(&self) -> Wall {
        self.0.wall()
    }

    fn mono(&self) -> Mono {
        self.0.mono()
    }

    fn boot(&self) -> Boot {
        self.0.boot()
    }

    fn sleep_until(&self, _: Mono) -> quorate_runtime::BoxFuture<'static, ()> {
        Box::pin(std::future::pending())
    }
}

/// A node that never looks by itself can only know because somebody told it.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_told_of_what_another_one_appended() {
    let schema = schema!();
    let (one, _) = schema.node(|_| {}).await;
    let mut parts = shared::env().into_parts();
    parts.clocks = Arc::new(Asleep(parts.clocks));
    let other = store::open(&Env::from_parts(parts), schema.config(Default::default())).await.unwrap();
    let mut moved = other.watch_head();
    // Its first run opens its line; until then nobody can tell it anything.
    other.append(batch("s", vec![event(0)])).await.unwrap();
    for n in 1..20_u64 {
        moved.wait_for(|head| head.get() == n).await.unwrap();
        one.append(batch("s", vec![event(n)])).await.unwrap();
    }
    moved.wait_for(|head| head.get() == 20).await.unwrap();
    // Also after its line was cut by whoever ends sessions.
    let end = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = $1";
    let stranger = schema.stranger().await;
    stranger.query_typed(end, &[(&schema.name, tokio_postgres::types::Type::TEXT)]).await.unwrap();
    one.append(batch("s", vec![event("after")])).await.unwrap();
    moved.wait_for(|head| head.get() == 21).await.unwrap();
}

/// A connection that listens must not go back to a proxy, which gives it to others.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_notifications_listens_to_none_and_sees_what_others_appended() {
    let schema = schema!();
    let (told, told_cable) = schema.node(|_| {}).await;
    let (looking, cable) = schema.node(|config| config.notifications = false).await;
    let mut moved = looking.watch_head();
    looking.append(batch("s", vec![event(0)])).await.unwrap();
    moved.wait_for(|head| head.get() == 1).await.unwrap();
    told.append(batch("s", vec![event(1)])).await.unwrap();
    moved.wait_for(|head| head.get() == 2).await.unwrap();
    assert_eq!(whole(&looking).await.len(), 2);
    assert_eq!((told_cable.listens(), cable.listens()), (true, false));
}

/// Nobody is left to ask for a run, and somebody notifies for nothing, more often than runs are made.
#[tokio::test(flavor = "multi_thread")]
async fn who_notifies_for_nothing_keeps_no_node_from_giving_positions() {
    let schema = schema!();
    let (node, _) = schema.node(|_| {}).await;
    // From here on it makes a run every second.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (noise, s) = (schema.stranger().await, schema.name.clone());
    let noise = tokio::spawn(async move {
        let tell = format!("SELECT pg_notify('{s}_positions', '')");
        while noise.query_typed(&tell, &[]).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    let vanished = format!("INSERT INTO {}.pending VALUES (1)", schema.name);
    schema.stranger().await.batch_execute(&vanished).await.unwrap();
    let mut moved = node.watch_head();
    let moves = tokio::time::timeout(Duration::from_secs(20), moved.wait_for(|head| head.get() == 1));
    moves.await.expect("a run is made").unwrap();
    noise.abort();
}

/// The queue of notifications is the whole server's, and has 8 GB: a trigger that fails commits as a full one does stands for it.
#[tokio::test(flavor = "multi_thread")]
async fn positions_are_given_where_the_server_has_no_room_for_notifications() {
    let schema = schema!();
    let (node, _) = schema.node(|_| {}).await;
    let s = &schema.name;
    let full = format!(
        "CREATE FUNCTION full_{s}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             IF current_query() LIKE '%pg_notify%' THEN
                 RAISE 'too many notifications in the NOTIFY queue' USING ERRCODE = '54000';
             END IF;
             RETURN NULL;
         END $$;
         CREATE CONSTRAINT TRIGGER filled AFTER INSERT ON {s}.log DEFERRABLE INITIALLY DEFERRED
             FOR EACH ROW EXECUTE FUNCTION full_{s}()"
    );
    schema.stranger().await.batch_execute(&full).await.unwrap();
    let work = async {
        for n in 0..5 {
            node.append(batch("s", vec![event(n)])).await.unwrap();
        }
        assert_eq!(whole(&node).await.len(), 5);
    };
    tokio::time::timeout(Duration::from_secs(30), work).await.expect("positions are given");
    assert_sound(&node).await;
}

/// Clocks whose wall stands still, so that two stores record at the same time.
struct Frozen(Arc<dyn quorate_runtime::clock::Clocks>);

impl quorate_runtime::clock::Clocks for Frozen {
    fn wall(&self) -> Wall {
        Wall::from_unix_nanos(1_700_000_000_123_456_789)
    }

    fn mono(&self) -> Mono {
        self.0.mono()
    }

    fn boot(&self) -> Boot {
        self.0.boot()
    }

    fn sleep_until(&self, due: Mono) -> quorate_runtime::BoxFuture<'static, ()> {
        self.0.sleep_until(due)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_and_their_chains_are_the_same_bytes_as_in_the_embedded_store() {
    let schema = schema!();
    let mut parts = shared::env().into_parts();
    parts.clocks = Arc::new(Frozen(parts.clocks));
    let env = Env::from_parts(parts);
    let there = store::open(&env, schema.config(Default::default())).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let config = quorate_data::store::sqlite::Config::at(folder.path().join("s.db"));
    let here = quorate_data::store::sqlite::open(&env, config).await.unwrap();
    let tagged = decided("tagged".to_owned(), &["a:1".to_owned(), "b:2".to_owned()]);
    let large = NewEvent { data: Some(vec![b'x'; 300_000].into()), ..event("large") };
    for event in [event("plain"), tagged, large, NewEvent::new("bare", "/test", "t")] {
        for store in [&there, &here] {
            store.append(batch("s", vec![event.clone()])).await.unwrap();
        }
    }
    let (there, here) = (whole(&there).await, whole(&here).await);
    // The hash covers every byte but its own, and the chain behind it.
    assert_eq!(there, here);
    assert!(there.iter().zip(&here).all(|(there, here)| there.hash() == here.hash()));
}
