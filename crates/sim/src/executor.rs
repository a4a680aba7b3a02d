//! The scheduler of a simulated world: one thread, a virtual clock, and the order of everything drawn from the seed.
//!
//! Whenever several tasks could run, the seed picks one; when none can, the clock moves to the next timer. A host that crashes
//! loses its tasks at once, between two polls: its futures are dropped, and nothing of it runs again.
//!
//! Not tokio's scheduler, whose order is its own, and which cannot drop some tasks and keep the others.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use quorate_runtime::{BoxFuture, random::Rng};

use crate::{
    disk::{Running, SimDisk},
    escape::{self, Border},
    host::{HostId, Life},
    trace::Trace,
};

/// What a poll costs of simulated time, so that time passes in whoever never waits.
const POLL: Duration = Duration::from_micros(1);
/// So many polls without the clock being moved by a timer mean that something spins.
const SPIN: u64 = 2_000_000;

/// Schedules the tasks of all hosts. Cheap to clone; clones are the same scheduler.
#[derive(Clone)]
pub(crate) struct Executor {
    inner: Arc<Inner>,
}

struct Inner {
    now: AtomicU64,
    ready: Arc<Mutex<Vec<TaskId>>>,
    state: Mutex<State>,
    trace: Trace,
    border: Border,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct TaskId(u64);

struct State {
    tasks: BTreeMap<TaskId, Task>,
    next: u64,
    timers: BinaryHeap<Reverse<Timer>>,
    timer: u64,
    /// Hosts that stand still, and their tasks that could run.
    paused: BTreeMap<HostId, Vec<TaskId>>,
    /// The lives that run; a task of any other is refused.
    alive: BTreeMap<HostId, Life>,
    /// Lives to be ended before anything else runs.
    doomed: Vec<(HostId, Life)>,
    /// Hosts whose life ends after so many more polls of their tasks, and whom to tell.
    armed: BTreeMap<HostId, (u64, OnPoll)>,
    /// The disk of each host: what SQLite's paths lead to while the host runs.
    disks: BTreeMap<HostId, SimDisk>,
    rng: Rng,
    panics: Vec<Panic>,
    escapes: Vec<Escape>,
}

struct Task {
    name: &'static str,
    host: HostId,
    /// Taken out while it is polled.
    future: Option<BoxFuture<'static, ()>>,
    waker: Arc<TaskWaker>,
}

struct TaskWaker {
    id: TaskId,
    queued: AtomicBool,
    ready: Arc<Mutex<Vec<TaskId>>>,
    border: Border,
}

struct Timer {
    due: u64,
    nth: u64,
    slot: Arc<Slot>,
}

/// What is called after the poll that was waited for.
type OnPoll = Box<dyn FnOnce() + Send>;

/// What a timer wakes; emptied when nobody waits for it any more.
type Slot = Mutex<Option<Waker>>;

impl PartialEq for Timer {
    fn eq(&self, other: &Self) -> bool {
        (self.due, self.nth) == (other.due, other.nth)
    }
}
impl Eq for Timer {}
impl PartialOrd for Timer {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Timer {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.due, self.nth).cmp(&(other.due, other.nth))
    }
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.border.woken();
        if !self.queued.swap(true, Ordering::Relaxed) {
            lock(&self.ready).push(self.id);
        }
    }
}

/// A panic in a task: always a fault of the code that was run.
#[derive(Clone, Debug)]
pub(crate) struct Panic {
    pub(crate) host: HostId,
    pub(crate) task: &'static str,
    pub(crate) what: String,
}

/// Why running stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stopped {
    /// The time asked for is reached.
    Time,
    /// What was waited for is there.
    Done,
    /// Somebody runs without end and never waits.
    Spinning,
    /// A task panicked.
    Panicked,
    /// A task asked something of the machine that the world runs on.
    Escaped,
}

/// What a task did to the machine that the world runs on.
#[derive(Clone, Debug)]
pub(crate) struct Escape {
    pub(crate) host: HostId,
    pub(crate) task: &'static str,
    pub(crate) what: String,
}

