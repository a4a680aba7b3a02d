//! Who in this process keeps which shards of a store up to date.
//!
//! Where only one process can have a store open, an owner of a shard is in this process, or it is gone for good. So nobody
//! has to give signs of life there, which would cost a sync each: whoever stands by is woken when an owner leaves. Of
//! several who stand by the newest goes on, so that who does is no race between them.

use std::{collections::BTreeMap, sync::Arc};

use tokio::sync::watch;

use super::Build;

/// One owner's place at one shard.
pub(super) type Place = (Arc<str>, Build, u32);
/// All of them, with when they were taken: counted, the newest has the largest number.
pub(super) type Places = BTreeMap<Place, u64>;

/// Who is there. Clones are the same.
#[derive(Clone, Default)]
pub(crate) struct Presence(Arc<watch::Sender<Places>>);

/// Somebody who is there until this is dropped, however that comes about.
pub(super) struct Present {
    presence: Presence,
    place: Place,
}

impl Presence {
    /// Takes a place.
    pub(super) fn enter(&self, place: Place) -> Present {
        self.0.send_if_modified(|all| {
            let newest = all.values().max().copied().unwrap_or_default();
            all.insert(place.clone(), newest + 1);
            // Nobody waits for somebody to come.
            false
        });
        Present { presence: self.clone(), place }
    }

    /// Whether somebody is there.
    pub(super) fn has(&self, place: &Place) -> bool {
        self.0.borrow().contains_key(place)
    }

    /// Whether somebody is at the same shard who came later.
    pub(super) fn has_later(&self, place: &Place) -> bool {
        let all = self.0.borrow();
        let came = all.get(place).copied().unwrap_or_default();
        let (_, build, shard) = place;
        all.iter().any(|((_, at, of), then)| (at, of) == (build, shard) && *then > came)
    }

    /// Changes whenever somebody leaves.
    pub(super) fn watch(&self) -> watch::Receiver<Places> {
        self.0.subscribe()
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        self.presence.0.send_modify(|all| {
            all.remove(&self.place);
        });
    }
}
