//! What any transport must do, as claims that can be run against a real broker.
//!
//! The suite is told how to reach a broker at a [`Place`], how to end it and start it again, and how to lose its answers. All claims share one place,
//! under topics of their own, for brokers take seconds to start: run [`all`] in one test. Whoever writes a transport does so as well.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use quorate_data::event::{NewEvent, Scalar, Tags};
use quorate_runtime::{BoxFuture, Env};

use super::{Delivery, Holds, Label, Outgoing, PublishError, Receiver, Topic, Transport};

/// Where a broker is.
pub trait Place: Send + Sync {
    /// The world of those who reach it.
    fn env(&self) -> &Env;

    /// A new client of the broker, as of another process.
    fn transport(&self) -> BoxFuture<'_, Arc<dyn Transport>>;

    /// Ends the broker as a kill would: nothing is finished or said goodbye to.
    fn kill(&self) -> BoxFuture<'_, ()>;

    /// Starts it again where it was.
    fn start(&self) -> BoxFuture<'_, ()>;

    /// Whether clients outlive the broker. Where it lives in their process they do not.
    fn outlives(&self) -> bool {
        true
    }

    /// From now on what is sent arrives, and no answer comes back; whether that can be done.
    fn lose_answers(&self) -> bool {
        false
    }

    /// Answers come back again.
    fn mend(&self) {}
}

/// Why a claim does not hold. It may also panic.
pub type Outcome = Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// One claim about transports.
#[derive(Clone, Copy)]
pub struct Case {
    /// The claim.
    pub name: &'static str,
    /// Tries it at a place whose broker is up, and leaves it up.
    pub run: for<'p> fn(&'p dyn Place) -> BoxFuture<'p, Outcome>,
}

/// Tries every claim, and tells each on standard error before it does.
///
/// # Panics
/// When a claim does not hold, saying which and why.
pub async fn all(place: &dyn Place) {
    for case in CASES {
        eprintln!("{}", case.name);
        if let Err(why) = (case.run)(place).await {
            panic!("{}: {why} ({why:?})", case.name);
        }
    }
}

macro_rules! cases {
    ($($case:ident),+ $(,)?) => {
        /// Every claim.
        pub const CASES: &[Case] = &[$(Case { name: stringify!($case), run: |place| Box::pin($case(place)) },)+];
    };
}

cases! {
    every_group_gets_a_message_as_it_was_published,
    events_of_two_aggregates_that_share_an_id_are_two_messages,
    what_nobody_would_get_is_refused,
    of_a_batch_exactly_what_nobody_would_get_is_refused,
    another_number_of_partitions_is_refused,
    what_is_too_large_is_refused,
    what_is_full_refuses_and_loses_nothing,
    a_message_given_back_comes_again_before_what_is_behind_it,
    what_the_broker_gives_up_on_can_be_had,
    keys_do_not_wait_for_each_other,
    a_receiver_that_is_gone_leaves_its_message_to_another,
    a_message_that_is_held_for_longer_comes_to_nobody_else,
    a_copy_keeps_its_identity_also_when_the_broker_has_forgotten_it,
    a_lost_confirm_is_unknown_and_publishing_again_is_the_same_message,
    what_was_confirmed_outlives_the_broker_in_order,
    a_client_goes_on_when_its_broker_is_back,
}

/// How long something may take that has to happen, on a machine that has other things to do.
const PATIENCE: Duration = Duration::from_secs(180);
/// How long a message is held: long enough for a slow machine to settle it, short enough to wait for.
const HOLD: Duration = Duration::from_secs(8);

fn topic(name: &str) -> Topic {
    Topic { partitions: 2, hold: HOLD, ..Topic::new(label(name)) }
}

fn label(name: &str) -> Label {
    name.parse().unwrap_or_else(|wrong| unreachable!("{wrong}"))
}

fn message(key: &str, id: &str) -> Outgoing {
    Outgoing::new(key, NewEvent::new(id, "/test", "thing.happened").json(format!("{{\"id\":{id:?}}}")))
}

