//! The bulkhead as callers see it: a word to raise while there is room, and the machine behind a lock when there isn't.
//!
//! While nobody waits and no tenants are told apart, entering is one exchange on a word and leaving one subtraction. The
//! word has a bit that says "ask": then arrivals and departures go to the machine, so that nobody overtakes those who wait
//! and no place is freed unseen.

use std::{
    collections::BTreeMap,
    fmt,
    ops::Deref,
    sync::PoisonError,
    task::{Poll, Waker},
    time::Duration,
};

use quorate_foundations::{machine::Machine as _, name::Name, time::Mono};

use super::{
    adaptive::{Limiter, Seen},
    config::{Ask, Config, ConfigError, Limit, Priority},
    machine::{Door, Effect, Input, Rejected, Ticket, Why},
    stripes::Stripes,
    sync::{AtomicU32, AtomicU64, Mutex, Ordering, lane},
};
use crate::outcome::{Class, Outcome, Scope};

/// So many calls at once. Share it by `Arc` or by reference; every method takes the time, so that one reading of the clock
/// serves all policies of a call.
pub struct Bulkhead {
    /// How many are under way, and the bit [`ASK`].
    word: Line,
    /// Up to how many under way each priority enters.
    rooms: [AtomicU32; 3],
    /// Whether nobody ever waits, so that a full bulkhead refuses without a lock.
    nobody_waits: AtomicU32,
    /// Whether there is a queue.
    may_wait: AtomicU32,
    refused: [AtomicU64; Why::ALL.len()],
    meter: Meter,
    hall: Mutex<Hall>,
}

/// A word far enough from its neighbours, whose lines processors fetch in pairs.
#[repr(align(128))]
struct Line(AtomicU64);

/// What is behind the lock.
struct Hall {
    door: Door,
    /// Those who wait, and those who have been answered and don't know yet.
    seats: BTreeMap<Ticket, Seat>,
    limiter: Option<Limiter>,
    before: Totals,
}

enum Seat {
    Waiting(Waker),
    Admitted,
    Dismissed(Rejected),
}

/// What an adaptive limit watches.
struct Meter {
    calls: Stripes,
    nanos: Stripes,
    overloads: AtomicU64,
    /// The most that were under way since the limit was last thought over, as those saw who ended.
    most: AtomicU32,
    /// When the window ends; never for a limit that is fixed.
    window_ends: AtomicU64,
}

#[derive(Clone, Copy, Default)]
struct Totals {
    at: Mono,
    calls: u64,
    nanos: u64,
    overloads: u64,
}

const ASK: u64 = 1 << 63;

/// A place among the calls under way. Dropping it gives it back; so does [`settle`](Self::settle), which also teaches an
/// adaptive limit. Hold it until the last byte of the answer: work that goes on uses the place.
///
/// `P` is how the bulkhead is held: `&Bulkhead`, or an `Arc` for permits that live longer.
#[must_use = "a permit that is dropped gives its place back"]
pub struct Permit<P: Deref<Target = Bulkhead>> {
    bulkhead: P,
    taken: Taken,
}

/// A place that was taken: for whom it is counted, and since when.
#[derive(Debug)]
pub(crate) struct Taken {
    tenant: Option<Name>,
    since: Mono,
}

/// What came of asking for a place.
pub(super) enum Answer {
    Entered,
    /// In the queue, until then at most.
    Waits(Ticket, Mono),
}

/// A bulkhead at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// How many calls may be under way at once.
    pub limit: u32,
    /// How many are.
    pub in_flight: u32,
    /// How many wait.
    pub waiting: usize,
    /// How many found no place in all, and why.
    pub refused: Vec<(Why, u64)>,
}

