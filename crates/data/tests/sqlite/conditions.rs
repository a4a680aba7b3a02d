//! Conditions of appends that look at much of the log: before the writer's turn, and no more than all of them may together.

use std::time::Duration;

use quorate_data::{
    event::{NewEvent, Position},
    store::{
        AppendBatch, AppendError, CheckedBatch, ExpectedVersion, Limits, Query, QueryItem, ReadStream, Store,
        TransactError, sqlite,
    },
};
use quorate_runtime::Env;

/// A store whose index holds 20,000 events of type `a` in category `busy`.
async fn crowded(folder: &tempfile::TempDir) -> Store {
    // Looks are to be what runs out, however slow the machine is.
    let limits = Limits { unit_time: Duration::from_secs(60), ..Limits::default() };
    let config = sqlite::Config { limits, ..sqlite::Config::at(folder.path().join("log.db")) };
    let store = sqlite::open(&Env::real(), config).await.unwrap();
    for batch in 0..2 {
        let event = |n: usize| NewEvent::new(format!("{batch}-{n}"), "/test", "a");
        let events = (0..10_000).map(event).collect();
        let batch = AppendBatch::to("busy-1".parse().unwrap(), ExpectedVersion::Any, events);
        store.append(batch).await.unwrap();
    }
    store
}

/// Each of its conditions looks at every event, in vain.
fn in_vain(id: &str, conditions: usize) -> AppendBatch {
    let event = NewEvent::new(id.to_owned(), "/test", "b");
    let batch = AppendBatch::to("lonely-1".parse().unwrap(), ExpectedVersion::Any, vec![event]);
    let item = QueryItem { categories: vec!["quiet".into()], ..QueryItem::types(["a"]) };
    (0..conditions).fold(batch, |batch, _| batch.if_none_match(Query::of([item.clone()]), Position::ZERO))
}

fn refusal(failed: &AppendError) -> String {
    let AppendError::Malformed { what } = failed else { panic!("{failed:?}") };
    what.clone()
}

#[tokio::test]
async fn all_conditions_of_an_append_share_what_they_may_look_at() {
    let folder = tempfile::tempdir().unwrap();
    let store = crowded(&folder).await;
    store.append(in_vain("three", 3)).await.unwrap();
    let refused = refusal(&store.append(in_vain("hundred", 100)).await.unwrap_err());
    assert!(refused.contains("more than 200000 events") && refused.contains("name a tag"), "{refused}");
    // Whoever comes after it is served, and nothing of it was written.
    let page = store.read_stream(ReadStream::forward("lonely-1".parse().unwrap(), 10)).await.unwrap();
    assert_eq!(page.events.len(), 1);
    store.append(in_vain("none", 0)).await.unwrap();
}

#[tokio::test]
async fn what_is_known_is_answered_as_the_first_time_whatever_its_conditions_would_look_at() {
    let folder = tempfile::tempdir().unwrap();
    let store = crowded(&folder).await;
    let first = store.append(in_vain("once", 1)).await.unwrap();
    let again = store.append(in_vain("once", 100)).await.unwrap();
    assert!(again.repeated);
    assert_eq!(again.versions, first.versions);
}

#[tokio::test]
async fn the_writer_looks_only_at_what_came_since_a_batch_was_checked() {
    let folder = tempfile::tempdir().unwrap();
    let store = crowded(&folder).await;
    let appending = |batch: Result<AppendBatch, CheckedBatch>| {
        store.transact(move |tx| {
            let batch = batch.clone();
            Box::pin(async move {
                match batch {
                    Ok(plain) => tx.append_batch(plain).await,
                    Err(checked) => tx.append_checked(checked).await,
                }
            })
        })
    };
    // More than the writer looks at, less than others do.
    let unchecked = appending(Ok(in_vain("unchecked", 3))).await;
    let Err(TransactError::Aborted(refused)) = unchecked else { panic!("{unchecked:?}") };
    assert!(refusal(&refused).contains("more than 50000 events"), "{refused}");
    let checked = store.check(in_vain("checked", 3)).await;
    appending(Err(checked)).await.unwrap();
}

#[tokio::test]
async fn an_event_that_comes_after_a_batch_was_checked_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let store = crowded(&folder).await;
    let checked = store.check(in_vain("late", 2)).await;
    let event = NewEvent::new("between", "/test", "a");
    let between = AppendBatch::to("quiet-1".parse().unwrap(), ExpectedVersion::Any, vec![event]);
    let between = store.append(between).await.unwrap();
    let late = store.transact(move |tx| {
        let checked = checked.clone();
        Box::pin(async move { tx.append_checked(checked).await })
    });
    let late = late.await;
    let Err(TransactError::Aborted(AppendError::ConditionFailed { condition: 0, position })) = late else {
        panic!("{late:?}")
    };
    assert_eq!(position.get(), between.token.append());
}

#[tokio::test]
async fn conditions_name_no_more_words_than_the_limit_together() {
    let folder = tempfile::tempdir().unwrap();
    let store = sqlite::open(&Env::real(), sqlite::Config::at(folder.path().join("log.db"))).await.unwrap();
    let items = (0..100).map(|n| QueryItem::types((0..51).map(move |word| format!("{n}-{word}"))));
    let query = Query::of(items);
    let batch = in_vain("wordy", 0).if_none_match(query.clone(), Position::ZERO);
    store.append(batch.clone()).await.unwrap();
    let refused = refusal(&store.append(batch.if_none_match(query, Position::ZERO)).await.unwrap_err());
    assert!(refused.contains("at most 10000") && refused.contains("names 10200"), "{refused}");
}
