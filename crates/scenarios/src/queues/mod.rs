//! Producers send to a message queue, and workers share it: each message is handed to one of them at a time, in order of its
//! group, until somebody has acknowledged it. Some messages fail each time and become dead letters, which somebody replays
//! or gives up. Others are sent by schedules: one that is often due and allows one message at a time, and one that is due each
//! two hours of a wall clock that is set forward and back, and leaves no moment out.

mod judge;
mod listen;

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    cast::Cast,
    client::Call,
    hand::Hand,
    notes::{Action, Handling},
};

const PRODUCERS: usize = 2;
const WORKERS: usize = 3;
const ROUNDS: usize = 15;
/// In a world that goes on for longer, whoever has done its rounds sends no more while so many messages are in the queue: workers that
/// dawdle do less than producers send, and a queue that only grows says nothing of whether it would ever be empty.
const DEEP: u64 = 30;
const GROUPS: usize = 3;
const PATH: &str = "/v1/queues/work";
/// How often a message is handed out before it is a dead letter.
const MAX_ATTEMPTS: u64 = 3;
/// After the time of so many leases workers do their best.
const LATE: u32 = 10;
/// What the ids of messages begin with that no worker can do.
const POISON: &str = "poison";
/// What the ids of messages begin with that a schedule sends which allows one at a time.
const TICK: &str = "tick@";
/// What the ids of messages begin with that a schedule sends which is due so often.
const RARE: (&str, i64) = ("rare@", 2 * 3_600);
/// The schedules: their names, which are what ids begin with, and what they are like.
const SCHEDULES: [(&str, &str, &str, &str); 2] =
    [("tick", "*/5 * * * * *", "once", "unique"), ("rare", "0 */2 * * *", "all", "group")];

/// Who takes part.
pub(crate) fn cast() -> Cast {
    let producers = (0..PRODUCERS).fold(Cast::new(), |cast, n| cast.hand(&format!("producer-{n}"), produce));
    let all = (0..WORKERS).fold(producers, |cast, n| cast.follower(&format!("worker-{n}"), consume));
    all.judged_by(judge::judge).by_the_clock()
}

/// Makes the queue; whoever comes later finds it there, and has it as it is.
async fn declare(hand: &mut Hand) {
    let config = json!({
        "lease-ttl": format!("{}ms", hand.pace.lease.as_millis()),
        "max-attempts": MAX_ATTEMPTS,
        "backoff": { "first": "50ms", "max": "500ms" },
    });
    loop {
        let call = Call::put(PATH).json("application/json", &config);
        if hand.ask(&call).await.is_some_and(|reply| reply.status.is_success()) {
            return;
        }
        hand.rest().await;
    }
}

/// Declares the schedules; the same again changes nothing.
async fn schedule(hand: &mut Hand) {
    for (name, cron, missed, alone) in SCHEDULES {
        let event = json!({ "specversion": "1.0", "id": name, "source": "/schedule", "type": "work.due" });
        // The one is sent alone, the other handed out in its order.
        let message = json!({ "event": event, alone: name });
        let body = json!({ "cron": cron, "missed": missed, "message": message });
        let call = Call::put(format!("{PATH}/schedules/{name}")).json("application/json", &body);
        while !hand.ask(&call).await.is_some_and(|reply| reply.status.is_success()) {
            hand.rest().await;
        }
    }
}

/// Deletes the schedules, so that the queue can become empty. Whether they are gone.
async fn unschedule(hand: &mut Hand) -> bool {
    for (name, ..) in SCHEDULES {
        let gone = hand.ask(&Call::delete(format!("{PATH}/schedules/{name}"))).await;
        if !gone.is_some_and(|reply| reply.status.is_success() || reply.status.as_u16() == 404) {
            return false;
        }
    }
    true
}

