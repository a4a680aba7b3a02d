//! Durable requests on a real store, with a clock that moves when told to.

use std::{sync::Arc, time::Duration};

use quorate_data::{
    event::NewEvent,
    store::{Store, TransactError, Value},
};
use quorate_foundations::name::Name;

use super::{Durable, DurableError, Handed, Status};
use crate::{
    message_queue::{
        Config, Delivery, Failed, NewMessage, Queue, QueueError, Queues, Selection, WorkerConfig,
        tests::world::{World, beside, count, done, name, seconds, with_table},
    },
    request::{Fault, Limits, Requests, machine::Verdict},
};

const LIMIT: Duration = Duration::from_secs(600);

/// The requests of a process whose queue this is.
fn requests(store: &Store, queue: &Queue) -> Durable<u64, String> {
    let requests = Requests::new(store.env(), Limits::default());
    requests.declare_durable(&name("price"), LIMIT, queue).unwrap()
}

async fn with(world: &World, config: Config) -> (Store, Queue, Durable<u64, String>) {
    let (store, queue) = world.with(config).await;
    with_table(&store).await;
    let prices = requests(&store, &queue);
    (store, queue, prices)
}

async fn restarted(world: &World, store: Store) -> (Store, Queue, Durable<u64, String>) {
    let (store, queue) = world.restart(store).await;
    let prices = requests(&store, &queue);
    (store, queue, prices)
}

fn answer(text: &str) -> Verdict {
    Verdict::Answer(crate::request::Payload::json(serde_json::to_vec(text).unwrap()))
}

/// Does the work of what was handed out, and answers it, in one transaction.
async fn work(prices: &Durable<u64, String>, delivery: &Delivery, text: &str) -> Result<(), TransactError<QueueError>> {
    let (queue, lease) = (prices.kept.queue().clone(), delivery.lease);
    let (id, kept) = (delivery.message.event.id.clone(), Arc::new(prices.kept.answer_of(answer(text)).unwrap()));
    let unit = prices.kept.queue().store().transact(move |tx| {
        let (queue, id, kept) = (queue.clone(), id.clone(), kept.clone());
        Box::pin(async move {
            count(tx, &id).await?;
            queue.answer_in(tx, &lease, &kept).await
        })
    });
    unit.await
}

/// Where a responder dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dies {
    BeforeItIsHandedAny,
    BeforeItsHandler,
    InItsHandler,
    BeforeItAnswers,
    BehindItsAnswer,
}

#[tokio::test]
async fn wherever_a_responder_dies_a_request_has_one_answer_and_its_work_is_done_once() {
    use Dies::{BeforeItAnswers, BeforeItIsHandedAny, BeforeItsHandler, BehindItsAnswer, InItsHandler};
    for dies in [BeforeItIsHandedAny, BeforeItsHandler, InItsHandler, BeforeItAnswers, BehindItsAnswer] {
        let world = World::new();
        let (store, queue, prices) = with(&world, Config::default()).await;
        prices.ask(&name("1"), &7).await.unwrap();
        let handed = if dies == BeforeItIsHandedAny { Vec::new() } else { queue.takes(1).await };
        match dies {
            BeforeItIsHandedAny | BeforeItsHandler => {}
            // Its transaction is not there yet, or never commits.
            InItsHandler | BeforeItAnswers => {
                let answers = dies == BeforeItAnswers;
                let (queue, lease) = (queue.clone(), handed[0].lease);
                let kept = Arc::new(prices.kept.answer_of(answer("of the dead")).unwrap());
                let dying = store.transact(move |tx| {
                    let (queue, kept) = (queue.clone(), kept.clone());
                    Box::pin(async move {
                        count(tx, "1").await?;
                        if answers {
                            queue.answer_in(tx, &lease, &kept).await?;
                        }
                        Err::<(), _>(QueueError::Invalid { what: "it dies".to_owned() })
                    })
                });
                dying.await.unwrap_err();
            }
            BehindItsAnswer => work(&prices, &handed[0], "of the dead").await.unwrap(),
        }
        let (store, _queue, prices) = restarted(&world, store).await;
        world.pass(seconds(31));
        let workers = prices.respond_in(WorkerConfig::default(), |tx, handed| {
            Box::pin(async move {
                count(tx, handed.id()).await?;
                Ok(Ok("of the living".to_owned()))
            })
        });
        let _workers = workers.unwrap();
        let status = prices.asked(&name("1")).wait(seconds(3_600)).await.unwrap();
        let whose = if dies == BehindItsAnswer { "of the dead" } else { "of the living" };
        assert_eq!(status, Status::Done(whose.to_owned()), "{dies:?}");
        assert_eq!(done(&store).await, [("1".to_owned(), 1)], "{dies:?}");
        // Whoever asks again hears the same.
        let again = prices.ask(&name("1"), &7).await.unwrap();
        assert_eq!(again.status().await.unwrap(), status);
        assert_eq!(done(&store).await, [("1".to_owned(), 1)], "{dies:?}");
    }
}