impl Executor {
    pub(crate) fn new(rng: Rng, trace: Trace) -> Self {
        let state = State {
            tasks: BTreeMap::new(),
            next: 0,
            timers: BinaryHeap::new(),
            timer: 0,
            paused: BTreeMap::new(),
            alive: BTreeMap::new(),
            doomed: Vec::new(),
            armed: BTreeMap::new(),
            disks: BTreeMap::new(),
            rng,
            panics: Vec::new(),
            escapes: Vec::new(),
        };
        let (now, ready, border) = (AtomicU64::new(0), Arc::default(), Border::default());
        let inner = Inner { now, ready, state: Mutex::new(state), trace, border };
        Self { inner: Arc::new(inner) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.inner.state)
    }

    /// The world's true time, in nanoseconds since it began.
    pub(crate) fn now(&self) -> u64 {
        self.inner.now.load(Ordering::Relaxed)
    }

    /// Runs `future` as a task of `host`, unless that life of the host is over.
    pub(crate) fn spawn(&self, host: HostId, life: Life, name: &'static str, future: BoxFuture<'static, ()>) {
        let mut state = self.state();
        if state.alive.get(&host) != Some(&life) || state.doomed.contains(&(host, life)) {
            // Its destructors may spawn again, so it goes after the lock.
            drop(state);
            drop(future);
            return;
        }
        let id = TaskId(state.next);
        state.next += 1;
        let (ready, border) = (self.inner.ready.clone(), self.inner.border.clone());
        let waker = TaskWaker { id, queued: AtomicBool::new(true), ready, border };
        state.tasks.insert(id, Task { name, host, future: Some(future), waker: Arc::new(waker) });
        lock(&self.inner.ready).push(id);
    }

    /// Says which disk a host has.
    pub(crate) fn attach(&self, host: HostId, disk: &SimDisk) {
        self.state().disks.insert(host, disk.clone());
    }

    /// Makes `host` the one that runs, while the answer lives.
    fn enter(&self, host: HostId) -> Option<Running> {
        let disk = self.state().disks.get(&host).cloned();
        disk.map(|disk| disk.enter())
    }

    /// Begins a life of `host`.
    pub(crate) fn begin(&self, host: HostId, life: Life) {
        self.disarm(host);
        self.state().alive.insert(host, life);
    }

    /// Calls `then` after the `polls`-th poll of a task of `host` from now, counted from 1, if this life of it has as many.
    pub(crate) fn after_polls(&self, host: HostId, polls: u64, then: impl FnOnce() + Send + 'static) {
        self.state().armed.insert(host, (polls.max(1), Box::new(then)));
    }

    /// Takes back [`after_polls`](Self::after_polls).
    pub(crate) fn disarm(&self, host: HostId) {
        self.state().armed.remove(&host);
    }

    /// Counts a poll of `host`; what was armed by it, once it is time.
    fn fired_by_poll(&self, host: HostId) -> Option<OnPoll> {
        let mut state = self.state();
        let (left, _) = state.armed.get_mut(&host)?;
        *left -= 1;
        if *left > 0 {
            return None;
        }
        state.armed.remove(&host).map(|(_, then)| then)
    }

    /// Ends a life of `host` before anything else runs.
    pub(crate) fn doom(&self, host: HostId, life: Life) {
        let mut state = self.state();
        if state.alive.get(&host) == Some(&life) && !state.doomed.contains(&(host, life)) {
            state.doomed.push((host, life));
        }
    }

    /// Ends every life, and the world with them: tasks hold the scheduler, and it them.
    pub(crate) fn end(&self) {
        let alive: Vec<_> = self.state().alive.iter().map(|(host, life)| (*host, *life)).collect();
        alive.into_iter().for_each(|(host, life)| self.doom(host, life));
        self.bury(&mut |_, _| {});
        let (timers, disks) = {
            let mut state = self.state();
            (std::mem::take(&mut state.timers), std::mem::take(&mut state.disks))
        };
        drop((timers, disks));
        self.inner.border.open();
    }

