//! Reading the log by query.

use super::{
    super::{InvalidQuery, Limits, Query, QueryItem, ReadLog, StoreError, TransactError},
    Outcome, Place,
    vocabulary::{append, event, events, page, positions, tagged},
};

pub(super) async fn a_sparse_query_advances_beyond_what_it_skips(place: &dyn Place) -> Outcome {
    let store = place.open(Limits::default()).await;
    let rare = || Query::of([QueryItem::types(["rare"])]);
    append(&store, "s", vec![tagged("rare-1", "rare", &[])]).await?;
    for n in 0..12 {
        append(&store, "s", events(&format!("{n}"), 0..1_000)).await?;
    }
    append(&store, "s", vec![tagged("rare-2", "rare", &[])]).await?;
    append(&store, "s", events("last", 0..10)).await?;
    let head = store.head();
    for query in [rare(), Query::of([QueryItem::tags(["nowhere"])]), Query::of([QueryItem::categories(["c"])])] {
        let (mut after, mut found) = (0, Vec::new());
        for _ in 0..20 {
            let page = page(&store, query.clone(), after, 10).await?;
            assert!(page.scanned.get() > after, "a page advances until the end");
            found.extend(positions(&page.events));
            after = page.scanned.get();
            if page.scanned == page.head {
                break;
            }
        }
        assert_eq!(after, head.get(), "twenty pages suffice");
        let expected: &[u64] = if query == rare() { &[1, 12_002] } else { &[] };
        assert_eq!(found, expected);
    }
    Ok(())
}

pub(super) async fn a_query_of_many_words_finds_each_event_once(place: &dyn Place) -> Outcome {
    let store = place.open(Limits::default()).await;
    for n in 0..300_u64 {
        let tags = [format!("n:{}", n % 7), format!("m:{}", n % 11), "all".to_owned()];
        let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
        append(&store, &format!("c{}-{n}", n % 3), vec![tagged(n, &format!("t{}", n % 5), &tags)]).await?;
    }
    let items = (0..100).map(|n| QueryItem::types((0..100).map(|t| format!("t{}", t + n))).tagged(["all"]));
    let overlapping = Query::of(items);
    let look = async |store: &super::super::Store| {
        let found = page(store, overlapping.clone(), 0, 1_000).await?;
        assert_eq!(positions(&found.events), (1..=300).collect::<Vec<_>>());
        let few = Query::of([QueryItem::tags(["n:3", "m:5", "all"]).tagged(["n:3"])]);
        let found = page(store, few, 0, 1_000).await?;
        let expected: Vec<u64> = (0..300).filter(|n| n % 7 == 3 && n % 11 == 5).map(|n| n + 1).collect();
        assert_eq!(positions(&found.events), expected);
        Ok::<_, super::super::StoreError>(())
    };
    look(&store).await?;
    store.close().await?;
    Ok(look(&place.open(Limits::default()).await).await?)
}

pub(super) async fn a_query_that_breaks_a_rule_is_refused(place: &dyn Place) -> Outcome {
    let store = place.open(Limits::default()).await;
    append(&store, "s", events("e", 0..5)).await?;
    let words = |count: u64| (0..count).map(|n| format!("w{n}"));
    let too_large: fn(&InvalidQuery) -> bool = |cause| matches!(cause, InvalidQuery::TooLarge { count: 101 });
    let no_tag: fn(&InvalidQuery) -> bool = |cause| matches!(cause, InvalidQuery::Tag(_));
    let refused = [
        (Query::of(words(101).map(|word| QueryItem::types([word]))), too_large),
        (Query::of([QueryItem::types(words(101))]), too_large),
        (Query::of([QueryItem::categories(words(101))]), too_large),
        (Query::of([QueryItem::tags(["no tag"])]), no_tag),
    ];
    for (query, expected) in refused {
        let read = page(&store, query.clone(), 0, 10).await;
        assert!(matches!(&read, Err(StoreError::InvalidQuery(cause)) if expected(cause)), "{read:?}");
        let read = ReadLog { query, after: crate::event::Position::ZERO, limit: 10 };
        let inside = store.transact(move |tx| Box::pin(tx.read_log(read.clone()))).await;
        let refused =
            matches!(&inside, Err(TransactError::Aborted(StoreError::InvalidQuery(cause))) if expected(cause));
        assert!(refused, "{inside:?}");
    }
    assert_eq!(page(&store, Query::of([QueryItem::types(words(100))]), 0, 10).await?.scanned.get(), 5);
    Ok(())
}

pub(super) async fn reading_behind_the_end_waits_there(place: &dyn Place) -> Outcome {
    let store = place.open(Limits::default()).await;
    append(&store, "s", events("e", 0..5)).await?;
    for query in [Query::EVERYTHING, Query::of([QueryItem::types(["thing.happened"])])] {
        for after in [5, 6, 100, u64::MAX - 1, u64::MAX] {
            let page = page(&store, query.clone(), after, 10).await?;
            assert_eq!((page.events.len(), page.scanned.get(), page.head.get()), (0, after, 5));
        }
        let none = page(&store, query.clone(), 2, 0).await?;
        assert_eq!((none.events.len(), none.scanned.get()), (0, 2), "a page of nothing does not advance");
    }
    append(&store, "s", vec![event("late")]).await?;
    assert_eq!(positions(&page(&store, Query::EVERYTHING, 5, 10).await?.events), [6]);
    Ok(())
}
