//! The loan views that come with the examples agree with a count over the same events, made by hand.
#![expect(clippy::unwrap_used, reason = "helpers of tests, too, fail by panicking")]

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, BufReader},
    path::Path,
    time::Duration,
};

use quorate::{
    Env,
    event::{NewEvent, Position, Timestamp},
    materialized_view::{
        Build, QueryLimits, Reading, Switch, View, Views,
        declared::{Document, Format},
    },
    store::{AppendBatch, ExpectedVersion, Store, StreamAppend, sqlite},
};
use serde_json::Value as Json;

const LOANS: &str = include_str!("../views/loans.toml");
const WORK: &str = include_str!("../views/work.toml");
const BASKETS: &str = include_str!("../views/baskets.toml");
/// How much of the real log a test takes, of 262,200 lines. All of them are for the night: see [`all_of_them`].
const SLICE: usize = 12_000;
const LONG: Duration = Duration::from_secs(120);

/// One event, read by hand.
struct Line {
    stream: String,
    kind: String,
    time: Timestamp,
    data: Json,
    event: NewEvent,
}

fn line(text: &str) -> Line {
    let json: Json = serde_json::from_str(text).unwrap();
    let member = |name: &str| json[name].as_str().unwrap().to_owned();
    let mut event = NewEvent::new(member("id"), member("source"), member("type")).json(json["data"].to_string());
    let time: Timestamp = member("time").parse().unwrap();
    event.time = Some(time.clone());
    Line { stream: member("subject"), kind: member("type"), time, data: json["data"].clone(), event }
}

/// The first lines of the real log, or our own sample where that is not there.
fn lines(most: usize) -> Vec<Line> {
    let real = std::env::var("QUORATE_LOANS").unwrap_or_else(|_| "../../shared/data/loans.ndjson.gz".to_owned());
    let real = Path::new(env!("CARGO_MANIFEST_DIR")).join(real);
    if let Ok(file) = Env::real().disk().open(&real) {
        let reader = BufReader::new(flate2::read::GzDecoder::new(file));
        return reader.lines().take(most).map(|text| line(&text.unwrap())).collect();
    }
    eprintln!("THE REAL LOANS ARE NOT AT {}: a small sample stands in", real.display());
    include_str!("../data/loans-sample.ndjson").lines().map(line).collect()
}

async fn import(store: &Store, lines: &[Line]) {
    for chunk in lines.chunks(500) {
        let mut streams: Vec<StreamAppend> = Vec::new();
        for line in chunk {
            let stream = line.stream.parse().unwrap();
            match streams.iter_mut().find(|known| known.stream == stream) {
                Some(known) => known.events.push(line.event.clone()),
                None => streams.push(StreamAppend {
                    stream,
                    expected: ExpectedVersion::Any,
                    events: vec![line.event.clone()],
                }),
            }
        }
        store.append(AppendBatch { streams, conditions: Vec::new() }).await.unwrap();
    }
}

/// What the views should say, counted directly.
#[derive(Default)]
struct Count {
    eur: BTreeMap<String, i64>,
    state: BTreeMap<String, String>,
    reached: BTreeMap<String, BTreeSet<String>>,
    work: BTreeMap<(String, String), i64>,
    submitted: BTreeMap<String, i64>,
    took: BTreeMap<String, i64>,
}

fn count(lines: &[Line]) -> Count {
    let mut count = Count::default();
    for line in lines {
        let micros = line.time.instant().unix_nanos() / 1_000;
        let id = line.stream.clone();
        if line.kind == "loan.A_SUBMITTED.complete" {
            count.eur.insert(id.clone(), line.data["amountRequested"].as_i64().unwrap());
            count.submitted.insert(id.clone(), micros);
        }
        if line.kind.starts_with("loan.A_") {
            let state = line.data["activity"].as_str().unwrap().to_owned();
            count.reached.entry(state.clone()).or_default().insert(id.clone());
            count.state.insert(id.clone(), state);
        }
        if ["A_APPROVED", "A_DECLINED", "A_CANCELLED"].iter().any(|end| line.kind == format!("loan.{end}.complete")) {
            let began = count.submitted[&id];
            count.took.entry(id).or_insert((micros - began) / 1_000_000);
        }
        if line.kind.starts_with("loan.W_") && line.data["lifecycle"] == "COMPLETE" {
            let who = line.data["resource"].as_str().unwrap_or("nobody").to_owned();
            *count.work.entry((line.time.as_str()[..10].to_owned(), who)).or_default() += 1;
        }
    }
    count
}

