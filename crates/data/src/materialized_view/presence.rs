//! Who in this process keeps which shards of a store up to date.
//!
//! Where only one process can have a store open, an owner of a shard is in this process, or it is gone for good. So nobody
//! has to give signs of life there, which would cost a sync each: whoever stands by is woken when an owner leaves. Of
//! several who stand by the newest goes on, so that who does is no race between them.
//!
//! Several of them may carry out the effects of one view: they take turns here, so that none is carried out by two.
//!
//! It also knows which opening of the store this is. What holds only as long as this process has the store open, such as that
//! every append keeps a view, is written down with that number, and so ends by itself with the process.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use quorate_runtime::Env;
use tokio::sync::watch;

use super::{Build, ViewName};

/// One owner's place at one shard.
pub(super) type Place = (Arc<str>, Build, u32);
/// All of them, with when they were taken: counted, the newest has the largest number.
pub(super) type Places = BTreeMap<Place, u64>;

/// Who is there. Clones are the same.
#[derive(Clone)]
pub(crate) struct Presence {
    places: Arc<watch::Sender<Places>>,
    nudge: Arc<watch::Sender<u64>>,
    carrying: Arc<Mutex<BTreeMap<ViewName, Arc<tokio::sync::Mutex<()>>>>>,
    opening: Opening,
}

/// One opening of the store, as no other one is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Opening(i64);

impl Opening {
    /// As it is stored. Never 0, which stands for none, nor 1, which stores of the beginning have for any.
    pub(super) fn stored(self) -> i64 {
        self.0
    }
}

/// Somebody who is there until this is dropped, however that comes about.
pub(super) struct Present {
    presence: Presence,
    place: Place,
}

impl Presence {
    /// Nobody yet, in a store that is opened now.
    pub(crate) fn new(env: &Env) -> Self {
        let drawn = (env.random("store/opening").u64() >> 1).cast_signed();
        let nudge = Arc::new(watch::Sender::new(0));
        Self { places: Arc::default(), nudge, carrying: Arc::default(), opening: Opening(drawn.max(2)) }
    }

    /// Which opening of the store this is.
    pub(super) fn opening(&self) -> Opening {
        self.opening
    }

    /// What wakes whoever keeps something of this store: somebody asked for something, whoever it is.
    pub(super) fn nudge(&self) -> Arc<watch::Sender<u64>> {
        self.nudge.clone()
    }

    /// The turn to carry out an effect of a view: one at a time, whichever of its versions, or handles, has the handler.
    pub(super) fn carrying(&self, view: &ViewName) -> Arc<tokio::sync::Mutex<()>> {
        self.carrying.lock().unwrap_or_else(PoisonError::into_inner).entry(view.clone()).or_default().clone()
    }

    /// Takes a place.
    pub(super) fn enter(&self, place: Place) -> Present {
        self.places.send_if_modified(|all| {
            let newest = all.values().max().copied().unwrap_or_default();
            all.insert(place.clone(), newest + 1);
            // Nobody waits for somebody to come.
            false
        });
        Present { presence: self.clone(), place }
    }

    /// Whether somebody is there.
    pub(super) fn has(&self, place: &Place) -> bool {
        self.places.borrow().contains_key(place)
    }

    /// Whether somebody is at the same shard who came later.
    pub(super) fn has_later(&self, place: &Place) -> bool {
        let all = self.places.borrow();
        let came = all.get(place).copied().unwrap_or_default();
        let (_, build, shard) = place;
        all.iter().any(|((_, at, of), then)| (at, of) == (build, shard) && *then > came)
    }

    /// Changes whenever somebody leaves.
    pub(super) fn watch(&self) -> watch::Receiver<Places> {
        self.places.subscribe()
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        self.presence.places.send_modify(|all| {
            all.remove(&self.place);
        });
    }
}