    /// Lets `host` stand still, or go on.
    pub(crate) fn pause(&self, host: HostId, paused: bool) {
        let mut state = self.state();
        if paused {
            state.paused.entry(host).or_default();
        } else if let Some(waiting) = state.paused.remove(&host) {
            lock(&self.inner.ready).extend(waiting);
        }
    }

    /// Wakes `waker` once the clock reads `due`, unless the returned guard is dropped before.
    pub(crate) fn wake_at(&self, due: u64, waker: Waker) -> Alarm {
        let slot = Arc::new(Mutex::new(Some(waker)));
        let mut state = self.state();
        state.timer += 1;
        let timer = Timer { due, nth: state.timer, slot: slot.clone() };
        state.timers.push(Reverse(timer));
        Alarm(slot)
    }

    /// Completes once the clock reads `due`.
    pub(crate) fn sleep_until(&self, due: u64) -> Sleep {
        Sleep { executor: self.clone(), due, alarm: None }
    }

    /// The panics so far.
    pub(crate) fn panics(&self) -> Vec<Panic> {
        self.state().panics.clone()
    }

    /// The border of the world.
    pub(crate) fn border(&self) -> &Border {
        &self.inner.border
    }

    /// What tasks did outside of the world.
    pub(crate) fn escapes(&self) -> Vec<Escape> {
        self.state().escapes.clone()
    }

