//! Which events of a stream its rules hide from readers, before a scavenge forgets them.
//!
//! `max_count` is arithmetic. For `max_age` somebody has to look: an event is expired when it and everything before it is
//! too old, so the first that is not is looked for from the front, and remembered; from then on a look at it is enough
//! until it is too old itself.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use quorate_foundations::{name::Name, time::Wall};
use quorate_runtime::Env;

use super::{
    index,
    shared::{Shared, View},
};
use crate::{
    event::{Recorded, Version},
    store::{StoreError, StreamHead, retention::TrustedClock},
};

/// Streams whose first living event is remembered.
const MAX_KNOWN: usize = 16_384;
/// Events that are looked at between two looks at the tables.
const STEP: u64 = 512;

/// What is known of the age of streams' events.
pub(super) struct Expiry {
    env: Env,
    inner: Mutex<Inner>,
}

struct Inner {
    clock: TrustedClock,
    known: BTreeMap<Name, Living>,
    /// The latest moment that anything in `known` was judged at.
    judged_at: Wall,
}

/// The first event of a stream that is not expired.
#[derive(Clone, Copy, Debug)]
struct Living {
    first: u64,
    /// When it was recorded; `None` where all events are expired, and `first` is the next one.
    recorded_at: Option<Wall>,
}

impl Expiry {
    /// With a clock that was at `mark` when the store was last in use.
    pub(super) fn new(env: &Env, mark: Option<Wall>) -> Self {
        let clock = TrustedClock::new(mark, env.wall(), env.boot());
        Self {
            env: env.clone(),
            inner: Mutex::new(Inner { clock, known: BTreeMap::new(), judged_at: Wall::default() }),
        }
    }

    /// What time it is, for ages.
    pub(super) fn now(&self) -> Wall {
        self.lock().now(&self.env)
    }

    /// `stored` as readers see it; `None` while it is not known which events are too old.
    pub(super) fn visible(&self, stream: &Name, stored: StreamHead) -> Option<StreamHead> {
        let counted = counted(stored);
        if counted.rules.max_age.is_none() {
            return Some(counted);
        }
        let mut inner = self.lock();
        let now = inner.now(&self.env);
        let first = inner.living(stream, &counted, now)?;
        Some(StreamHead { first: Version::new(first), ..counted })
    }

    /// Where to begin to look.
    fn begin(&self, stream: &Name, counted: &StreamHead) -> u64 {
        let known = self.lock().known.get(stream).map_or(1, |living| living.first);
        known.min(counted.version.get() + 1).max(counted.first.get())
    }

    fn learn(&self, stream: &Name, living: Living, judged_at: Wall) {
        let mut inner = self.lock();
        inner.judged_at = inner.judged_at.max(judged_at);
        if inner.known.len() >= MAX_KNOWN {
            inner.known.clear();
        }
        inner.known.insert(stream.clone(), living);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn now(&mut self, env: &Env) -> Wall {
        let now = self.clock.read(env.wall(), env.boot());
        // A clock that was set back makes events young again.
        if now < self.judged_at {
            self.known.clear();
            self.judged_at = now;
        }
        now
    }

    /// The first living version of `stream`, whose rule for counts is applied already.
    fn living(&self, stream: &Name, counted: &StreamHead, now: Wall) -> Option<u64> {
        let (first, next) = (counted.first.get(), counted.version.get() + 1);
        if first >= next {
            return Some(first);
        }
        let known = self.known.get(stream).filter(|living| living.first >= first && living.first <= next)?;
        match known.recorded_at {
            Some(recorded_at) if counted.rules.has_expired(recorded_at, now) => None,
            None if known.first < next => None,
            _ => Some(known.first),
        }
    }
}

/// With the rule for counts applied.
fn counted(stored: StreamHead) -> StreamHead {
    StreamHead { first: stored.first.max(stored.rules.first_counted(stored.version)), ..stored }
}

/// `stored` as readers see it, after a look at the events where that is needed; `None` where the stream was changed
/// since: look again.
pub(super) fn visible(
    shared: &Shared,
    view: View<'_>,
    stream: &Name,
    stored: StreamHead,
) -> Result<Option<StreamHead>, StoreError> {
    // The tables can be a moment older than the events that they forget: then there is no such stream.
    if stored.first.get() > stored.version.get() + 1 {
        return Ok(None);
    }
    if let Some(head) = shared.expiry.visible(stream, stored) {
        return Ok(Some(head));
    }
    judge(shared, view, stream, stored)?;
    Ok(shared.expiry.visible(stream, stored))
}

/// Looks for the first event that is not too old, and remembers it.
pub(super) fn judge(shared: &Shared, view: View<'_>, stream: &Name, stored: StreamHead) -> Result<(), StoreError> {
    let counted = counted(stored);
    let judged_at = shared.expiry.now();
    let row = index::stream(view.connection, stream.as_str())?;
    let (id, indexed) = row.map_or((0, 0), |row| (row.id, row.head.version.get()));
    let mut next = shared.expiry.begin(stream, &counted);
    while next <= counted.version.get() {
        let last = (next + STEP - 1).min(counted.version.get());
        let events = if next <= indexed {
            let positions = index::versions(view.connection, id, next, last.min(indexed), STEP as usize)?;
            shared.events(view, &positions).collect::<Result<Vec<_>, _>>()?
        } else {
            young(shared, stream, next, last)
        };
        // The tail has gone into tables that are newer than the view.
        if events.is_empty() {
            return Ok(());
        }
        for event in events {
            let recorded_at = event.recorded_at();
            if !counted.rules.has_expired(recorded_at, judged_at) {
                shared.expiry.learn(stream, Living { first: next, recorded_at: Some(recorded_at) }, judged_at);
                return Ok(());
            }
            next += 1;
        }
    }
    shared.expiry.learn(stream, Living { first: next, recorded_at: None }, judged_at);
    Ok(())
}

/// Events of the tail with versions from `first` to `last`, as far as they are there.
fn young(shared: &Shared, stream: &Name, first: u64, last: u64) -> Vec<Recorded> {
    let tail = shared.tail();
    let Some(slot) = tail.slot(stream.as_str()) else { return Vec::new() };
    let Some(skipped) = first.checked_sub(slot.base.version.get() + 1) else { return Vec::new() };
    let positions = slot.positions.iter().skip(skipped as usize).take((last + 1 - first) as usize);
    positions.filter_map(|position| tail.event(*position)).cloned().collect()
}
