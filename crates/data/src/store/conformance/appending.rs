//! Appending: expectations, atomicity, order.

use futures_util::future::join_all;

use super::{
    super::{AppendBatch, AppendError, ExpectedVersion, Limits, Store, TransactError},
    Outcome, Place,
    vocabulary::{
        all_of, append, append_at, assert_sound, event, events, ids_of, limits, stream, tagged, version, versions,
        whole_log,
    },
};
use crate::event::{NewEvent, Scalar, Timestamp};

/// The four expectations and, for streams at version 0, 1 and 2, whether they hold.
const EXPECTATIONS: [(ExpectedVersion, [bool; 3]); 6] = [
    (ExpectedVersion::Any, [true, true, true]),
    (ExpectedVersion::NoStream, [true, false, false]),
    (ExpectedVersion::StreamExists, [false, true, true]),
    (ExpectedVersion::Exact(version(0)), [true, false, false]),
    (ExpectedVersion::Exact(version(1)), [false, true, false]),
    (ExpectedVersion::Exact(version(7)), [false, false, false]),
];

pub(super) async fn each_expectation_accepts_exactly_its_states(place: &dyn Place) -> Outcome {
    let store = place.open(Limits::default()).await;
    for (n, (expected, holds)) in EXPECTATIONS.into_iter().enumerate() {
        for (actual, holds) in (0_u64..).zip(holds) {
            let name = format!("s-{n}-{actual}");
            if actual > 0 {
                append(&store, &name, events("before", 0..actual)).await?;
            }
            let appended = append_at(&store, &name, expected, vec![event("new")]).await;
            match appended {
                Ok(appended) => {
                    assert!(holds, "{expected} does not hold at version {actual}");
                    assert_eq!(appended.version(), version(actual + 1));
                }
                Err(AppendError::VersionConflict { stream, expected: asked, actual: found }) => {
                    assert!(!holds, "{expected} holds at version {actual}");
                    assert_eq!((stream.as_str(), asked, found.get()), (name.as_str(), expected, actual));
                }
                Err(other) => return Err(other.into()),
            }
            assert_eq!(all_of(&store, &name).await?.len() as u64, actual + u64::from(holds));
        }
    }
    Ok(())
}

pub(super) async fn of_two_writers_at_the_same_version_one_wins(place: &dyn Place) -> Outcome {
    let store = place.open(Limits::default()).await;
    for round in 0..50 {
        let expected = ExpectedVersion::Exact(version(round));
        let attempt =
            |who: &'static str| append_at(&store, "contested", expected, vec![event(format!("{who}-{round}"))]);
        let (a, b) = tokio::join!(attempt("a"), attempt("b"));
        let conflict = match (a, b) {
            (Ok(_), Err(conflict)) | (Err(conflict), Ok(_)) => conflict,
            other => panic!("exactly one should win round {round}: {other:?}"),
        };
        assert!(
            matches!(conflict, AppendError::VersionConflict { actual, .. } if actual == version(round + 1)),
            "the loser learns the version: {conflict:?}"
        );
    }
    assert_eq!(versions(&all_of(&store, "contested").await?), (1..=50).collect::<Vec<_>>());
    Ok(())
}

pub(super) async fn several_streams_are_appended_together_or_not_at_all(place: &dyn Place) -> Outcome {
    let store = place.open(Limits::default()).await;
    append(&store, "c", vec![event("before")]).await?;
    let batch = |expected| {
        AppendBatch::to(stream("a"), ExpectedVersion::NoStream, events("a", 0..2))
            .and_to(stream("b"), ExpectedVersion::Any, events("b", 0..3))
            .and_to(stream("c"), expected, events("c", 0..1))
    };
    let refused = store.append(batch(ExpectedVersion::NoStream)).await;
    assert!(
        matches!(&refused, Err(AppendError::VersionConflict { stream, .. }) if stream.as_str() == "c"),
        "{refused:?}"
    );
    assert_eq!(whole_log(&store).await?.len(), 1, "nothing of a refused batch is there");

    let appended = store.append(batch(ExpectedVersion::Exact(version(1)))).await?;
    let answered: Vec<_> = appended.versions.iter().map(|(name, version)| (name.as_str(), version.get())).collect();
    assert_eq!(answered, [("a", 2), ("b", 3), ("c", 2)]);
    let log = whole_log(&store).await?;
    let order: Vec<_> = log.iter().map(|event| (event.stream(), event.version().get())).collect();
    assert_eq!(order, [("c", 1), ("a", 1), ("a", 2), ("b", 1), ("b", 2), ("b", 3), ("c", 2)]);
    Ok(())
}

