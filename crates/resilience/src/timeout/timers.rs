//! Alarms that cost little when they don't ring: one driver sleeps for all of them.

use std::{
    borrow::Borrow,
    fmt,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use quorate_foundations::time::Mono;
use quorate_runtime::Env;
use tokio::sync::Notify;

use super::{
    Expired,
    driven::Driven,
    planned::Planned,
    sync::lane,
    wheel::{Key, Wheel},
};
use crate::{deadline::Deadline, outcome::Scope};

/// Where alarms are set. One for a whole process is enough; cheap to clone, and clones are the same.
///
/// An alarm never rings early, and up to [`Timers::GRAIN`] late. Setting one and removing it allocates nothing: it goes
/// into a wheel of the thread it is set on. A task of `env` sleeps until the earliest of all; it begins when the first alarm is
/// set. When `env` is told to stop, alarms that are set still ring, and the task ends once there are none.
#[derive(Clone)]
pub struct Timers(Arc<Owner>);

/// Ends the driver when the last handle is dropped.
struct Owner(Arc<Core>);

struct Core {
    env: Env,
    wheels: [Line; WHEELS],
    planned: Planned,
    /// Wakes the driver.
    news: Notify,
    driven: Driven,
    /// Whether the driver wants to hear of alarms that are removed.
    ending: AtomicBool,
}

/// Wheels apart from each other, since each belongs to a thread or a few.
#[repr(align(128))]
struct Line(Mutex<Wheel>);

const WHEELS: usize = 8;

/// Rings at a deadline, once. Does nothing before it is first polled; dropping it removes it.
///
/// `T` is where it is set: `&Timers`, or a `Timers` of its own for alarms that live longer.
#[must_use = "an alarm does nothing unless polled"]
pub struct Alarm<T: Borrow<Timers> = Timers> {
    timers: T,
    at: Deadline,
    state: State,
}

#[derive(Clone, Copy)]
enum State {
    Idle,
    Set { wheel: u8, key: Key },
    Rung,
}

impl Timers {
    /// How late an alarm may ring.
    pub const GRAIN: Duration = Duration::from_millis(1);

    /// Timers on the monotonic clock of `env`.
    pub fn new(env: &Env) -> Self {
        let wheel = || Line(Mutex::new(Wheel::new()));
        let core = Core {
            env: env.clone(),
            wheels: std::array::from_fn(|_| wheel()),
            planned: Planned::new(),
            news: Notify::new(),
            driven: Driven::new(AtomicBool::new(false)),
            ending: AtomicBool::new(false),
        };
        Self(Arc::new(Owner(Arc::new(core))))
    }

    /// The environment whose clock it is.
    pub fn env(&self) -> &Env {
        &self.0.0.env
    }

    /// An alarm for `at`; [`Deadline::NEVER`] never rings.
    pub fn alarm(&self, at: Deadline) -> Alarm {
        Alarm::new(self.clone(), at)
    }

    /// Awaits `work` until `deadline`. At it, `work` is dropped: nothing of it goes on but what it has spawned itself.
    /// `work` isn't begun if the deadline has passed at `now`.
    ///
    /// # Errors
    /// [`Expired`]: whether `work` did what it should is unknown, unless it wasn't begun.
    ///
    /// # Cancel safety
    /// That of `work`.
    ///
    /// # Example
    /// ```
    /// use quorate_resilience::{deadline::Deadline, outcome::Scope, timeout::{Expired, Timers}};
    /// use quorate_runtime::Env;
    /// use std::{future::pending, time::Duration};
    ///
    /// # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(async {
    /// let env = Env::real();
    /// let timers = Timers::new(&env);
    /// let deadline = Deadline::after(env.mono(), Duration::from_secs(1));
    /// assert_eq!(timers.within(env.mono(), deadline, Scope::Total, async { 7 }).await, Ok(7));
    /// let waited = timers.within(env.mono(), deadline, Scope::Total, pending::<()>()).await;
    /// assert_eq!(waited, Err(Expired { scope: Scope::Total }));
    /// # });
    /// ```
    pub async fn within<T>(
        &self,
        now: Mono,
        deadline: Deadline,
        scope: Scope,
        work: impl Future<Output = T>,
    ) -> Result<T, Expired> {
        if deadline.has_passed(now) {
            return Err(Expired { scope });
        }
        let mut work = pin!(work);
        let mut alarm = Alarm::new(self, deadline);
        poll_fn(|cx| match work.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Ok(done)),
            Poll::Pending => alarm.ring(cx).map(|()| Err(Expired { scope })),
        })
        .await
    }
}

impl<T: Borrow<Timers>> Alarm<T> {
    /// An alarm for `at`; [`Deadline::NEVER`] never rings.
    pub fn new(timers: T, at: Deadline) -> Self {
        Self { timers, at, state: State::Idle }
    }

    /// The environment whose clock it rings by.
    pub fn env(&self) -> &Env {
        self.timers.borrow().env()
    }

