//! Random histories, read by random queries, against a list that is filtered naively.

use quorate_runtime::random::{Random, Rng};

use super::{
    super::{Limits, Query, QueryItem, Retire, Store, StoreError},
    Outcome, Place,
    vocabulary::{append, assert_sound, page, stream, tagged, version, whole_log},
};
use crate::event::{NewEvent, Recorded};

const SEEDS: u8 = 6;
const STEPS: u64 = 60;

pub(super) async fn random_histories_read_like_a_naive_log(place: &dyn Place) -> Outcome {
    let mut rng = Random::from_seed([0; 32]).stream("histories");
    let mut store = place.open(Limits::default()).await;
    let mut made = 0;
    for seed in 0..SEEDS {
        for _ in 0..STEPS {
            store = step(place, store, &mut rng, &mut made).await?;
        }
        let log = whole_log(&store).await?;
        for n in 0..40 {
            let query = query(&mut rng);
            compare(&store, &log, &query, &mut rng).await.map_err(|why| format!("round {seed}, query {n}: {why}"))?;
        }
        assert_sound(&store).await?;
    }
    Ok(())
}

/// One thing that happens to a store.
async fn step(
    place: &dyn Place,
    store: Store,
    rng: &mut Rng,
    made: &mut u64,
) -> Result<Store, Box<dyn std::error::Error + Send + Sync>> {
    match rng.below(100) {
        0..=91 => {
            let count = if rng.below(12) == 0 { 400 + rng.below(600) } else { 1 + rng.below(6) };
            let events = (0..count).map(|n| random_event(rng, *made + n)).collect();
            append(&store, &random_stream(rng), events).await?;
            *made += count;
            Ok(store)
        }
        92..=93 => {
            let (before, stream) = (version(1 + rng.below(40)), stream(&random_stream(rng)));
            if store.capabilities().retention {
                store.retire(stream, Retire::Truncate { before }).await?;
            }
            Ok(store)
        }
        94..=96 => {
            store.close().await?;
            Ok(place.open(Limits::default()).await)
        }
        _ => {
            place.crash(store).await;
            Ok(place.open(Limits::default()).await)
        }
    }
}

fn random_stream(rng: &mut Rng) -> String {
    format!("{}-{}", ["order", "guest", "seat", "o"][rng.below(4) as usize], rng.below(5))
}

fn random_event(rng: &mut Rng, n: u64) -> NewEvent {
    // Rare words as well as common ones: a word of kind k has 2^k alternatives.
    let word = |rng: &mut Rng, of: &str| {
        let kind = rng.below(8);
        format!("{of}:{kind}:{}", rng.below(1 << kind))
    };
    let kind = word(rng, "type");
    let tags: Vec<String> = (0..rng.below(4)).map(|_| word(rng, "tag")).collect();
    tagged(format!("e-{n}"), &kind, &tags.iter().map(String::as_str).collect::<Vec<_>>())
}

fn query(rng: &mut Rng) -> Query {
    let items = (0..rng.below(4)).map(|_| {
        let word = |rng: &mut Rng, of: &str| {
            let kind = rng.below(7);
            format!("{of}:{kind}:{}", rng.below((1 << kind) + 1))
        };
        let narrow = rng.below(3) == 0;
        let category = |rng: &mut Rng| ["order", "guest", "seat", "nobody"][rng.below(4) as usize].to_owned();
        QueryItem {
            types: (0..rng.below(4)).map(|_| word(rng, "type")).collect(),
            tags: (0..rng.below(3)).map(|_| word(rng, "tag")).collect(),
            categories: (0..if narrow { 1 + rng.below(2) } else { 0 }).map(|_| category(rng)).collect(),
        }
    });
    Query::of(items.collect::<Vec<_>>())
}

/// Reads page by page, beginning anywhere, and compares with the filtered list.
async fn compare(store: &Store, log: &[Recorded], query: &Query, rng: &mut Rng) -> Result<(), StoreError> {
    let start = if rng.below(2) == 0 { 0 } else { rng.below(log.len() as u64 + 2) };
    // Where each page is a round trip, thousands of them would take minutes.
    let limit = (1 + rng.below(50) as usize * rng.below(10) as usize).max(log.len() / 300);
    let mut after = start;
    let mut found = Vec::new();
    loop {
        let page = page(store, query.clone(), after, limit).await?;
        let within = page.events.iter().all(|event| (after + 1..=page.scanned.get()).contains(&event.position().get()));
        assert!(within, "{query:?} behind {after}: a page holds what it scanned");
        assert!(page.events.len() <= limit);
        found.extend(page.events);
        if page.scanned >= page.head {
            break;
        }
        assert!(page.scanned.get() > after, "{query:?} behind {after}: a page advances");
        after = page.scanned.get();
    }
    let naive = log.iter().filter(|event| event.position().get() > start && naively(query, event));
    let expected: Vec<&Recorded> = naive.collect();
    assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{query:?} behind {start}, {limit} at a time");
    Ok(())
}

/// What matching means, written down a second time.
fn naively(query: &Query, event: &Recorded) -> bool {
    let carried: Vec<&str> = event.tags().collect();
    let category = event.stream().split('-').next().unwrap_or_default();
    let any = |words: &[String], word: &str| words.is_empty() || words.iter().any(|w| w == word);
    query.items.is_empty()
        || query.items.iter().any(|item| {
            any(&item.types, event.kind())
                && any(&item.categories, category)
                && item.tags.iter().all(|tag| carried.contains(&tag.as_str()))
        })
}