pub(super) async fn a_malformed_batch_changes_nothing(place: &dyn Place) -> Outcome {
    let store = place.open(Limits::default()).await;
    let to = |name, events| AppendBatch::to(stream(name), ExpectedVersion::Any, events);
    let malformed = [
        ("no stream", AppendBatch::default()),
        ("no event", to("a", vec![])),
        ("a stream twice", to("a", vec![event(1)]).and_to(stream("a"), ExpectedVersion::Any, vec![event(2)])),
        ("an event twice", to("a", vec![event(1), event(2), event(1)])),
        ("an event in one of two streams", to("a", vec![event(1)]).and_to(stream("b"), ExpectedVersion::Any, vec![])),
    ];
    for (what, batch) in malformed {
        let refused = store.append(batch).await;
        assert!(matches!(refused, Err(AppendError::Malformed { .. })), "{what}: {refused:?}");
    }
    let invalid = NewEvent::new("", "/conformance", "t");
    let refused = store.append(to("a", vec![event(1), invalid])).await;
    assert!(matches!(refused, Err(AppendError::Invalid { index: 1, .. })), "{refused:?}");
    assert_eq!(store.head().get(), 0);
    assert_eq!(whole_log(&store).await?.len(), 0);
    Ok(())
}

pub(super) async fn positions_stay_dense_through_refusals_and_rollbacks(place: &dyn Place) -> Outcome {
    let store = place.open(Limits::default()).await;
    let refuse = async |n: u64| {
        let refused = append_at(&store, "s", ExpectedVersion::NoStream, vec![event(format!("refused-{n}"))]).await;
        assert!(matches!(refused, Err(AppendError::VersionConflict { .. })), "{refused:?}");
    };
    let roll_back = async |n: u64| {
        let rolled_back: Result<(), _> = store
            .transact(move |tx| {
                Box::pin(async move {
                    tx.append(&stream("s"), ExpectedVersion::Any, events(&format!("rolled-back-{n}"), 0..3))
                        .await
                        .map_err(|refused| refused.to_string())?;
                    Err("no".to_owned())
                })
            })
            .await;
        assert!(matches!(&rolled_back, Err(TransactError::Aborted(no)) if no == "no"), "{rolled_back:?}");
    };
    append(&store, "s", vec![event("first")]).await?;
    for n in 0..20 {
        let kept = append(&store, "s", vec![event(format!("kept-{n}"))]);
        let (_, kept, _) = tokio::join!(refuse(n), kept, roll_back(n));
        kept?;
    }
    let expected: Vec<String> = std::iter::once("first".into()).chain((0..20).map(|n| format!("kept-{n}"))).collect();
    assert_eq!(ids_of(&store, "s").await?, expected);
    assert_eq!(whole_log(&store).await?.len(), 21);
    Ok(assert_sound(&store).await?)
}

pub(super) async fn concurrent_writers_lose_nothing_and_keep_their_order(place: &dyn Place) -> Outcome {
    const WRITERS: u64 = 16;
    const EACH: u64 = 40;
    let store = place.open(Limits::default()).await;
    let write = async |writer: u64| {
        for n in 0..EACH {
            append(&store, &format!("own-{writer}"), vec![event(n)]).await?;
            append(&store, "shared", vec![event(format!("{writer}-{n}"))]).await?;
        }
        Ok::<_, AppendError>(())
    };
    for written in join_all((0..WRITERS).map(write)).await {
        written?;
    }
    let log = whole_log(&store).await?;
    assert_eq!(log.len() as u64, 2 * WRITERS * EACH);
    for writer in 0..WRITERS {
        let own: Vec<&str> = log.iter().filter(|e| e.stream() == format!("own-{writer}")).map(|e| e.id()).collect();
        assert_eq!(own, (0..EACH).map(|n| n.to_string()).collect::<Vec<_>>());
    }
    let shared: Vec<_> = log.into_iter().filter(|event| event.stream() == "shared").collect();
    assert_eq!(versions(&shared), (1..=WRITERS * EACH).collect::<Vec<_>>());
    assert_eq!(all_of(&store, "shared").await?, shared);
    Ok(())
}

pub(super) async fn an_event_comes_back_as_it_went_in(place: &dyn Place) -> Outcome {
    let store = place.open(Limits::default()).await;
    let full = full_event()?;
    let bare = NewEvent::new("bare", "/conformance", "t");
    let empty = NewEvent { data: Some(Default::default()), ..NewEvent::new("empty", "/conformance", "t") };
    let given = vec![full, bare, empty];
    append(&store, "order-17", given.clone()).await?;
    let look = async |store: &Store| {
        let found = all_of(store, "order-17").await?;
        assert_eq!(found.iter().map(|event| event.to_new()).collect::<Vec<_>>(), given);
        assert!(found.iter().all(|event| event.stream() == "order-17" && event.category() == "order"));
        Ok::<_, super::super::StoreError>(found)
    };
    let before = look(&store).await?;
    place.crash(store).await;
    let store = place.open(Limits::default()).await;
    assert_eq!(look(&store).await?, before, "after a crash");
    store.close().await?;
    let store = place.open(Limits::default()).await;
    assert_eq!(look(&store).await?, before, "after reopening");
    Ok(())
}

