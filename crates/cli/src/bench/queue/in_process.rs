//! Sending and consuming in process.

use std::{
    fs,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use quorate_communication::message_queue::{Config, NewMessage, Queue, Queues, Receive};
use quorate_data::{event::NewEvent, store::Store};

use super::{
    super::{
        Options,
        events::rate,
        failed,
        figure::Figures,
        log::{Effort, Folder, open},
        segment,
    },
    BATCH,
};
use crate::{exit::Failure, output::note};

/// How many messages are sent at once to fill a queue.
const FILLING: u64 = 500;
/// A queue that is consumed holds this part of the events that a large store has: it lasts for about a second.
const SHARE: u64 = 20;
const IN_TRANSACTION: &str = "consume-in-transaction";

/// Measures everything that `options` want.
pub(super) async fn measure(
    env: &quorate_runtime::Env,
    options: &Options,
    effort: Effort,
    figures: &mut Figures,
) -> Result<(), Failure> {
    let folder = Folder::make(&options.folder)?;
    for (producers, each, kind) in [(1, 1, "send"), (16, 1, "send"), (16, BATCH, "send-32")] {
        let name = format!("queue/{kind}/{producers}");
        if options.wants(&name) {
            let bench = Bench::begin(env, &folder, effort, &name).await?;
            bench.sends(&folder.file("segment"), producers, each, &name, figures).await?;
            bench.end().await?;
        }
    }
    for (consumers, kind) in [(1, "consume"), (1, IN_TRANSACTION), (16, "consume"), (16, IN_TRANSACTION)] {
        let name = format!("queue/{kind}/{consumers}");
        if options.wants(&name) {
            let bench = Bench::begin(env, &folder, effort, &name).await?;
            bench.consumes(consumers, kind == IN_TRANSACTION, &name, figures).await?;
            bench.end().await?;
        }
    }
    Ok(())
}

struct Bench {
    store: Store,
    path: PathBuf,
    effort: Effort,
}

fn message(store: &Store, producer: usize) -> NewMessage {
    let data = format!(r#"{{"producer":{producer},"note":"{}"}}"#, "x".repeat(170));
    NewMessage::of(NewEvent::new(store.event_id(), "/bench", "work.due").json(data.into_bytes()))
}

impl Bench {
    /// Each figure has a store of its own: what others left behind slows none down.
    async fn begin(env: &quorate_runtime::Env, folder: &Folder, effort: Effort, name: &str) -> Result<Self, Failure> {
        let path = folder.file(&format!("{}.db", name.replace('/', "-")));
        Ok(Self { store: open(env, path.clone()).await?, path, effort })
    }

    async fn end(self) -> Result<(), Failure> {
        self.store.close().await.map_err(|cause| failed("closing a store", cause))?;
        fs::remove_file(&self.path).map_err(|cause| failed("removing a store", cause))
    }

    fn tell(&self, name: &str, round: usize, what: &str) {
        note(&format!("{name}: round {} of {}, {what}", round + 1, self.effort.rounds));
    }

    /// An empty queue of that name.
    async fn queue(&self, name: &str) -> Result<Queue, Failure> {
        let config = Config { max_messages: Config::MAX_MESSAGES, ..Config::default() };
        let name = name.parse().map_err(|cause| failed("naming a queue", cause))?;
        let queues = Queues::open(&self.store).await.map_err(|cause| failed("opening queues", cause))?;
        queues.declare(&name, config).await.map_err(|cause| failed("declaring a queue", cause))
    }

    /// Messages sent per second by `producers`, `each` with one call, beside events in a bare file.
    async fn sends(
        &self,
        segment: &std::path::Path,
        producers: usize,
        each: usize,
        name: &str,
        figures: &mut Figures,
    ) -> Result<(), Failure> {
        let (mut limit, mut ours) = (Vec::new(), Vec::new());
        for round in 0..self.effort.rounds {
            self.tell(name, round, &format!("{:?}", self.effort.span));
            if each == 1 {
                let bare = segment::appends(segment, producers, self.effort.span).await;
                limit.push(bare.map_err(|cause| failed("writing a segment", cause))?);
            }
            let queue = self.queue(&format!("{name} {round}")).await?;
            let store = self.store.clone();
            let calls = rate(producers, self.effort.span, move |producer, _| {
                let messages = (0..each).map(|_| message(&store, producer)).collect();
                let queue = queue.clone();
                async move { queue.send(messages).await.map(|_| ()).map_err(|cause| cause.to_string()) }
            });
            ours.push(calls.await? * each as f64);
        }
        figures.put(name, "messages/s", &ours, (each == 1).then_some(&limit[..]));
        Ok(())
    }

    /// Messages received, worked on and acknowledged per second by `consumers`.
    async fn consumes(
        &self,
        consumers: usize,
        in_transaction: bool,
        name: &str,
        figures: &mut Figures,
    ) -> Result<(), Failure> {
        let mut ours = Vec::new();
        for round in 0..self.effort.rounds {
            let queue = self.queue(&format!("{name} {round}")).await?;
            let many = (self.effort.many / SHARE).max(FILLING) / FILLING * FILLING;
            self.tell(name, round, &format!("{many} messages"));
            for _ in 0..many / FILLING {
                let messages = (0..FILLING).map(|_| message(&self.store, 0)).collect();
                queue.send(messages).await.map_err(|cause| failed("filling a queue", cause))?;
            }
            let (left, begun) = (Arc::new(AtomicU64::new(many)), Instant::now());
            let consumers: Vec<_> = (0..consumers)
                .map(|_| tokio::spawn(consume(self.store.clone(), queue.clone(), left.clone(), in_transaction)))
                .collect();
            for consumer in consumers {
                let ended = consumer.await.map_err(|cause| failed("waiting for a consumer", cause))?;
                ended.map_err(|cause| failed("consuming", cause))?;
            }
            ours.push(many as f64 / begun.elapsed().as_secs_f64());
        }
        figures.put(name, "messages/s", &ours, None);
        Ok(())
    }
}

async fn consume(store: Store, queue: Queue, left: Arc<AtomicU64>, in_transaction: bool) -> Result<(), String> {
    while left.load(Ordering::Relaxed) > 0 {
        let receive = Receive::of(BATCH).waiting(Duration::from_millis(10));
        let out = queue.receive(receive).await.map_err(|cause| cause.to_string())?;
        if out.is_empty() {
            continue;
        }
        // The work: to look at every byte.
        let bytes: usize =
            out.iter().filter_map(|one| one.message.event.data.as_ref()).flatten().map(|b| *b as usize).sum();
        assert!(bytes > 0, "messages have data");
        let (count, leases) = (out.len() as u64, out.iter().map(|one| one.lease).collect::<Vec<_>>());
        if in_transaction {
            let of_unit = queue.clone();
            let done = store.transact(move |tx| {
                let (queue, leases) = (of_unit.clone(), leases.clone());
                Box::pin(async move {
                    for lease in &leases {
                        queue.ack_in(tx, lease).await?;
                    }
                    Ok::<_, quorate_communication::message_queue::QueueError>(())
                })
            });
            done.await.map_err(|cause| cause.to_string())?;
        } else {
            queue.ack(&leases).await.map_err(|cause| cause.to_string())?;
        }
        left.fetch_sub(count, Ordering::Relaxed);
    }
    Ok(())
}