#[tokio::test]
async fn a_late_answer_is_refused_with_all_that_was_done_for_it() {
    let world = World::new();
    let (store, queue, prices) = with(&world, Config::default()).await;
    let asked = prices.ask(&name("1"), &7).await.unwrap();
    let slow = queue.takes(1).await.remove(0);
    world.pass(seconds(31));
    let quick = queue.takes(1).await.remove(0);
    assert_eq!(asked.status().await.unwrap(), Status::Running { attempt: 2 });
    let late = work(&prices, &slow, "late").await.unwrap_err();
    assert!(matches!(late, TransactError::Aborted(QueueError::LeaseLost { .. })), "{late}");
    assert_eq!(asked.status().await.unwrap(), Status::Running { attempt: 2 });
    prices.kept.answer(quick.lease, answer("in time")).await.unwrap();
    for lease in [slow.lease, quick.lease] {
        let late = prices.kept.answer(lease, answer("late")).await.unwrap_err();
        assert!(matches!(late, DurableError::Queue(QueueError::LeaseLost { .. })), "{late}");
    }
    assert_eq!(asked.status().await.unwrap(), Status::Done("in time".to_owned()));
    assert_eq!(done(&store).await, [], "what was done for the late one is taken back");
}

#[tokio::test]
async fn the_same_id_is_the_same_request_and_another_body_is_refused() {
    let world = World::new();
    let (store, queue, prices) = with(&world, Config::default()).await;
    prices.ask(&name("1"), &7).await.unwrap();
    prices.ask(&name("1"), &7).await.unwrap();
    let refused = prices.ask(&name("1"), &8).await.unwrap_err();
    assert!(matches!(refused, DurableError::AnotherBody { .. }), "{refused}");
    assert_eq!(queue.holds().await, 1);
    let never = prices.asked(&name("2")).status().await.unwrap_err();
    assert!(never.to_string().contains("longer than 604800s ago"), "{never}");
    // In a transaction, which goes on behind a refusal.
    let asking = prices.clone();
    let told = store.transact(move |tx| {
        let prices = asking.clone();
        Box::pin(async move {
            let refused = prices.ask_in(tx, &name("1"), &8).await.unwrap_err();
            assert!(matches!(refused, DurableError::AnotherBody { .. }), "{refused}");
            prices.ask_in(tx, &name("3"), &9).await.map(drop)
        })
    });
    told.await.unwrap();
    assert_eq!(prices.asked(&name("3")).status().await.unwrap(), Status::Waiting { attempts: 0 });
}

#[tokio::test]
async fn an_answer_is_kept_for_as_long_as_its_id_and_goes_with_it() {
    let world = World::new();
    let config = Config { dedupe: seconds(60), ..Config::default() };
    let (store, queue, prices) = with(&world, config).await;
    prices.ask(&name("1"), &7).await.unwrap();
    work(&prices, &queue.takes(1).await[0], "250").await.unwrap();
    let (store, queue, prices) = {
        drop((queue, prices));
        restarted(&world, store).await
    };
    let other = |n: usize| NewMessage::of(NewEvent::new(n.to_string(), "/others", "other"));
    // Old enough is what the queue forgets by the way, while it is sent others.
    queue.send((0..300).map(other).collect()).await.unwrap();
    assert_eq!(prices.asked(&name("1")).status().await.unwrap(), Status::Done("250".to_owned()));
    world.pass(seconds(61));
    queue.send((300..900).map(other).collect()).await.unwrap();
    queue.send((900..1_500).map(other).collect()).await.unwrap();
    let forgotten = prices.asked(&name("1")).status().await.unwrap_err();
    assert!(
        matches!(forgotten, DurableError::Forgotten { remembered, .. } if remembered == seconds(60)),
        "{forgotten}"
    );
    let rows = store.room_query("SELECT COUNT(*) FROM quorate_queue_answer", vec![]).await.unwrap();
    assert_eq!(rows[0].at(0), &Value::Integer(0));
    // It can be asked anew.
    let anew = prices.ask(&name("1"), &8).await.unwrap();
    assert_eq!(anew.status().await.unwrap(), Status::Waiting { attempts: 0 });
}