impl Bulkhead {
    /// A bulkhead nobody is in.
    ///
    /// # Errors
    /// [`ConfigError`]: the configuration can't be.
    pub fn new(config: Config, now: Mono) -> Result<Self, ConfigError> {
        config.check()?;
        let meter = Meter {
            calls: Stripes::new(),
            nanos: Stripes::new(),
            overloads: AtomicU64::new(0),
            most: AtomicU32::new(0),
            window_ends: AtomicU64::new(u64::MAX),
        };
        let limiter = limiter(&config);
        let before = Totals { at: now, ..Totals::default() };
        let hall = Hall { door: Door::new(config), seats: BTreeMap::new(), limiter, before };
        let bulkhead = Self {
            word: Line(AtomicU64::new(0)),
            rooms: std::array::from_fn(|_| AtomicU32::new(0)),
            nobody_waits: AtomicU32::new(0),
            may_wait: AtomicU32::new(0),
            refused: std::array::from_fn(|_| AtomicU64::new(0)),
            meter,
            hall: Mutex::new(hall),
        };
        bulkhead.locked(|_, _| {});
        Ok(bulkhead)
    }

    /// A place for one call now, without waiting.
    ///
    /// # Errors
    /// [`Rejected`], which says why.
    #[inline]
    pub fn try_enter<P: Deref<Target = Self>>(this: P, now: Mono, ask: &Ask) -> Result<Permit<P>, Rejected> {
        let taken = this.take(now, ask)?;
        Ok(taken.kept(this))
    }

    /// A place without a guard: it must come back through [`give_back`](Self::give_back) or [`settle`](Self::settle), also
    /// when the call is dropped.
    #[inline]
    pub(crate) fn take(&self, now: Mono, ask: &Ask) -> Result<Taken, Rejected> {
        if self.enter_word(now, ask) {
            return Ok(Taken { tenant: None, since: now });
        }
        self.enter_hall(now, ask)
    }

    /// The same; `None` is a place to be waited for, with [`enter`](Self::enter). Nothing is counted for that yet.
    #[inline]
    pub(crate) fn take_or_wait(&self, now: Mono, ask: &Ask) -> Result<Option<Taken>, Rejected> {
        if self.enter_word(now, ask) {
            return Ok(Some(Taken { tenant: None, since: now }));
        }
        if self.may_wait.load(Ordering::Relaxed) == 0 {
            return self.enter_hall(now, ask).map(Some);
        }
        Ok(None)
    }

    #[cold]
    fn enter_hall(&self, now: Mono, ask: &Ask) -> Result<Taken, Rejected> {
        if let Some(full) = self.full(ask) {
            return Err(full);
        }
        match self.arrive(now, ask, false, Waker::noop())? {
            (Answer::Entered, tenant) => Ok(Taken { tenant, since: now }),
            (Answer::Waits(..), _) => unreachable!("who doesn't want to wait doesn't"),
        }
    }

    /// Gives a place back; the call said nothing.
    #[inline]
    pub(crate) fn give_back(&self, taken: &mut Taken) {
        self.release(taken.since, &mut taken.tenant);
    }

    /// Tells what became of a call, at `now`, and gives its place back.
    #[inline]
    pub(crate) fn settle(&self, taken: &mut Taken, now: Mono, outcome: Outcome) {
        self.watch(now, outcome, taken.since);
        // Whoever waits is judged by the time of today.
        self.release(now, &mut taken.tenant);
    }

    /// Enters if there is room, nobody waits and nobody asks whose call it is.
    #[inline]
    pub(super) fn enter_word(&self, now: Mono, ask: &Ask) -> bool {
        if ask.deadline.has_passed(now) {
            return false;
        }
        let room = u64::from(self.rooms[ask.priority as usize].load(Ordering::Relaxed));
        let mut word = self.word.0.load(Ordering::Relaxed);
        // A word with the bit is larger than any room.
        while word < room {
            // Ordering: pairs with the release of whoever left the place, whose call has then ended.
            match self.word.0.compare_exchange_weak(word, word + 1, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(moved) => word = moved,
            }
        }
        false
    }

    /// The refusal of a bulkhead that is full and where nobody waits.
    fn full(&self, ask: &Ask) -> Option<Rejected> {
        let word = self.word.0.load(Ordering::Relaxed);
        let room = self.rooms[ask.priority as usize].load(Ordering::Relaxed);
        if self.nobody_waits.load(Ordering::Relaxed) == 0 || word & ASK != 0 || word < u64::from(room) {
            return None;
        }
        self.count(Why::Full);
        let limit = self.rooms[Priority::Critical as usize].load(Ordering::Relaxed);
        Some(Rejected { why: Why::Full, limit, in_flight: under_way(word) })
    }

