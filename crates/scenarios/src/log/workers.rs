//! Workers share a durable subscription: each event is handed to one of them at a time, in order of its stream, until somebody
//! has acknowledged it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use quorate_foundations::time::Mono;
use quorate_sim::check::{
    Verdict,
    lease::{self, Tenure},
};
use serde_json::json;

use super::appends;
use crate::{
    cast::Cast,
    client::Call,
    hand::{self, Hand, Pace},
    notes::{Action, Note},
    rule,
};

const WRITERS: usize = 2;
const WORKERS: usize = 3;
const ROUNDS: usize = 20;
const PATH: &str = "/v1/subscriptions/billing";
/// After the time of so many leases workers do their best.
const LATE: u32 = 10;
/// Clocks may gain this many parts in a million, and hold leases accordingly shorter or longer.
const DRIFT_PPM: u64 = 2_500;

/// Who takes part.
pub(crate) fn cast() -> Cast {
    let writers = (0..WRITERS).fold(Cast::new(), |cast, n| cast.hand(&format!("writer-{n}"), write));
    let all = (0..WORKERS).fold(writers, |cast, n| cast.follower(&format!("worker-{n}"), pull));
    all.judged_by(judge).by_the_clock()
}

/// Works until nobody writes any more and everything is acknowledged.
async fn pull(mut hand: Hand) -> Result<(), String> {
    create(&mut hand).await;
    while !(hand.busy.is_over() && is_done(&mut hand).await) {
        work(&mut hand).await;
    }
    Ok(())
}

async fn write(mut hand: Hand) {
    let mut round = 0;
    while hand.goes_on(round, ROUNDS) {
        let stream = format!("order-{}", hand.below(4));
        appends::append(&mut hand, &stream, round).await;
        hand.rest().await;
        round += 1;
    }
}

/// Makes the subscription; whoever comes later finds it there.
async fn create(hand: &mut Hand) {
    let config = json!({ "lease-ttl": format!("{}ms", hand.pace.lease.as_millis()), "max-attempts": 1_000 });
    loop {
        let call = Call::put(PATH).json("application/json", &config);
        if hand.ask(&call).await.is_some_and(|reply| reply.status.is_success()) {
            return;
        }
        hand.rest().await;
    }
}

/// Whether everything in the log was acknowledged.
async fn is_done(hand: &mut Hand) -> bool {
    let Some(reply) = hand.ask(&Call::get(PATH)).await else { return false };
    let standing = reply.value();
    standing["lag-events"] == 0 && standing["in-flight"] == 0 && standing["oldest"].is_null()
}

/// Whether it has become so late that whoever goes on to be slow, or to forget what it was handed, would have no end in sight.
fn is_late(hand: &Hand) -> bool {
    let late = hand.pace.work_for.unwrap_or_default() + hand.pace.lease * LATE;
    u128::from(hand.notes.now()) > late.as_nanos()
}

/// Pulls some events, works for a while, and settles most of them.
async fn work(hand: &mut Hand) {
    let max = 1 + hand.below(4);
    let call = Call::post(format!("{PATH}/pull"));
    let call = call.json("application/json", &json!({ "max": max, "owner": hand.name, "wait": "500ms" }));
    let invoked = hand.notes.now();
    let Some(reply) = hand.ask(&call).await else { return hand.rest().await };
    let deliveries = reply.value()["deliveries"].as_array().cloned().unwrap_or_default();
    let mut leases = Vec::new();
    for delivery in &deliveries {
        let event = hand::event(&delivery["event"]);
        let lease = delivery["lease"].as_str().unwrap_or_default().to_owned();
        hand.notes.add(&hand.name, invoked, Action::Handed { lease: lease.clone(), event });
        leases.push(lease);
    }
    if leases.is_empty() {
        return;
    }
    // Mostly quick, sometimes longer than the lease.
    let diligent = is_late(hand);
    let is_slow = hand.below(10) == 0 && !diligent;
    let span = if is_slow { hand.pace.lease * 2 } else { Duration::from_millis(hand.rng.below(300)) };
    hand.env.sleep(span).await;
    match hand.below(8) {
        0 if !diligent => {}
        1 if !diligent => settle(hand, "nack", &leases).await,
        _ => settle(hand, "ack", &leases).await,
    }
}

/// Settles leases one by one, so that each is known to have been settled or not.
async fn settle(hand: &mut Hand, how: &str, leases: &[String]) {
    for lease in leases {
        let body =
            if how == "nack" { json!({ "leases": [lease], "delay": "0s" }) } else { json!({ "leases": [lease] }) };
        let call = Call::post(format!("{PATH}/{how}")).json("application/json", &body);
        let invoked = hand.notes.now();
        let done = hand.client.call(&call).await;
        let done = match done {
            Ok(reply) if reply.status.is_success() => Some(true),
            Ok(reply) if reply.status.is_client_error() => Some(false),
            _ => None,
        };
        let what = Action::Settled { lease: lease.clone(), acknowledged: how == "ack", done };
        hand.notes.add(&hand.name, invoked, what);
    }
}

