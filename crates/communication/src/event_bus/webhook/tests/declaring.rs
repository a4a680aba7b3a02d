use std::time::Duration;

use quorate_data::{event::Position, store::Query, subscription::Start};

use super::world::{Does, World, first_arrivals, name};
use crate::event_bus::webhook::{
    Attempt, Config, Secret, WebhookError,
    rows::{self, Head},
    secret::Keyring,
};

#[tokio::test(flavor = "multi_thread")]
async fn declaring_again_changes_nothing_and_a_secret_is_told_once() {
    let world = World::new().await;
    let config = Config::to("http://127.0.0.1:9/x");
    let first = world.webhooks.declare(&name("w"), config.clone(), None).await.unwrap();
    assert!(first.is_new && first.secret.is_some());
    let again = world.webhooks.declare(&name("w"), config.clone(), first.secret.clone()).await.unwrap();
    assert!(!again.is_new && again.secret.is_none());
    let other: Secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse().unwrap();
    let refused = world.webhooks.declare(&name("w"), config.clone(), Some(other.clone())).await.unwrap_err();
    assert!(matches!(refused, WebhookError::Invalid { .. }), "{refused:?}");
    let given = world.webhooks.declare(&name("v"), config, Some(other.clone())).await.unwrap();
    assert!(given.secret.is_none(), "whoever gave it knows it");
    assert_eq!(given.description.signers[0].fingerprint, other.fingerprint());
    let names: Vec<String> =
        world.webhooks.list(None, 10).await.unwrap().iter().map(|one| one.name.to_string()).collect();
    assert_eq!(names, ["v", "w"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_can_be_changed_while_it_runs_and_what_the_subscription_is_cannot() {
    let world = World::new().await;
    let (old, new) = (world.receiver(|_, _| Does::Answer(500)).await, world.receiver(|_, _| Does::Answer(200)).await);
    world.declare(old.config()).await;
    world.append(&["a", "a"]).await;
    world.run();
    old.until(1).await;
    world.webhooks.declare(&name("w"), new.config(), None).await.unwrap();
    world.until_settled().await;
    assert_eq!(first_arrivals(&new.got())["a"], [1, 2]);

    let config = new.config();
    for (field, changed) in [
        ("start", Config { start: Start::End, ..config.clone() }),
        ("filter", Config { filter: Query::of([quorate_data::store::QueryItem::types(["x"])]), ..config.clone() }),
        ("max-attempts", Config { max_attempts: 3, ..config.clone() }),
        ("timeout", Config { timeout: config.timeout + Duration::from_secs(1), ..config.clone() }),
    ] {
        let refused = world.webhooks.declare(&name("w"), changed, None).await.unwrap_err();
        assert!(matches!(refused, WebhookError::Fixed { field: told, .. } if told == field), "{field}: {refused:?}");
    }
    assert_eq!(world.describe().await.summary.config, config);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_webhook_leaves_nothing_and_one_of_its_name_begins_anew() {
    let world = World::new().await;
    let receiver = world.receiver(|_, _| Does::Answer(200)).await;
    world.declare(receiver.config()).await;
    world.run();
    world.append(&["a"]).await;
    world.until_settled().await;
    world.webhooks.delete(&name("w")).await.unwrap();
    let gone = world.webhooks.describe(&name("w")).await.unwrap_err();
    assert!(matches!(gone, WebhookError::NotFound { .. }), "{gone:?}");
    assert_eq!(world.subscriptions.list(None, 10).await.unwrap().len(), 0);
    for table in ["quorate_webhook", "quorate_webhook_attempt"] {
        let left = world.store.room_query(&format!("SELECT 1 FROM {table}"), Vec::new()).await.unwrap();
        assert!(left.is_empty(), "{table}");
    }
    world.declare(receiver.config()).await;
    receiver.until(2).await;
    world.until_settled().await;
    assert_eq!(first_arrivals(&receiver.got())["a"], [1]);
    assert_eq!(world.attempts().await.len(), 1);
}

fn row(config: Config) -> Head {
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse().unwrap();
    Head::new(7, name("w"), config, Keyring::of(secret))
}

async fn put(world: &World, head: Head) {
    let inserted = world.store.transact(move |tx| {
        let head = head.clone();
        Box::pin(async move { Ok::<_, WebhookError>(rows::insert(tx, &head).await?) })
    });
    assert!(inserted.await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_crash_left_of_a_declaration_is_finished_by_whoever_runs_them() {
    let world = World::new().await;
    let receiver = world.receiver(|_, _| Does::Answer(200)).await;
    put(&world, row(receiver.config())).await;
    world.append(&["a"]).await;
    assert!(world.describe().await.subscription.is_none());
    world.run();
    world.until_settled().await;
    assert_eq!(first_arrivals(&receiver.got())["a"], [1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_crash_left_of_a_deletion_is_finished_and_sends_nothing() {
    for subscribed in [true, false] {
        let world = World::new().await;
        let receiver = world.receiver(|_, _| Does::Answer(200)).await;
        world.declare(receiver.config()).await;
        world.append(&["a"]).await;
        let found = rows::find(&world.store, &name("w")).await.unwrap().unwrap();
        let head = found.clone();
        let marked = Head { is_deleting: true, revision: found.revision + 1, ..found };
        let written = world.store.transact(move |tx| {
            let head = marked.clone();
            Box::pin(async move { Ok::<_, WebhookError>(rows::update(tx, &head).await?) })
        });
        assert!(written.await.unwrap());
        if !subscribed {
            world.subscriptions.delete(&head.subscription().unwrap()).await.unwrap();
        }
        let world = world.restart().await;
        world.run();
        let waiting = async {
            while rows::find(&world.store, &name("w")).await.unwrap().is_some() {
                world.env().sleep(Duration::from_millis(5)).await;
            }
        };
        assert!(world.env().timeout(Duration::from_secs(20), waiting).await.is_some());
        assert!(receiver.got().is_empty());
        assert_eq!(world.subscriptions.list(None, 10).await.unwrap().len(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_whose_subscription_somebody_deleted_is_disabled_and_does_not_begin_anew() {
    let world = World::new().await;
    let receiver = world.receiver(|_, _| Does::Answer(200)).await;
    world.declare(receiver.config()).await;
    world.run();
    world.append(&["a"]).await;
    world.until_settled().await;
    let head = rows::find(&world.store, &name("w")).await.unwrap().unwrap();
    world.subscriptions.delete(&head.subscription().unwrap()).await.unwrap();
    world.append(&["a"]).await;
    let standing = world.until(|standing| standing.summary.disabled.is_some()).await;
    assert!(standing.summary.disabled.unwrap().why.contains("its subscription was deleted"));
    assert!(standing.subscription.is_none() && receiver.got().len() == 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_deletion_takes_nothing_from_the_next_webhook_of_the_name() {
    let world = World::new().await;
    let receiver = world.receiver(|_, _| Does::Answer(200)).await;
    world.declare(receiver.config()).await;
    let first = rows::find(&world.store, &name("w")).await.unwrap().unwrap();
    world.webhooks.delete(&name("w")).await.unwrap();
    world.declare(receiver.config()).await;
    // Somebody who had read the first one's row goes on with deleting it, and with making it.
    world.webhooks.clear(&first).await.unwrap();
    let late = world.webhooks.complete(Head { revision: 0, ..first.clone() }).await;
    assert!(matches!(late, Err(WebhookError::NotFound { .. })), "{late:?}");
    assert_eq!(world.subscriptions.list(None, 10).await.unwrap().len(), 1, "nothing is left of the first one");
    world.append(&["a"]).await;
    world.run();
    world.until_settled().await;
    assert_eq!(first_arrivals(&receiver.got())["a"], [1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_last_attempts_are_kept_whatever_gaps_their_numbers_have() {
    for (step, first) in [(1, 1), (3, 5), (rows::STRIDE, 5), (rows::STRIDE, 16), (5 * rows::STRIDE, 7)] {
        only_the_last_attempts_are_kept((step, first)).await;
    }
}

async fn only_the_last_attempts_are_kept((step, first): (u64, u64)) {
    let world = World::new().await;
    put(&world, row(Config::to("http://127.0.0.1:9/"))).await;
    // Numbers with gaps, as refusals and other processes leave them.
    let number = move |n: u64| first + n * step;
    let count = rows::KEPT + 100;
    for chunk in (0..count).collect::<Vec<_>>().chunks(100).map(<[u64]>::to_vec) {
        let began = world.env().wall();
        let written = world.store.transact(move |tx| {
            let chunk = chunk.clone();
            Box::pin(async move {
                for n in chunk {
                    let attempt = Attempt {
                        number: number(n),
                        position: Position::new(n),
                        message: "msg_1".into(),
                        kind: "t".into(),
                        attempt: 1,
                        began,
                        took: Duration::ZERO,
                        status: None,
                        outcome: "x".into(),
                    };
                    assert!(rows::record(tx, 7, &attempt).await?);
                }
                Ok::<_, WebhookError>(())
            })
        });
        written.await.unwrap();
    }
    let kept = world.store.room_query("SELECT count(*) FROM quorate_webhook_attempt", Vec::new()).await.unwrap();
    let kept = kept[0].at(0).as_i64().unwrap().unsigned_abs();
    assert!((rows::KEPT..rows::KEPT + rows::STRIDE).contains(&kept), "{kept} of steps of {step}");
    let numbers: Vec<u64> = world.attempts().await.iter().map(|one| one.number).collect();
    let expected: Vec<u64> = (count - rows::KEPT..count).map(number).collect();
    assert_eq!(numbers, expected);
    let page = world.webhooks.attempts(&name("w"), number(count - 1), 1).await.unwrap();
    assert_eq!(page[0].number, number(count - 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_whose_row_is_damaged_does_not_keep_the_others_from_being_served() {
    let world = World::new().await;
    let receiver = world.receiver(|_, _| Does::Answer(200)).await;
    world.webhooks.declare(&name("a"), receiver.config(), None).await.unwrap();
    world.declare(receiver.config()).await;
    let damaged = world.store.transact(|tx| {
        Box::pin(async move { tx.room_execute("UPDATE quorate_webhook SET config = '?' WHERE name = 'a'", &[]).await })
    });
    assert_eq!(damaged.await.unwrap(), 1);
    world.append(&["s"]).await;
    world.run();
    world.until_settled().await;
    assert_eq!(first_arrivals(&receiver.got())["s"], [1]);
}
