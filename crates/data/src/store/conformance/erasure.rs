//! Erasing data subjects: what is sealed, what is forgotten, and what stays.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use futures_util::future::join_all;

use super::{
    super::{
        AppendError, EraseError, Limits, ReadStream, Retire, Store, StoreError, TransactError,
        retention::{Rules, StreamMetadata},
    },
    Outcome, Place,
    vocabulary::{all_of, append, assert_sound, event, events, stream, version, whole_log},
};
use crate::event::{ChainHash, NewEvent, Recorded, Stub};

/// An event about `subject`.
fn about(subject: &str, id: impl ToString) -> NewEvent {
    event(id).about(subject)
}

/// What the event that [`about`] makes says.
fn plain(id: impl ToString) -> String {
    format!("{{\"of\": {:?}}}", id.to_string())
}

fn data(event: &Recorded) -> Option<String> {
    event.data().map(|data| String::from_utf8_lossy(data).into_owned())
}

/// Every way to read the event at the end of a stream.
async fn seen(store: &Store, name: &'static str) -> Result<Vec<Recorded>, Box<dyn std::error::Error + Send + Sync>> {
    let last = |events: Vec<Recorded>| events.into_iter().next_back().into_iter();
    let mut seen: Vec<Recorded> = last(all_of(store, name).await?).collect();
    seen.extend(store.read_stream(ReadStream::backward(stream(name), 1)).await?.events);
    seen.extend(whole_log(store).await?.into_iter().rfind(|event| event.stream() == name));
    let inside = store
        .transact(move |tx| {
            Box::pin(async move {
                let page = tx.read_stream(ReadStream::backward(stream(name), 1)).await?;
                Ok::<_, StoreError>(page.events)
            })
        })
        .await?;
    seen.extend(inside);
    assert_eq!(seen.len(), 4, "{seen:?}");
    Ok(seen)
}

/// Whether the hashes of all streams follow from one another.
async fn assert_chained(store: &Store) -> Result<(), StoreError> {
    let mut links = std::collections::BTreeMap::<String, ChainHash>::new();
    for event in whole_log(store).await? {
        let link = links.entry(event.stream().to_owned()).or_default();
        assert!(event.follows(link), "{event:?}");
        *link = event.hash();
    }
    assert_sound(store).await
}

pub(super) async fn sealed_data_reads_in_the_clear_everywhere(place: &dyn Place) -> Outcome {
    let mut store = place.open(Limits::default()).await;
    append(&store, "s", vec![event("open"), about("anna", "sealed")]).await?;
    for round in 0..3 {
        for event in seen(&store, "s").await? {
            assert_eq!((data(&event), event.erased()), (Some(plain("sealed")), false), "round {round}");
            assert!(event.is_encrypted() && event.data_subject() == Some("anna"));
            assert_ne!(event.stored_data(), event.data(), "the log keeps ciphertext");
            assert_eq!(event.to_new(), about("anna", "sealed"));
        }
        assert_chained(&store).await?;
        if round == 0 {
            store.close().await?;
        } else {
            place.crash(store).await;
        }
        store = place.open(Limits::default()).await;
    }
    Ok(())
}

pub(super) async fn an_erased_subject_leaves_events_without_data(place: &dyn Place) -> Outcome {
    let mut store = place.open(Limits::default()).await;
    append(&store, "old", (0..2_000).map(|n| about("anna", n)).collect()).await?;
    append(&store, "other", vec![about("bert", "his")]).await?;
    place.crash(store).await;
    store = place.open(Limits::default()).await;
    append(&store, "young", vec![about("anna", "hers")]).await?;
    append(&store, "young", vec![NewEvent { data: None, ..about("anna", "without") }]).await?;
    append(&store, "young", vec![about("anna", "last")]).await?;
    let erased = store.erase("anna").await?;
    assert_eq!((erased.events, erased.generation), (2_002, 1));
    for round in 0..3 {
        for event in seen(&store, "young").await?.into_iter().chain(seen(&store, "old").await?) {
            assert_eq!((event.data(), event.erased(), event.stub()), (None, true, None), "round {round}: {event:?}");
            assert!(event.is_encrypted() && event.data_bytes().is_none() && event.stored_data().is_some());
        }
        assert!(!all_of(&store, "young").await?[1].erased(), "there was nothing to erase");
        assert!(seen(&store, "other").await?.iter().all(|event| data(event) == Some(plain("his"))));
        assert_chained(&store).await?;
        if round == 0 {
            store.close().await?;
        } else {
            place.crash(store).await;
        }
        store = place.open(Limits::default()).await;
    }
    let ledger = store.erasures().await?;
    assert_eq!(
        ledger.erasures.iter().map(|e| (e.subject, e.generation)).collect::<Vec<_>>(),
        [(store.erasure_name("anna"), 1)]
    );
    assert_eq!(Some(ledger.erasures[0].erased_at), erased.erased_at);
    Ok(())
}