    /// Asks the machine for a place. `waker` is woken when one who waits is answered. The tenant is whom the place is counted
    /// for.
    pub(super) fn arrive(
        &self,
        now: Mono,
        ask: &Ask,
        waits: bool,
        waker: &Waker,
    ) -> Result<(Answer, Option<Name>), Rejected> {
        self.locked(|hall, effects| {
            hall.door.step(now, Input::Arrive { ask: ask.clone(), waits }, effects);
            let tenant = hall.door.config().tenant_share.and(ask.tenant.clone());
            let answer = effects.iter().find_map(|effect| match effect {
                Effect::Enter => Some(Ok(Answer::Entered)),
                Effect::Wait { ticket, ends } => {
                    hall.seats.insert(*ticket, Seat::Waiting(waker.clone()));
                    Some(Ok(Answer::Waits(*ticket, *ends)))
                }
                Effect::Refuse(rejected) => Some(Err(*rejected)),
                Effect::Admit(_) | Effect::Dismiss(..) => None,
            });
            let answer = answer.unwrap_or_else(|| unreachable!("a door answers whoever comes"));
            answer.map(|answer| (answer, tenant))
        })
    }

    /// Whether one who waits has been answered; if not, `waker` is woken then. The answer is given once.
    pub(super) fn answered(&self, ticket: Ticket, waker: &Waker) -> Poll<Result<(), Rejected>> {
        let mut hall = self.hall.lock().unwrap_or_else(PoisonError::into_inner);
        match hall.seats.get_mut(&ticket) {
            Some(Seat::Waiting(known)) => {
                known.clone_from(waker);
                return Poll::Pending;
            }
            Some(Seat::Admitted | Seat::Dismissed(_)) => {}
            None => unreachable!("an answer is asked for until it was given"),
        }
        match hall.seats.remove(&ticket) {
            Some(Seat::Dismissed(rejected)) => Poll::Ready(Err(rejected)),
            _ => Poll::Ready(Ok(())),
        }
    }

    /// Lets time alone act: those who have waited too long are sent away.
    pub(super) fn tick(&self, now: Mono) {
        self.locked(|hall, effects| hall.door.tick(now, effects));
    }

    /// The refusal of one who was given a place and hears of it too late.
    pub(super) fn too_late(&self) -> Rejected {
        self.count(Why::Deadline);
        let limit = self.rooms[Priority::Critical as usize].load(Ordering::Relaxed);
        Rejected { why: Why::Deadline, limit, in_flight: under_way(self.word.0.load(Ordering::Relaxed)) }
    }

    /// One who waited goes away, whether it was answered or not.
    pub(super) fn leave(&self, now: Mono, ticket: Ticket, mut tenant: Option<Name>) {
        let admitted = self.locked(|hall, effects| match hall.seats.remove(&ticket) {
            Some(Seat::Waiting(_)) => {
                hall.door.step(now, Input::Leave(ticket), effects);
                false
            }
            Some(Seat::Admitted) => true,
            Some(Seat::Dismissed(_)) | None => false,
        });
        if admitted {
            self.release(now, &mut tenant);
        }
    }

    #[inline]
    fn release(&self, now: Mono, tenant: &mut Option<Name>) {
        let word = self.word.0.fetch_sub(1, Ordering::Release);
        if word & ASK != 0 {
            self.tell_release(now, tenant);
        }
    }

    #[cold]
    fn tell_release(&self, now: Mono, tenant: &mut Option<Name>) {
        let tenant = tenant.take();
        self.locked(|hall, effects| hall.door.step(now, Input::Release(tenant), effects));
    }

    /// Lets other rules hold. Those under way stay, also if they are more than may be; those who wait are judged anew.
    ///
    /// # Errors
    /// [`ConfigError`]: the configuration can't be, and the old one stays.
    pub fn configure(&self, config: Config, now: Mono) -> Result<(), ConfigError> {
        config.check()?;
        self.locked(|hall, effects| {
            hall.limiter = match (hall.limiter.take(), config.limit) {
                (Some(mut known), Limit::Adaptive(adaptive)) => {
                    known.configure(adaptive);
                    Some(known)
                }
                _ => limiter(&config),
            };
            hall.door.step(now, Input::Configure(Box::new(config)), effects);
            if let Some(limiter) = &hall.limiter {
                hall.door.step(now, Input::Limit(limiter.limit()), effects);
            }
        });
        Ok(())
    }