    /// Whether `deadline` has passed on its clock, which isn't read where there is none.
    pub(super) fn has_passed(&self, deadline: Deadline) -> bool {
        deadline != Deadline::NEVER && deadline.has_passed(self.env().mono())
    }

    /// When it rings.
    pub fn at(&self) -> Deadline {
        self.at
    }

    /// Lets it ring at `at` instead, also if it has rung already.
    pub fn reset(&mut self, at: Deadline) {
        self.remove();
        self.at = at;
    }

    /// Ready once the deadline has come. Otherwise the task is woken then.
    pub fn ring(&mut self, cx: &Context<'_>) -> Poll<()> {
        let core = &*self.timers.borrow().0.0;
        match self.state {
            State::Rung => return Poll::Ready(()),
            State::Set { wheel, key } => {
                if core.wheel(wheel).has_fired(key, cx.waker()) {
                    self.remove();
                    self.state = State::Rung;
                    return Poll::Ready(());
                }
            }
            State::Idle => {
                if let Some(at) = self.at.moment() {
                    let (wheel, key) = core.set(at, cx.waker());
                    self.state = State::Set { wheel, key };
                    if !core.driven.is() {
                        drive(&self.timers.borrow().0.0);
                    }
                }
            }
        }
        Poll::Pending
    }

    fn remove(&mut self) {
        if let State::Set { wheel, key } = std::mem::replace(&mut self.state, State::Idle) {
            let core = &*self.timers.borrow().0.0;
            // The lock is given back before a waker is dropped, which may drop a task and with it other alarms.
            let waker = core.wheel(wheel).remove(key);
            drop(waker);
            if core.ending.load(Ordering::Relaxed) {
                core.news.notify_one();
            }
        }
    }
}

impl<T: Borrow<Timers> + Unpin> Future for Alarm<T> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.ring(cx)
    }
}

impl<T: Borrow<Timers>> Drop for Alarm<T> {
    fn drop(&mut self) {
        self.remove();
    }
}

impl Core {
    fn wheel(&self, number: u8) -> MutexGuard<'_, Wheel> {
        self.wheels[usize::from(number)].0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, at: Mono, waker: &Waker) -> (u8, Key) {
        let due = at.as_nanos().div_ceil(GRAIN_NANOS);
        let number = (lane().number() % WHEELS) as u8;
        let waker = waker.clone();
        let key = self.wheel(number).insert(due, waker);
        if self.planned.is_later_than(due) {
            self.news.notify_one();
        }
        (number, key)
    }

    /// Lets all wheels turn, wakes whose time has come, and says when to look again.
    fn turn(&self) -> Option<Mono> {
        self.planned.look();
        let now = self.env.mono().as_nanos() / GRAIN_NANOS;
        let (mut woken, mut next) = (Vec::new(), None);
        for number in 0..WHEELS {
            let mut wheel = self.wheel(number as u8);
            wheel.advance(now, &mut woken);
            next = [next, wheel.next()].into_iter().flatten().min();
        }
        self.planned.sleep(next);
        woken.into_iter().for_each(Waker::wake);
        next.map(|tick| Mono::from_nanos(tick.saturating_mul(GRAIN_NANOS)))
    }

    fn is_empty(&self) -> bool {
        (0..WHEELS).all(|number| self.wheel(number as u8).armed() == 0)
    }
}

const GRAIN_NANOS: u64 = Timers::GRAIN.as_nanos() as u64;

/// Begins to drive, unless somebody does.
#[cold]
fn drive(core: &Arc<Core>) {
    if !core.driven.begins() {
        return;
    }
    let driver = Driver { core: core.clone(), left: false };
    core.env.tasks().spawn("timers", driver.run());
}

/// Drives as long as it lives. If its task is dropped, the next alarm begins another one.
struct Driver {
    core: Arc<Core>,
    /// Whether it has said that it drives no more.
    left: bool,
}

impl Driver {
    async fn run(mut self) {
        let core = self.core.clone();
        let stop = core.env.tasks().stop();
        loop {
            let next = core.turn();
            let ending = core.ending.load(Ordering::Relaxed);
            if ending && self.leaves() {
                return;
            }
            let sleep = async {
                match next {
                    Some(next) => core.env.sleep_until(next).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = core.news.notified() => {}
                () = stop.cancelled(), if !ending => core.ending.store(true, Ordering::Relaxed),
                () = sleep => {}
            }
        }
    }

    /// Leaves, unless there are alarms.
    fn leaves(&mut self) -> bool {
        self.left = self.core.driven.leaves(|| self.core.is_empty());
        self.left
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        if !self.left {
            self.core.driven.is_gone();
        }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        // No alarm outlives its handle: the wheels are empty, and stay so.
        self.0.ending.store(true, Ordering::Relaxed);
        self.0.news.notify_one();
    }
}

impl fmt::Debug for Timers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timers").finish_non_exhaustive()
    }
}

impl<T: Borrow<Timers>> fmt::Debug for Alarm<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Alarm").field("at", &self.at).finish_non_exhaustive()
    }
}
