//! The clocks of a simulated host: skewed, drifting, stepped, and standing still while the host is suspended.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use quorate_foundations::time::{Boot, Mono, Wall};
use quorate_runtime::{BoxFuture, clock::Clocks};

use crate::executor::{Executor, lock};

/// When every world begins: 2026-01-01T00:00:00Z.
const BEGINNING: i64 = 1_767_225_600_000_000_000;

/// The world's true time as a wall clock reads it: what SQLite takes for the time, on every host.
pub(crate) fn true_wall(executor: &Executor) -> Wall {
    Wall::from_unix_nanos(BEGINNING) + Duration::from_nanos(executor.now())
}

/// The clocks of one host. Cheap to clone; clones are the same clocks.
#[derive(Clone)]
pub(crate) struct HostClocks {
    executor: Executor,
    state: Arc<Mutex<State>>,
}

/// Readings as of a moment of true time, and how they go on from there.
struct State {
    /// The moment, in nanoseconds of true time.
    at: u64,
    wall: i64,
    mono: u64,
    boot: u64,
    /// Parts in a million that the clocks gain.
    ppm: i32,
    suspended: bool,
}

impl State {
    /// What a clock of this host counts while `span` of true time passes.
    fn counted(&self, span: u64) -> u64 {
        let gained = i128::from(span) * i128::from(self.ppm) / 1_000_000;
        u64::try_from(i128::from(span) + gained).unwrap_or(0)
    }

    fn advance(&mut self, now: u64) {
        let counted = self.counted(now.saturating_sub(self.at));
        self.at = now;
        self.wall = self.wall.saturating_add(i64::try_from(counted).unwrap_or(i64::MAX));
        self.boot = self.boot.saturating_add(counted);
        if !self.suspended {
            self.mono = self.mono.saturating_add(counted);
        }
    }
}

impl HostClocks {
    /// Clocks whose wall clock is off by `skew`, and that gain `ppm` parts in a million.
    pub(crate) fn new(executor: &Executor, skew_millis: i64, ppm: i32) -> Self {
        let wall = BEGINNING.saturating_add(skew_millis.saturating_mul(1_000_000));
        let state = State { at: executor.now(), wall, mono: 0, boot: 0, ppm, suspended: false };
        Self { executor: executor.clone(), state: Arc::new(Mutex::new(state)) }
    }

    fn read<T>(&self, reading: impl FnOnce(&State) -> T) -> T {
        let mut state = lock(&self.state);
        state.advance(self.executor.now());
        reading(&state)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = lock(&self.state);
        state.advance(self.executor.now());
        change(&mut state);
    }

    /// Moves the wall clock, and nothing else.
    pub(crate) fn step(&self, by_millis: i64) {
        self.change(|state| state.wall = state.wall.saturating_add(by_millis.saturating_mul(1_000_000)));
    }

    pub(crate) fn drift(&self, ppm: i32) {
        self.change(|state| state.ppm = ppm);
    }

    pub(crate) fn suspend(&self, suspended: bool) {
        self.change(|state| state.suspended = suspended);
    }

    /// A new process begins: its monotonic clock starts again. So does boot time if the machine lost power.
    pub(crate) fn restart(&self, lost_power: bool) {
        self.change(|state| {
            state.mono = 0;
            state.suspended = false;
            if lost_power {
                state.boot = 0;
            }
        });
    }

    /// The earliest true time at which the monotonic clock may read `due`, as it goes now.
    fn true_time_of(&self, due: u64) -> u64 {
        self.read(|state| {
            let missing = i128::from(due.saturating_sub(state.mono));
            let span = missing * 1_000_000 / i128::from(1_000_000 + state.ppm.clamp(-500_000, 500_000));
            state.at.saturating_add(u64::try_from(span + 1).unwrap_or(u64::MAX))
        })
    }
}

/// How soon a sleeper whose clock stood still or was slowed looks again.
const AGAIN: Duration = Duration::from_millis(1);

impl Clocks for HostClocks {
    fn wall(&self) -> Wall {
        Wall::from_unix_nanos(self.read(|state| state.wall))
    }

    fn mono(&self) -> Mono {
        Mono::from_nanos(self.read(|state| state.mono))
    }

    fn boot(&self) -> Boot {
        Boot::from_nanos(self.read(|state| state.boot))
    }

    fn sleep_until(&self, due: Mono) -> BoxFuture<'static, ()> {
        let clocks = self.clone();
        Box::pin(async move {
            let mut earliest = 0;
            while clocks.mono() < due {
                let again = earliest + u64::try_from(AGAIN.as_nanos()).unwrap_or(0);
                let wake = clocks.true_time_of(due.as_nanos()).max(if earliest == 0 { 0 } else { again });
                clocks.executor.sleep_until(wake).await;
                earliest = clocks.executor.now();
            }
        })
    }
}
