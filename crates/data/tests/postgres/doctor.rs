//! The doctor: each finding is there where its cause is, says what to do, and is gone when that was done.
#![allow(clippy::unwrap_used, reason = "a test ends where it is surprised")]

use std::{sync::Arc, time::Duration};

use quorate_data::{
    event::NewEvent,
    store::{
        AppendBatch, ExpectedVersion,
        postgres::{
            self as store,
            doctor::{Finding, Severity, Thresholds, examine},
        },
    },
};
use quorate_foundations::time::{Boot, Mono, Wall};
use quorate_runtime::{BoxFuture, Env, clock::Clocks};
use tokio_postgres::{Client, types::Type};

use crate::{
    server::Own,
    shared::{self, Schema, batch, event, stranger},
};

macro_rules! some {
    ($made:expr) => {
        match $made {
            Some(made) => made,
            None => return,
        }
    };
}

/// Everything counts, however young.
const AT_ONCE: Thresholds =
    Thresholds { old: Duration::ZERO, bloat: 4 << 20, clock: Duration::from_secs(3_600), queue: 0.000_5 };

fn config(own: &Own) -> store::Config {
    store::Config::at(&own.address()).unwrap()
}

/// What is found about `about`.
async fn found(config: &store::Config, about: &str) -> Vec<Finding> {
    let found = examine(&shared::env(), config, AT_ONCE).await.unwrap();
    found.into_iter().filter(|finding| finding.about == about).collect()
}

/// The one finding about `about` that mentions `naming`, and that it says what to do.
async fn one(config: &store::Config, about: &str, naming: &str) -> Finding {
    let mut named: Vec<Finding> =
        found(config, about).await.into_iter().filter(|finding| finding.what.contains(naming)).collect();
    assert_eq!(named.len(), 1, "{about}, {naming}: {named:?}");
    let finding = named.remove(0);
    assert!(!finding.advice.is_empty());
    finding
}

/// Nothing about `about` that mentions `naming` is found.
async fn none(config: &store::Config, about: &str, naming: &str) {
    let left = found(config, about).await;
    assert!(!left.iter().any(|finding| finding.what.contains(naming)), "{left:?}");
}

async fn do_all(client: &Client, statements: &[&str]) {
    for statement in statements {
        client.batch_execute(statement).await.unwrap_or_else(|failed| panic!("{statement}: {failed:?}"));
    }
}

/// What the first statement of an advice says, done as it stands there.
async fn follow(client: &Client, finding: &Finding) {
    let statement = finding.advice.split_once(": ").map_or(&*finding.advice, |(_, statement)| statement);
    let statement = statement.split([';', ',']).next().unwrap();
    client.batch_execute(statement).await.unwrap_or_else(|failed| panic!("{statement}: {failed:?}"));
}