#[tokio::test]
async fn an_answer_that_comes_late_is_kept_for_as_long_as_one_that_comes_at_once() {
    let world = World::new();
    let config = Config { dedupe: seconds(60), ..Config::default() };
    let (_store, queue, prices) = with(&world, config).await;
    let asked = prices.ask(&name("1"), &7).await.unwrap();
    let other = |n: usize| NewMessage::of(NewEvent::new(n.to_string(), "/others", "other").json("0"));
    let sweep = async |from| {
        queue.send((from..from + 600).map(other).collect()).await.unwrap();
        queue.send((from + 600..from + 1_200).map(other).collect()).await.unwrap();
    };
    world.pass(seconds(61));
    work(&prices, &queue.takes(1).await[0], "250").await.unwrap();
    world.pass(seconds(59));
    sweep(0).await;
    assert_eq!(asked.status().await.unwrap(), Status::Done("250".to_owned()));
    assert_eq!(prices.ask(&name("1"), &7).await.unwrap().status().await.unwrap(), Status::Done("250".to_owned()));
    // It looks anew some time later.
    world.pass(seconds(10));
    sweep(1_200).await;
    sweep(2_400).await;
    let forgotten = asked.status().await.unwrap_err();
    assert!(matches!(forgotten, DurableError::Forgotten { .. }), "{forgotten}");
}

#[tokio::test]
async fn who_waits_is_told_that_the_last_attempt_came_to_no_end() {
    let world = World::new();
    let (store, queue, prices) = with(&world, Config { max_attempts: 1, ..Config::default() }).await;
    let asked = prices.ask(&name("1"), &7).await.unwrap();
    let _dead = queue.takes(1).await;
    let told = beside(&store, async move { asked.wait(seconds(3_600)).await });
    while queue.core_waiters() == 0 {
        tokio::task::yield_now().await;
    }
    world.pass(seconds(31));
    let status = told.await.unwrap().unwrap();
    assert!(matches!(status, Status::Failed { dead_letter: Some(_), .. }), "{status:?}");
}

#[tokio::test]
async fn answers_go_with_their_queue_and_who_waits_is_told() {
    let world = World::new();
    let (store, queue, prices) = with(&world, Config::default()).await;
    prices.ask(&name("1"), &7).await.unwrap();
    work(&prices, &queue.takes(1).await[0], "250").await.unwrap();
    let waiting = prices.ask(&name("2"), &7).await.unwrap();
    let waiter = waiting.clone();
    let told = beside(&store, async move { waiter.wait(seconds(3_600)).await });
    while queue.core_waiters() == 0 {
        tokio::task::yield_now().await;
    }
    Queues::open(&store).await.unwrap().delete(queue.name()).await.unwrap();
    let gone = told.await.unwrap().unwrap_err();
    assert!(matches!(gone, DurableError::Queue(QueueError::NotFound { .. })), "{gone}");
    let rows = store.room_query("SELECT COUNT(*) FROM quorate_queue_answer", vec![]).await.unwrap();
    assert_eq!(rows[0].at(0), &Value::Integer(0));
}

#[tokio::test]
async fn whoever_waits_asks_the_store_when_something_became_of_the_request_and_not_before() {
    const LOOKED: &str = "queue: it was looked how far a message is";
    let world = World::new();
    let (store, queue, prices) = with(&world, Config::default()).await;
    let asked = prices.ask(&name("1"), &7).await.unwrap();
    let (first, second, hasty) = (asked.clone(), asked.clone(), asked.clone());
    let waiting = [first, second].map(|one| beside(&store, async move { one.wait(seconds(3_600)).await }));
    let hasty = beside(&store, async move { hasty.wait(seconds(60)).await });
    while queue.core_waiters() < 3 {
        tokio::task::yield_now().await;
    }
    world.pass(seconds(61));
    assert_eq!(hasty.await.unwrap().unwrap(), Status::Waiting { attempts: 0 });
    // Others come and go meanwhile.
    for id in ["2", "3", "4"] {
        prices.ask(&name(id), &7).await.unwrap();
    }
    let handed = queue.takes(9).await;
    for delivery in handed.iter().rev() {
        work(&prices, delivery, "250").await.unwrap();
    }
    for waiting in waiting {
        assert_eq!(waiting.await.unwrap().unwrap(), Status::Done("250".to_owned()));
    }
    assert_eq!(world.reached(LOOKED), 8, "each looks twice before it waits, and two look once more");
    assert_eq!(queue.core_waiters(), 0);
}

