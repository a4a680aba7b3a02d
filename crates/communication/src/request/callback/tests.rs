//! Callbacks on a real store and real sockets of this machine, with a clock that moves when told to.

use std::time::Duration;

use quorate_data::{event::NewEvent, store::Store};
use quorate_runtime::{Env, random::Random};

use super::{Callback, Callbacks, DONE, FAILED, QUEUE, UNANSWERED};
use crate::{
    event_bus::webhook::{
        Allowed, Calls, Secret, TOLERANCE,
        tests::world::{Does, Got, Receiver},
        verify,
    },
    message_queue::{
        Backoff, Config, NewMessage, Queue, Queues, Receive, Selection,
        tests::world::{World, name, seconds},
    },
    request::{DurableError, DurableRequests, Fault, Payload, machine::Verdict},
};

const PATIENCE: Duration = Duration::from_secs(30);

/// A process that may call this machine.
struct Process {
    store: Store,
    queue: Queue,
    asked: DurableRequests,
    callbacks: Callbacks,
    running: Env,
}

impl Process {
    async fn of((store, queue): (Store, Queue)) -> Self {
        let queues = Queues::open(&store).await.unwrap();
        let calls = Calls::new(store.env()).allowing(Allowed::also(|address| address.is_loopback()));
        let (asked, running) = (DurableRequests::of(&name("price"), &queue), store.env().scope("callbacks"));
        Self { callbacks: Callbacks::new(&queues, calls), store, queue, asked, running }
    }

    async fn first(world: &World) -> Self {
        Self::of(world.with(Config { max_attempts: 1, ..Config::default() }).await).await
    }

    fn run(&self) {
        self.running.tasks().spawn("callbacks", self.callbacks.clone().run(self.running.clone()));
    }

    async fn restart(self, world: &World) -> Self {
        self.running.tasks().shut_down().await;
        Self::of(world.restart(self.store).await).await
    }

    async fn ask(&self, id: &str, url: &str) -> Result<bool, DurableError> {
        let (body, callback) = (Payload::json(&b"7"[..]), Callback { url: url.to_owned(), secret: secret() });
        Ok(self.callbacks.ask(&self.asked, &name(id), body, callback).await?.repeated)
    }

    async fn answer(&self, verdict: Verdict) {
        let handed = self.queue.receive(Receive::of(1)).await.unwrap();
        self.asked.answer(handed[0].lease, verdict).await.unwrap();
    }

    /// The queue of outcomes, once `holds` is true of it.
    async fn outcomes(&self, holds: impl Fn(usize, usize) -> bool) -> Queue {
        let real = Env::real();
        let looking = async {
            loop {
                if let Ok(queue) = Queues::open(&self.store).await.unwrap().get(&name(QUEUE)) {
                    let counts = queue.describe().await.unwrap().counts;
                    if holds(counts.messages, counts.parked) {
                        return queue;
                    }
                }
                real.sleep(Duration::from_millis(5)).await;
            }
        };
        real.timeout(PATIENCE, looking).await.expect("it comes to be so")
    }

    /// How many are still to be told, or to hear it.
    async fn rows(&self) -> usize {
        self.store.room_query("SELECT seq FROM quorate_queue_callback", vec![]).await.unwrap().len()
    }
}

fn secret() -> Secret {
    Secret::draw(&mut Random::from_seed([3; 32]).stream("secret"))
}