    /// How it stands.
    pub fn snapshot(&self) -> Snapshot {
        let refused = Why::ALL.map(|why| (why, self.refused[why as usize].load(Ordering::Relaxed)));
        self.locked(|hall, _| Snapshot {
            limit: hall.door.limit(),
            in_flight: under_way(self.word.0.load(Ordering::Relaxed)),
            waiting: hall.door.waiting(),
            refused: refused.to_vec(),
        })
    }

    /// Acts behind the lock, while everybody else asks.
    fn locked<T>(&self, act: impl FnOnce(&mut Hall, &mut Vec<Effect>) -> T) -> T {
        let (mut effects, mut wakers) = (Vec::new(), Vec::new());
        let mut hall = self.hall.lock().unwrap_or_else(PoisonError::into_inner);
        // Ordering: from here on whoever leaves comes to this lock, and nobody enters around it. Who left before is in
        // the count that this reads, since both change the same word.
        let word = self.word.0.fetch_or(ASK, Ordering::AcqRel);
        hall.door.told(under_way(word));
        let done = act(&mut hall, &mut effects);
        let entered = effects.iter().filter(|effect| matches!(effect, Effect::Enter | Effect::Admit(_))).count();
        self.word.0.fetch_add(entered as u64, Ordering::Relaxed);
        for effect in effects {
            let (ticket, seat) = match effect {
                Effect::Admit(ticket) => (ticket, Seat::Admitted),
                Effect::Dismiss(ticket, rejected) => {
                    self.count(rejected.why);
                    (ticket, Seat::Dismissed(rejected))
                }
                Effect::Refuse(rejected) => {
                    self.count(rejected.why);
                    continue;
                }
                Effect::Enter | Effect::Wait { .. } => continue,
            };
            if let Some(Seat::Waiting(waker)) = hall.seats.insert(ticket, seat) {
                wakers.push(waker);
            }
        }
        self.publish(&hall);
        drop(hall);
        wakers.into_iter().for_each(Waker::wake);
        done
    }

    /// Shows callers what the machine decided. Called with the lock held.
    fn publish(&self, hall: &Hall) {
        let door = &hall.door;
        for priority in Priority::ALL {
            set(&self.rooms[priority as usize], door.room(priority));
        }
        let tenants = door.tells_tenants();
        set(&self.nobody_waits, u32::from(door.config().queue.length == 0 && !tenants));
        set(&self.may_wait, u32::from(door.config().queue.length > 0));
        let ends = match door.config().limit {
            Limit::Fixed(_) => u64::MAX,
            Limit::Adaptive(adaptive) => (hall.before.at + adaptive.window).as_nanos(),
        };
        self.meter.window_ends.store(ends, Ordering::Relaxed);
        if door.waiting() == 0 && !tenants {
            self.word.0.fetch_and(!ASK, Ordering::Release);
        }
    }