async fn pid(client: &Client) -> i32 {
    client.query_typed_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_found_where_nothing_ails() {
    let own = some!(Own::new(""));
    let node = store::open(&shared::env(), config(&own)).await.unwrap();
    node.append(batch("s", vec![event(1)])).await.unwrap();
    let found = examine(&shared::env(), &config(&own), Thresholds::default()).await.unwrap();
    assert_eq!(found, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_without_a_store_is_told_to_have_none() {
    let own = some!(Own::new(""));
    let found = examine(&shared::env(), &config(&own), Thresholds::default()).await.unwrap();
    assert_eq!(found.iter().map(|one| (one.severity, one.about)).collect::<Vec<_>>(), [(Severity::Note, "tables")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_endanger_what_was_acknowledged_are_named() {
    let own = some!(Own::new(""));
    let admin = stranger(&own.address()).await;
    for (set, back, about, severity) in [
        ("fsync = off", "fsync", "fsync", Severity::Danger),
        ("full_page_writes = off", "full_page_writes", "full_page_writes", Severity::Danger),
        ("synchronous_commit = off", "synchronous_commit", "synchronous_commit", Severity::Warning),
        ("zero_damaged_pages = on", "zero_damaged_pages", "zero_damaged_pages", Severity::Danger),
        ("ignore_checksum_failure = on", "ignore_checksum_failure", "ignore_checksum_failure", Severity::Danger),
        ("autovacuum = off", "autovacuum", "autovacuum", Severity::Warning),
        ("track_counts = off", "track_counts", "autovacuum", Severity::Warning),
        ("default_transaction_read_only = on", "default_transaction_read_only", "read-only", Severity::Danger),
    ] {
        none(&config(&own), about, "").await;
        do_all(&admin, &[&format!("ALTER SYSTEM SET {set}"), "SELECT pg_reload_conf()"]).await;
        until(&config(&own), about, true).await;
        assert_eq!(one(&config(&own), about, "").await.severity, severity);
        do_all(&admin, &[&format!("ALTER SYSTEM RESET {back}"), "SELECT pg_reload_conf()"]).await;
        until(&config(&own), about, false).await;
    }
    // Commits that are only flushed here, although somebody wants them to be on a standby as well.
    for set in ["synchronous_commit = local", "synchronous_standby_names = 'nobody'"] {
        none(&config(&own), "synchronous_commit", "").await;
        do_all(&admin, &[&format!("ALTER SYSTEM SET {set}"), "SELECT pg_reload_conf()"]).await;
    }
    until(&config(&own), "synchronous_commit", true).await;
    assert_eq!(one(&config(&own), "synchronous_commit", "local").await.severity, Severity::Danger);
    do_all(&admin, &["ALTER SYSTEM RESET synchronous_standby_names", "SELECT pg_reload_conf()"]).await;
    until(&config(&own), "synchronous_commit", false).await;
}

/// A server reads its settings a moment after it was told to.
async fn until(config: &store::Config, about: &str, is_there: bool) {
    for _ in 0..200 {
        if found(config, about).await.is_empty() != is_there {
            return;
        }
        shared::env().sleep(Duration::from_millis(50)).await;
    }
    panic!("{about} is {}there", if is_there { "not " } else { "" });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_is_named_until_it_is_promoted() {
    let own = some!(Own::new(""));
    drop(store::open(&shared::env(), config(&own)).await.unwrap());
    own.kill();
    own.demote();
    own.start();
    assert_eq!(one(&config(&own), "standby", "").await.severity, Severity::Danger);
    own.promote();
    none(&config(&own), "standby", "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_transaction_is_named_with_what_it_holds_until_it_is_ended() {
    let schema = some!(Schema::new());
    let (node, _) = schema.node(|_| {}).await;
    node.append(batch("s", vec![event(1)])).await.unwrap();
    let (config, idle, admin) = (schema.config(Default::default()), schema.stranger().await, schema.stranger().await);
    let session = format!("session {} ", pid(&idle).await);
    none(&config, "session", &session).await;
    do_all(&idle, &["BEGIN ISOLATION LEVEL REPEATABLE READ", "SELECT 1"]).await;
    let finding = one(&config, "session", &session).await;
    assert!(finding.what.contains("idle in transaction") && finding.what.contains("pins xmin"), "{finding:?}");
    assert_eq!(finding.severity, Severity::Warning);
    let lock = format!("LOCK TABLE {}.stream IN SHARE MODE", schema.name);
    do_all(&idle, &[&lock]).await;
    let finding = one(&config, "session", &session).await;
    assert!(finding.what.contains(&format!("Share on {}.stream", schema.name)), "{finding:?}");
    assert_eq!(finding.severity, Severity::Danger, "nobody appends meanwhile");
    follow(&admin, &finding).await;
    for _ in 0..200 {
        if found(&config, "session").await.iter().all(|finding| !finding.what.contains(&session)) {
            return;
        }
    }
    panic!("it is still there");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prepared_transaction_of_any_database_is_named_with_what_it_holds_until_it_is_ended() {
    let schema = some!(Schema::new());
    let (node, _) = schema.node(|_| {}).await;
    node.append(batch("s", vec![event(1)])).await.unwrap();
    let config = schema.config(Default::default());
    let other = format!("doctor_{}", schema.name);
    schema.stranger().await.batch_execute(&format!("CREATE DATABASE {other}")).await.unwrap();
    let (here, there) = (schema.stranger().await, stranger(&schema.in_database(&other)).await);
    let (s, gid, far) = (&schema.name, format!("it's {}", schema.name), format!("far {}", schema.name));
    let prepare = |gid: &str| format!("PREPARE TRANSACTION '{}'", gid.replace('\'', "''"));
    do_all(&here, &["BEGIN", &format!("SELECT * FROM {s}.stream FOR UPDATE"), &prepare(&gid)]).await;
    do_all(&there, &["CREATE TABLE t (x integer)", "BEGIN", "INSERT INTO t VALUES (1)", &prepare(&far)]).await;

    let near = one(&config, "prepared-transaction", &format!("'it''s {s}'")).await;
    assert!(near.what.contains(&format!("RowShare on {s}.stream")), "{near:?}");
    assert_eq!(near.severity, Severity::Danger, "whoever appends to that stream waits");
    let distant = one(&config, "prepared-transaction", &format!("'far {s}'")).await;
    assert!(distant.what.contains(&other) && distant.what.contains("1 locks in its database"), "{distant:?}");
    assert_eq!(distant.severity, Severity::Warning);
    assert!(distant.advice.contains(&format!("ROLLBACK PREPARED 'far {s}'")), "{distant:?}");

    do_all(&here, &[&format!("ROLLBACK PREPARED 'it''s {s}'")]).await;
    none(&config, "prepared-transaction", "it''s").await;
    one(&config, "prepared-transaction", &format!("'far {s}'")).await;
    do_all(&there, &[&format!("ROLLBACK PREPARED 'far {s}'")]).await;
    none(&config, "prepared-transaction", s).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_coordinators_prepared_transaction_it_is_said_whether_it_was_decided() {
    let schema = some!(Schema::new());
    let (node, _) = schema.node(|_| {}).await;
    let (config, here) = (schema.config(Default::default()), schema.stranger().await);
    // One server for all tests: the numbers are this schema's own.
    let gid = |n: u32| format!("quorate:0197f2a0-0000-7000-8000-{:012x}:1-{n}", std::process::id());
    let decided = NewEvent::new("decided", "/quorate/transactions", "quorate.txn.decided");
    let stream = format!("txn-{}", gid(1)).parse().unwrap();
    node.append(AppendBatch::to(stream, ExpectedVersion::NoStream, vec![decided])).await.unwrap();
    for n in [1, 2] {
        do_all(&here, &["BEGIN", "SELECT pg_current_xact_id()", &format!("PREPARE TRANSACTION '{}:left'", gid(n))])
            .await;
    }
    let found = one(&config, "prepared-transaction", &gid(1)).await;
    assert!(found.advice.contains("decided to commit it") && !found.advice.contains("ROLLBACK"), "{found:?}");
    let found = one(&config, "prepared-transaction", &gid(2)).await;
    assert!(found.advice.contains("nothing in this store says that it was decided"), "{found:?}");
    assert!(found.advice.contains(&format!("txn-{}`", gid(2))), "{found:?}");
    for n in [1, 2] {
        do_all(&here, &[&format!("ROLLBACK PREPARED '{}:left'", gid(n))]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replication_slot_that_nobody_reads_is_named_until_it_is_dropped() {
    let own = some!(Own::new(""));
    let admin = stranger(&own.address()).await;
    none(&config(&own), "replication-slot", "").await;
    do_all(&admin, &["SELECT pg_create_physical_replication_slot('left', true)"]).await;
    let finding = one(&config(&own), "replication-slot", "`left`").await;
    follow(&admin, &finding).await;
    none(&config(&own), "replication-slot", "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn committed_events_without_a_position_are_named_with_who_holds_them_up() {
    let schema = some!(Schema::new());
    let (node, cable) = schema.node(|config| config.patience = Duration::from_millis(100)).await;
    let (config, blocker) = (schema.config(Default::default()), schema.stranger().await);
    node.append(batch("s", vec![event(1)])).await.unwrap();
    none(&config, "positions", "").await;
    // The sequencer waits for it, and with it everybody who reads.
    let block = format!("LOCK TABLE {}.log IN SHARE MODE", schema.name);
    do_all(&blocker, &["BEGIN", &block]).await;
    node.append(batch("s", vec![event(2)])).await.unwrap();
    let finding = one(&config, "positions", "1 committed events").await;
    assert_eq!(finding.severity, Severity::Danger);
    assert!(finding.advice.contains(&format!("pg_terminate_backend({})", pid(&blocker).await)), "{finding:?}");
    do_all(&blocker, &["ROLLBACK"]).await;
    none(&config, "positions", "").await;

    do_all(&blocker, &["BEGIN", &block]).await;
    node.append(batch("s", vec![event(3)])).await.unwrap();
    cable.cut();
    drop(node);
    let end = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = $1";
    blocker.query_typed(end, &[(&schema.name, Type::TEXT)]).await.unwrap();
    do_all(&blocker, &["ROLLBACK"]).await;
    let finding = one(&config, "positions", "1 committed events").await;
    assert!(finding.advice.starts_with("start a node"), "{finding:?}");
    let _node = schema.node(|_| {}).await;
    none(&config, "positions", "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_rows_in_pending_are_named_until_they_are_gone() {
    let schema = some!(Schema::new());
    drop(schema.node(|_| {}).await);
    let (config, admin, s) = (schema.config(Default::default()), schema.stranger().await, &schema.name);
    none(&config, "bloat", "").await;
    let rows = format!("INSERT INTO {s}.pending SELECT generate_series(1, 200000)");
    do_all(&admin, &[&format!("ALTER TABLE {s}.pending SET (autovacuum_enabled = off)"), "BEGIN", &rows, "ROLLBACK"])
        .await;
    one(&config, "bloat", "0 rows").await;
    do_all(&admin, &[&format!("VACUUM {s}.pending")]).await;
    none(&config, "bloat", "").await;
    let finding = one(&config, "autovacuum", "pending").await;
    follow(&admin, &finding).await;
    none(&config, "autovacuum", "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_put_into_the_schema_is_named_and_gone_when_the_advice_was_followed() {
    let schema = some!(Schema::new());
    drop(schema.node(|_| {}).await);
    let (config, admin, s) = (schema.config(Default::default()), schema.stranger().await, &schema.name);
    do_all(
        &admin,
        &[
            &format!("CREATE FUNCTION f_{s}() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END'"),
            &format!("CREATE FOREIGN DATA WRAPPER w_{s}"),
            &format!("CREATE SERVER v_{s} FOREIGN DATA WRAPPER w_{s}"),
        ],
    )
    .await;
    for (made, about, naming) in [
        (format!("CREATE TABLE {s}.theirs_{s} (x integer)"), "foreign-object", "table \""),
        (format!("CREATE VIEW {s}.\"Their View {s}\" AS SELECT 1 AS x"), "foreign-object", "view \""),
        (format!("CREATE FOREIGN TABLE {s}.far_{s} (x integer) SERVER v_{s}"), "foreign-object", "foreign table"),
        (
            format!("CREATE FUNCTION {s}.own_{s}() RETURNS integer LANGUAGE sql AS 'SELECT 1'"),
            "foreign-object",
            "function",
        ),
        (
            // By the name of one of the store's own.
            format!("CREATE FUNCTION {s}.known_events() RETURNS integer LANGUAGE sql AS 'SELECT 1'"),
            "foreign-object",
            "known_events()",
        ),
        (
            format!("CREATE TRIGGER t BEFORE INSERT ON {s}.event FOR EACH ROW EXECUTE FUNCTION f_{s}()"),
            "trigger",
            "trigger t ",
        ),
        (format!("CREATE RULE r AS ON UPDATE TO {s}.stream DO INSTEAD NOTHING"), "rule", "rule r "),
        (format!("CREATE TABLE refers_{s} (x bigint REFERENCES {s}.event (id))"), "foreign-key", "refers_"),
        (format!("ALTER TABLE {s}.pending SET UNLOGGED"), "unlogged", "pending"),
        (format!("ALTER TABLE {s}.event ENABLE ROW LEVEL SECURITY"), "row-security", "event"),
    ] {
        none(&config, about, "").await;
        do_all(&admin, &[&made]).await;
        let finding = one(&config, about, naming).await;
        follow(&admin, &finding).await;
        none(&config, about, "").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_of_the_store_that_somebody_changed_is_named() {
    let schema = some!(Schema::new());
    drop(schema.node(|_| {}).await);
    let (config, admin, s) = (schema.config(Default::default()), schema.stranger().await, &schema.name);
    none(&config, "changed-function", "").await;
    let changed =
        "CREATE OR REPLACE FUNCTION known_events(keys bytea[]) RETURNS TABLE (key bytea, id bigint, body bytea)
        LANGUAGE plpgsql AS 'BEGIN END'";
    do_all(&admin, &[&changed.replace("FUNCTION ", &format!("FUNCTION {s}."))]).await;
    one(&config, "changed-function", "known_events").await;
    do_all(&admin, &[&format!("DROP FUNCTION {s}.known_events")]).await;
    one(&config, "changed-function", "known_events is not there").await;
    drop(schema.node(|_| {}).await);
    none(&config, "changed-function", "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_is_locked_is_said_to_be_with_who_locked_it() {
    let schema = some!(Schema::new());
    drop(schema.node(|_| {}).await);
    let (config, blocker) = (schema.config(Default::default()), schema.stranger().await);
    let session = format!("session {} ", pid(&blocker).await);
    for table in ["meta", "pending"] {
        none(&config, "locked", "").await;
        let lock = format!("LOCK TABLE {}.{table}", schema.name);
        do_all(&blocker, &["BEGIN", &lock]).await;
        let found = examine(&shared::env(), &config, AT_ONCE).await.unwrap();
        let is_told = |about: &str, naming: &str| {
            found.iter().any(|one| (one.about, one.severity) == (about, Severity::Danger) && one.what.contains(naming))
        };
        assert!(is_told("locked", "a table of the store is locked"), "{found:?}");
        assert!(is_told("session", &session), "{found:?}");
        assert!(is_told("session", &format!("AccessExclusive on {}.{table}", schema.name)), "{found:?}");
        do_all(&blocker, &["ROLLBACK"]).await;
    }
    none(&config, "locked", "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_of_notifications_that_somebody_keeps_is_named_until_it_is_empty() {
    let own = some!(Own::new(""));
    let (listener, teller) = (stranger(&own.address()).await, stranger(&own.address()).await);
    none(&config(&own), "notifications", "").await;
    do_all(&listener, &["LISTEN something", "BEGIN", "SELECT 1"]).await;
    let tell = |n: usize| format!("SELECT pg_notify('any', repeat('x', 7900) || n) FROM generate_series(1, {n}) n");
    do_all(&teller, &[&tell(1_000)]).await;
    assert_eq!(one(&config(&own), "notifications", "queue").await.severity, Severity::Warning);
    do_all(&teller, &[&tell(4_000)]).await;
    assert_eq!(one(&config(&own), "notifications", "queue").await.severity, Severity::Danger);
    do_all(&listener, &["ROLLBACK"]).await;
    until(&config(&own), "notifications", false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_hosts_the_primary_is_used_and_a_standby_only_where_there_is_none() {
    let (standby, primary) = (some!(Own::new("")), some!(Own::new("")));
    standby.kill();
    standby.demote();
    standby.start();
    let at = |own: &Own| own.address().split_once('@').unwrap().1.split_once('/').unwrap().0.to_owned();
    let both = format!("postgres://quorate@{},{}/postgres", at(&standby), at(&primary));
    let config = store::Config::at(&both).unwrap();
    let node = store::open(&shared::env(), config.clone()).await.unwrap();
    node.append(batch("s", vec![event(1)])).await.unwrap();
    none(&config, "standby", "").await;
    primary.kill();
    assert_eq!(one(&config, "standby", "").await.severity, Severity::Danger);
    primary.start();
    node.append(batch("s", vec![event(2)])).await.unwrap();
    none(&config, "standby", "").await;
}

/// Clocks whose wall is some hours late.
struct Late(Arc<dyn Clocks>);

impl Clocks for Late {
    fn wall(&self) -> Wall {
        Wall::from_unix_nanos(self.0.wall().unix_nanos() - 7_200_000_000_000)
    }

    fn mono(&self) -> Mono {
        self.0.mono()
    }

    fn boot(&self) -> Boot {
        self.0.boot()
    }

    fn sleep_until(&self, due: Mono) -> BoxFuture<'static, ()> {
        self.0.sleep_until(due)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clocks_that_are_apart_are_named() {
    let schema = some!(Schema::new());
    let config = schema.config(Default::default());
    none(&config, "clock", "").await;
    let mut parts = shared::env().into_parts();
    parts.clocks = Arc::new(Late(parts.clocks));
    let found = examine(&Env::from_parts(parts), &config, AT_ONCE).await.unwrap();
    let clock = found.iter().find(|finding| finding.about == "clock").unwrap();
    assert!(clock.what.contains("7200.0s ahead of") || clock.what.contains("7199."), "{clock:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_has_hardly_a_connection_left_is_named_until_it_has() {
    let own = some!(Own::new("-c max_connections=20"));
    let config = store::Config { connections: 4, ..config(&own) };
    none(&config, "connections", "").await;
    let mut guests = Vec::new();
    for _ in 0..12 {
        guests.push(stranger(&own.address()).await);
    }
    one(&config, "connections", "of 17").await;
    drop(guests);
    until(&config, "connections", false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_user_may_not_see_is_said_and_not_taken_for_health() {
    let schema = some!(Schema::new());
    drop(schema.node(|_| {}).await);
    let (admin, s) = (schema.stranger().await, &schema.name);
    let address = schema.in_database("postgres").replace("quorate@", &format!("watch_{s}@"));
    let config = store::Config { schema: s.clone(), ..store::Config::at(&address).unwrap() };
    do_all(&admin, &[&format!("CREATE ROLE watch_{s} LOGIN")]).await;
    one(&config, "rights", "schema").await;
    let grants = [
        format!("GRANT USAGE ON SCHEMA {s} TO watch_{s}"),
        format!("GRANT SELECT ON ALL TABLES IN SCHEMA {s} TO watch_{s}"),
    ];
    do_all(&admin, &grants.each_ref().map(String::as_str)).await;
    let finding = one(&config, "rights", "sessions").await;
    assert_eq!(finding.severity, Severity::Note);
    follow(&admin, &finding).await;
    none(&config, "rights", "").await;
}