async fn published(transport: &dyn Transport, topic: &Topic, message: Outgoing) -> Result<bool, PublishError> {
    let mut outcomes = transport.publish(topic, vec![message]).await;
    outcomes.remove(0).map(|confirmed| confirmed.repeated)
}

/// Publishes until it is confirmed.
async fn published_at_last(place: &dyn Place, transport: &dyn Transport, topic: &Topic, message: Outgoing) -> Outcome {
    let until = place.env().mono() + PATIENCE;
    loop {
        match published(transport, topic, message.clone()).await {
            Ok(_) => return Ok(()),
            Err(failed) if place.env().mono() > until => return Err(failed.into()),
            Err(_) => place.env().sleep(Duration::from_millis(100)).await,
        }
    }
}

/// The next message; a receiver that has lost its broker tries again.
async fn next(
    place: &dyn Place,
    receiver: &mut dyn Receiver,
) -> Result<Delivery, Box<dyn std::error::Error + Send + Sync>> {
    let until = place.env().mono() + PATIENCE;
    loop {
        let left = until.saturating_since(place.env().mono());
        match place.env().timeout(left, receiver.next()).await {
            None => return Err(format!("no message came within {PATIENCE:?}").into()),
            Some(Ok(delivery)) => return Ok(delivery),
            Some(Err(failed)) if left.is_zero() => return Err(failed.into()),
            Some(Err(_)) => place.env().sleep(Duration::from_millis(100)).await,
        }
    }
}

fn holds(what: bool, claim: &str) -> Outcome {
    if what { Ok(()) } else { Err(claim.to_owned().into()) }
}

fn same<T: PartialEq + std::fmt::Debug>(found: T, expected: T) -> Outcome {
    if found == expected { Ok(()) } else { Err(format!("{found:?} was found, and {expected:?} expected").into()) }
}

