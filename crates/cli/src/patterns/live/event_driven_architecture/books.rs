//! What a consumer was told: every arrival, and whether it was known by its id.

use std::collections::BTreeMap;

use quorate_data::store::{DynTx, SqlError, Store};
use quorate_foundations::time::Boot;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::exit::{Exit, Failure};

/// Events by stream, each stream's in their order.
pub(super) type Streams = BTreeMap<String, Vec<String>>;

/// An event that came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Arrival {
    pub(super) stream: String,
    pub(super) event: String,
    /// Whether it had come before: nothing was done.
    pub(super) known: bool,
    /// By the machine's boot clock, in nanoseconds.
    pub(super) at: u64,
}

/// Everything that a consumer knows.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Books {
    /// In the order in which they came.
    pub(super) arrivals: Vec<Arrival>,
    /// When it refused an event because it failed.
    pub(super) refused: Vec<u64>,
    /// What came without a signature that holds.
    pub(super) unsigned: usize,
}

/// How far a consumer is.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Stand {
    /// Events that had their effect.
    pub(super) done: usize,
    /// The event that had its effect and was not answered.
    pub(super) held: Option<String>,
}

impl Books {
    /// Events that had their effect, stream by stream in the order in which they had it.
    pub(super) fn effects(&self) -> Streams {
        let mut streams = Streams::new();
        for arrival in self.arrivals.iter().filter(|arrival| !arrival.known) {
            streams.entry(arrival.stream.clone()).or_default().push(arrival.event.clone());
        }
        streams
    }

    /// How many had their effect.
    pub(super) fn done(&self) -> usize {
        self.arrivals.iter().filter(|arrival| !arrival.known).count()
    }

    /// How often an event came that had come before.
    pub(super) fn repeats(&self, event: &str) -> usize {
        self.arrivals.iter().filter(|arrival| arrival.known && arrival.event == event).count()
    }
}

/// The stream and the id of an event as the node sends it.
pub(super) fn named(event: &Value) -> Option<(String, String)> {
    Some((event["stream"].as_str()?.to_owned(), event["id"].as_str()?.to_owned()))
}

/// Events of a log, stream by stream.
pub(super) fn streams(events: &[Value]) -> Streams {
    let mut streams = Streams::new();
    for (stream, event) in events.iter().filter_map(named) {
        streams.entry(stream).or_default().push(event);
    }
    streams
}

/// A store that did not do its part.
pub(super) fn failed(cause: &(dyn std::error::Error + 'static)) -> Failure {
    Failure::of(Exit::Failed, cause)
}

/// Makes the table, if there is none.
pub(super) async fn begin(store: &Store) -> Result<(), Failure> {
    let made = store.transact(|tx| {
        Box::pin(async move {
            let sql = "CREATE TABLE IF NOT EXISTS arrival (nth INTEGER PRIMARY KEY, delivery TEXT NOT NULL,
                stream TEXT NOT NULL, event TEXT NOT NULL, known BIGINT NOT NULL, at BIGINT NOT NULL)";
            tx.execute(sql, &[]).await?;
            tx.execute("CREATE INDEX IF NOT EXISTS by_delivery ON arrival (delivery)", &[]).await
        })
    });
    made.await.map(drop).map_err(|cause| failed(&cause))
}

/// Notes an arrival, in the transaction of its effect; says whether it was known.
pub(super) async fn note(
    tx: &mut DynTx,
    delivery: &str,
    (stream, event): (&str, &str),
    at: Boot,
) -> Result<bool, SqlError> {
    let seen = tx.query("SELECT 1 FROM arrival WHERE delivery = $1 LIMIT 1", &[delivery.into()]).await?;
    let known = !seen.is_empty();
    let at = i64::try_from(at.as_nanos()).unwrap_or(i64::MAX);
    let sql = "INSERT INTO arrival (delivery, stream, event, known, at) VALUES ($1, $2, $3, $4, $5)";
    let values = [delivery.into(), stream.into(), event.into(), i64::from(known).into(), at.into()];
    tx.execute(sql, &values).await?;
    Ok(known)
}

/// How many events had their effect.
pub(super) async fn count(store: &Store) -> Result<usize, Failure> {
    let rows = store.query("SELECT count(*) FROM arrival WHERE known = 0", vec![]).await;
    let rows = rows.map_err(|cause| failed(&cause))?;
    let count = rows.first().and_then(|row| row.at(0).as_i64());
    Ok(count.and_then(|count| usize::try_from(count).ok()).unwrap_or_default())
}

/// All that came, page by page: a query brings 128 KiB at most.
pub(super) async fn arrivals(store: &Store) -> Result<Vec<Arrival>, Failure> {
    const PAGE: usize = 250;
    let (mut arrivals, mut last) = (Vec::new(), 0);
    loop {
        let sql = format!("SELECT nth, stream, event, known, at FROM arrival WHERE nth > $1 ORDER BY nth LIMIT {PAGE}");
        let page = store.query(&sql, vec![last.into()]).await.map_err(|cause| failed(&cause))?;
        arrivals.extend(page.iter().filter_map(|row| {
            let [stream, event] = [1, 2].map(|n| row.at(n).as_str().unwrap_or_default().to_owned());
            let (known, at) = (row.at(3).as_i64()? != 0, row.at(4).as_i64()?.unsigned_abs());
            Some(Arrival { stream, event, known, at })
        }));
        match page.last().and_then(|row| row.at(0).as_i64()) {
            Some(end) if page.len() == PAGE => last = end,
            _ => return Ok(arrivals),
        }
    }
}
