//! A queue whose workers and whose node are killed: nothing is lost, nothing is done twice, and what cannot be done is set aside.

mod mailbox;
mod worker;

use std::sync::Arc;

use quorate_foundations::time::Mono;
use quorate_runtime::Env;
use serde_json::{Value, json};

use self::mailbox::{Mailbox, Seen};
pub(super) use self::worker::Worker;
use super::{
    child::Role,
    node::{self, Node},
    show::{Shown, millis},
};
use crate::{
    client::{Call, JSON},
    demo::{folder::Folder, process::Process},
    exit::Failure,
};

/// Customers, and mails for each, which have to go out in order.
const CUSTOMERS: u32 = 8;
const MAILS: u32 = 15;
const WORKERS: usize = 3;
/// How often a message is handed out before it is a dead letter.
const ATTEMPTS: u64 = 5;
/// The customer whose first mail has no address.
const POISONED: u32 = CUSTOMERS;
/// The message in whose middle its worker is killed.
const STRUCK: &str = "mail-2-3";

pub(super) async fn run(env: &Env) -> Result<Shown, Failure> {
    let folder = Folder::passing(env)?;
    let mailbox = Arc::new(Mailbox::new(env, STRUCK));
    let resource = mailbox.clone().serve(env).await?;
    let mut node = Node::start(env, &folder.path).await?;
    let backoff = json!({ "first": "50ms", "max": "200ms" });
    let config = json!({ "lease-ttl": "2s", "max-attempts": ATTEMPTS, "backoff": backoff });
    node.call(&Call::post("/v1/queues/mails", JSON, config.to_string()).put()).await?;
    let sent = send(&node).await?;
    let again = send(&node).await?;

    let begun = env.mono();
    let place = |number| Role::Worker(Worker { number, node: node.url(), mailbox: resource.clone() });
    let mut workers = Vec::new();
    for number in 0..WORKERS {
        workers.push(worker(env, &place(number)).await?);
    }
    // Its mail is in the box, and nobody was told.
    let struck = node::until(env, async || mailbox.seen().struck.is_some()).await;
    let (number, worker_killed) = (mailbox.seen().struck.unwrap_or_default(), env.mono());
    if let Some(process) = workers.get_mut(number) {
        process.kill().await;
        mailbox.let_go();
        *process = worker(env, &place(number)).await?;
    }
    let worker_back = env.mono();
    let half = (CUSTOMERS * MAILS / 2) as usize;
    node::until(env, async || mailbox.seen().mails.len() >= half).await;
    let node_killed = env.mono();
    node.kill_and_start().await?;
    let node_back = env.mono();
    let all_but_held = (CUSTOMERS * MAILS) as usize;
    node::until(env, async || {
        let at_rest =
            counts(&node).await.is_some_and(|[ready, flying, _, parked]| (ready, flying, parked) == (0, 0, 1));
        at_rest && mailbox.seen().mails.len() >= all_but_held
    })
    .await;
    let (held, refused) = (counts(&node).await, mailbox.seen().refused);
    let mended = json!({ "event": event(POISONED, 0, "customer-8") });
    node.call(&Call::post("/v1/queues/mails/replay", JSON, mended.to_string())).await?;
    node::until(env, async || counts(&node).await == Some([0; 4])).await;
    let (left, seen) = (counts(&node).await, mailbox.seen());
    for worker in &mut workers {
        worker.kill().await;
    }

    let mut shown = chart(begun, &seen);
    shown.unwell(begun, worker_killed, worker_back);
    shown.unwell(begun, node_killed, node_back);
    shown.figure("mails that the box was asked to take more than once", seen.repeats.len());
    shown.figure("attempts that it refused", refused.len());
    let came_again = seen.repeats.iter().find(|(_, id)| id == STRUCK).map(|(at, _)| *at);
    let waited = came_again.map(|at| millis(at.saturating_since(worker_killed)));
    shown.figure("from the kill of its worker until the message was tried again", waited.unwrap_or_default());
    let (news, known) = (repeated(&sent, false), repeated(&again, true));
    shown.claim("what was sent twice is in the queue once", news && known);
    shown.claim("a worker was killed between its work and its acknowledgement", struck);
    shown.claim("its message came again, and was known by its key", came_again.is_some());
    let behind = u64::from(MAILS) - 1;
    shown.claim(
        format!("the mail without an address became a dead letter after at most {ATTEMPTS} attempts, and held back the {behind} behind it and nobody else's"),
        held == Some([0, 0, behind, 1]) && (1..=ATTEMPTS).contains(&(refused.len() as u64)),
    );
    let expected = u64::from((CUSTOMERS + 1) * MAILS);
    shown.claim(
        format!("each of {expected} mails is in the box once, and each customer's in the order of sending"),
        seen.mails.len() as u64 == expected && (0..=POISONED).all(|customer| seen.is_in_order(customer, MAILS)),
    );
    shown.claim("at the end the queue is empty", left == Some([0; 4]));
    Ok(shown)
}

fn chart(begun: Mono, seen: &Seen) -> Shown {
    let scene = format!(
        "{} mails for {} customers wait in a queue for {WORKERS} workers. One of these is killed between its work and its acknowledgement, and later the node itself; one mail has no address, until somebody mends it.",
        (CUSTOMERS + 1) * MAILS,
        CUSTOMERS + 1
    );
    let mut shown =
        Shown { scene, mark: Some("a worker or the node was killed, and is not back yet"), ..Shown::default() };
    shown.count("MAILS IN THE BOX", begun, seen.mails.iter().map(|mail| mail.at));
    let again = seen.repeats.iter().map(|(at, _)| *at).chain(seen.refused.iter().copied());
    shown.count("REFUSED, OR KNOWN", begun, again);
    shown
}

async fn worker(env: &Env, role: &Role) -> Result<Process, Failure> {
    let (process, ()) = node::start(env, "a worker", role).await?;
    Ok(process)
}

/// Sends all mails: each customer's in order, and those of different customers in turn.
async fn send(node: &Node) -> Result<Vec<Value>, Failure> {
    let mut sent = Vec::new();
    for nth in 0..MAILS {
        let messages: Vec<Value> = (0..=POISONED)
            .map(|customer| {
                let to = if (customer, nth) == (POISONED, 0) { String::new() } else { format!("customer-{customer}") };
                json!({ "event": event(customer, nth, &to), "group": format!("customer-{customer}") })
            })
            .collect();
        let body = json!({ "messages": messages }).to_string();
        let told = node.call(&Call::post("/v1/queues/mails/messages", JSON, body)).await?;
        sent.extend(told["messages"].as_array().cloned().unwrap_or_default());
    }
    Ok(sent)
}

fn event(customer: u32, nth: u32, to: &str) -> Value {
    json!({
        "specversion": "1.0",
        "id": format!("mail-{customer}-{nth}"),
        "source": "/patterns/message-queue",
        "type": "mail.due",
        "data": { "customer": customer, "nth": nth, "to": to },
    })
}

fn repeated(sent: &[Value], repeated: bool) -> bool {
    sent.len() as u64 == u64::from((CUSTOMERS + 1) * MAILS) && sent.iter().all(|one| one["repeated"] == repeated)
}

/// How many messages are ready, in flight, waiting and parked; nothing where the node does not say.
async fn counts(node: &Node) -> Option<[u64; 4]> {
    let told = node.call(&Call::get("/v1/queues/mails")).await.ok()?;
    let count = |name: &str| told[name].as_u64();
    Some([count("ready")?, count("in-flight")?, count("waiting")?, count("parked")?])
}
