//! Callers and handlers in one process, on a clock that moves when all wait.

use std::{
    future::pending,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use quorate_data::store::{Retry, Store, TransactError, sqlite};
use quorate_foundations::name::Name;
use quorate_runtime::Env;
use tokio::sync::{Notify, oneshot};

use super::{
    machine::{Refusal, Unknown},
    *,
};
use crate::message_queue::{Config, Queues, WorkerConfig};

const LIMIT: Answering = Answering { time_limit: Duration::from_secs(60), idempotent: false };

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn requests() -> (Env, Requests) {
    let env = Env::real();
    let requests = Requests::new(&env, Limits::default());
    (env, requests)
}

/// Counts how often something was dropped, and says so.
#[derive(Clone, Default)]
struct Dropped(Arc<(AtomicUsize, Notify)>);

impl Dropped {
    async fn wait(&self) {
        while self.0.0.load(Ordering::SeqCst) == 0 {
            self.0.1.notified().await;
        }
    }
}

struct Held(Dropped);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.0.0.fetch_add(1, Ordering::SeqCst);
        self.0.0.1.notify_one();
    }
}

/// A responder of `price` whose handlers never end, but for their being dropped.
fn endless(requests: &Requests, window: usize) -> (RequestType<u64, u64>, Responder, Dropped) {
    let kind = requests.declare::<u64, u64>(&name("price"), LIMIT).unwrap();
    let dropped = Dropped::default();
    let tells = dropped.clone();
    let responder = kind.respond(window, move |_| {
        let held = Held(tells.clone());
        async move {
            let _held = held;
            pending::<Result<u64, Fault>>().await
        }
    });
    (kind, responder.unwrap(), dropped)
}

/// Asks in a task of its own.
fn beside(env: &Env, kind: &RequestType<u64, u64>, deadline: Deadline) -> oneshot::Receiver<Result<u64, RequestError>> {
    let (kind, (reply, answer)) = (kind.clone(), oneshot::channel());
    env.tasks().spawn("caller", async move { drop(reply.send(kind.request(&1, deadline).await)) });
    answer
}