async fn declare(views: &Views, text: &str) -> View {
    let document = Document::read(text, Format::Toml).unwrap_or_else(|faults| panic!("{faults}"));
    let declared = views.declare(document).await.unwrap_or_else(|refused| panic!("{refused}"));
    views.get(&declared.view).await.unwrap()
}

async fn read(view: &View, sql: &str) -> Reading {
    view.query(sql, Vec::new()).await.unwrap_or_else(|failed| panic!("{sql}: {failed}"))
}

fn pairs(reading: &Reading) -> BTreeMap<String, i64> {
    reading.rows.iter().map(|row| (row.at(0).as_str().unwrap().to_owned(), row.at(1).as_i64().unwrap())).collect()
}

/// The median as SQL has it: of an even number, the mean of the two in the middle.
const MEDIAN: &str = "SELECT CAST(2 * avg(decision_seconds) AS integer) FROM (
    SELECT decision_seconds, row_number() OVER (ORDER BY decision_seconds) AS n, count(*) OVER () AS m
    FROM {application} WHERE decision_seconds IS NOT NULL) AS ranked
    WHERE n BETWEEN (m + 1) / 2 AND (m + 2) / 2";

/// What a reader sees of a view in one look: rows, and how far its newest build is.
async fn look(view: &View) -> Option<(i64, Position)> {
    let rows = view.query("SELECT count(*) FROM {application}", Vec::new()).await.ok()?;
    let described = view.describe().await.unwrap();
    let newest = described.builds.last()?;
    assert!(described.live.is_some(), "readers keep what they have");
    Some((rows.rows[0].at(0).as_i64()?, newest.position))
}

