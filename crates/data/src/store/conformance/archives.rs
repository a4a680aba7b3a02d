//! Moving events to archives.

use super::{
    super::{
        Archive, ArchiveError, ArchiveOrder, ExpectedVersion, Limits, ReadStream, Retire, Rules, Store, StoreError,
        StreamMetadata,
        archive::{ArchiveReader, Manifest},
    },
    Outcome, Place,
    vocabulary::{all_of, append, append_at, assert_sound, event, events, stream, version, versions, whole_log},
};
use crate::event::{ChainHash, Recorded, Stub, Version};

fn order(place: &dyn Place, name: &str, before: Option<u64>) -> ArchiveOrder {
    ArchiveOrder { stream: stream("s"), before: before.map(Version::new), to: place.file(name), name: name.to_owned() }
}

/// All events of an archive, which is sound.
fn read(
    store: &Store,
    place: &dyn Place,
    name: &str,
) -> Result<(Manifest, Vec<Recorded>), Box<dyn std::error::Error + Send + Sync>> {
    let mut archive = ArchiveReader::open(store.env().disk().open(&place.file(name))?)?;
    let mut events = Vec::new();
    while let Some(event) = archive.next_event()? {
        events.push(event);
    }
    Ok((archive.manifest().clone(), events))
}

async fn fill(store: &Store) -> Outcome {
    for n in 0..10 {
        append(store, "s", events(&format!("s-{n}"), 0..2)).await?;
        append(store, "t", events(&format!("t-{n}"), 0..1)).await?;
    }
    Ok(())
}

async fn archived(store: &Store, archive: &Archive) -> Result<Vec<Recorded>, StoreError> {
    let log = whole_log(store).await?;
    Ok(log.into_iter().filter(|event| event.stub() == Some(Stub::Archived(archive.id))).collect())
}

pub(super) async fn archived_events_are_in_the_file_and_leave_stubs(place: &dyn Place) -> Outcome {
    let store = place.open(Limits::default()).await;
    fill(&store).await?;
    let before = all_of(&store, "s").await?;
    let archive = store.archive(order(place, "a", Some(13))).await?;
    assert_eq!((archive.first, archive.last, archive.hash), (version(1), version(12), before[11].hash()));
    let (manifest, events) = read(&store, place, "a")?;
    assert_eq!(events, before[..12], "byte for byte");
    assert_eq!((manifest.previous, manifest.store), (ChainHash::START, store.timeline().store));
    let look = async |store: &Store| {
        let stubs = archived(store, &archive).await?;
        assert_eq!(versions(&stubs), (1..=12).collect::<Vec<_>>());
        assert!(stubs.iter().zip(&before).all(|(stub, whole)| stub.hash() == whole.hash() && stub.data().is_none()));
        assert_eq!(versions(&all_of(store, "s").await?), (13..=20).collect::<Vec<_>>());
        assert_eq!(store.archives(stream("s")).await?, std::slice::from_ref(&archive));
        assert_sound(store).await
    };
    look(&store).await?;
    place.crash(store).await;
    let store = place.open(Limits::default()).await;
    look(&store).await?;
    // What is left is a second volume, which continues the first.
    let rest = store.archive(order(place, "b", None)).await?;
    assert_eq!((rest.first, rest.last), (version(13), version(20)));
    let (manifest, events) = read(&store, place, "b")?;
    assert_eq!((manifest.previous, &events[..]), (archive.hash, &before[12..]));
    append_at(&store, "s", ExpectedVersion::Exact(version(20)), vec![event("more")]).await?;
    assert_eq!(versions(&all_of(&store, "s").await?), [21]);
    assert_eq!(store.archives(stream("s")).await?, [archive, rest]);
    Ok(assert_sound(&store).await?)
}

pub(super) async fn an_archive_is_made_once_and_never_overwritten(place: &dyn Place) -> Outcome {
    let store = place.open(Limits::default()).await;
    fill(&store).await?;
    let refused = store.archive(order(place, "none", Some(1))).await;
    assert!(matches!(refused, Err(ArchiveError::Nothing { .. })), "{refused:?}");
    let archive = store.archive(order(place, "a", Some(5))).await?;
    assert_eq!(store.archive(order(place, "a", Some(5))).await?, archive, "repeated, it answers as the first time");
    let refused = store.archive(order(place, "a", Some(9))).await;
    assert!(matches!(refused, Err(ArchiveError::Exists { .. })), "{refused:?}");
    std::io::Write::write_all(&mut store.env().disk().create(&place.file("c"))?, b"somebody else's")?;
    let refused = store.archive(order(place, "c", Some(9))).await;
    assert!(matches!(refused, Err(ArchiveError::Exists { .. })), "{refused:?}");
    assert_eq!(store.env().disk().read(&place.file("c"))?, b"somebody else's");
    assert_eq!(versions(&all_of(&store, "s").await?), (5..=20).collect::<Vec<_>>());
    Ok(assert_sound(&store).await?)
}