async fn until_held(requests: &Requests, held: usize) {
    while requests.counts().held != held {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_and_a_fault_reach_their_caller() {
    let (_env, requests) = requests();
    let kind = requests.declare::<u64, u64>(&name("half"), LIMIT).unwrap();
    let _responder = kind.respond(2, |asked: Asked<u64>| async move {
        if asked.body.is_multiple_of(2) { Ok(asked.body / 2) } else { Err(Fault::new("odd", "it is odd")) }
    });
    assert_eq!(kind.request(&8, Deadline::NEVER).await, Ok(4));
    let odd = kind.request(&7, Deadline::NEVER).await.unwrap_err();
    assert_eq!(odd, RequestError::Fault { kind: name("half"), fault: Fault::new("odd", "it is odd") });
    assert_eq!(odd.retry(), Retry::Never);
    let counts = requests.counts();
    assert_eq!((counts.answered, counts.faults, counts.held), (1, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn answers_find_their_callers_among_many_in_whatever_order_they_come() {
    let (env, requests) = requests();
    let kind = requests.declare::<u64, u64>(&name("later"), LIMIT).unwrap();
    let sleeping = env.clone();
    let _responder = kind.respond(100, move |asked: Asked<u64>| {
        let env = sleeping.clone();
        async move {
            env.sleep(millis(1_000 - asked.body)).await;
            Ok(asked.body)
        }
    });
    let asked = (0..300_u64).map(|value| {
        let kind = kind.clone();
        async move { kind.request(&value, Deadline::NEVER).await }
    });
    let answers = futures_util::future::join_all(asked).await;
    assert_eq!(answers, (0..300).map(Ok).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn at_the_deadline_the_handler_is_dropped_and_its_caller_is_told_that_it_is_not_known() {
    let (env, requests) = requests();
    let (kind, _responder, dropped) = endless(&requests, 1);
    let begun = env.mono();
    let failed = kind.request(&1, Deadline::after(begun, millis(200))).await.unwrap_err();
    let unknown = RequestError::Unknown { kind: name("price"), why: Unknown::Deadline, idempotent: false };
    assert_eq!(failed, unknown);
    assert_eq!(failed.retry(), Retry::Never, "it may have been done, and twice is not as once");
    dropped.wait().await;
    until_held(&requests, 0).await;
}

#[tokio::test(start_paused = true)]
async fn the_types_own_limit_holds_where_the_caller_names_none() {
    let (env, requests) = requests();
    let (kind, _responder, _) = endless(&requests, 1);
    let begun = env.mono();
    let failed = kind.request(&1, Deadline::NEVER).await.unwrap_err();
    assert!(matches!(failed, RequestError::Unknown { why: Unknown::Deadline, .. }), "{failed:?}");
    assert!(env.mono().saturating_since(begun) >= LIMIT.time_limit);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_leaves_has_its_handler_dropped_and_its_place_given_to_the_next() {
    let (env, requests) = requests();
    let (kind, _responder, dropped) = endless(&requests, 1);
    assert!(env.timeout(millis(10), kind.request(&1, Deadline::NEVER)).await.is_none());
    dropped.wait().await;
    until_held(&requests, 0).await;
    assert_eq!(requests.counts().cancelled, 1);
    let next = kind.request(&1, Deadline::after(env.mono(), millis(5))).await;
    assert!(matches!(next, Err(RequestError::Unknown { .. })), "it was handed out: {next:?}");
}

#[tokio::test(start_paused = true)]
async fn a_responder_that_leaves_drops_its_handlers_and_leaves_nobody() {
    let (env, requests) = requests();
    let (kind, responder, dropped) = endless(&requests, 1);
    let (handed, waiting) = (beside(&env, &kind, Deadline::NEVER), beside(&env, &kind, Deadline::NEVER));
    until_held(&requests, 2).await;
    while requests.standing(&name("price")).running == 0 {
        tokio::task::yield_now().await;
    }
    drop(responder);
    dropped.wait().await;
    let (handed, waiting) = (handed.await.unwrap().unwrap_err(), waiting.await.unwrap().unwrap_err());
    assert!(matches!(handed, RequestError::Unknown { why: Unknown::ResponderLeft, .. }), "{handed:?}");
    assert_eq!(waiting, RequestError::NoResponder { kind: name("price") });
    assert_eq!(requests.counts().responders, 0);
}

#[tokio::test(start_paused = true)]
async fn who_asks_behind_a_responder_that_left_is_told_so_or_served_by_another() {
    let (_env, requests) = requests();
    let (kind, old, _) = endless(&requests, 1);
    let new = kind.respond(1, |asked: Asked<u64>| async move { Ok(asked.body) }).unwrap();
    drop(old);
    assert_eq!(kind.request(&7, Deadline::NEVER).await, Ok(7), "by the one that is there");
    drop(new);
    assert_eq!(kind.request(&7, Deadline::NEVER).await, Err(RequestError::NoResponder { kind: name("price") }));
}

#[tokio::test(start_paused = true)]
async fn what_was_handed_out_and_not_begun_when_a_process_stops_is_done() {
    let (env, requests) = requests();
    let kind = requests.declare::<u64, u64>(&name("price"), LIMIT).unwrap();
    let _responder = kind.respond(1, |asked: Asked<u64>| async move { Ok(asked.body) }).unwrap();
    let mut asking = Box::pin(kind.request(&7, Deadline::NEVER));
    assert!(futures_util::poll!(&mut asking).is_pending(), "it is handed out, and nobody has heard of it");
    env.tasks().stop().cancel();
    assert_eq!(asking.await, Ok(7));
    let refused = kind.request(&7, Deadline::NEVER).await.unwrap_err();
    assert!(matches!(refused.retry(), Retry::Never), "here nobody will be served any more: {refused:?}");
}

/// Panics when it is dropped, as a guard may that unlocks what was poisoned.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        assert!(std::thread::panicking(), "a bug of the application");
    }
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_panics_where_it_is_dropped_gives_its_place_back() {
    let (env, requests) = requests();
    let kind = requests.declare::<u64, u64>(&name("price"), LIMIT).unwrap();
    let _responder = kind.respond(1, |asked: Asked<u64>| async move {
        if asked.body == 13 {
            let _bomb = Bomb;
            pending::<()>().await;
        }
        Ok(asked.body)
    });
    let failed = kind.request(&13, Deadline::after(env.mono(), millis(200))).await.unwrap_err();
    assert!(matches!(failed, RequestError::Unknown { why: Unknown::Deadline, .. }), "{failed:?}");
    assert_eq!(kind.request(&12, Deadline::NEVER).await, Ok(12));
    until_held(&requests, 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_panics_leaves_its_caller_not_knowing_and_the_responder_at_work() {
    let (_env, requests) = requests();
    let answering = Answering { idempotent: true, ..LIMIT };
    let kind = requests.declare::<u64, u64>(&name("price"), answering).unwrap();
    let _responder = kind.respond(1, |asked: Asked<u64>| async move {
        assert_ne!(asked.body, 13, "a bug of the application");
        Ok(asked.body)
    });
    let failed = kind.request(&13, Deadline::NEVER).await.unwrap_err();
    assert!(matches!(failed, RequestError::Unknown { why: Unknown::Failed, idempotent: true, .. }), "{failed:?}");
    assert_eq!(failed.retry(), Retry::Now);
    assert_eq!(kind.request(&12, Deadline::NEVER).await, Ok(12));
}

#[tokio::test(start_paused = true)]
async fn three_hops_spend_one_budget() {
    let (env, requests) = requests();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let hop = |own: &str, next: Option<&str>| {
        let kind = requests.declare::<u64, u64>(&name(own), LIMIT).unwrap();
        let next = next.map(|next| requests.declare::<u64, u64>(&name(next), LIMIT).unwrap());
        let (env, seen) = (env.clone(), seen.clone());
        let responder = kind.respond(1, move |asked: Asked<u64>| {
            let (env, seen, next) = (env.clone(), seen.clone(), next.clone());
            async move {
                seen.lock().unwrap().push(asked.deadline);
                env.sleep(millis(40)).await;
                match next {
                    Some(next) => {
                        next.request(&1, asked.deadline).await.map_err(|failed| Fault::new("below", failed.to_string()))
                    }
                    None => Ok(1),
                }
            }
        });
        (kind, responder.unwrap())
    };
    let (_c, _third) = hop("c", None);
    let (_b, _second) = hop("b", Some("c"));
    let (a, _first) = hop("a", Some("b"));
    let deadline = Deadline::after(env.mono(), millis(100));
    let failed = a.request(&1, deadline).await.unwrap_err();
    assert!(matches!(failed, RequestError::Unknown { why: Unknown::Deadline, .. }), "{failed:?}");
    assert_eq!(*seen.lock().unwrap(), [deadline; 3]);
    until_held(&requests, 0).await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_or_is_too_long_is_said_and_not_sent_on() {
    let env = Env::real();
    let requests = Requests::new(&env, Limits { body_bytes: 10, ..Limits::default() });
    let texts = requests.declare::<String, String>(&name("echo"), LIMIT).unwrap();
    let numbers = requests.declare::<u64, u64>(&name("echo"), LIMIT).unwrap();
    let halves = requests.declare::<String, u64>(&name("echo"), LIMIT).unwrap();
    let _responder = texts.respond(1, |asked: Asked<String>| async move { Ok(asked.body.repeat(2)) });
    let long = texts.request(&"0123456789".to_owned(), Deadline::NEVER).await.unwrap_err();
    assert!(matches!(long, RequestError::Invalid { .. }), "{long:?}");
    let code = |failed: RequestError| match failed {
        RequestError::Fault { fault, .. } => fault.code,
        other => panic!("{other:?}"),
    };
    assert_eq!(code(texts.request(&"01234567".to_owned(), Deadline::NEVER).await.unwrap_err()), "answer-too-long");
    assert_eq!(code(numbers.request(&1, Deadline::NEVER).await.unwrap_err()), "unreadable");
    let unreadable = halves.request(&"a".to_owned(), Deadline::NEVER).await.unwrap_err();
    assert!(matches!(unreadable, RequestError::Unreadable { .. }), "{unreadable:?}");
}

#[tokio::test]
async fn a_type_is_one_thing_and_limits_are_told() {
    let env = Env::real();
    let requests = Requests::new(&env, Limits { types: 1, responders: 1, ..Limits::default() });
    let kind = requests.declare::<u64, u64>(&name("price"), LIMIT).unwrap();
    let otherwise = requests.declare_best_effort::<u64>(&name("price"), LIMIT.time_limit).unwrap_err();
    assert_eq!(otherwise, DeclareError::Disagrees { kind: name("price") });
    let more = requests.declare::<u64, u64>(&name("stock"), LIMIT).unwrap_err();
    assert_eq!(more, DeclareError::TooMany { max: 1 });
    for time_limit in [Duration::ZERO, Contract::MAX_TIME_LIMIT + millis(1)] {
        let refused = requests.declare::<u64, u64>(&name("x"), Answering { time_limit, ..LIMIT });
        assert!(matches!(refused, Err(DeclareError::Invalid { .. })));
    }
    let answer = |asked: Asked<u64>| async move { Ok(asked.body) };
    for window in [0, Requests::MAX_WINDOW + 1] {
        assert!(matches!(kind.respond(window, answer), Err(DeclareError::Invalid { .. })));
    }
    let _first = kind.respond(1, answer).unwrap();
    assert!(matches!(kind.respond(1, answer), Err(DeclareError::TooManyResponders(_))));
}

#[tokio::test(start_paused = true)]
async fn a_process_that_ends_sees_off_what_was_handed_out_and_refuses_the_rest() {
    let (env, requests) = requests();
    let kind = requests.declare::<u64, u64>(&name("price"), LIMIT).unwrap();
    let go = Arc::new(Notify::new());
    let gate = go.clone();
    let _responder = kind.respond(1, move |asked: Asked<u64>| {
        let gate = gate.clone();
        async move {
            gate.notified().await;
            Ok(asked.body)
        }
    });
    let (handed, waiting) = (beside(&env, &kind, Deadline::NEVER), beside(&env, &kind, Deadline::NEVER));
    until_held(&requests, 2).await;
    env.tasks().stop().cancel();
    let refused = waiting.await.unwrap().unwrap_err();
    assert_eq!(refused, RequestError::Refused { kind: name("price"), why: Refusal::Closing });
    go.notify_one();
    assert_eq!(handed.await.unwrap(), Ok(1));
    env.tasks().shut_down().await;
}

#[tokio::test(start_paused = true)]
async fn a_message_of_best_effort_is_done_or_counted_as_lost() {
    let (_env, requests) = requests();
    let kind = requests.declare_best_effort::<u64>(&name("seen"), LIMIT.time_limit).unwrap();
    assert_eq!(kind.tell(&1).await, Err(RequestError::NoResponder { kind: name("seen") }));
    let _responder = kind.respond(1, |asked: Asked<u64>| async move {
        if asked.body == 2 { Ok(()) } else { Err(Fault::new("no", "not this one")) }
    });
    kind.tell(&2).await.unwrap();
    kind.tell(&3).await.unwrap();
    until_held(&requests, 0).await;
    let counts = requests.counts();
    assert_eq!((counts.delivered, counts.lost), (1, 2));
}

#[tokio::test]
async fn a_message_after_commit_is_there_with_its_transaction_and_only_then() {
    let folder = tempfile::tempdir().unwrap();
    let env = Env::real();
    let store: Store = sqlite::open(&env, sqlite::Config::at(folder.path().join("log.db"))).await.unwrap();
    let queue = Queues::open(&store).await.unwrap().declare(&name("mail"), Config::default()).await.unwrap();
    let requests = Requests::new(&env, Limits::default());
    let mails = requests.declare_after_commit::<u64>(&name("mail.due"), LIMIT.time_limit, &queue).unwrap();
    let another = requests.declare_after_commit::<u64>(&name("mail.late"), LIMIT.time_limit, &queue).unwrap_err();
    assert_eq!(another, DeclareError::Disagrees { kind: name("mail.late") }, "the queue has messages of one type");
    let telling = |id: &'static str, rolls_back: bool| {
        let mails = mails.clone();
        store.transact(move |tx| {
            let mails = mails.clone();
            Box::pin(async move {
                mails.tell_in(tx, id, &7).await?;
                if rolls_back {
                    Err(crate::message_queue::QueueError::Invalid { what: "no".to_owned() })
                } else {
                    Ok(())
                }
            })
        })
    };
    assert!(matches!(telling("1", true).await, Err(TransactError::Aborted(_))));
    telling("2", false).await.unwrap();
    assert!(!mails.tell("3", &8).await.unwrap().repeated);
    assert!(mails.tell("3", &8).await.unwrap().repeated, "the same id is the same message");
    let (done, mut told) = tokio::sync::mpsc::unbounded_channel();
    let config = WorkerConfig { concurrency: 1, ..WorkerConfig::default() };
    let workers = mails.respond(config, move |job: crate::message_queue::Job<u64>| {
        let said = done.send((job.message().event.id.to_string(), *job.body()));
        async move { said.map_err(crate::message_queue::Failed::from) }
    });
    assert_eq!(told.recv().await, Some(("2".to_owned(), 7)));
    assert_eq!(told.recv().await, Some(("3".to_owned(), 8)));
    workers.unwrap().drain(Duration::from_secs(60)).await;
    assert_eq!(queue.describe().await.unwrap().counts.messages, 0);
    store.close().await.unwrap();
}
