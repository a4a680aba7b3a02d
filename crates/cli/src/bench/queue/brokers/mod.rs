//! What a broker does, measured in the same way for each: ours over HTTP, and others by their own protocols.

mod nats;
mod postgres;
mod rabbitmq;
mod redis;
mod served;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use quorate_runtime::BoxFuture;
use tokio::sync::Mutex;

use super::{
    super::{
        Options,
        events::rate,
        failed,
        figure::Figures,
        log::{Effort, Folder},
        node::Node,
    },
    Kind, Peer,
};
use crate::{exit::Failure, output::note};

/// How long a broker may take for one answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a consumer waits for the first message of a batch.
const LULL: Duration = Duration::from_millis(50);
/// A queue that is consumed holds this part of the events that a large store has.
const SHARE: u64 = 50;
/// Lanes that fill a queue.
const FILLING: usize = 16;
/// Messages per second while latency is measured.
const LOAD: u32 = 500;

/// A message broker.
trait Broker: Send + Sync {
    /// Makes an empty queue.
    fn begin<'a>(&'a self, queue: &'a str) -> BoxFuture<'a, Result<(), String>>;

    /// A connection of its own to a queue.
    fn lane<'a>(&'a self, queue: &'a str) -> BoxFuture<'a, Result<Box<dyn Lane>, String>>;

    /// Removes a queue.
    fn end<'a>(&'a self, queue: &'a str) -> BoxFuture<'a, Result<(), String>>;
}

/// One connection to one queue, which sends or consumes.
trait Lane: Send {
    /// Sends a message, and waits for the word that it is kept.
    fn send<'a>(&'a mut self, body: &'a [u8]) -> BoxFuture<'a, Result<(), String>>;

    /// At most [`BATCH`](super::BATCH) messages; none if there was none for [`LULL`].
    fn receive(&mut self) -> BoxFuture<'_, Result<Vec<Vec<u8>>, String>>;

    /// Acknowledges what was received last.
    fn settle(&mut self) -> BoxFuture<'_, Result<(), String>>;
}

/// A broker and what its figures are called.
struct Contender {
    name: &'static str,
    broker: Box<dyn Broker>,
}

/// What is measured of everybody.
const FIGURES: [(&str, usize); 5] = [("send", 1), ("send", 16), ("consume", 1), ("consume", 16), ("end-to-end", 1)];

/// Measures ours over HTTP, and every peer that can be reached.
pub(super) async fn measure(
    options: &Options,
    peers: &[Peer],
    effort: Effort,
    figures: &mut Figures,
) -> Result<(), Failure> {
    let is_wanted = |name: &str| {
        ["http"]
            .into_iter()
            .chain(peers.iter().map(|peer| peer.kind.name()))
            .any(|who| options.wants(&format!("queue/{who}/{name}")))
    };
    if !FIGURES.iter().any(|(what, _)| is_wanted(what)) {
        return Ok(());
    }
    let folder = Folder::make(&options.folder)?;
    let node = Node::start(&folder)?;
    let mut contenders = vec![Contender { name: "http", broker: Box::new(served::Served::at(&node.address)) }];
    for peer in peers {
        match tokio::time::timeout(PATIENCE, peer.reach()).await {
            Ok(Ok(broker)) => contenders.push(Contender { name: peer.kind.name(), broker }),
            Ok(Err(cause)) => note(&format!("{} is left out: {cause}", peer.kind.name())),
            Err(_) => note(&format!("{} is left out: it did not answer within {PATIENCE:?}", peer.kind.name())),
        }
    }
    for (what, lanes) in FIGURES {
        let mut measured: Vec<Vec<Vec<f64>>> = contenders.iter().map(|_| Vec::new()).collect();
        for round in 0..effort.rounds {
            for (contender, values) in contenders.iter().zip(&mut measured) {
                if options.wants(&contender.figure(what, lanes)) {
                    note(&format!("{}: round {} of {}", contender.figure(what, lanes), round + 1, effort.rounds));
                    let value = contender.round(what, lanes, round, effort).await;
                    values.push(value.map_err(|cause| failed(&format!("measuring {}", contender.name), cause))?);
                }
            }
        }
        for (contender, values) in contenders.iter().zip(measured).filter(|(_, values)| !values.is_empty()) {
            let name = contender.figure(what, lanes);
            let nth = |n: usize| values.iter().filter_map(|value| value.get(n).copied()).collect::<Vec<_>>();
            if what == "end-to-end" {
                figures.put(&format!("{name}/p50"), "ms", &nth(0), None);
                figures.put(&format!("{name}/p99"), "ms", &nth(1), None);
            } else {
                figures.put(&name, "messages/s", &nth(0), None);
            }
        }
    }
    Ok(())
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Nats => "nats",
            Self::RabbitMq => "rabbitmq",
            Self::Postgres => "postgres",
            Self::Redis => "redis",
        }
    }
}

impl Peer {
    async fn reach(&self) -> Result<Box<dyn Broker>, String> {
        Ok(match self.kind {
            Kind::Nats => Box::new(nats::Nats::connect(&self.url).await?),
            Kind::RabbitMq => Box::new(rabbitmq::RabbitMq::connect(&self.url).await?),
            Kind::Postgres => Box::new(postgres::Postgres::connect(&self.url).await?),
            Kind::Redis => Box::new(redis::Redis::connect(&self.url).await?),
        })
    }
}

impl Contender {
    fn figure(&self, what: &str, lanes: usize) -> String {
        let name = self.name;
        if what == "end-to-end" { format!("queue/{name}/{what}") } else { format!("queue/{name}/{what}/{lanes}") }
    }