fn full_event() -> Result<NewEvent, Box<dyn std::error::Error + Send + Sync>> {
    let mut full = tagged("full ☂ id", "order.placed", &["order:17", "customer:ö"]);
    full.subject = Some("the \"subject\"".into());
    full.time = Some("2024-02-29T12:00:00.5+02:00".parse::<Timestamp>()?);
    full.schema = Some("/schemas/order.placed/3".into());
    full.correlation_id = Some("c-1".into());
    full.causation_id = Some("c-0".into());
    full.content_type = Some("application/octet-stream".into());
    full.extensions.insert("flag".into(), Scalar::Boolean(true));
    full.extensions.insert("number".into(), Scalar::Integer(-5));
    full.extensions.insert("text".into(), Scalar::Text("ü".into()));
    full.data = Some((0..=255_u8).cycle().take(40_000).collect::<Vec<_>>().into());
    Ok(full)
}

pub(super) async fn a_huge_batch_is_one_append(place: &dyn Place) -> Outcome {
    let store = place.open(limits(|limits| limits.batch_events = 20_000)).await;
    let mut head = store.watch_head();
    head.mark_unchanged();
    let appended = append(&store, "huge", events("e", 0..20_000)).await?;
    assert_eq!(appended.version(), version(20_000));
    head.changed().await?;
    assert_eq!(head.borrow_and_update().get(), 20_000, "all of it became visible at once");
    assert_eq!(versions(&all_of(&store, "huge").await?), (1..=20_000).collect::<Vec<_>>());
    let large = NewEvent { data: Some(vec![b'x'; 1 << 20].into()), ..event("large") };
    append(&store, "large", vec![large.clone()]).await?;
    place.crash(store).await;
    let store = place.open(Limits::default()).await;
    assert_eq!(whole_log(&store).await?.len(), 20_001);
    assert_eq!(all_of(&store, "large").await?[0].to_new(), large);
    Ok(assert_sound(&store).await?)
}

pub(super) async fn any_utf_8_can_name_a_stream(place: &dyn Place) -> Outcome {
    let long = "é".repeat(256);
    let names = [
        "a",
        "A",
        " ",
        "a b",
        "a/b",
        "a%2Fb",
        "-",
        "-a",
        "a-",
        "a--b",
        "'",
        "\"",
        "`;--",
        "$1",
        "?1",
        "%",
        "_",
        "*",
        "\u{200b}",
        "ÿ",
        "日本",
        "🦀",
        "e\u{301}",
        "é",
        "\u{10ffff}",
        "quorate_block",
        "null",
        &long,
    ];
    let store = place.open(Limits::default()).await;
    for name in names {
        append_at(&store, name, ExpectedVersion::NoStream, vec![event(format!("of {name}"))]).await?;
    }
    let look = async |store: &Store| {
        for name in names {
            assert_eq!(ids_of(store, name).await?, [format!("of {name}")]);
        }
        let listed = store.streams("", None, 100).await?;
        let mut sorted = names.to_vec();
        sorted.sort_unstable();
        assert_eq!(listed.iter().map(|summary| summary.stream.as_str()).collect::<Vec<_>>(), sorted);
        assert_sound(store).await
    };
    look(&store).await?;
    place.crash(store).await;
    let store = place.open(Limits::default()).await;
    look(&store).await?;
    store.close().await?;
    Ok(look(&place.open(Limits::default()).await).await?)
}

pub(super) async fn a_rooms_own_stream_is_appended_to_by_the_room_alone(place: &dyn Place) -> Outcome {
    let store = place.open(Limits::default()).await;
    let own = "saga-order:17";
    let is_reserved = |error: &AppendError| matches!(error, AppendError::Reserved { room: "saga", .. });
    let refused = append(&store, own, vec![event("forged")]).await.expect_err("it is the room's");
    assert!(is_reserved(&refused), "{refused:?}");
    let free = |id: &str| AppendBatch::to(stream("free"), ExpectedVersion::Any, vec![event(id)]);
    let refused = append(&store, "process-order", vec![event("forged")]).await.expect_err("it is the room's");
    assert!(matches!(refused, AppendError::Reserved { room: "process", .. }), "{refused:?}");
    let both = free("beside").and_to(stream(own), ExpectedVersion::Any, vec![event("forged")]);
    let refused = store.append(both.clone()).await.expect_err("neither is appended to");
    assert!(is_reserved(&refused), "{refused:?}");
    let checked = store.check(both).await;
    let done = store.transact(move |tx| {
        let (checked, alone) = (checked.clone(), free("alone"));
        Box::pin(async move {
            for refused in [
                tx.append(&stream(own), ExpectedVersion::Any, vec![event("forged")]).await,
                tx.append_checked(checked).await,
            ] {
                assert!(matches!(refused, Err(AppendError::Reserved { room: "saga", .. })), "{refused:?}");
            }
            tx.append_batch(alone).await?;
            tx.room_append(&stream(own), ExpectedVersion::NoStream, vec![event("own")]).await
        })
    });
    assert_eq!(done.await?.version(), version(1));
    assert_eq!(ids_of(&store, own).await?, ["own"]);
    assert_eq!(ids_of(&store, "free").await?, ["alone"]);
    assert_sound(&store).await?;
    Ok(())
}