    fn count(&self, why: Why) {
        self.refused[why as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Tells an adaptive limit what became of a call.
    #[inline]
    fn watch(&self, now: Mono, outcome: Outcome, since: Mono) {
        let ends = self.meter.window_ends.load(Ordering::Relaxed);
        if ends != u64::MAX {
            self.teach(now, outcome, now.saturating_since(since), ends);
        }
    }

    fn teach(&self, now: Mono, outcome: Outcome, took: Duration, ends: u64) {
        match outcome {
            Outcome::Upstream(Class::Success) => {
                let lane = lane();
                self.meter.calls.add(lane, 1);
                self.meter.nanos.add(lane, u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
                // Its own place is among them still.
                let inside = under_way(self.word.0.load(Ordering::Relaxed));
                if inside > self.meter.most.load(Ordering::Relaxed) {
                    self.meter.most.fetch_max(inside, Ordering::Relaxed);
                }
            }
            Outcome::Upstream(Class::Throttled) | Outcome::Timeout(Scope::Attempt) => {
                self.meter.overloads.fetch_add(1, Ordering::Relaxed);
            }
            // How quickly something fails, or somebody leaves, says nothing about how much the upstream takes.
            Outcome::Upstream(_) | Outcome::Timeout(Scope::Total) | Outcome::Rejected(_) | Outcome::Cancelled => return,
        }
        if now.as_nanos() >= ends {
            self.think(now);
        }
    }

    /// Thinks the limit over, if enough was seen since the last time.
    #[cold]
    fn think(&self, now: Mono) {
        self.locked(|hall, effects| {
            let Some(limiter) = &mut hall.limiter else { return };
            let (before, seen) = (hall.before, self.meter.totals(now));
            let calls = seen.calls.saturating_sub(before.calls);
            let overloads = seen.overloads.saturating_sub(before.overloads);
            let span = now.saturating_since(before.at).as_nanos() as f64;
            // Whoever comes second finds that there is nothing left to think about.
            if !Limiter::is_enough(calls, overloads) || span == 0.0 {
                return;
            }
            let nanos = seen.nanos.wrapping_sub(before.nanos);
            let mean = Duration::from_nanos(nanos / calls.max(1));
            // Little's law: so many were under way as their times add up to in a unit of time.
            // That is next to nothing where most of the time nobody called: then it is the most that there were.
            let most = self.meter.most.swap(0, Ordering::Relaxed);
            let concurrency = (nanos as f64 / span).max(f64::from(most));
            hall.before = seen;
            let limit = limiter.watch(Seen { calls, mean, concurrency, overloads });
            hall.door.step(now, Input::Limit(limit), effects);
        });
    }
}

impl Meter {
    fn totals(&self, at: Mono) -> Totals {
        let overloads = self.overloads.load(Ordering::Relaxed);
        Totals { at, calls: self.calls.sum(), nanos: self.nanos.sum(), overloads }
    }
}

fn limiter(config: &Config) -> Option<Limiter> {
    match config.limit {
        Limit::Fixed(_) => None,
        Limit::Adaptive(adaptive) => Some(Limiter::new(adaptive)),
    }
}

/// Storing what is there already would take the line from everybody who only reads.
fn set(cell: &AtomicU32, value: u32) {
    if cell.load(Ordering::Relaxed) != value {
        cell.store(value, Ordering::Relaxed);
    }
}

fn under_way(word: u64) -> u32 {
    u32::try_from(word & !ASK).unwrap_or(u32::MAX)
}

impl<P: Deref<Target = Bulkhead>> Permit<P> {
    pub(super) fn of(bulkhead: P, tenant: Option<Name>, since: Mono) -> Self {
        Self { bulkhead, taken: Taken { tenant, since } }
    }

    /// Tells what became of the call, at `now`, and gives the place back.
    #[inline]
    pub fn settle(mut self, now: Mono, outcome: Outcome) {
        self.bulkhead.watch(now, outcome, self.taken.since);
        // Whoever waits is judged by the time of today.
        self.taken.since = now;
    }
}

impl Permit<&Bulkhead> {
    /// The place without its guard.
    pub(crate) fn taken(mut self) -> Taken {
        let taken = Taken { tenant: self.taken.tenant.take(), since: self.taken.since };
        // It holds nothing else, and the place stays taken.
        std::mem::forget(self);
        taken
    }
}

impl Taken {
    /// The place with a guard that gives it back to `bulkhead`, where it was taken.
    #[inline]
    pub(crate) fn kept<P: Deref<Target = Bulkhead>>(self, bulkhead: P) -> Permit<P> {
        Permit { bulkhead, taken: self }
    }
}

impl<P: Deref<Target = Bulkhead>> Drop for Permit<P> {
    #[inline]
    fn drop(&mut self) {
        self.bulkhead.give_back(&mut self.taken);
    }
}

impl<P: Deref<Target = Bulkhead>> fmt::Debug for Permit<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").field("taken", &self.taken).finish_non_exhaustive()
    }
}

impl fmt::Debug for Bulkhead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = self.word.0.load(Ordering::Relaxed);
        f.debug_struct("Bulkhead").field("in_flight", &under_way(word)).finish_non_exhaustive()
    }
}
