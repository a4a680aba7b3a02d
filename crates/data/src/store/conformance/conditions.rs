//! Conditional appends: a decision made on a query holds only if nothing new matches it (DCB).

use futures_util::future::join_all;

use super::{
    super::{AppendBatch, AppendError, Appended, ExpectedVersion, Limits, Query, QueryItem, Store},
    Outcome, Place,
    vocabulary::{append, events, stream, tagged, whole_log},
};
use crate::event::Position;

async fn append_if(store: &Store, id: &str, query: Query, after: u64) -> Result<Appended, AppendError> {
    let event = tagged(id, "decided", &[&format!("decision:{id}")]);
    let batch = AppendBatch::to(stream("decisions"), ExpectedVersion::Any, vec![event]);
    store.append(batch.if_none_match(query, Position::new(after))).await
}

/// Three events: types a, b, a; tags x, x+y, y; categories one, two, two.
async fn three(store: &Store) -> Result<(), AppendError> {
    append(store, "one-1", vec![tagged("1", "a", &["x"])]).await?;
    append(store, "two-1", vec![tagged("2", "b", &["x", "y"])]).await?;
    append(store, "two-2", vec![tagged("3", "a", &["y"])]).await.map(|_| ())
}

/// Queries over those events, and the positions that match.
fn queries() -> Vec<(Query, Vec<u64>)> {
    let categories = |words: &[&str]| QueryItem::categories(words.iter().copied());
    let both = QueryItem { categories: vec!["two".into()], ..QueryItem::types(["a"]) };
    vec![
        (Query::EVERYTHING, vec![1, 2, 3]),
        (Query::of([QueryItem::types(["a"])]), vec![1, 3]),
        (Query::of([QueryItem::types(["b", "c"])]), vec![2]),
        (Query::of([QueryItem::types(["c"])]), vec![]),
        (Query::of([QueryItem::tags(["x"])]), vec![1, 2]),
        (Query::of([QueryItem::tags(["x", "y"])]), vec![2]),
        (Query::of([QueryItem::tags(["x", "z"])]), vec![]),
        (Query::of([QueryItem::types(["a"]).tagged(["y"])]), vec![3]),
        (Query::of([categories(&["two"])]), vec![2, 3]),
        (Query::of([categories(&["one", "three"])]), vec![1]),
        (Query::of([both]), vec![3]),
        (Query::of([QueryItem::types(["b"]), categories(&["one"])]), vec![1, 2]),
    ]
}

/// Tries every query behind every position; none of the refused appends leaves anything behind.
async fn try_all(store: &Store, round: &str) -> Result<(), AppendError> {
    for (n, (query, matching)) in queries().into_iter().enumerate() {
        for after in 0..=3_u64 {
            let holds = !matching.iter().any(|position| *position > after);
            if holds {
                continue;
            }
            match append_if(store, &format!("{round}-{n}-{after}"), query.clone(), after).await {
                Err(AppendError::ConditionFailed { condition: 0, position }) => {
                    let matches = query.is_everything() || matching.contains(&position.get());
                    assert!(
                        matches && position.get() > after,
                        "{query:?} behind {after}: position {position} does not match"
                    );
                }
                other => panic!("{query:?} behind {after} should fail: {other:?}"),
            }
        }
    }
    Ok(())
}

pub(super) async fn a_condition_sees_types_tags_and_categories(place: &dyn Place) -> Outcome {
    let store = place.open(Limits::default()).await;
    three(&store).await?;
    try_all(&store, "fresh").await?;
    assert_eq!(store.head().get(), 3);
    Ok(())
}

pub(super) async fn a_condition_looks_only_behind_its_position(place: &dyn Place) -> Outcome {
    let store = place.open(Limits::default()).await;
    three(&store).await?;
    for (n, (query, matching)) in queries().into_iter().enumerate() {
        // The decisions appended here match nothing but the query of everything.
        let everything = query.is_everything();
        let after = if everything { store.head().get() } else { matching.last().copied().unwrap_or(0) };
        append_if(&store, &format!("d-{n}"), query, after).await?;
    }
    Ok(())
}

