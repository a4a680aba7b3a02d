//! Participants that are known by their addresses alone: written down before they are asked for the first time, so that whoever takes over knows
//! whom to ask what they hold.

use quorate_data::{
    event::{NewEvent, Version},
    store::{AppendBatch, AppendError, ExpectedVersion, ReadStream, Store},
};
use quorate_foundations::name::Name;
use serde::{Deserialize, Serialize};

use super::{
    TxnError,
    log::{self, corrupt, read},
};

/// The stream that names them.
pub(super) const STREAM: &str = "txnparticipants";
const JOINED: &str = "quorate.txn.participant-joined";
const LEFT: &str = "quorate.txn.participant-left";
/// The most that a store knows: each is asked again and again.
pub(super) const MOST: usize = 256;
const PAGE: usize = 1_000;

#[derive(Serialize, Deserialize)]
struct Joined {
    participant: String,
}

#[derive(Serialize, Deserialize)]
struct Left {
    participant: String,
    by: String,
    why: String,
}

/// What is known at a version of the stream.
struct Known {
    all: Vec<Name>,
    version: Version,
}

fn stream() -> Name {
    Name::new(STREAM).unwrap_or_else(|_| unreachable!("it is a name"))
}

async fn known(store: &Store) -> Result<Known, TxnError> {
    let mut known = Known { all: Vec::new(), version: Version::ZERO };
    let mut next = Some(Version::new(1));
    while let Some(from) = next {
        let page = store.read_stream(ReadStream::forward(stream(), PAGE).from(from)).await?;
        for event in &page.events {
            let named = |text: String| Name::new(text).map_err(|cause| corrupt(event, &cause));
            match event.kind() {
                JOINED => known.all.push(named(read::<Joined>(event)?.participant)?),
                LEFT => {
                    let left = named(read::<Left>(event)?.participant)?;
                    known.all.retain(|one| *one != left);
                }
                _ => {}
            }
        }
        (known.version, next) = (page.head.version, page.next);
    }
    Ok(known)
}

/// All of them, in the order in which they came.
pub(super) async fn all(store: &Store) -> Result<Vec<Name>, TxnError> {
    known(store).await.map(|known| known.all)
}

/// Writes down those that are not there: all of them, or none.
pub(super) async fn join(store: &Store, participants: &[Name]) -> Result<(), TxnError> {
    loop {
        let Known { all, version } = known(store).await?;
        let new: Vec<&Name> = participants.iter().filter(|one| !all.contains(one)).collect();
        if new.is_empty() {
            return Ok(());
        }
        if all.len() + new.len() > MOST {
            return Err(TxnError::TooManyParticipants { most: MOST });
        }
        let joined = |one: &Name| log::event(store.event_id(), JOINED, &Joined { participant: one.to_string() });
        if write(store, version, new.into_iter().map(joined).collect()).await? {
            return Ok(());
        }
    }
}

/// Takes one away, and writes down who did and why. Whether it was there.
pub(super) async fn leave(store: &Store, participant: &Name, by: &str, why: &str) -> Result<bool, TxnError> {
    loop {
        let Known { all, version } = known(store).await?;
        if !all.contains(participant) {
            return Ok(false);
        }
        let left = Left { participant: participant.to_string(), by: by.to_owned(), why: why.to_owned() };
        if write(store, version, vec![log::event(store.event_id(), LEFT, &left)]).await? {
            return Ok(true);
        }
    }
}

/// Whether nobody else was faster.
async fn write(store: &Store, version: Version, events: Vec<NewEvent>) -> Result<bool, TxnError> {
    let expected = match version {
        Version::ZERO => ExpectedVersion::NoStream,
        version => ExpectedVersion::Exact(version),
    };
    match store.append(AppendBatch::to(stream(), expected, events)).await {
        Ok(_) => Ok(true),
        Err(AppendError::VersionConflict { .. }) => Ok(false),
        Err(failed) => Err(failed.into()),
    }
}
