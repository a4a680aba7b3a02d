//! quorate over HTTP: a node in a process of its own.

use std::sync::atomic::{AtomicU64, Ordering};

use quorate_runtime::BoxFuture;

use super::{
    super::{
        super::node::{Connection, post},
        BATCH,
    },
    Broker, LULL, Lane,
};

/// A node.
pub(super) struct Served {
    address: String,
    lanes: AtomicU64,
}

struct Caller {
    connection: Connection,
    /// Which one it is of all, and how many messages it sent.
    lane: u64,
    sent: u64,
    queue: String,
    leases: Vec<String>,
}

impl Served {
    pub(super) fn at(address: &str) -> Self {
        Self { address: address.to_owned(), lanes: AtomicU64::new(0) }
    }

    async fn connect(&self, queue: &str) -> Result<Caller, String> {
        let connection = Connection::open(&self.address).await?;
        let lane = self.lanes.fetch_add(1, Ordering::Relaxed);
        Ok(Caller { connection, lane, sent: 0, queue: queue.to_owned(), leases: Vec::new() })
    }
}

impl Broker for Served {
    fn begin<'a>(&'a self, queue: &'a str) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            let body = format!(r#"{{"max-messages":{}}}"#, quorate_communication::message_queue::Config::MAX_MESSAGES);
            self.connect(queue).await?.call("PUT", "", &body).await.map(|_| ())
        })
    }

    fn lane<'a>(&'a self, queue: &'a str) -> BoxFuture<'a, Result<Box<dyn Lane>, String>> {
        Box::pin(async move { Ok(Box::new(self.connect(queue).await?) as Box<dyn Lane>) })
    }

    fn end<'a>(&'a self, queue: &'a str) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move { self.connect(queue).await?.call("DELETE", "", "").await.map(|_| ()) })
    }
}

impl Caller {
    async fn call(&mut self, method: &str, action: &str, body: &str) -> Result<Vec<u8>, String> {
        let request = post(&format!("/v1/queues/{}{action}", self.queue), "application/json", body);
        // All that differs is the first word.
        let request = [method.as_bytes(), request.strip_prefix(b"POST").unwrap_or_default()].concat();
        let (status, answer) = self.connection.call(&request).await?;
        if status < 300 { Ok(answer) } else { Err(format!("{status}: {}", String::from_utf8_lossy(&answer))) }
    }
}

impl Lane for Caller {
    fn send<'a>(&'a mut self, body: &'a [u8]) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(async move {
            let (lane, data) = (u128::from(self.lane).to_le_bytes(), String::from_utf8_lossy(body));
            self.sent += 1;
            // In the order of time, as ids that producers make are.
            let random = std::array::from_fn(|n| lane[n]);
            let id = uuid::Builder::from_unix_timestamp_millis(self.sent, &random).into_uuid();
            let message = format!(
                r#"{{"messages":[{{"event":{{"specversion":"1.0","id":"{id}","source":"/bench","type":"work.due","data":{data}}}}}]}}"#
            );
            self.call("POST", "/messages", &message).await.map(|_| ())
        })
    }

    fn receive(&mut self) -> BoxFuture<'_, Result<Vec<Vec<u8>>, String>> {
        Box::pin(async move {
            let asked = format!(r#"{{"max":{BATCH},"wait":"{}ms"}}"#, LULL.as_millis());
            let answer = self.call("POST", "/receive", &asked).await?;
            let answer: serde_json::Value = serde_json::from_slice(&answer).map_err(|cause| cause.to_string())?;
            let deliveries = answer["deliveries"].as_array().ok_or("no deliveries")?;
            let lease = |one: &serde_json::Value| one["lease"].as_str().map(str::to_owned).ok_or("no lease");
            self.leases = deliveries.iter().map(lease).collect::<Result<_, _>>()?;
            Ok(deliveries.iter().map(|one| one["event"]["data"].to_string().into_bytes()).collect())
        })
    }

    fn settle(&mut self) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            let leases = serde_json::json!({ "leases": std::mem::take(&mut self.leases) }).to_string();
            self.call("POST", "/ack", &leases).await.map(|_| ())
        })
    }
}