pub(super) async fn a_condition_behind_the_end_of_the_log_is_refused(place: &dyn Place) -> Outcome {
    let store = place.open(Limits::default()).await;
    three(&store).await?;
    let end = store.head().get();
    for beyond in [end + 1, end + 1_000, i64::MAX as u64, i64::MAX as u64 + 1, u64::MAX - 1, u64::MAX] {
        for (n, (query, _)) in queries().into_iter().enumerate() {
            let refused = append_if(&store, &format!("beyond-{beyond}-{n}"), query, beyond).await;
            let Err(AppendError::Ahead { condition: 0, after, head }) = refused else {
                panic!("behind {beyond}, where there is nothing: {refused:?}");
            };
            assert_eq!((after.get(), head.get()), (beyond, end));
        }
    }
    // The end itself is no place ahead of it, and what is repeated is answered as the first time.
    let first = append_if(&store, "at-the-end", Query::EVERYTHING, end).await?;
    let again = append_if(&store, "at-the-end", Query::EVERYTHING, u64::MAX).await?;
    assert!(again.repeated && again.versions == first.versions);
    assert_eq!(store.head().get(), end + 1);
    Ok(())
}

pub(super) async fn a_condition_sees_old_events_as_well_as_new_ones(place: &dyn Place) -> Outcome {
    let store = place.open(Limits::default()).await;
    three(&store).await?;
    // Enough to push the first three out of whatever a store keeps at hand.
    for n in 0..9 {
        append(&store, "filler", events(&format!("filler-{n}"), 0..1_000)).await?;
    }
    try_all(&store, "pushed").await?;
    store.close().await?;
    let store = place.open(Limits::default()).await;
    try_all(&store, "reopened").await?;
    append(&store, "late-1", vec![tagged("4", "late", &["l", "late"])]).await?;
    let late = append_if(&store, "late", Query::of([QueryItem::tags(["late", "l"])]), 3).await;
    assert!(matches!(late, Err(AppendError::ConditionFailed { .. })), "{late:?}");
    place.crash(store).await;
    try_all(&place.open(Limits::default()).await, "crashed").await?;
    Ok(())
}

pub(super) async fn of_concurrent_overlapping_decisions_exactly_one_wins(place: &dyn Place) -> Outcome {
    let store = place.open(Limits::default()).await;
    for round in 0..20 {
        let seat = format!("seat:{round}");
        let after = store.head().get();
        let take = async |who: u64| {
            let taken = tagged(format!("{round}-{who}"), "seat.taken", &[&seat, &format!("guest:{who}")]);
            let batch = AppendBatch::to(stream(&format!("guest-{who}")), ExpectedVersion::Any, vec![taken]);
            let free = Query::of([QueryItem::types(["seat.taken"]).tagged([seat.as_str()])]);
            store.append(batch.if_none_match(free, Position::new(after))).await
        };
        let answers = join_all((0..8).map(take)).await;
        assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1, "{answers:?}");
        let refused = |e: &Result<_, _>| matches!(e, Ok(_) | Err(AppendError::ConditionFailed { .. }));
        assert!(answers.iter().all(refused), "{answers:?}");
    }
    assert_eq!(whole_log(&store).await?.len(), 20);
    Ok(())
}

pub(super) async fn disjoint_decisions_do_not_disturb_each_other(place: &dyn Place) -> Outcome {
    let store = place.open(Limits::default()).await;
    let take = async |seat: u64| {
        let seat = format!("seat:{seat}");
        let batch = AppendBatch::to(stream("hall"), ExpectedVersion::Any, vec![tagged(&seat, "taken", &[&seat])]);
        store.append(batch.if_none_match(Query::of([QueryItem::tags([seat])]), Position::ZERO)).await
    };
    for answer in join_all((0..32).map(take)).await {
        answer?;
    }
    assert_eq!(whole_log(&store).await?.len(), 32);
    Ok(())
}

pub(super) async fn any_of_several_conditions_can_refuse(place: &dyn Place) -> Outcome {
    let store = place.open(Limits::default()).await;
    three(&store).await?;
    let batch = || AppendBatch::to(stream("d"), ExpectedVersion::NoStream, vec![tagged("d", "d", &[])]);
    let (holds, fails) = (Query::of([QueryItem::types(["c"])]), Query::of([QueryItem::types(["b"])]));
    let refused = store
        .append(batch().if_none_match(holds.clone(), Position::ZERO).if_none_match(fails.clone(), Position::new(1)))
        .await;
    let second =
        |position| matches!(refused, Err(AppendError::ConditionFailed { condition: 1, position: p }) if p == position);
    assert!(second(Position::new(2)), "{refused:?}");
    store.append(batch().if_none_match(holds, Position::ZERO).if_none_match(fails, Position::new(2))).await?;
    Ok(())
}