#[tokio::test]
async fn a_fault_is_an_answer_and_a_failure_is_tried_again_until_it_is_a_dead_letter() {
    let world = World::new();
    let config = Config { max_attempts: 2, ..Config::default() };
    let (store, queue, prices) = with(&world, config).await;
    let (no, again, too_long) = (name("no"), name("again"), name("too-long"));
    for (id, body) in [(&no, 1), (&again, 2), (&too_long, 3)] {
        prices.ask(id, &body).await.unwrap();
    }
    // What is no `u64` is nothing that a handler could be given.
    queue.send(vec![NewMessage::of(NewEvent::new("poison", "/requests", "price").json("\"x\""))]).await.unwrap();
    let workers = prices.respond(WorkerConfig::default(), |handed: Handed<u64>| async move {
        match handed.body() {
            1 => Ok(Err(Fault::new("not-sold", "there is no coal"))),
            3 => Ok(Ok("x".repeat(2 << 20))),
            _ => Err(Failed::again_after(Duration::ZERO, "it came to nothing")),
        }
    });
    let _workers = workers.unwrap();
    let status = async |id: &Name| prices.asked(id).wait(seconds(3_600)).await.unwrap();
    let fault = Fault::new("not-sold", "there is no coal");
    assert_eq!(status(&no).await, Status::Failed { fault, dead_letter: None });
    let Status::Failed { fault, dead_letter: Some(place) } = status(&again).await else {
        panic!("it is no dead letter")
    };
    assert_eq!((&*fault.code, &*fault.detail), ("dead-letter", "attempt 2: it came to nothing"));
    let letters = queue.dead_letters(place - 1, 1).await.unwrap().letters;
    assert_eq!(&*letters[0].message.event.id, "again", "that is where it lies");
    let Status::Failed { fault, dead_letter: None } = status(&too_long).await else { panic!("it was answered") };
    assert_eq!(fault.code, "answer-too-long");
    let Status::Failed { fault, dead_letter: Some(_) } = status(&name("poison")).await else { panic!("it was read") };
    assert!(fault.detail.contains("cannot be read"), "{fault}");
    // Somebody decides what becomes of dead letters.
    assert_eq!(queue.discard(&Selection::one("poison")).await.unwrap(), 1);
    assert_eq!(status(&name("poison")).await, Status::Unanswered);
    assert_eq!(done(&store).await, []);
}

#[tokio::test]
async fn a_handler_that_gives_up_takes_back_what_it_wrote_and_a_replayed_dead_letter_is_asked_again() {
    let world = World::new();
    let (store, queue, prices) = with(&world, Config::default()).await;
    let asked = prices.ask(&name("1"), &7).await.unwrap();
    let workers = prices.respond_in(WorkerConfig::default(), |tx, handed| {
        Box::pin(async move {
            count(tx, handed.id()).await?;
            if handed.attempt() == 1 && handed.body() == &7 {
                return Err(Failed::park("not like this"));
            }
            Ok(Ok(handed.body().to_string()))
        })
    });
    let workers = workers.unwrap();
    let parked = asked.wait(seconds(3_600)).await.unwrap();
    assert!(matches!(parked, Status::Failed { dead_letter: Some(_), .. }), "{parked:?}");
    assert_eq!(done(&store).await, [], "it was taken back");
    let edited = NewEvent::new("1", "/requests", "price").json("8");
    queue.replay_edited(edited).await.unwrap();
    assert_eq!(asked.wait(seconds(3_600)).await.unwrap(), Status::Done("8".to_owned()));
    assert_eq!(done(&store).await, [("1".to_owned(), 1)]);
    assert_eq!((workers.counts().done, workers.counts().parked), (1, 1));
}
