//! Who in this process keeps which shards of a store up to date.
//!
//! Where only one process can have a store open, an owner of a shard is in this process, or it is gone for good. So nobody
//! has to give signs of life there, which would cost a sync each: whoever stands by is woken when an owner leaves.

use std::{collections::BTreeSet, sync::Arc};

use tokio::sync::watch;

use super::Build;

/// One owner's place at one shard.
pub(super) type Place = (Arc<str>, Build, u32);
/// All of them.
pub(super) type Places = BTreeSet<Place>;

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
            all.insert(place.clone());
            // Nobody waits for somebody to come.
            false
        });
        Present { presence: self.clone(), place }
    }

    /// Whether somebody is there.
    pub(super) fn has(&self, place: &Place) -> bool {
        self.0.borrow().contains(place)
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