pub(super) async fn a_finished_archive_order_is_known_when_the_stream_has_grown(place: &dyn Place) -> Outcome {
    for (name, before) in [("all", None), ("beyond", Some(1_000))] {
        let store = place.open(Limits::default()).await;
        let head = store.stream_head(&stream("s")).await?.version.get();
        append(&store, "s", events(name, 0..3)).await?;
        let archive = store.archive(order(place, name, before)).await?;
        assert_eq!((archive.first, archive.last), (version(head + 1), version(head + 3)));
        append(&store, "s", events(&format!("{name}-more"), 0..4)).await?;
        assert_eq!(store.archive(order(place, name, before)).await?, archive, "{name}");
        place.crash(store).await;
        let store = place.open(Limits::default()).await;
        assert_eq!(store.archive(order(place, name, before)).await?, archive, "{name}");
        assert_eq!(all_of(&store, "s").await?.len(), 4, "a repetition moves nothing");
        // Another order under that name, or the same for another stream, is not a repetition.
        let refused = store.archive(order(place, name, Some(head + 6))).await;
        assert!(matches!(refused, Err(ArchiveError::Exists { .. })), "{refused:?}");
        append(&store, "t", events(&format!("{name}-t"), 0..1)).await?;
        let refused = store.archive(ArchiveOrder { stream: stream("t"), ..order(place, name, before) }).await;
        assert!(matches!(refused, Err(ArchiveError::Exists { .. })), "{refused:?}");
        store.retire(stream("s"), Retire::Truncate { before: version(head + 8) }).await?;
        assert_eq!(store.archive(order(place, name, before)).await?, archive, "{name}");
        assert_sound(&store).await?;
        store.close().await?;
    }
    Ok(())
}

pub(super) async fn archiving_and_other_retention_go_together(place: &dyn Place) -> Outcome {
    let store = place.open(Limits::default()).await;
    fill(&store).await?;
    store.retire(stream("s"), Retire::Truncate { before: version(4) }).await?;
    let archive = store.archive(order(place, "a", Some(9))).await?;
    assert_eq!((archive.first, archive.last), (version(4), version(8)));
    store.retire(stream("s"), Retire::Tombstone { expected: ExpectedVersion::Any }).await?;
    let log = whole_log(&store).await?;
    let stubs = |kind| log.iter().filter(|event| event.stub() == Some(kind)).count();
    assert_eq!([stubs(Stub::Truncated), stubs(Stub::Archived(archive.id)), stubs(Stub::Tombstoned)], [3, 5, 12]);
    let refused = store.archive(order(place, "b", None)).await;
    assert!(matches!(refused, Err(ArchiveError::Nothing { .. })), "{refused:?}");
    // Known events are known for ever.
    let repeated = append(&store, "s", events("s-3", 0..2)).await?;
    assert!(repeated.repeated);
    Ok(assert_sound(&store).await?)
}

pub(super) async fn an_archive_takes_events_that_rules_hide(place: &dyn Place) -> Outcome {
    let store = place.open(Limits::default()).await;
    append(&store, "s", events("s", 0..6)).await?;
    let whole = all_of(&store, "s").await?;
    let rules = Rules { max_count: Some(2), ..Rules::default() };
    let metadata = StreamMetadata { rules, ..StreamMetadata::default() };
    store.set_metadata(stream("s"), ExpectedVersion::Any, metadata).await?;
    assert_eq!(versions(&all_of(&store, "s").await?), [5, 6]);
    // Hidden events alone, and then hidden ones and one that is seen.
    let hidden = store.archive(order(place, "a", Some(3))).await?;
    assert_eq!((hidden.first, hidden.last), (version(1), version(2)));
    assert_eq!(store.archive(order(place, "a", Some(3))).await?, hidden, "repeated, it answers as the first time");
    let both = store.archive(order(place, "b", Some(6))).await?;
    assert_eq!((both.first, both.last), (version(3), version(5)));
    assert_eq!(read(&store, place, "a")?.1, whole[..2]);
    assert_eq!(read(&store, place, "b")?.1, whole[2..5]);
    assert_eq!(versions(&archived(&store, &hidden).await?), [1, 2]);
    assert_eq!(versions(&archived(&store, &both).await?), [3, 4, 5]);
    assert_eq!(store.scavenge().await?.events, 0, "nothing is left to forget");
    assert_eq!(all_of(&store, "s").await?, whole[5..]);
    // An order that is refused forgets nothing either: the rule can be lifted.
    append(&store, "s", events("more", 0..3)).await?;
    assert_eq!(versions(&all_of(&store, "s").await?), [8, 9]);
    let refused = store.archive(order(place, "b", Some(8))).await;
    assert!(matches!(refused, Err(ArchiveError::Exists { .. })), "{refused:?}");
    store.set_metadata(stream("s"), ExpectedVersion::Any, StreamMetadata::default()).await?;
    assert_eq!(versions(&all_of(&store, "s").await?), [6, 7, 8, 9]);
    Ok(assert_sound(&store).await?)
}

pub(super) async fn an_archive_keeps_sealed_data_sealed(place: &dyn Place) -> Outcome {
    let store = place.open(Limits::default()).await;
    if !store.capabilities().erasure {
        return Ok(());
    }
    append(&store, "s", vec![event("hers").about("anna"), event("nobody's")]).await?;
    let page = store.read_stream(ReadStream::forward(stream("s"), 1)).await?;
    let plain = page.events[0].data().map(<[u8]>::to_vec);
    store.archive(order(place, "a", None)).await?;
    let (_, events) = read(&store, place, "a")?;
    assert!(events[0].is_encrypted() && events[0].data().is_none());
    assert_ne!(events[0].stored_data().map(<[u8]>::to_vec), plain);
    assert!(events[1].data().is_some());
    store.erase("anna").await?;
    assert_eq!(read(&store, place, "a")?.1, events, "an erasure does not touch the file, and reaches it");
    Ok(assert_sound(&store).await?)
}