pub(super) async fn a_repeat_is_known_before_and_after_an_erasure(place: &dyn Place) -> Outcome {
    let mut store = place.open(Limits::default()).await;
    let batch = || vec![about("anna", 1), event(2), about("bert", 3)];
    let first = append(&store, "s", batch()).await?;
    for round in 0..4 {
        let again = append(&store, "s", batch()).await?;
        assert_eq!((&again.versions, again.repeated), (&first.versions, true), "round {round}");
        let other = NewEvent { data: Some("other".into()), ..about("bert", 3) };
        let refused = append(&store, "s", vec![about("anna", 1), event(2), other]).await;
        assert!(matches!(refused, Err(AppendError::IdReused { .. })), "round {round}: {refused:?}");
        let unsealed = append(&store, "s", vec![event(1), event(2), about("bert", 3)]).await;
        assert!(matches!(unsealed, Err(AppendError::IdReused { .. })), "round {round}: {unsealed:?}");
        match round {
            0 => place.crash(store).await,
            _ => store.close().await?,
        }
        store = place.open(Limits::default()).await;
        if round == 1 {
            store.erase("anna").await?;
        }
        if round == 2 {
            append(&store, "t", vec![about("anna", "again")]).await?;
        }
    }
    Ok(())
}

pub(super) async fn a_stub_of_sealed_data_still_knows_its_repeats(place: &dyn Place) -> Outcome {
    let store = place.open(Limits::default()).await;
    append(&store, "s", vec![about("anna", 1), about("bert", 2), event(3)]).await?;
    store.retire(stream("s"), Retire::Truncate { before: version(3) }).await?;
    assert!(whole_log(&store).await?[..2].iter().all(|event| event.stub() == Some(Stub::Truncated)));
    assert_eq!(store.erase("anna").await?.events, 0, "its data was gone already");
    assert!(append(&store, "s", vec![about("anna", 1), about("bert", 2), event(3)]).await?.repeated);
    let other = NewEvent { data: Some("other".into()), ..about("bert", 2) };
    let refused = append(&store, "s", vec![about("anna", 1), other, event(3)]).await;
    assert!(matches!(refused, Err(AppendError::IdReused { .. })), "{refused:?}");
    Ok(assert_chained(&store).await?)
}

pub(super) async fn appending_again_begins_a_new_generation(place: &dyn Place) -> Outcome {
    let mut store = place.open(Limits::default()).await;
    for generation in 1..=3_u32 {
        let id = format!("g-{generation}");
        append(&store, "s", vec![about("anna", &id)]).await?;
        assert!(seen(&store, "s").await?.iter().all(|event| data(event) == Some(plain(&id))));
        let erased = store.erase("anna").await?;
        assert_eq!((erased.events, erased.generation), (1, generation));
        place.crash(store).await;
        store = place.open(Limits::default()).await;
    }
    append(&store, "s", vec![about("anna", "g-4")]).await?;
    let erased: Vec<bool> = all_of(&store, "s").await?.iter().map(Recorded::erased).collect();
    assert_eq!(erased, [true, true, true, false]);
    Ok(assert_chained(&store).await?)
}

pub(super) async fn erasing_twice_and_erasing_nobody_is_harmless(place: &dyn Place) -> Outcome {
    let store = place.open(Limits::default()).await;
    let nobody = store.erase("nobody").await?;
    assert_eq!((nobody.events, nobody.generation, nobody.erased_at), (0, 0, None));
    append(&store, "s", vec![about("anna", 1)]).await?;
    let first = store.erase("anna").await?;
    let second = store.erase("anna").await?;
    assert_eq!((second.events, second.generation, second.erased_at), (0, 1, first.erased_at));
    assert_eq!(store.erasures().await?.erasures.len(), 1);
    for name in ["", "a\nb", &"x".repeat(513)] {
        assert!(matches!(store.erase(name).await, Err(EraseError::Invalid(_))), "{name:?}");
        let refused = append(&store, "s", vec![about(name, 2)]).await;
        assert!(matches!(refused, Err(AppendError::Invalid { .. })), "{refused:?}");
    }
    Ok(())
}