async fn every_group_gets_a_message_as_it_was_published(place: &dyn Place) -> Outcome {
    let (transport, topic) = (place.transport().await, topic("as-published"));
    let mut receivers =
        [transport.join(&topic, &label("billing")).await?, transport.join(&topic, &label("stock")).await?];
    let mut event = NewEvent::new("e ☂ 1", "/shop", "order.placed").json(&br#"{"total": 17}"#[..]);
    event.subject = Some("order 17 \"x\" 100%".into());
    event.time = Some("2026-11-29T10:00:00+01:00".parse()?);
    event.schema = Some("urn:order:1".into());
    event.correlation_id = Some("c".into());
    event.causation_id = Some("d".into());
    event.tags = Tags::new(["customer:4"])?;
    let texts = [("traceparent", "00-a-b-01"), ("digits", "17"), ("odd", " % \" ☂\u{7f} ")];
    event.extensions.extend(texts.map(|(name, text)| (name.to_owned(), Scalar::Text(text.to_owned()))));
    event.extensions.insert("retries".to_owned(), Scalar::Integer(-17));
    event.extensions.insert("urgent".to_owned(), Scalar::Boolean(true));
    let sent = Outgoing::new("order-17 ☂", event);
    same(published(&*transport, &topic, sent.clone()).await?, false)?;
    for receiver in &mut receivers {
        let delivery = next(place, &mut **receiver).await?;
        let came = &delivery.message;
        same((&came.event, &came.key, &came.identity), (&sent.event, &sent.key, &sent.identity()))?;
        same((came.redelivered, came.attempt, came.unreadable.as_deref()), (false, 1, None))?;
        delivery.ack().await?;
    }
    Ok(())
}

async fn events_of_two_aggregates_that_share_an_id_are_two_messages(place: &dyn Place) -> Outcome {
    let (transport, topic) = (place.transport().await, topic("aggregates"));
    let mut receiver = transport.join(&topic, &label("billing")).await?;
    let of = |aggregate: &str| {
        let mut message = message("a", "1");
        for (name, value) in [("aggregatetype", "order"), ("aggregateid", aggregate)] {
            message.event.extensions.insert(name.to_owned(), Scalar::Text(value.to_owned()));
        }
        message
    };
    for sent in [of("17"), of("18"), of("17 a"), message("a", "1")] {
        same(published(&*transport, &topic, sent.clone()).await?, false)?;
        let delivery = next(place, &mut *receiver).await?;
        same((&delivery.message.event, &delivery.message.identity), (&sent.event, &sent.identity()))?;
        delivery.ack().await?;
    }
    Ok(())
}

async fn what_nobody_would_get_is_refused(place: &dyn Place) -> Outcome {
    let (transport, topic) = (place.transport().await, topic("unheard"));
    let unroutable = |outcome: Result<bool, PublishError>| matches!(outcome, Err(PublishError::Unroutable { .. }));
    holds(
        unroutable(published(&*transport, &topic, message("a", "1")).await),
        "a topic that nobody made is unroutable",
    )?;
    transport.declare(&topic).await?;
    holds(unroutable(published(&*transport, &topic, message("a", "1")).await), "a topic without groups is unroutable")?;
    let mut receiver = transport.join(&topic, &label("billing")).await?;
    published_at_last(place, &*transport, &topic, message("a", "1")).await?;
    let delivery = next(place, &mut *receiver).await?;
    same(&*delivery.message.event.id, "1")?;
    delivery.ack().await?;
    drop(receiver);
    transport.remove(&topic, &label("billing")).await?;
    holds(
        unroutable(published(&*transport, &topic, message("a", "2")).await),
        "a topic without groups is unroutable again",
    )
}

async fn of_a_batch_exactly_what_nobody_would_get_is_refused(place: &dyn Place) -> Outcome {
    let (transport, heard, unheard) = (place.transport().await, topic("batch-heard"), topic("batch-unheard"));
    let mut receiver = transport.join(&heard, &label("billing")).await?;
    transport.declare(&unheard).await?;
    let batch = |round: i32| (0..30).map(move |n| message(&format!("k{n}"), &format!("{round}-{n}"))).collect();
    let mut expected = BTreeSet::new();
    for round in 0..5 {
        // Side by side, so that what the broker says of the two comes mixed.
        let batches = (transport.publish(&heard, batch(round)), transport.publish(&unheard, batch(round)));
        let (confirmed, refused) = futures_util::future::join(batches.0, batches.1).await;
        holds(confirmed.iter().all(Result::is_ok), "what has a group is confirmed")?;
        let unroutable = |outcome: &Result<_, PublishError>| matches!(outcome, Err(PublishError::Unroutable { .. }));
        holds(refused.iter().all(unroutable), "what has none is refused")?;
        expected.extend((0..30).map(|n| format!("{round}-{n}")));
    }
    let mut came = BTreeSet::new();
    while came != expected {
        let delivery = next(place, &mut *receiver).await?;
        came.insert(delivery.message.event.id.to_string());
        delivery.ack().await?;
    }
    Ok(())
}

async fn another_number_of_partitions_is_refused(place: &dyn Place) -> Outcome {
    let (transport, topic) = (place.transport().await, topic("partitions"));
    let _receiver = transport.join(&topic, &label("billing")).await?;
    let other = Topic { partitions: 3, ..topic.clone() };
    let joined = place.transport().await.join(&other, &label("stock")).await;
    let refused = matches!(joined, Err(super::TransportError::Invalid { .. }));
    let compares = transport.capabilities().compares_partitions;
    same(refused, compares)?;
    // By clients that know nothing yet, and by one that has published.
    published(&*transport, &topic, message("a", "1")).await?;
    for partitions in [1, 3] {
        let other = Topic { partitions, ..topic.clone() };
        for publisher in [place.transport().await, transport.clone()] {
            same(published(&*publisher, &other, message("a", "2")).await.is_err(), compares)?;
        }
    }
    Ok(())
}

async fn what_is_too_large_is_refused(place: &dyn Place) -> Outcome {
    let (transport, topic) = (place.transport().await, topic("too-large"));
    let _receiver = transport.join(&topic, &label("billing")).await?;
    let mut large = message("a", "1");
    large.event.data = Some(vec![b' '; transport.capabilities().max_message_bytes].into());
    let refused = published(&*transport, &topic, large).await;
    holds(matches!(refused, Err(PublishError::Refused { .. })), "a message beyond the limit is refused")?;
    published(&*transport, &topic, message("a", "2")).await.map(drop).map_err(Into::into)
}

async fn what_is_full_refuses_and_loses_nothing(place: &dyn Place) -> Outcome {
    let (transport, topic) = (place.transport().await, Topic { max_messages: 10, ..topic("full") });
    let mut receiver = transport.join(&topic, &label("billing")).await?;
    let mut confirmed = Vec::new();
    let mut refused = None;
    for n in 0..200 {
        let id = n.to_string();
        match published(&*transport, &topic, message("a", &id)).await {
            Ok(_) => confirmed.push(id),
            Err(PublishError::Full { .. }) => {
                refused = Some(id);
                break;
            }
            Err(other) => return Err(other.into()),
        }
    }
    let refused = refused.ok_or("a full topic refuses")?;
    holds((1..=20).contains(&confirmed.len()), "a topic takes about as many messages as it may")?;
    for id in &confirmed {
        let delivery = next(place, &mut *receiver).await?;
        same(&*delivery.message.event.id, id.as_str())?;
        delivery.ack().await?;
    }
    published_at_last(place, &*transport, &topic, message("a", &refused)).await?;
    let delivery = next(place, &mut *receiver).await?;
    same(&*delivery.message.event.id, refused.as_str())?;
    delivery.ack().await.map_err(Into::into)
}

async fn a_message_given_back_comes_again_before_what_is_behind_it(place: &dyn Place) -> Outcome {
    let (transport, topic) = (place.transport().await, topic("given-back"));
    let mut receiver = transport.join(&topic, &label("billing")).await?;
    for id in ["1", "2"] {
        published(&*transport, &topic, message("a", id)).await?;
    }
    let first = next(place, &mut *receiver).await?;
    same((&*first.message.event.id, first.message.redelivered), ("1", false))?;
    first.nack(Duration::from_millis(200), "not now").await?;
    let again = next(place, &mut *receiver).await?;
    same((&*again.message.event.id, again.message.redelivered, again.message.attempt), ("1", true, 2))?;
    again.nack(Duration::ZERO, "nor now").await?;
    let again = next(place, &mut *receiver).await?;
    same((&*again.message.event.id, again.message.attempt), ("1", 3))?;
    again.ack().await?;
    let second = next(place, &mut *receiver).await?;
    same((&*second.message.event.id, second.message.redelivered), ("2", false))?;
    second.ack().await.map_err(Into::into)
}

async fn what_the_broker_gives_up_on_can_be_had(place: &dyn Place) -> Outcome {
    let (transport, topic) = (place.transport().await, topic("given-up"));
    let mut receiver = transport.join(&topic, &label("billing")).await?;
    let Some(mut given_up) = transport.join_given_up(&topic, &label("billing")).await? else { return Ok(()) };
    for id in ["1", "2"] {
        published(&*transport, &topic, message("a", id)).await?;
    }
    // Somebody who gives it back for ever: far more often than an inbox would.
    for _ in 0..5_000 {
        let delivery = next(place, &mut *receiver).await?;
        if &*delivery.message.event.id == "2" {
            delivery.ack().await?;
            let left = next(place, &mut *given_up).await?;
            same((&*left.message.event.id, &*left.message.key), ("1", "a"))?;
            return left.ack().await.map_err(Into::into);
        }
        delivery.nack(Duration::ZERO, "never").await?;
    }
    Err("the broker gives up on nothing".into())
}

async fn keys_do_not_wait_for_each_other(place: &dyn Place) -> Outcome {
    let (transport, topic) = (place.transport().await, topic("keys"));
    let other = (0..).map(|n| format!("k{n}")).find(|key| topic.partition(key) != topic.partition("a"));
    let other = other.ok_or("there is a key of another partition")?;
    let mut receiver = transport.join(&topic, &label("billing")).await?;
    published(&*transport, &topic, message("a", "1")).await?;
    let held = next(place, &mut *receiver).await?;
    published(&*transport, &topic, message("a", "2")).await?;
    published(&*transport, &topic, message(&other, "3")).await?;
    let beside = next(place, &mut *receiver).await?;
    same(&*beside.message.event.id, "3")?;
    beside.ack().await?;
    held.ack().await?;
    let behind = next(place, &mut *receiver).await?;
    same(&*behind.message.event.id, "2")?;
    behind.ack().await.map_err(Into::into)
}

async fn a_receiver_that_is_gone_leaves_its_message_to_another(place: &dyn Place) -> Outcome {
    let (transport, topic) = (place.transport().await, topic("gone"));
    let mut first = transport.join(&topic, &label("billing")).await?;
    published(&*transport, &topic, message("a", "1")).await?;
    drop(next(place, &mut *first).await?);
    drop(first);
    let mut second = place.transport().await.join(&topic, &label("billing")).await?;
    let again = next(place, &mut *second).await?;
    same((&*again.message.event.id, again.message.redelivered), ("1", true))?;
    holds(again.message.attempt >= 2, "the attempt is counted")?;
    again.ack().await.map_err(Into::into)
}

async fn a_message_that_is_held_for_longer_comes_to_nobody_else(place: &dyn Place) -> Outcome {
    let (transport, topic) = (place.transport().await, topic("held"));
    let mut receiver = transport.join(&topic, &label("billing")).await?;
    published(&*transport, &topic, message("a", "1")).await?;
    let held = next(place, &mut *receiver).await?;
    let until = place.env().mono() + HOLD + HOLD / 4;
    while transport.capabilities().holds == Holds::ForAWhile && place.env().mono() < until {
        place.env().sleep(HOLD / 8).await;
        held.extend().await?;
    }
    let other = place.env().timeout(HOLD / 8, receiver.next()).await;
    holds(other.is_none(), "a message that is held comes to nobody")?;
    held.ack().await.map_err(Into::into)
}

async fn a_copy_keeps_its_identity_also_when_the_broker_has_forgotten_it(place: &dyn Place) -> Outcome {
    let dedupe = Duration::from_secs(1);
    let (transport, topic) = (place.transport().await, Topic { dedupe, ..topic("copies") });
    let mut receiver = transport.join(&topic, &label("billing")).await?;
    let mut expected = 0;
    for pause in [0, 0, 1_500] {
        place.env().sleep(Duration::from_millis(pause)).await;
        expected += usize::from(!published(&*transport, &topic, message("a", "1")).await?);
    }
    published(&*transport, &topic, message("a", "end")).await?;
    let mut copies = 0;
    loop {
        let delivery = next(place, &mut *receiver).await?;
        let (identity, is_end) = (delivery.message.identity.clone(), &*delivery.message.event.id == "end");
        delivery.ack().await?;
        if is_end {
            break;
        }
        same(&*identity, "/test 1")?;
        copies += 1;
    }
    same(copies, expected)
}

async fn a_lost_confirm_is_unknown_and_publishing_again_is_the_same_message(place: &dyn Place) -> Outcome {
    let (transport, topic) = (place.transport().await, topic("unknown"));
    let mut receiver = transport.join(&topic, &label("billing")).await?;
    published(&*transport, &topic, message("a", "1")).await?;
    let until = place.env().mono() + PATIENCE;
    loop {
        if !place.lose_answers() {
            // The next best: nobody waits for the answer.
            drop(place.env().timeout(Duration::ZERO, transport.publish(&topic, vec![message("a", "2")])).await);
            break;
        }
        let lost = published(&*transport, &topic, message("a", "2")).await;
        place.mend();
        match lost {
            Err(PublishError::Unknown { .. }) => break,
            // The answer to another question was lost, before anything was sent.
            Err(PublishError::Unavailable { .. }) if place.env().mono() < until => {
                published_at_last(place, &*transport, &topic, message("a", "1")).await?;
            }
            other => return Err(format!("a lost confirm is unknown, not {other:?}").into()),
        }
    }
    published_at_last(place, &*transport, &topic, message("a", "2")).await?;
    published_at_last(place, &*transport, &topic, message("a", "3")).await?;
    let mut firsts = Vec::new();
    while firsts.len() < 3 {
        let delivery = next(place, &mut *receiver).await?;
        if !firsts.contains(&delivery.message.identity) {
            firsts.push(delivery.message.identity.clone());
        }
        // A connection that broke takes its holds with it: it comes once more.
        let _told = delivery.ack().await;
    }
    same(firsts.iter().map(|identity| &**identity).collect(), vec!["/test 1", "/test 2", "/test 3"])
}

async fn what_was_confirmed_outlives_the_broker_in_order(place: &dyn Place) -> Outcome {
    let (transport, topic) = (place.transport().await, topic("outlives"));
    let mut receiver = transport.join(&topic, &label("billing")).await?;
    let ids: Vec<String> = (0..20).map(|n| n.to_string()).collect();
    for id in &ids {
        published(&*transport, &topic, message("a", id)).await?;
    }
    for id in &ids[..5] {
        let delivery = next(place, &mut *receiver).await?;
        same(&*delivery.message.event.id, id.as_str())?;
        delivery.ack().await?;
    }
    let held = next(place, &mut *receiver).await?;
    place.kill().await;
    drop((held, receiver, transport));
    place.start().await;
    let transport = place.transport().await;
    let mut receiver = joined_at_last(place, &*transport, &topic).await?;
    let (mut seen, mut order) = (BTreeSet::new(), Vec::new());
    while order.last() != ids.last() {
        let delivery = next(place, &mut *receiver).await?;
        let id = delivery.message.event.id.to_string();
        delivery.ack().await?;
        if seen.insert(id.clone()) {
            order.push(id);
        }
    }
    // What was acknowledged a moment before the end may come once more, and first.
    let from = order.first().and_then(|first| ids.iter().position(|id| id == first)).unwrap_or(ids.len());
    holds(from <= 5, "what was not acknowledged comes again")?;
    same(order, ids[from..].to_vec())
}

async fn joined_at_last(
    place: &dyn Place,
    transport: &dyn Transport,
    topic: &Topic,
) -> Result<Box<dyn Receiver>, Box<dyn std::error::Error + Send + Sync>> {
    let until = place.env().mono() + PATIENCE;
    loop {
        match transport.join(topic, &label("billing")).await {
            Ok(receiver) => return Ok(receiver),
            Err(failed) if place.env().mono() > until => return Err(failed.into()),
            Err(_) => place.env().sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn a_client_goes_on_when_its_broker_is_back(place: &dyn Place) -> Outcome {
    if !place.outlives() {
        return Ok(());
    }
    let (transport, topic) = (place.transport().await, topic("back"));
    let mut receiver = transport.join(&topic, &label("billing")).await?;
    published(&*transport, &topic, message("a", "1")).await?;
    let delivery = next(place, &mut *receiver).await?;
    delivery.ack().await?;
    place.kill().await;
    let away = published(&*transport, &topic, message("a", "2")).await;
    let told = matches!(away, Err(PublishError::Unavailable { .. } | PublishError::Unknown { .. }));
    holds(told, &format!("a broker that is away is told of, not {away:?}"))?;
    place.start().await;
    published_at_last(place, &*transport, &topic, message("a", "2")).await?;
    loop {
        let delivery = next(place, &mut *receiver).await?;
        let id = delivery.message.event.id.clone();
        let _told = delivery.ack().await;
        if &*id == "2" {
            return Ok(());
        }
        same(&*id, "1")?;
    }
}