/// What a hand-out of an event came to.
struct Handed<'n> {
    note: &'n Note,
    lease: &'n str,
    stream: &'n str,
    version: u64,
}

/// Hand-outs by the event's position, in the order in which they were told.
type HandOuts<'n> = BTreeMap<u64, Vec<Handed<'n>>>;
/// What was tried with a lease: when, whether to acknowledge, and whether it was done as far as anybody knows.
type Settlements<'n> = BTreeMap<&'n str, Vec<(&'n Note, bool, Option<bool>)>>;

fn judge(notes: &[Note], pace: Pace) -> Vec<Verdict> {
    let (mut handed, mut settled) = (HandOuts::new(), Settlements::new());
    for note in notes {
        match &note.what {
            Action::Handed { lease, event } => {
                let one = Handed { note, lease, stream: &event.stream, version: event.version };
                handed.entry(event.position).or_default().push(one);
            }
            Action::Settled { lease, acknowledged, done } => {
                settled.entry(lease).or_default().push((note, *acknowledged, *done));
            }
            _ => {}
        }
    }
    vec![
        everything_was_handed_out(notes, &handed),
        lease::one_holder(&tenures(&handed, &settled, pace.lease)),
        nothing_comes_back(&handed, &settled),
        order_of_streams(&handed, &settled),
    ]
}

/// Each event of the log was handed out at least once.
fn everything_was_handed_out(notes: &[Note], handed: &HandOuts<'_>) -> Verdict {
    let last = notes.iter().rev().find_map(|note| match &note.what {
        Action::Read { read, events, .. } if read.stream.is_none() => Some(events.as_slice()),
        _ => None,
    });
    let log = last.unwrap_or_default();
    // A reply that was lost may have been the hand-out; then its lease ran out and the event came again.
    let missed = log.iter().filter(|event| !handed.contains_key(&event.position));
    let missed = missed.map(|event| format!("{} was acknowledged by nobody and handed to nobody", event.id));
    rule::verdict("every event handed out", log.len(), missed)
}

/// How long each hand-out was the only one, for certain: from when it was told until its lease ran out or may have been
/// settled.
fn tenures(handed: &HandOuts<'_>, settled: &Settlements<'_>, lease: Duration) -> Vec<Tenure> {
    let ttl = u64::try_from(lease.as_nanos()).unwrap_or(u64::MAX);
    let least = ttl - ttl / 1_000_000 * DRIFT_PPM;
    let tenure = |(fence, hand): (u64, &Handed<'_>)| {
        let tried = settled.get(hand.lease).into_iter().flatten();
        let ended = tried.filter(|(_, _, done)| *done != Some(false)).map(|(note, ..)| note.invoked).min();
        // The lease began no sooner than it was asked for.
        let until = (hand.note.invoked + least).min(ended.unwrap_or(u64::MAX));
        Tenure {
            resource: format!("version {} of {}", hand.version, hand.stream),
            holder: hand.note.client.clone(),
            fence,
            from: Mono::from_nanos(hand.note.completed),
            until: Mono::from_nanos(until),
        }
    };
    // A reply that came twice is one hand-out.
    let mut known = BTreeSet::new();
    let once = handed.values().flatten().filter(|hand| known.insert(hand.lease));
    (1..).zip(once).map(tenure).collect()
}

/// An event whose acknowledgement was confirmed is not handed out again.
fn nothing_comes_back(handed: &HandOuts<'_>, settled: &Settlements<'_>) -> Verdict {
    let (mut examined, mut found) = (0, Vec::new());
    for hands in handed.values() {
        for hand in hands {
            let acknowledged =
                settled.get(hand.lease).into_iter().flatten().find(|(_, ack, done)| *ack && *done == Some(true));
            let Some((at, ..)) = acknowledged else { continue };
            examined += 1;
            if let Some(again) = hands.iter().find(|other| other.note.invoked > at.completed) {
                found.push(format!(
                    "version {} of {} was acknowledged, and later handed to {}",
                    hand.version, hand.stream, again.note.client
                ));
            }
        }
    }
    rule::verdict("acknowledged for good", examined, found)
}

/// Of a stream, an event is handed out only once those before it may have been acknowledged.
fn order_of_streams(handed: &HandOuts<'_>, settled: &Settlements<'_>) -> Verdict {
    let mut streams: BTreeMap<&str, Vec<(&u64, &[Handed<'_>])>> = BTreeMap::new();
    for (position, hands) in handed {
        let Some(hand) = hands.first() else { continue };
        streams.entry(hand.stream).or_default().push((position, hands.as_slice()));
    }
    let (mut examined, mut found) = (0, Vec::new());
    for events in streams.values() {
        for pair in events.windows(2) {
            let [(_, before), (_, behind)] = pair else { continue };
            let Some(first) = behind.iter().map(|hand| hand.note.completed).min() else { continue };
            let acknowledged = before.iter().flat_map(|hand| settled.get(hand.lease).into_iter().flatten());
            let acknowledged = acknowledged.filter(|(_, ack, done)| *ack && *done != Some(false));
            examined += 1;
            if acknowledged.map(|(note, ..)| note.invoked).min().is_none_or(|gone| gone >= first) {
                let (one, other) = (&before[0], &behind[0]);
                found.push(format!(
                    "version {} of {} was handed to {} before version {} was acknowledged",
                    other.version, other.stream, other.note.client, one.version
                ));
            }
        }
    }
    rule::verdict("order of streams", examined, found)
}

#[cfg(test)]
mod tests {
    use quorate_sim::check::api::Read;

    use super::*;
    use crate::notes::Seen;

    const LEASE: Duration = Duration::from_nanos(100);

    fn note(client: &str, invoked: u64, completed: u64, what: Action) -> Note {
        Note { client: client.into(), invoked, completed, what }
    }

    fn event(position: u64, stream: &str, version: u64) -> Seen {
        let (id, kind) = (position.to_string(), String::new());
        Seen { position, stream: stream.into(), version, id, kind, tags: vec![], content: Some(1) }
    }

    /// Two events of `a` and one of `b`.
    fn log() -> Vec<Seen> {
        vec![event(1, "a", 1), event(2, "b", 1), event(3, "a", 2)]
    }

    /// Event `position` is handed to `client`, under a lease that is called after it and the moment.
    fn handed(at: u64, client: &str, position: usize) -> Note {
        let what = Action::Handed { lease: format!("{position}/{at}"), event: log()[position - 1].clone() };
        note(client, at, at + 1, what)
    }

    fn settled(at: u64, lease: &str, acknowledged: bool, done: Option<bool>) -> Note {
        note("w", at, at + 1, Action::Settled { lease: lease.into(), acknowledged, done })
    }

    fn acked(at: u64, lease: &str) -> Note {
        settled(at, lease, true, Some(true))
    }

    fn rules(notes: &[Note]) -> Vec<String> {
        let read = note("last reader", 9_000, 9_001, Action::read(Read::log(0, u64::MAX), log()));
        let notes = [notes, &[read]].concat();
        rule::names(&judge(&notes, Pace { lease: LEASE, ..Pace::SIMULATED }))
    }

    fn right() -> Vec<Note> {
        vec![
            handed(10, "w", 1),
            handed(12, "v", 2),
            acked(20, "1/10"),
            settled(25, "2/12", false, Some(true)),
            handed(30, "w", 3),
            handed(40, "w", 2),
            acked(50, "3/30"),
            settled(60, "2/40", true, None),
        ]
    }

    #[test]
    fn what_is_handed_out_in_order_until_it_is_acknowledged_is_right() {
        assert_eq!(rules(&right()), [""; 0]);
    }

    #[test]
    fn an_event_that_nobody_was_handed_is_told() {
        let without = right()
            .into_iter()
            .filter(|note| !matches!(&note.what, Action::Handed { event, .. } if event.stream == "b"));
        assert_eq!(rules(&without.collect::<Vec<_>>()), ["every event handed out"]);
    }

    #[test]
    fn while_a_lease_lasts_nobody_else_is_handed_its_event() {
        let again = |at| [right(), vec![handed(at, "u", 3), acked(at + 5, &format!("3/{at}"))]].concat();
        let unsettled = |at| {
            again(at).into_iter().filter(|note| !matches!(&note.what, Action::Settled { lease, .. } if lease == "3/30"))
        };
        assert_eq!(rules(&unsettled(35).collect::<Vec<_>>()), ["a lease has at most one live holder"]);
        assert_eq!(rules(&unsettled(135).collect::<Vec<_>>()), [""; 0], "it had run out");
    }

    #[test]
    fn what_was_acknowledged_does_not_come_again() {
        assert_eq!(rules(&[right(), vec![handed(200, "u", 1)]].concat()), ["acknowledged for good"]);
        assert_eq!(rules(&[right(), vec![handed(200, "u", 2)]].concat()), [""; 0], "whether it was nobody knows");
    }

    #[test]
    fn of_a_stream_the_one_behind_waits_until_the_first_is_acknowledged() {
        let of = |acknowledged: Note| {
            let [mut early, rest] =
                [vec![handed(10, "w", 1), handed(12, "v", 2), acked(15, "2/12")], right()[4..5].to_vec()];
            early.push(acknowledged);
            rules(&[early, rest, vec![acked(50, "3/30")]].concat())
        };
        assert_eq!(of(acked(20, "1/10")), [""; 0]);
        assert_eq!(of(settled(20, "1/10", true, None)), [""; 0], "it may have been");
        assert_eq!(of(acked(40, "1/10")), ["order of streams"], "too late");
        assert_eq!(of(settled(20, "1/10", false, Some(true))), ["order of streams"], "it was to come again");
        assert_eq!(of(settled(20, "1/10", true, Some(false))), ["order of streams"], "that was refused");
    }
}