/// Reads while something is written: rows never get fewer, and the build in the making never goes back. Returns how often it
/// was read, and how far the newest build was seen.
async fn read_while(view: &View, writing: impl Future<Output = ()>) -> (usize, Position) {
    let (mut reads, mut rows, mut made) = (0, 0, Position::ZERO);
    tokio::pin!(writing);
    loop {
        let mut looking = std::pin::pin!(look(view));
        let (seen, is_written) = tokio::select! {
            biased;
            // Whoever looks by then is answered.
            () = &mut writing => (looking.await, true),
            seen = &mut looking => (seen, false),
        };
        if let Some((now, position)) = seen {
            assert!(now >= rows, "a reader saw {rows} applications, and {now} later");
            assert!(position >= made, "a build was at {made}, and at {position} later");
            (reads, rows, made) = (reads + 1, now, position);
        }
        if is_written {
            return (reads, made);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn declared_loan_views_agree_with_a_direct_count() {
    agree(&lines(SLICE)).await;
}

/// `cargo xtask nightly` runs it with `QUORATE_LOANS_ALL=1`, in release mode; elsewhere it says that it does not.
#[tokio::test(flavor = "multi_thread")]
async fn all_of_them() {
    if std::env::var_os("QUORATE_LOANS_ALL").is_none() {
        eprintln!("ALL LINES OF THE LOANS ARE FOR THE NIGHT: set QUORATE_LOANS_ALL=1");
        return;
    }
    let lines = lines(usize::MAX);
    assert!(lines.len() > 200_000, "the real loans are not there: {} lines", lines.len());
    agree(&lines).await;
}

async fn agree(lines: &[Line]) {
    let folder = tempfile::tempdir().unwrap();
    let store = sqlite::open(&Env::real(), sqlite::Config::at(folder.path().join("loans.db"))).await.unwrap();
    let limits = QueryLimits { rows: 1_000_000, bytes: 256 << 20, time: LONG, ..QueryLimits::default() };
    let views = Views::open_with(&store, limits).await.unwrap();
    let (loans, work) = (declare(&views, LOANS).await, declare(&views, WORK).await);
    let half = lines.len() / 2;
    import(&store, &lines[..half]).await;
    loans.wait(store.token(), LONG).await.unwrap();
    while loans.describe().await.unwrap().live.is_none() {
        tokio::task::yield_now().await;
    }
    // Another build beside the live one, while the import goes on.
    views.rebuild(loans.name(), Switch::WhenCaughtUp).await.unwrap();
    let (reads, _) = read_while(&loans, import(&store, &lines[half..])).await;
    assert!(reads > 0, "readers were served while it was rebuilt");
    loans.wait(store.token(), LONG).await.unwrap();
    work.wait(store.token(), LONG).await.unwrap();
    while loans.describe().await.unwrap().live != Some(Build::new(3)) {
        tokio::task::yield_now().await;
    }

    let count = count(lines);
    let states = read(&loans, "SELECT id, eur, state FROM {application}").await;
    let of_view: BTreeMap<String, String> = states
        .rows
        .iter()
        .map(|row| (row.at(0).as_str().unwrap().into(), row.at(2).as_str().unwrap().into()))
        .collect();
    assert_eq!(of_view, count.state, "the current state of each application");
    let reached: BTreeMap<String, i64> =
        count.reached.iter().map(|(state, all)| (state.clone(), all.len() as i64)).collect();
    assert_eq!(pairs(&read(&loans, "SELECT state, applications FROM {per_state}").await), reached);
    let eur: BTreeMap<String, i64> =
        count.reached.iter().map(|(state, all)| (state.clone(), all.iter().map(|id| count.eur[id]).sum())).collect();
    assert_eq!(pairs(&read(&loans, "SELECT state, eur FROM {per_state}").await), eur, "EUR that were asked for");
    let items = read(&work, "SELECT day || ' ' || resource, items FROM {work} WHERE items > 0").await;
    let worked: BTreeMap<String, i64> =
        count.work.iter().map(|((day, who), items)| (format!("{day} {who}"), *items)).collect();
    assert_eq!(pairs(&items), worked, "work items per day and resource");
    let mut took: Vec<i64> = count.took.into_values().collect();
    took.sort_unstable();
    let twice_the_median = took[(took.len() - 1) / 2] + took[took.len() / 2];
    let median = read(&loans, MEDIAN).await;
    assert_eq!(median.rows[0].at(0).as_i64(), Some(twice_the_median), "from submission to decision");
    for (view, build) in [(&loans, 3), (&work, 2)] {
        assert!(view.audit(Build::new(build)).await.unwrap().is_whole());
    }
    views.shut_down().await;
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declared_view_with_a_program_makes_a_row_of_each_line() {
    let folder = tempfile::tempdir().unwrap();
    let store = sqlite::open(&Env::real(), sqlite::Config::at(folder.path().join("baskets.db"))).await.unwrap();
    let views = Views::open(&store).await.unwrap();
    let baskets = declare(&views, BASKETS).await;
    let data = r#"{"shops": {"tea": [{"sku": "green", "pieces": 2, "each": 0.10}], "books": [{"sku": "b", "pieces": 1, "each": 19.99}]}}"#;
    for stream in ["basket-1", "basket-2", "basket-1"] {
        let event = NewEvent::new(store.event_id(), "/shop", "basket.filled").json(data.to_owned());
        store.append(AppendBatch::to(stream.parse().unwrap(), ExpectedVersion::Any, vec![event])).await.unwrap();
    }
    baskets.wait(store.token(), LONG).await.unwrap();
    let cents = read(&baskets, "SELECT basket || ' ' || sku, eur FROM {piece}").await;
    let expected = [
        ("basket-1 books/b", 3998),
        ("basket-1 tea/green", 40),
        ("basket-2 books/b", 1999),
        ("basket-2 tea/green", 20),
    ];
    assert_eq!(pairs(&cents), expected.map(|(piece, cents)| (piece.to_owned(), cents)).into());
    views.shut_down().await;
    store.close().await.unwrap();
}