async fn produce(mut hand: Hand) {
    declare(&mut hand).await;
    schedule(&mut hand).await;
    let mut round = 0;
    while hand.goes_on(round, ROUNDS) {
        if round < ROUNDS || has_room(&mut hand).await {
            send(&mut hand, round).await;
            round += 1;
        }
        hand.rest().await;
    }
}

/// Whether the queue is known not to be deep.
async fn has_room(hand: &mut Hand) -> bool {
    depth(hand).await.is_some_and(|messages| messages < DEEP)
}

/// How many messages are in the queue, dead letters included; `None` where nobody said.
async fn depth(hand: &mut Hand) -> Option<u64> {
    hand.ask(&Call::get(PATH)).await.and_then(|reply| reply.value()["messages"].as_u64())
}

/// Sends a batch, and sends it again until it is known to be there; now and then once more.
async fn send(hand: &mut Hand, round: usize) {
    let count = 1 + hand.below(3);
    let group = Some(hand.below(GROUPS + 1)).filter(|n| *n < GROUPS).map(|n| format!("g{n}"));
    let messages: Vec<Value> = (0..count)
        .map(|n| {
            let kind = if hand.below(12) == 0 { POISON } else { "work" };
            let id = format!("{kind}-{}-{round}-{n}", hand.name);
            let event = json!({ "specversion": "1.0", "id": id, "source": "/producer", "type": "work.due" });
            json!({ "event": event, "group": group })
        })
        .collect();
    let ids: Vec<String> =
        messages.iter().map(|one| one["event"]["id"].as_str().unwrap_or_default().to_owned()).collect();
    let call = Call::post(format!("{PATH}/messages")).json("application/json", &json!({ "messages": messages }));
    let sent = |refused| Action::Sent { group: group.clone(), ids: ids.clone(), refused };
    let begun = hand.notes.begin(&hand.name, sent(None));
    loop {
        if let Some(reply) = hand.ask(&call).await {
            let refused = (!reply.status.is_success()).then(|| format!("{} {}", reply.status, reply.value()["type"]));
            hand.notes.end(begun, sent(refused));
            break;
        }
        hand.rest().await;
    }
    // Whoever is not sure whether it was sent sends it again, also when it has long been done.
    if hand.below(4) == 0 {
        hand.rest().await;
        let _whatever_comes_of_it = hand.ask(&call).await;
    }
}

/// Works until nobody sends any more, schedules included, and the queue is empty.
async fn consume(mut hand: Hand) -> Result<(), String> {
    declare(&mut hand).await;
    while !(is_over(&hand) && unschedule(&mut hand).await && is_empty(&mut hand).await) {
        match hand.below(8) {
            0 | 1 => look_at_dead_letters(&mut hand).await,
            2 => {
                let diligent = is_late(&hand);
                listen::listen(&mut hand, diligent).await;
            }
            _ => work(&mut hand).await,
        }
    }
    Ok(())
}

/// Whether nobody sends any more, and no clock is set any more that a schedule goes by.
fn is_over(hand: &Hand) -> bool {
    hand.busy.is_over() && hand.is_healed()
}

async fn is_empty(hand: &mut Hand) -> bool {
    depth(hand).await == Some(0)
}

/// Whether it has become so late that whoever goes on to be slow, or to forget what it was handed, would have no end in sight.
fn is_late(hand: &Hand) -> bool {
    let late = hand.pace.work_for.unwrap_or_default() + hand.pace.lease * LATE;
    u128::from(hand.notes.now()) > late.as_nanos()
}

