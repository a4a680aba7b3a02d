use std::time::Duration;

use quorate_data::{
    event::Position,
    subscription::{Cause, Selection},
};
use quorate_resilience::circuit_breaker::State;

use super::world::{Does, World, first_arrivals, name};
use crate::event_bus::webhook::{Allowed, Attempt, Config, WebhookError, rows};

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_comes_again_under_the_same_id_before_what_follows_it_and_others_go_on() {
    let world = World::new().await;
    let receiver = world.receiver(|got, n| Does::Answer(if got.is_of("a") && n <= 6 { 503 } else { 200 })).await;
    world.declare(receiver.config()).await;
    world.append(&["a", "b", "a", "b", "b", "b"]).await;
    world.run();
    world.until_settled().await;
    let got = receiver.got();
    let arrivals = first_arrivals(&got);
    assert_eq!((&arrivals["a"], &arrivals["b"]), (&vec![1, 2], &vec![1, 2, 3, 4]));
    let of_first: Vec<String> = got.iter().filter(|one| one.place() == ("a".into(), 1)).map(|one| one.id()).collect();
    assert!(of_first.len() > 1 && of_first.iter().all(|id| *id == of_first[0]), "{of_first:?}");
    let attempts = world.attempts().await;
    let numbers: Vec<u32> = attempts.iter().filter(|one| one.message == of_first[0]).map(|one| one.attempt).collect();
    assert_eq!(numbers, (1..=u32::try_from(of_first.len()).unwrap()).collect::<Vec<_>>());
    assert!(world.describe().await.summary.failing.is_none(), "success ends it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poisonous_event_is_parked_with_its_key_and_its_history_and_replayed_in_order() {
    let world = World::new().await;
    let receiver =
        world.receiver(|got, _| if got.is_of("a") { Does::Say(422, "no such sku") } else { Does::Answer(200) }).await;
    world.declare(Config { max_attempts: 2, ..receiver.config() }).await;
    world.append(&["a", "b", "a", "b"]).await;
    world.run();
    let standing = world.until_settled().await;
    assert_eq!(standing.subscription.unwrap().counts.parked, 2);
    assert_eq!(first_arrivals(&receiver.got())["b"], [1, 2]);
    let parked = world.webhooks.parked(&name("w"), Position::ZERO, 10).await.unwrap();
    let told: Vec<_> = parked.iter().map(|one| (&*one.key, one.attempts, one.failures.last().unwrap().cause)).collect();
    assert_eq!(told, [("a", 2, Cause::Nacked), ("a", 0, Cause::Behind)]);
    assert!(parked[0].failures[0].reason.ends_with("422 Unprocessable Entity: no such sku"), "{parked:?}");
    assert_eq!(receiver.got().iter().filter(|one| one.is_of("a")).count(), 2);

    receiver.answer(|_, _| Does::Answer(200));
    assert_eq!(world.webhooks.replay(&name("w"), Selection::Key("a".into())).await.unwrap(), 2);
    let got = receiver.until(6).await;
    assert_eq!(got[4..].iter().map(|one| one.place().1).collect::<Vec<_>>(), [1, 2]);
    world.until(|standing| standing.subscription.as_ref().is_some_and(|fed| fed.counts == Default::default())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_is_gone_is_disabled_and_goes_on_where_it_was_when_it_is_enabled() {
    let world = World::new().await;
    let receiver = world.receiver(|_, n| Does::Answer(if n == 1 { 200 } else { 410 })).await;
    world.declare(Config { places: 1, ..receiver.config() }).await;
    world.append(&["a", "a", "b"]).await;
    world.run();
    let standing = world.until(|standing| standing.summary.disabled.is_some()).await;
    assert!(standing.summary.disabled.unwrap().why.contains("410"));
    world.append(&["c"]).await;
    let world = world.restart().await;
    world.run();
    world.env().sleep(Duration::from_millis(300)).await;
    assert_eq!(receiver.got().len(), 2, "nothing is sent meanwhile, also not by another process");
    receiver.answer(|_, _| Does::Answer(200));
    world.webhooks.enable(&name("w")).await.unwrap();
    world.until_settled().await;
    let arrivals = first_arrivals(&receiver.got());
    assert_eq!((&arrivals["a"], &arrivals["b"], &arrivals["c"]), (&vec![1, 2], &vec![1], &vec![1]));
    let second: Vec<u32> =
        world.attempts().await.iter().filter(|one| one.position == Position::new(2)).map(|one| one.attempt).collect();
    assert_eq!(second, [1, 1], "an event costs no attempt where the endpoint is gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_takes_nothing_for_too_long_is_disabled_and_says_why() {
    let world = World::new().await;
    let receiver = world.receiver(|_, _| Does::Answer(500)).await;
    let config = Config { disable_after: Duration::from_secs(1), max_attempts: 1_000, ..receiver.config() };
    world.declare(config).await;
    world.append(&["a", "b"]).await;
    world.run();
    let standing = world.until(|standing| standing.summary.disabled.is_some()).await;
    let why = standing.summary.disabled.unwrap().why;
    assert!(why.contains("500 Internal Server Error"), "{why}");
    assert!(standing.summary.failing.is_some());
    assert_eq!(standing.subscription.unwrap().counts.parked, 0, "its events wait");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_others_reach_is_not_disabled_by_a_process_that_does_not() {
    let world = World::new().await;
    let receiver = world.receiver(|got, _| Does::Answer(if got.is_of("well") { 200 } else { 500 })).await;
    let config = Config { disable_after: Duration::from_secs(1), max_attempts: 1_000, ..receiver.config() };
    world.declare(config).await;
    world.append(&["ill"]).await;
    world.run();
    world.until(|standing| standing.summary.failing.is_some()).await;
    // Another process reaches it meanwhile: that is in the list of attempts, and not in this one's memory.
    let head = rows::find(&world.store, &name("w")).await.unwrap().unwrap();
    let reached = world.env().wall();
    let taken = Attempt {
        number: 1_000_000,
        position: Position::new(1),
        message: "msg_1".into(),
        kind: "t".into(),
        attempt: 1,
        began: reached,
        took: Duration::ZERO,
        status: Some(204),
        outcome: "delivered".into(),
    };
    let written = world.store.transact(move |tx| {
        let taken = taken.clone();
        Box::pin(async move {
            rows::recovered(tx, (head.id, head.revision)).await?;
            Ok::<_, WebhookError>(rows::record(tx, head.id, &taken).await?)
        })
    });
    assert!(written.await.unwrap());
    // This one goes on to fail, by its own count for longer than it may; then it learns of that, and counts anew from there.
    // One that is disabled for what was before it was reached never comes to that.
    world.until(|standing| standing.summary.failing.is_some_and(|since| since > reached)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_breaker_is_open_nothing_is_sent_and_no_event_loses_an_attempt() {
    let world = World::new().await;
    // As many as open the breaker, and the first probe.
    let receiver = world.receiver(|_, n| Does::Answer(if n <= 8 { 500 } else { 200 })).await;
    world.declare(Config { places: 1, max_attempts: 9, ..receiver.config() }).await;
    let streams: Vec<String> = (0..20).map(|n| format!("s{n}")).collect();
    world.append(&streams.iter().map(String::as_str).collect::<Vec<_>>()).await;
    world.run();
    world.until(|standing| standing.breaker.is_some_and(|breaker| breaker.state == State::Open)).await;
    let standing = world.until_settled().await;
    assert_eq!(standing.subscription.unwrap().counts.parked, 0);
    assert_eq!(receiver.got().len(), 28, "eight failed, and each event was taken once");
    let mut counted = std::collections::BTreeMap::<String, u32>::new();
    for one in world.attempts().await {
        let before = counted.entry(one.message).or_default();
        assert_eq!(one.attempt, *before + 1, "an attempt is one that was sent");
        *before += 1;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_asks_for_time_is_left_alone_for_so_long() {
    let world = World::new().await;
    let receiver = world.receiver(|_, n| if n == 1 { Does::Ask(429, 1) } else { Does::Answer(200) }).await;
    world.declare(Config { places: 1, ..receiver.config() }).await;
    world.append(&["a", "b"]).await;
    world.run();
    world.until_settled().await;
    let attempts = world.attempts().await;
    assert_eq!(attempts.len(), 3);
    let rest = attempts[1].began.saturating_since(attempts[0].began);
    assert!(rest >= Duration::from_secs(1), "{rest:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_never_answers_is_unknown_and_sent_it_again() {
    let world = World::new().await;
    let receiver = world.receiver(|_, n| if n == 1 { Does::Nothing } else { Does::Answer(200) }).await;
    world.declare(Config { timeout: Duration::from_millis(100), ..receiver.config() }).await;
    world.append(&["a"]).await;
    world.run();
    world.until_settled().await;
    let (got, attempts) = (receiver.got(), world.attempts().await);
    assert_eq!((got.len(), got[0].id()), (2, got[1].id()));
    assert!(attempts[0].outcome.contains("no answer within") && attempts[0].status.is_none(), "{attempts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_name_and_no_redirection_leads_to_an_address_that_may_not_be_called() {
    let world = World::with(Allowed::public()).await;
    let receiver = world.receiver(|_, _| Does::Answer(200)).await;
    let refused = world.webhooks.declare(&name("w"), receiver.config(), None).await.unwrap_err();
    assert!(quorate_told(&refused).contains("127.0.0.1 is a loopback address"), "{refused:?}");
    world.declare(Config { url: receiver.url("evil.example"), max_attempts: 1, ..receiver.config() }).await;
    world.append(&["a"]).await;
    world.run();
    world.until_settled().await;
    let attempts = world.attempts().await;
    assert!(attempts[0].outcome.contains("127.0.0.1 is a loopback address"), "{attempts:?}");
    assert!(receiver.got().is_empty());

    // Who may be called sends us on to somebody who may not.
    let address = std::net::IpAddr::from([127, 0, 0, 1]);
    let world = World::with(Allowed::also(move |asked| asked == address)).await;
    let inside = world.receiver(|_, _| Does::Answer(200)).await;
    let to = inside.url("127.0.0.1");
    let outside = world.receiver(move |_, _| Does::Redirect(to.clone())).await;
    world.declare(Config { max_attempts: 1, ..outside.config() }).await;
    world.append(&["a"]).await;
    world.run();
    world.until_settled().await;
    assert!(world.attempts().await[0].outcome.contains("redirections are not followed"));
    assert!(inside.got().is_empty());
}

fn quorate_told(error: &(dyn std::error::Error + 'static)) -> String {
    std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_rests_holds_up_others_only_beyond_the_window_and_that_is_seen() {
    let world = World::new().await;
    let receiver = world.receiver(|got, _| Does::Answer(if got.is_of("ill") { 500 } else { 200 })).await;
    let backoff = quorate_data::subscription::Backoff { first: Duration::from_secs(60), max: Duration::from_secs(60) };
    world.declare(Config { window: 3, backoff, ..receiver.config() }).await;
    world.append(&["ill", "a", "b", "c", "d"]).await;
    world.run();
    receiver.until(3).await;
    world
        .until(|standing| {
            standing.subscription.as_ref().is_some_and(|fed| fed.stall.is_some() && fed.counts.resting == 1)
        })
        .await;
    let arrivals = first_arrivals(&receiver.got());
    assert!(arrivals.contains_key("a") && arrivals.contains_key("b") && !arrivals.contains_key("d"), "{arrivals:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_under_way_while_the_endpoint_changes_does_not_leave_it_failing() {
    let world = World::new().await;
    let receiver = world.receiver(|_, n| if n == 1 { Does::Nothing } else { Does::Answer(200) }).await;
    world.declare(Config { timeout: Duration::from_millis(300), ..receiver.config() }).await;
    world.append(&["a"]).await;
    world.run();
    receiver.until(1).await;
    world.webhooks.rotate(&name("w"), None, Duration::ZERO).await.unwrap();
    world.until_settled().await;
    world.until(|standing| standing.summary.failing.is_none()).await;
    assert_eq!(receiver.got().len(), 2);
}