pub(super) async fn a_data_subject_says_whether_it_was_erased(place: &dyn Place) -> Outcome {
    let mut store = place.open(Limits::default()).await;
    let known = async |store: &Store| {
        let known = store.data_subject("anna").await?;
        assert_eq!(known.name, store.erasure_name("anna"));
        Ok::<_, EraseError>((known.is_erased(), known.live, known.erasure.map(|entry| entry.number)))
    };
    assert_eq!(known(&store).await?, (false, false, None), "nothing was ever sealed for her");
    append(&store, "s", vec![about("anna", 1)]).await?;
    assert_eq!(known(&store).await?, (false, true, None));
    let erased = store.erase("anna").await?;
    assert_eq!((erased.keys, erased.entry), (1, Some(1)));
    place.crash(store).await;
    store = place.open(Limits::default()).await;
    assert_eq!(known(&store).await?, (true, false, Some(1)));
    append(&store, "s", vec![about("anna", 2)]).await?;
    assert_eq!(known(&store).await?, (false, true, Some(1)), "there is data about her again");
    let erased = store.erase("anna").await?;
    assert_eq!((erased.keys, erased.entry), (1, Some(2)));
    assert_eq!(known(&store).await?, (true, false, Some(2)));
    let again = store.erase("anna").await?;
    assert_eq!((again.keys, again.entry, again.erased_at), (0, Some(2), erased.erased_at));
    assert!(matches!(store.data_subject("a\nb").await, Err(EraseError::Invalid(_))));
    Ok(())
}

pub(super) async fn the_ledger_is_read_page_by_page(place: &dyn Place) -> Outcome {
    let store = place.open(Limits { page_events: 4, ..Limits::default() }).await;
    for n in 0..10 {
        append(&store, "s", vec![about(&format!("p-{n}"), n)]).await?;
        store.erase(&format!("p-{n}")).await?;
    }
    let whole = store.erasures().await?.erasures;
    assert_eq!(whole.len(), 10);
    for (after, limit, numbers) in [(0, 4, 1..5), (4, 3, 5..8), (8, 4, 9..11), (10, 4, 0..0), (u64::MAX, 1, 0..0)] {
        let page = store.erasures_after(after, limit).await?;
        assert_eq!(page.iter().map(|entry| entry.number).collect::<Vec<_>>(), numbers.collect::<Vec<_>>());
        assert!(page.iter().all(|entry| whole[entry.number as usize - 1] == entry.erasure));
    }
    let refused = store.erasures_after(0, 5).await;
    assert!(matches!(refused, Err(StoreError::TooMuch { .. })), "{refused:?}");
    Ok(())
}

pub(super) async fn what_was_forgotten_is_counted_before_it_is_answered(place: &dyn Place) -> Outcome {
    let store = place.open(Limits::default()).await;
    append(&store, "s", vec![about("anna", 1), event(2), event(3)]).await?;
    let mut moves = store.watch_forgotten();
    let moved = |moves: &mut tokio::sync::watch::Receiver<u64>| {
        let moved = moves.has_changed().unwrap_or(false);
        moves.mark_unchanged();
        moved
    };
    store.erase("nobody").await?;
    append(&store, "s", vec![about("bert", 4)]).await?;
    assert!(!moved(&mut moves), "nothing was forgotten");
    store.erase("anna").await?;
    assert!(moved(&mut moves));
    store.retire(stream("s"), Retire::Truncate { before: version(3) }).await?;
    assert!(moved(&mut moves));
    store.retire(stream("s"), Retire::Truncate { before: version(3) }).await?;
    assert!(!moved(&mut moves), "that was nothing new");
    store.retire(stream("s"), Retire::Tombstone { expected: Default::default() }).await?;
    assert!(moved(&mut moves) && store.forgotten() == 3);
    append(&store, "kept", vec![event(5)]).await?;
    for (max_count, hides) in
        [(None, false), (Some(9), true), (Some(9), false), (Some(8), true), (Some(10), false), (None, false)]
    {
        let rules = Rules { max_count, max_age: None };
        let metadata = StreamMetadata { rules, values: [("owner".to_owned(), "sales".to_owned())].into() };
        store.set_metadata(stream("kept"), Default::default(), metadata).await?;
        assert_eq!(moved(&mut moves), hides, "{max_count:?}");
    }
    Ok(())
}

