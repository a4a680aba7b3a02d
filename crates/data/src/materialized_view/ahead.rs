//! What is worked out of events ahead of their transaction, where nobody waits for it.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use quorate_runtime::Env;
use tokio::sync::Semaphore;

use crate::event::{Position, Recorded};

/// Works out of an event what its application needs and what rows have no say in: reads its data, runs a program over it.
///
/// It runs beside the one writer and ahead of the transaction, perhaps in vain, and has to come out the same whenever it is run.
pub trait Prepare: Send + Sync {
    /// What `event` comes to.
    fn prepare(&self, event: &Recorded) -> Prepared;
}

/// What an event came to, for whoever applies it.
#[derive(Clone)]
pub struct Prepared {
    value: Arc<dyn Any + Send + Sync>,
    bytes: usize,
    /// The room that its page takes, given back with the last of it.
    _grant: Option<Arc<Grant>>,
}

impl Prepared {
    /// A value that takes about so many bytes of memory.
    pub fn new<T: Send + Sync + 'static>(value: T, bytes: usize) -> Self {
        Self { value: Arc::new(value), bytes, _grant: None }
    }

    /// The value, if it is of this type.
    pub fn get<T: Send + Sync + 'static>(self) -> Option<Arc<T>> {
        self.value.downcast().ok()
    }
}

/// Bytes that are kept of what was worked out, for all views of a process together; what would be more is worked out where it is
/// applied.
pub(super) const MAX_BYTES: usize = 32 << 20;
/// So many pages are worked on at once: others of the process want the processors as well.
const TURNS: usize = 4;
/// How long one page is worked on, for the same reason; its first event is, however long that takes.
pub(super) const TIME: Duration = Duration::from_millis(200);

/// Events to apply, in order, with what was worked out of each.
#[derive(Clone, Default)]
pub(super) struct Batch {
    pub(super) events: Vec<Recorded>,
    pub(super) prepared: Vec<Option<Prepared>>,
}

impl Batch {
    /// Events of which nothing was worked out.
    fn plain(events: Vec<Recorded>) -> Self {
        Self { prepared: vec![None; events.len()], events }
    }
}

/// The room and the turns of a process, for all of its views.
pub(super) struct Room {
    taken: Arc<AtomicUsize>,
    turns: Semaphore,
}

/// Room that a page has. It grows with what is worked out of the page.
struct Grant {
    taken: Arc<AtomicUsize>,
    bytes: AtomicUsize,
}

impl Grant {
    /// Takes so many bytes more, if they are to be had.
    fn grow(&self, bytes: usize) -> bool {
        let fits = |taken: usize| taken.checked_add(bytes).filter(|all| *all <= MAX_BYTES);
        let grown = self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok();
        if grown {
            // Ordering: whoever drops it comes behind whoever worked on the page.
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        grown
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        // Ordering: a count; whoever has room does not look at what others did with theirs.
        self.taken.fetch_sub(*self.bytes.get_mut(), Ordering::Relaxed);
    }
}

impl Default for Room {
    fn default() -> Self {
        Self { taken: Arc::default(), turns: Semaphore::new(TURNS) }
    }
}

impl Room {
    /// No room yet, for a page that is to have some.
    fn grant(&self) -> Arc<Grant> {
        Arc::new(Grant { taken: self.taken.clone(), bytes: AtomicUsize::new(0) })
    }
}

/// Works on `events`, in order, as far as `time` and room go.
///
/// Not on those that are encrypted: whether their keys are still there by then, the transaction tells.
pub(super) async fn work(
    env: &Env,
    room: &Arc<Room>,
    code: Option<Arc<dyn Prepare>>,
    events: Vec<Recorded>,
    time: Duration,
) -> Batch {
    let Some(code) = code.filter(|_| !events.is_empty()) else { return Batch::plain(events) };
    // Where others take all turns for long, it is worked out where it is applied.
    let Some(_turn) = env.timeout(TIME, room.turns.acquire()).await else { return Batch::plain(events) };
    let (clock, grant) = (env.clone(), room.grant());
    env.run_blocking(move || {
        let (until, mut is_first, mut is_full) = (clock.mono() + time, true, false);
        let mut prepared = |event: &Recorded| {
            if event.is_encrypted() || is_full || (!is_first && clock.mono() > until) {
                return None;
            }
            // Whoever applies it panics as well, and there it is known what becomes of the event.
            let prepared = catch_unwind(AssertUnwindSafe(|| code.prepare(event))).ok()?;
            is_first = false;
            is_full = !grant.grow(prepared.bytes.max(1));
            (!is_full).then(|| Prepared { _grant: Some(grant.clone()), ..prepared })
        };
        Batch { prepared: events.iter().map(&mut prepared).collect(), events }
    })
    .await
}

/// What was worked out of a batch, for a transaction that takes it event by event.
#[derive(Default)]
pub(super) struct Store {
    batch: Arc<Batch>,
    next: usize,
}

impl Store {
    pub(super) fn of(batch: Arc<Batch>) -> Self {
        Self { batch, next: 0 }
    }