    /// One round of one figure, on a queue of its own.
    async fn round(&self, what: &str, lanes: usize, round: usize, effort: Effort) -> Result<Vec<f64>, String> {
        let queue = format!("quorate-bench-{}-{what}-{lanes}-{round}", std::process::id());
        self.broker.begin(&queue).await?;
        let measured = match what {
            "send" => self.sends(&queue, lanes, effort).await,
            "consume" => self.consumes(&queue, lanes, effort).await,
            _ => self.latency(&queue, effort).await,
        };
        let ended = self.broker.end(&queue).await;
        let measured = measured?;
        ended.map(|()| measured)
    }

    async fn lanes(&self, queue: &str, count: usize) -> Result<Vec<Arc<Mutex<Box<dyn Lane>>>>, String> {
        let mut lanes = Vec::with_capacity(count);
        for _ in 0..count {
            lanes.push(Arc::new(Mutex::new(self.broker.lane(queue).await?)));
        }
        Ok(lanes)
    }

    async fn sends(&self, queue: &str, lanes: usize, effort: Effort) -> Result<Vec<f64>, String> {
        let lanes = Arc::new(self.lanes(queue, lanes).await?);
        let callers = lanes.len();
        let send = move |caller: usize, _| {
            let lane = lanes[caller].clone();
            async move { lane.lock().await.send(&body(Duration::ZERO)).await }
        };
        let rate = rate(callers, effort.span, send).await.map_err(|failed| failed.to_string())?;
        Ok(vec![rate])
    }

    async fn consumes(&self, queue: &str, lanes: usize, effort: Effort) -> Result<Vec<f64>, String> {
        let many = (effort.many / SHARE).next_multiple_of(FILLING as u64);
        let filling = self.lanes(queue, FILLING).await?.into_iter().map(|lane| {
            tokio::spawn(async move {
                let mut lane = lane.lock().await;
                for _ in 0..many / FILLING as u64 {
                    lane.send(&body(Duration::ZERO)).await?;
                }
                Ok::<_, String>(())
            })
        });
        for filled in filling.collect::<Vec<_>>() {
            filled.await.map_err(|cause| cause.to_string())??;
        }
        let lanes = self.lanes(queue, lanes).await?;
        let (left, begun) = (Arc::new(AtomicU64::new(many)), Instant::now());
        let consuming = lanes.into_iter().map(|lane| {
            let left = left.clone();
            tokio::spawn(async move {
                let mut lane = lane.lock().await;
                while left.load(Ordering::Relaxed) > 0 {
                    let out = lane.receive().await?;
                    // The work: to look at every byte.
                    let bytes: usize = out.iter().flatten().map(|byte| usize::from(*byte)).sum();
                    if bytes > 0 {
                        lane.settle().await?;
                        left.fetch_sub((out.len() as u64).min(left.load(Ordering::Relaxed)), Ordering::Relaxed);
                    }
                }
                Ok::<_, String>(())
            })
        });
        for consumed in consuming.collect::<Vec<_>>() {
            consumed.await.map_err(|cause| cause.to_string())??;
        }
        Ok(vec![many as f64 / begun.elapsed().as_secs_f64()])
    }

    /// Milliseconds from before a message is sent until a consumer has it, half and ninety-nine of a hundred.
    async fn latency(&self, queue: &str, effort: Effort) -> Result<Vec<f64>, String> {
        let (mut sending, mut consuming) = (self.broker.lane(queue).await?, self.broker.lane(queue).await?);
        let (begun, done) = (Instant::now(), Arc::new(AtomicBool::new(false)));
        let is_done = done.clone();
        let consumer = tokio::spawn(async move {
            let mut lags = Vec::new();
            loop {
                let out = consuming.receive().await?;
                let now = begun.elapsed();
                if out.is_empty() && is_done.load(Ordering::Relaxed) {
                    return Ok::<_, String>(lags);
                }
                for message in &out {
                    let sent = sent(message).ok_or("a message that nobody sent")?;
                    lags.push(now.saturating_sub(sent).as_secs_f64() * 1e3);
                }
                if !out.is_empty() {
                    consuming.settle().await?;
                }
            }
        });
        let mut n = 0_u32;
        while begun.elapsed() < effort.span {
            let due = begun + Duration::from_secs_f64(f64::from(n) / f64::from(LOAD));
            if let Some(early) = due.checked_duration_since(Instant::now()) {
                tokio::time::sleep(early).await;
            }
            sending.send(&body(begun.elapsed())).await?;
            n += 1;
        }
        done.store(true, Ordering::Relaxed);
        let mut lags = consumer.await.map_err(|cause| cause.to_string())??;
        lags.sort_unstable_by(f64::total_cmp);
        let at = |share: f64| lags.get((lags.len() as f64 * share) as usize).copied().unwrap_or(f64::NAN);
        Ok(vec![at(0.5), at(0.99)])
    }
}

/// What stands before the time at which a message was sent.
const SENT: &[u8] = br#""sent":""#;

/// A message of 200 bytes that says when it was sent.
fn body(sent: Duration) -> Vec<u8> {
    format!(r#"{{"sent":"{:020}","note":"{}"}}"#, sent.as_nanos(), "x".repeat(159)).into_bytes()
}

fn sent(message: &[u8]) -> Option<Duration> {
    let begin = memchr::memmem::find(message, SENT)? + SENT.len();
    let digits = std::str::from_utf8(message.get(begin..begin + 20)?).ok()?;
    digits.parse().ok().map(Duration::from_nanos)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{body, sent};

    #[test]
    fn a_message_of_two_hundred_bytes_says_when_it_was_sent() {
        let message = body(Duration::from_millis(17));
        assert_eq!(message.len(), 200);
        assert_eq!(sent(&message), Some(Duration::from_millis(17)));
        assert_eq!(sent(b"{}"), None);
    }
}