/// Takes some messages, works for a while, and settles most of them.
async fn work(hand: &mut Hand) {
    let max = 1 + hand.below(4);
    let call = Call::post(format!("{PATH}/receive"));
    let call = call.json("application/json", &json!({ "max": max, "wait": "500ms" }));
    let invoked = hand.notes.now();
    let Some(reply) = hand.ask(&call).await else { return hand.rest().await };
    let deliveries = reply.value()["deliveries"].as_array().cloned().unwrap_or_default();
    let (mut sound, mut poison) = (Vec::new(), Vec::new());
    for delivery in &deliveries {
        let (lease, id) = note_delivery(hand, invoked, delivery);
        if id.starts_with(POISON) { &mut poison } else { &mut sound }.push(lease);
    }
    if deliveries.is_empty() {
        return;
    }
    // Mostly quick; sometimes longer than the lease, with a word about it or without.
    let diligent = is_late(hand);
    match hand.below(10) {
        0 if !diligent => hand.env.sleep(hand.pace.lease * 2).await,
        1 => {
            hand.env.sleep(hand.pace.lease / 2).await;
            settle(hand, Handling::Extend, &[sound.as_slice(), poison.as_slice()].concat()).await;
            hand.env.sleep(hand.pace.lease * 3 / 4).await;
        }
        _ => hand.env.sleep(Duration::from_millis(hand.rng.below(300))).await,
    }
    settle(hand, Handling::Nack, &poison).await;
    match hand.below(8) {
        0 if !diligent => {}
        1 if !diligent => settle(hand, Handling::Nack, &sound).await,
        _ => settle(hand, Handling::Ack, &sound).await,
    }
}

/// Notes what was handed out; its lease and its id.
fn note_delivery(hand: &Hand, invoked: u64, delivery: &Value) -> (String, String) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (lease, id) = (text(&delivery["lease"]), text(&delivery["event"]["id"]));
    let group = delivery["group"].as_str().map(str::to_owned);
    let attempt = delivery["attempt"].as_u64().unwrap_or_default();
    let told = Action::Delivered { lease: lease.clone(), id: id.clone(), group, attempt };
    hand.notes.add(&hand.name, invoked, told);
    (lease, id)
}

/// Settles leases one by one, so that each is known to have been settled or not.
async fn settle(hand: &mut Hand, how: Handling, leases: &[String]) {
    for lease in leases {
        let (action, body) = match how {
            Handling::Ack => ("ack", json!({ "leases": [lease] })),
            Handling::Nack => ("nack", json!({ "leases": [lease], "reason": "not today" })),
            Handling::Extend => ("extend", json!({ "leases": [lease] })),
        };
        let handled = |done| Action::Handled { lease: lease.clone(), how, done };
        let begun = hand.notes.begin(&hand.name, handled(None));
        let call = Call::post(format!("{PATH}/{action}")).json("application/json", &body);
        let done = certain(hand, &call).await;
        hand.notes.end(begun, handled(done));
    }
}

/// Gives up what cannot be done, and has the rest done again.
async fn look_at_dead_letters(hand: &mut Hand) {
    let Some(reply) = hand.ask(&Call::get(format!("{PATH}/parked?limit=20"))).await else { return hand.rest().await };
    let parked = reply.value()["parked"].as_array().cloned().unwrap_or_default();
    if parked.is_empty() {
        hand.rest().await;
    }
    for letter in &parked {
        let id = letter["event"]["id"].as_str().unwrap_or_default().to_owned();
        let replayed = !id.starts_with(POISON);
        let action = if replayed { "replay" } else { "discard" };
        let buried = |done| Action::Buried { id: id.clone(), replayed, done };
        let begun = hand.notes.begin(&hand.name, buried(None));
        let call = Call::post(format!("{PATH}/{action}")).json("application/json", &json!({ "id": id }));
        let done = hand.client.call(&call).await.ok().filter(|reply| reply.status.is_success());
        let done = done.map(|reply| reply.value()["messages"] == 1);
        hand.notes.end(begun, buried(done));
    }
}

/// Whether a call was carried out; `None` where nobody knows.
async fn certain(hand: &mut Hand, call: &Call) -> Option<bool> {
    match hand.client.call(call).await {
        Ok(reply) if reply.status.is_success() => Some(true),
        Ok(reply) if reply.status.is_client_error() => Some(false),
        _ => None,
    }
}