    /// What was worked out of the event at `position`; those before it are passed over.
    pub(super) fn take(&mut self, position: Position) -> Option<Prepared> {
        let Batch { events, prepared } = &*self.batch;
        let passed = events[self.next..].iter().take_while(|event| event.position() < position).count();
        self.next += passed;
        let at = self.next;
        events.get(at).filter(|event| event.position() == position)?;
        self.next += 1;
        prepared.get(at)?.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use quorate_runtime::Env;

    use super::{Batch, MAX_BYTES, Prepare, Prepared, Room, Store, work};
    use crate::{
        event::{NewEvent, Recorded},
        materialized_view::scratch::recorded,
    };

    const LONG: Duration = Duration::from_secs(600);

    /// Gives an event's id, panics over some, and says that it takes half of what there is.
    struct Ids;

    impl Prepare for Ids {
        fn prepare(&self, event: &Recorded) -> Prepared {
            assert!(event.kind() != "bad", "it will not have this one");
            Prepared::new(event.id().to_owned(), MAX_BYTES / 2)
        }
    }

    fn events(kinds: &[&str]) -> Vec<Recorded> {
        let event = |kind: &&str| ("a".parse().unwrap(), NewEvent::new(*kind, "/test", *kind));
        recorded(kinds.iter().map(event)).unwrap()
    }

    #[tokio::test]
    async fn what_there_is_no_room_for_and_what_panics_is_left_to_the_transaction() {
        let (env, room) = (Env::real(), Arc::new(Room::default()));
        let all = work(&env, &room, Some(Arc::new(Ids)), events(&["one", "bad", "two", "three"]), LONG).await;
        let ids = all.prepared.iter().map(|prepared| prepared.clone().and_then(Prepared::get::<String>));
        let ids: Vec<Option<String>> = ids.map(|id| id.map(|id| id.to_string())).collect();
        assert_eq!(ids, [Some("one".to_owned()), None, Some("two".to_owned()), None]);
        assert!(work(&env, &room, None, events(&["one"]), LONG).await.prepared[0].is_none());
        let beside = work(&env, &room, Some(Arc::new(Ids)), events(&["one"]), LONG).await;
        assert!(beside.prepared[0].is_none(), "the other page has all the room there is");
        drop(all);
        let first = work(&env, &room, Some(Arc::new(Ids)), events(&["one", "two"]), Duration::ZERO).await;
        assert!(first.prepared[0].is_some(), "the first, however long it takes");
    }

    #[test]
    fn each_event_is_given_what_is_its_own() {
        let events = events(&["one", "two", "three"]);
        let prepared = |n: u32| Prepared::new(n, 4);
        let batch = |prepared| Arc::new(Batch { events: events.clone(), prepared });
        let mut store = Store::of(batch(vec![Some(prepared(1)), None, Some(prepared(3))]));
        let mut take = |n: usize| store.take(events[n].position()).and_then(Prepared::get::<u32>).map(|n| *n);
        assert_eq!((take(1), take(2), take(2)), (None, Some(3), None));
        let mut wrong = Store::of(batch(vec![Some(prepared(1)), None, None]));
        assert!(wrong.take(events[0].position()).and_then(Prepared::get::<String>).is_none());
    }
}
