//! A participant's barrier, in its own transaction.

use std::time::Duration;

use quorate_data::store::Store;
use serde_json::{Value, json};

use super::world::{World, effects, note};
use crate::saga::{
    Barrier,
    Direction::{self, Compensation, Forward},
    Entered, SagaError,
};

/// Calls in order with what each is, and what they leave.
type Course<'a> = (&'a [(Direction, Entered)], &'a [&'a str]);

/// Serves a call, and says what it was.
async fn serve(store: &Store, barrier: &Barrier, direction: Direction) -> Entered {
    let barrier = barrier.clone();
    let served = store.transact(move |tx| {
        let barrier = barrier.clone();
        Box::pin(async move {
            let entered = barrier.enter(tx, "order/1/a", direction).await?;
            if entered == Entered::Go {
                note(tx, direction.word().to_owned()).await?;
                barrier.keep(tx, "order/1/a", direction, &json!(direction.word())).await?;
            }
            Ok::<_, SagaError>(entered)
        })
    });
    served.await.unwrap()
}

#[tokio::test]
async fn duplicates_null_compensations_and_calls_that_come_too_late_have_no_effect() {
    let known = |direction: Direction| Entered::Repeated(json!(direction.word()));
    let courses: [Course<'_>; 3] = [
        (&[(Forward, Entered::Go), (Forward, known(Forward))], &["forward"]),
        (
            &[
                (Forward, Entered::Go),
                (Compensation, Entered::Go),
                (Compensation, known(Compensation)),
                (Forward, known(Forward)),
            ],
            &["forward", "compensation"],
        ),
        (
            &[
                (Compensation, Entered::Nothing),
                (Forward, Entered::TooLate),
                (Compensation, Entered::Repeated(Value::Null)),
                (Forward, Entered::TooLate),
            ],
            &[],
        ),
    ];
    for (course, left) in courses {
        let world = World::of_this_machine();
        let store = world.store().await;
        let barrier = Barrier::open(&store).await.unwrap();
        for (direction, expected) in course {
            assert_eq!(&serve(&store, &barrier, *direction).await, expected);
        }
        assert_eq!(effects(&store).await, left);
    }
}

#[tokio::test]
async fn what_rolled_back_never_came_and_old_operations_are_forgotten() {
    let world = World::new();
    let store = world.store().await;
    let barrier = Barrier::open(&store).await.unwrap();
    let rolled_back = barrier.clone();
    let failed = store.transact(move |tx| {
        let barrier = rolled_back.clone();
        Box::pin(async move {
            assert_eq!(barrier.enter(tx, "order/1/a", Forward).await?, Entered::Go);
            Err::<(), _>(SagaError::invalid("no"))
        })
    });
    failed.await.unwrap_err();
    assert_eq!(serve(&store, &barrier, Forward).await, Entered::Go);
    world.pass(Duration::from_secs(60));
    assert_eq!(barrier.forget(Duration::from_secs(61), 10).await.unwrap(), 0);
    assert_eq!(barrier.forget(Duration::from_secs(59), 10).await.unwrap(), 1);
    assert_eq!(serve(&store, &barrier, Forward).await, Entered::Go);
}
