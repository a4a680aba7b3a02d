//! Reading streams.

use super::{
    super::{Direction, Limits, ReadStream, Store, StoreError, StreamPage},
    Outcome, Place,
    vocabulary::{append, event, events, stream, version, versions},
};
use crate::event::Version;

/// Reads a page and compares it with what a stream of versions `1..=last` must give.
async fn look(store: &Store, name: &str, last: u64, read: ReadStream) -> Result<(), StoreError> {
    let StreamPage { events, head, next } = store.read_stream(read.clone()).await?;
    let wanted: Vec<u64> = match (read.direction, read.from.map(Version::get)) {
        (Direction::Forward, from) => (from.unwrap_or(1).max(1)..=last).collect(),
        (Direction::Backward, from) => (1..=from.unwrap_or(last).min(last)).rev().collect(),
    };
    let taken = &wanted[..wanted.len().min(read.limit)];
    assert_eq!(versions(&events), taken, "{read:?}");
    assert_eq!(next.map(Version::get), wanted.get(read.limit).copied(), "where the next page begins: {read:?}");
    assert!(events.iter().all(|event| event.stream() == name), "{read:?}");
    assert_eq!((head.version, head.first, head.tombstoned), (version(last), version(1), false));
    Ok(())
}

/// Reads from each of `froms` with each of `limits` in both directions.
async fn look_everywhere(
    store: &Store,
    name: &str,
    last: u64,
    froms: &[u64],
    limits: &[usize],
) -> Result<(), StoreError> {
    for limit in limits {
        for read in [ReadStream::forward(stream(name), *limit), ReadStream::backward(stream(name), *limit)] {
            look(store, name, last, read.clone()).await?;
            for from in froms {
                look(store, name, last, read.clone().from(version(*from))).await?;
            }
        }
    }
    Ok(())
}

pub(super) async fn a_small_stream_reads_from_anywhere_in_both_directions(place: &dyn Place) -> Outcome {
    let froms: Vec<u64> = (0..=9).chain([u64::MAX - 1, u64::MAX, i64::MAX as u64, i64::MAX as u64 + 1]).collect();
    let limits = [0, 1, 2, 5, 6, 7, 8, 100];
    let store = place.open(Limits::default()).await;
    append(&store, "small", events("e", 0..4)).await?;
    append(&store, "other", events("e", 0..4)).await?;
    append(&store, "small", events("e", 4..6)).await?;
    look_everywhere(&store, "small", 6, &froms, &limits).await?;
    place.crash(store).await;
    let store = place.open(Limits::default()).await;
    look_everywhere(&store, "small", 6, &froms, &limits).await?;
    store.close().await?;
    let store = place.open(Limits::default()).await;
    look_everywhere(&store, "small", 6, &froms, &limits).await?;
    // Now an older and a newer half.
    append(&store, "small", vec![event("late")]).await?;
    look_everywhere(&store, "small", 7, &froms, &limits).await?;
    Ok(())
}

pub(super) async fn a_large_stream_reads_from_anywhere_in_both_directions(place: &dyn Place) -> Outcome {
    let limits = [1, 511, 513, 1_500];
    let edges = |last: u64| -> Vec<u64> {
        let around = |n: u64| n.saturating_sub(1)..=n + 1;
        [1, 511, 512, 513, 1_024, 5_000, 8_192, 9_000, 9_010, last].into_iter().flat_map(around).collect()
    };
    let store = place.open(Limits::default()).await;
    for n in 0..9_u64 {
        append(&store, "large", events("e", n * 1_000..(n + 1) * 1_000)).await?;
        append(&store, &format!("other-{n}"), events("o", 0..100)).await?;
    }
    append(&store, "large", events("late", 0..20)).await?;
    look_everywhere(&store, "large", 9_020, &edges(9_020), &limits).await?;
    place.crash(store).await;
    let store = place.open(Limits::default()).await;
    look_everywhere(&store, "large", 9_020, &edges(9_020), &limits).await?;
    store.close().await?;
    let store = place.open(Limits::default()).await;
    append(&store, "large", events("later", 0..20)).await?;
    look_everywhere(&store, "large", 9_040, &edges(9_040), &limits).await?;
    look(&store, "large", 9_040, ReadStream::forward(stream("large"), 10_000)).await?;
    Ok(look(&store, "large", 9_040, ReadStream::backward(stream("large"), 10_000)).await?)
}

pub(super) async fn an_unknown_stream_is_empty(place: &dyn Place) -> Outcome {
    let store = place.open(Limits::default()).await;
    look_everywhere(&store, "nobody", 0, &[0, 1, 5, u64::MAX], &[0, 1, 10]).await?;
    append(&store, "somebody", vec![event(1)]).await?;
    store.close().await?;
    let store = place.open(Limits::default()).await;
    look_everywhere(&store, "nobody", 0, &[0, 1, 5, u64::MAX], &[0, 1, 10]).await?;
    assert_eq!(store.stream_head(&stream("nobody")).await?, Default::default());
    Ok(())
}

pub(super) async fn streams_are_listed_in_order_of_their_names(place: &dyn Place) -> Outcome {
    let store = place.open(Limits::default()).await;
    let names: Vec<String> = (0..30).map(|n| format!("{}-{n:02}", ["a", "b", "bb"][n % 3])).collect();
    for (n, name) in names.iter().enumerate() {
        append(&store, name, events("e", 0..n as u64 % 3 + 1)).await?;
    }
    store.close().await?;
    let store = place.open(Limits::default()).await;
    // Some are older now, some newer, some both.
    append(&store, "a-00", vec![event("late")]).await?;
    append(&store, "b-99", vec![event("late")]).await?;
    let mut sorted: Vec<&str> = names.iter().map(String::as_str).chain(["b-99"]).collect();
    sorted.sort_unstable();
    for prefix in ["", "a", "b", "b-", "bb", "bbb", "zz"] {
        for limit in [1, 3, 7, 100] {
            let mut after = None;
            let mut listed = Vec::new();
            loop {
                let page = store.streams(prefix, after.clone(), limit).await?;
                assert!(page.len() <= limit);
                let Some(last) = page.last() else { break };
                after = Some(last.stream.clone());
                listed.extend(page.into_iter().map(|summary| (summary.stream.to_string(), summary.head.version.get())));
            }
            let expected: Vec<&str> = sorted.iter().copied().filter(|name| name.starts_with(prefix)).collect();
            assert_eq!(listed.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), expected, "{prefix}, {limit}");
            assert!(listed.iter().all(|(name, version)| name != "a-00" || *version == 2));
        }
    }
    Ok(())
}

pub(super) async fn following_next_reads_a_stream_once_from_end_to_end(place: &dyn Place) -> Outcome {
    let store = place.open(Limits::default()).await;
    for n in 0..90 {
        append(&store, "s", events(&format!("{n}"), 0..100)).await?;
    }
    for limit in [7, 1_000] {
        for (first, forward) in
            [(ReadStream::forward(stream("s"), limit), true), (ReadStream::backward(stream("s"), limit), false)]
        {
            let mut read = first;
            let mut found = Vec::new();
            loop {
                let page = store.read_stream(read.clone()).await?;
                found.extend(versions(&page.events));
                let Some(next) = page.next else { break };
                read = read.from(next);
            }
            let mut expected: Vec<u64> = (1..=9_000).collect();
            if !forward {
                expected.reverse();
            }
            assert_eq!(found, expected);
        }
    }
    Ok(())
}