    /// Names of the tasks of `host` that have not ended.
    pub(crate) fn unfinished(&self, host: HostId) -> Vec<&'static str> {
        self.state().tasks.values().filter(|task| task.host == host).map(|task| task.name).collect()
    }

    /// Runs until the clock reads `end` or `done` says so. `ended` is told of each life that was doomed.
    pub(crate) fn run_until(
        &self,
        end: u64,
        done: &mut dyn FnMut() -> bool,
        ended: &mut dyn FnMut(HostId, Life),
    ) -> Stopped {
        let mut polls = 0;
        loop {
            self.bury(ended);
            if !self.state().panics.is_empty() {
                return Stopped::Panicked;
            }
            if done() {
                return Stopped::Done;
            }
            // What was planned for now comes before whoever could run: it may fall into their work.
            if self.now() >= end {
                return Stopped::Time;
            }
            if let Some(id) = self.pick() {
                polls += 1;
                if polls > SPIN {
                    return Stopped::Spinning;
                }
                self.poll(id);
                if !self.state().escapes.is_empty() {
                    return Stopped::Escaped;
                }
                self.pass(POLL);
            } else if self.advance(end) {
                polls = 0;
            } else {
                return Stopped::Time;
            }
        }
    }

    /// Drops the tasks of lives that are over.
    fn bury(&self, ended: &mut dyn FnMut(HostId, Life)) {
        loop {
            let Some((host, life)) = self.state().doomed.pop() else { return };
            let tasks: Vec<Task> = {
                let mut state = self.state();
                state.alive.remove(&host);
                if let Some(paused) = state.paused.get_mut(&host) {
                    paused.clear();
                }
                let ids: Vec<TaskId> =
                    state.tasks.iter().filter(|(_, task)| task.host == host).map(|(id, _)| *id).collect();
                ids.iter().filter_map(|id| state.tasks.remove(id)).collect()
            };
            // Destructors run product code; it must meet a dead host, and no lock of ours.
            let running = self.enter(host);
            let dropped = catch_unwind(AssertUnwindSafe(|| drop(tasks)));
            drop(running);
            if let Err(panic) = dropped {
                self.panicked(host, "dropping its tasks", &*panic);
            }
            ended(host, life);
        }
    }

    /// The next task to run: any of those that can, as the seed decides.
    fn pick(&self) -> Option<TaskId> {
        let mut state = self.state();
        loop {
            let id = {
                let mut ready = lock(&self.inner.ready);
                let count = ready.len() as u64;
                if count == 0 {
                    return None;
                }
                let nth = if count == 1 { 0 } else { state.rng.below(count) };
                ready.swap_remove(usize::try_from(nth).unwrap_or(0))
            };
            let Some(task) = state.tasks.get(&id) else { continue };
            let host = task.host;
            match state.paused.get_mut(&host) {
                Some(waiting) => waiting.push(id),
                None => return Some(id),
            }
        }
    }

    fn poll(&self, id: TaskId) {
        let (mut future, waker, host, name) = {
            let mut state = self.state();
            let Some(task) = state.tasks.get_mut(&id) else { return };
            let Some(future) = task.future.take() else { return };
            (future, task.waker.clone(), task.host, task.name)
        };
        waker.queued.store(false, Ordering::Relaxed);
        self.inner.trace.step(self.now(), host, name);
        let as_waker = Waker::from(waker);
        let mut context = Context::from_waker(&as_waker);
        let running = self.enter(host);
        let polled = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(&mut context)));
        match polled {
            Ok(Poll::Pending) => {
                if let Some(task) = self.state().tasks.get_mut(&id) {
                    task.future = Some(future);
                }
            }
            Ok(Poll::Ready(())) => {
                self.state().tasks.remove(&id);
                let dropped = catch_unwind(AssertUnwindSafe(|| drop(future)));
                if let Err(panic) = dropped {
                    self.panicked(host, name, &*panic);
                }
            }
            Err(panic) => {
                self.state().tasks.remove(&id);
                self.panicked(host, name, &*panic);
            }
        }
        drop(running);
        if let Some(then) = self.fired_by_poll(host) {
            then();
        }
        if let Some(what) = self.inner.border.crossed() {
            self.state().escapes.push(Escape { host, task: name, what });
        }
    }

    fn panicked(&self, host: HostId, task: &'static str, panic: &(dyn std::any::Any + Send)) {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
        let what = text.map_or_else(|| "a panic without a message".to_owned(), escape::explained);
        self.state().panics.push(Panic { host, task, what });
    }

    /// Moves the clock by `span`.
    fn pass(&self, span: Duration) {
        let nanos = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        self.inner.now.fetch_add(nanos, Ordering::Relaxed);
        self.fire();
    }

    /// Moves the clock to the next timer, at most to `end`; `false` once it is there.
    fn advance(&self, end: u64) -> bool {
        let due = {
            let mut state = self.state();
            while state.timers.peek().is_some_and(|Reverse(timer)| lock(&timer.slot).is_none()) {
                state.timers.pop();
            }
            state.timers.peek().map_or(u64::MAX, |Reverse(timer)| timer.due)
        };
        let now = self.now();
        if due > end {
            self.inner.now.store(now.max(end), Ordering::Relaxed);
            return false;
        }
        self.inner.now.store(now.max(due), Ordering::Relaxed);
        self.fire();
        true
    }

    /// Wakes whoever waits for a time that has come.
    fn fire(&self) {
        let now = self.now();
        loop {
            let slot = {
                let mut state = self.state();
                match state.timers.peek() {
                    Some(Reverse(timer)) if timer.due <= now => state.timers.pop().map(|Reverse(timer)| timer.slot),
                    _ => None,
                }
            };
            let Some(slot) = slot else { return };
            let waker = lock(&slot).take();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }
}

/// A timer that is set; dropping it unsets it.
pub(crate) struct Alarm(Arc<Slot>);

impl Drop for Alarm {
    fn drop(&mut self) {
        lock(&self.0).take();
    }
}

/// Waits for a time.
pub(crate) struct Sleep {
    executor: Executor,
    due: u64,
    alarm: Option<(Alarm, Waker)>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.executor.now() >= self.due {
            self.alarm = None;
            return Poll::Ready(());
        }
        let set = self.alarm.as_ref().is_some_and(|(_, waker)| waker.will_wake(context.waker()));
        if !set {
            let alarm = self.executor.wake_at(self.due, context.waker().clone());
            self.alarm = Some((alarm, context.waker().clone()));
        }
        Poll::Pending
    }
}

/// Locks what only one thread ever locks: a panic in a task leaves nothing of ours half done.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