pub(super) async fn a_transaction_seals_and_reads_what_it_sealed(place: &dyn Place) -> Outcome {
    let store = place.open(Limits::default()).await;
    let refused: Result<(), _> = store
        .transact(|tx| {
            Box::pin(async {
                tx.append(&stream("s"), Default::default(), vec![about("anna", "undone")]).await.map_err(drop)?;
                Err(())
            })
        })
        .await;
    assert!(matches!(refused, Err(TransactError::Aborted(()))), "{refused:?}");
    let read = store
        .transact(|tx| {
            Box::pin(async {
                tx.append(&stream("s"), Default::default(), vec![about("anna", 1), event(2)]).await?;
                Ok::<_, AppendError>(tx.read_stream(ReadStream::forward(stream("s"), 9)).await?.events)
            })
        })
        .await?;
    assert_eq!(read.iter().map(data).collect::<Vec<_>>(), [Some(plain(1)), Some(plain(2))]);
    assert_eq!(store.erase("anna").await?.events, 1);
    Ok(assert_chained(&store).await?)
}

pub(super) async fn appends_beside_an_erasure_are_lost_only_if_they_came_before(place: &dyn Place) -> Outcome {
    let store = place.open(Limits::default()).await;
    let mut alive = 0;
    for round in 0..20_u64 {
        let write = |from: u64| {
            let one = async |n: u64| append(&store, "s", vec![about("anna", format!("{round}-{n}"))]).await;
            join_all((from..from + 10).map(one))
        };
        write(0).await.into_iter().collect::<Result<Vec<_>, _>>()?;
        let (during, erased) = tokio::join!(write(10), store.erase("anna"));
        during.into_iter().collect::<Result<Vec<_>, _>>()?;
        write(20).await.into_iter().collect::<Result<Vec<_>, _>>()?;
        let all = all_of(&store, "s").await?;
        for event in all.iter().skip(round as usize * 30) {
            let n: u64 = event.id().rsplit('-').next().and_then(|n| n.parse().ok()).unwrap_or(u64::MAX);
            assert!(event.erased() || data(event) == Some(plain(event.id())));
            assert!(n >= 10 || event.erased(), "{event:?} was there before the erasure began");
            assert!(n < 20 || !event.erased(), "{event:?} came after the erasure");
        }
        let left = all.iter().filter(|event| !event.erased()).count() as u64;
        assert_eq!(erased?.events + left, alive + 30, "what is not erased is there");
        alive = left;
    }
    Ok(assert_chained(&store).await?)
}

pub(super) async fn rooms_are_asked_to_forget_until_they_did(place: &dyn Place) -> Outcome {
    let store = place.open(Limits::default()).await;
    append(&store, "s", vec![about("anna", 1)]).await?;
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    store.on_erase(
        "the attic",
        Arc::new(move |_, subject| {
            let nth = counted.fetch_add(1, Ordering::SeqCst);
            Box::pin(async move {
                assert_eq!(&*subject, "anna");
                if nth == 0 { Err(StoreError::Overloaded { waiting: 1 }) } else { Ok(()) }
            })
        }),
    );
    let first = store.clone().erase("anna").await;
    assert!(matches!(first, Err(EraseError::Copies { room: "the attic", .. })), "{first:?}");
    assert!(all_of(&store, "s").await?[0].erased(), "the log has forgotten already");
    assert_eq!(store.erase("anna").await?.events, 0);
    assert_eq!(calls.load(Ordering::SeqCst), 2);
    Ok(())
}

pub(super) async fn many_subjects_at_once_each_have_their_own_key(place: &dyn Place) -> Outcome {
    let store = place.open(Limits::default()).await;
    let write = async |n: u64| {
        let subject = format!("p-{}", n % 40);
        append(&store, &format!("s-{n}"), (0..3).map(|k| about(&subject, format!("{n}-{k}"))).collect()).await
    };
    join_all((0..200).map(write)).await.into_iter().collect::<Result<Vec<_>, _>>()?;
    append(&store, "plain", events("e", 0..10)).await?;
    for n in (0..40).step_by(2) {
        assert_eq!(store.erase(&format!("p-{n}")).await?.events, 15);
    }
    for event in whole_log(&store).await? {
        let even =
            event.data_subject().and_then(|subject| subject[2..].parse::<u64>().ok()).is_some_and(|n| n % 2 == 0);
        assert_eq!(event.erased(), even, "{event:?}");
        assert_eq!(data(&event), (!even).then(|| plain(event.id())));
    }
    Ok(assert_chained(&store).await?)
}