fn priced() -> Verdict {
    Verdict::Answer(Payload::json(&br#"{"cents": 2.50}"#[..]))
}

/// Somebody who is told, and a machine whose clock is nobody's.
async fn receiver(status: u16) -> Receiver {
    Receiver::new(&Env::real(), move |_, _| Does::Answer(status)).await
}

fn url(receiver: &Receiver) -> String {
    receiver.url("127.0.0.1")
}

fn one_delivery(got: &[Got]) -> &Got {
    assert!(got.iter().all(|one| (one.id(), &one.body) == (got[0].id(), &got[0].body)), "{got:?}");
    &got[0]
}

#[tokio::test]
async fn the_outcome_is_told_signed_once_the_request_is_answered_and_then_forgotten() {
    let (world, receiver) = (World::new(), receiver(204).await);
    let process = Process::first(&world).await;
    process.run();
    assert!(!process.ask("of/may", &url(&receiver)).await.unwrap());
    assert!(process.ask("of/may", &url(&receiver)).await.unwrap(), "the same again is the same");
    assert_eq!(receiver.got().len(), 0);
    process.answer(priced()).await;
    let got = receiver.until(1).await;
    let now = process.store.env().wall();
    assert_eq!(verify(&[secret()], &got[0].headers, &got[0].body, now, TOLERANCE).unwrap(), got[0].id());
    let event = got[0].event();
    assert_eq!(
        (&event["type"], &event["subject"], &event["id"]),
        (&DONE.into(), &"of/may".into(), &got[0].id().into())
    );
    assert_eq!(event["source"], "/v1/requests/price/of%2Fmay");
    assert!(got[0].body.ends_with(br#""data":{"cents": 2.50}}"#), "byte for byte: {event}");
    process.outcomes(|messages, _| messages == 0).await;
    assert_eq!(process.rows().await, 0);
}

#[tokio::test]
async fn wherever_the_process_dies_the_outcome_is_told_and_every_repeat_is_the_same() {
    for dies in ["asked", "answered", "told"] {
        let (world, receiver) = (World::new(), receiver(500).await);
        let process = Process::first(&world).await;
        let backoff = Backoff { first: Duration::ZERO, max: Duration::ZERO };
        let queues = Queues::open(&process.store).await.unwrap();
        queues.declare(&name(QUEUE), Config { backoff, max_attempts: 1_000, ..Config::default() }).await.unwrap();
        process.ask("1", &url(&receiver)).await.unwrap();
        let process = if dies == "asked" { process.restart(&world).await } else { process };
        process.answer(priced()).await;
        let process = if dies == "answered" { process.restart(&world).await } else { process };
        process.run();
        receiver.until(1).await;
        // It was not taken so far.
        let process = if dies == "told" { process.restart(&world).await } else { process };
        receiver.answer(|_, _| Does::Answer(200));
        if dies == "told" {
            // The lease of who died, if there was one.
            world.pass(seconds(31));
            process.run();
        }
        process.outcomes(|messages, _| messages == 0).await;
        assert_eq!(one_delivery(&receiver.got()).event()["type"], DONE, "{dies}");
        assert_eq!(process.rows().await, 0, "{dies}");
    }
}

#[tokio::test]
async fn a_fault_a_dead_letter_and_one_that_is_discarded_are_told_as_what_they_are() {
    let (world, receiver) = (World::new(), receiver(200).await);
    let process = Process::first(&world).await;
    for id in ["no", "dead", "discarded"] {
        process.ask(id, &url(&receiver)).await.unwrap();
    }
    process.answer(Verdict::Fault(Fault::new("not-sold", "there is none"))).await;
    let handed = process.queue.receive(Receive::of(1)).await.unwrap();
    process.queue.nack(&[handed[0].lease], None, "it burns").await.unwrap();
    let handed = process.queue.receive(Receive::of(1)).await.unwrap();
    process.queue.ack(&[handed[0].lease]).await.unwrap();
    process.run();
    let got = receiver.until(3).await;
    let told = |id: &str| got.iter().map(Got::event).find(|event| event["subject"] == id).unwrap();
    assert_eq!((&told("no")["type"], &told("no")["data"]["code"]), (&FAILED.into(), &"not-sold".into()));
    assert_eq!((&told("dead")["type"], &told("dead")["data"]["code"]), (&FAILED.into(), &"dead-letter".into()));
    assert!(told("dead")["data"]["detail"].as_str().unwrap().contains("it burns"));
    assert_eq!(told("discarded")["type"], UNANSWERED);
}

#[tokio::test]
async fn a_request_whose_last_responder_died_is_told_of_when_its_lease_has_run_out() {
    let (world, receiver) = (World::new(), receiver(200).await);
    let process = Process::first(&world).await;
    process.ask("1", &url(&receiver)).await.unwrap();
    process.run();
    let handed = process.queue.receive(Receive::of(1)).await.unwrap();
    assert_eq!((handed.len(), receiver.got().len()), (1, 0));
    // Nobody asks the queue for anything any more.
    let real = Env::real();
    while process.rows().await == 1 && receiver.got().is_empty() {
        world.pass(seconds(31));
        real.sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(receiver.until(1).await[0].event()["type"], FAILED);
}

#[tokio::test]
async fn what_is_not_taken_is_parked_where_everybody_sees_it_and_told_when_it_is_replayed() {
    let (world, receiver) = (World::new(), Receiver::new(&Env::real(), |_, _| Does::Say(410, "moved away")).await);
    let process = Process::first(&world).await;
    process.ask("1", &url(&receiver)).await.unwrap();
    process.answer(priced()).await;
    process.run();
    let outcomes = process.outcomes(|_, parked| parked == 1).await;
    let letters = outcomes.dead_letters(0, 9).await.unwrap().letters;
    assert!(letters[0].failures.last().unwrap().reason.contains("gone (410): moved away"), "{letters:?}");
    receiver.answer(|_, _| Does::Answer(200));
    assert_eq!(outcomes.replay(&Selection::ALL).await.unwrap(), 1);
    receiver.until(2).await;
    process.outcomes(|messages, _| messages == 0).await;
    one_delivery(&receiver.got());
    assert_eq!(process.rows().await, 0);
}

#[tokio::test]
async fn outcomes_are_delivered_although_there_is_no_room_for_the_next_one() {
    let (world, receiver) = (World::new(), receiver(500).await);
    let process = Process::first(&world).await;
    let backoff = Backoff { first: Duration::ZERO, max: Duration::ZERO };
    let queues = Queues::open(&process.store).await.unwrap();
    let narrow = Config { backoff, max_attempts: 1_000, max_messages: 1, ..Config::default() };
    queues.declare(&name(QUEUE), narrow).await.unwrap();
    for id in ["1", "2"] {
        process.ask(id, &url(&receiver)).await.unwrap();
    }
    process.answer(priced()).await;
    process.run();
    receiver.until(1).await;
    process.answer(priced()).await;
    let process = process.restart(&world).await;
    receiver.answer(|_, _| Does::Answer(200));
    process.run();
    let real = Env::real();
    let delivering = async {
        while process.rows().await > 0 {
            world.pass(seconds(31));
            real.sleep(Duration::from_millis(20)).await;
        }
    };
    real.timeout(PATIENCE, delivering).await.expect("the first makes room for the second");
    let mut told: Vec<_> = receiver.got().iter().map(|got| got.event()["subject"].to_string()).collect();
    told.sort_unstable();
    told.dedup();
    assert_eq!(told, ["\"1\"", "\"2\""]);
}

#[tokio::test]
async fn an_outcome_that_nobody_was_told_of_is_remembered_longer_than_ids_are() {
    let (world, receiver) = (World::new(), receiver(200).await);
    let process = Process::of(world.with(Config { dedupe: seconds(60), ..Config::default() }).await).await;
    process.ask("1", &url(&receiver)).await.unwrap();
    process.asked.ask(&name("2"), Payload::json(&b"7"[..])).await.unwrap();
    process.answer(priced()).await;
    process.answer(priced()).await;
    let process = process.restart(&world).await;
    let other = |n: usize| NewMessage::of(NewEvent::new(n.to_string(), "/others", "other"));
    // Old enough is what the queue forgets by the way, while it is sent others.
    process.queue.send((0..300).map(other).collect()).await.unwrap();
    world.pass(seconds(61));
    process.queue.send((300..900).map(other).collect()).await.unwrap();
    process.queue.send((900..1_500).map(other).collect()).await.unwrap();
    let forgotten = process.asked.status(&name("2"), Duration::ZERO).await;
    assert!(matches!(forgotten, Err(DurableError::Forgotten { .. })), "{forgotten:?}");
    process.run();
    assert_eq!(receiver.until(1).await[0].event()["data"]["cents"], 2.5);
}

#[tokio::test]
async fn whom_nobody_may_call_is_refused_with_the_request_and_another_callback_is_another_request() {
    let (world, receiver) = (World::new(), receiver(200).await);
    let process = Process::first(&world).await;
    for wrong in ["http://10.0.0.1/", "ftp://shop.example/", "nowhere", "https://a:b@shop.example/"] {
        let refused = process.ask("1", wrong).await.unwrap_err();
        assert!(matches!(refused, DurableError::Callback(_)), "{wrong}: {refused}");
    }
    assert!(matches!(process.asked.status(&name("1"), Duration::ZERO).await, Err(DurableError::Forgotten { .. })));
    process.ask("1", &url(&receiver)).await.unwrap();
    let other = process.ask("1", "https://shop.example/").await.unwrap_err();
    assert!(matches!(other, DurableError::AnotherBody { .. }), "{other}");
    let none = process.asked.ask(&name("1"), Payload::json(&b"7"[..])).await.unwrap_err();
    assert!(matches!(none, DurableError::AnotherBody { .. }), "{none}");
}
