//! The clients of a scenario against a node that really runs, and the same judges.
//!
//! A simulated world never executes the kernel's part: sockets, signals, the page cache, a disk that is full. Whoever starts real
//! processes and breaks things between them starts these clients, tells them when nothing is broken any more, waits for
//! them, and has their notes judged. What goes wrong is not decided here.

use std::net::SocketAddr;

use quorate_runtime::{Env, random::Random};
use quorate_sim::{Phase, Violation};
use tokio::sync::{
    oneshot::{self, error::TryRecvError},
    watch,
};

pub use crate::hand::Pace;
use crate::{
    cast::{Cast, Member},
    hand::{Busy, Shared},
    judge::Contract,
    notes::{Note, Notes},
};

/// Clients that have not begun.
pub struct Hands {
    cast: Cast,
}

/// Clients at work.
pub struct AtWork {
    cast: Cast,
    shared: Shared,
    phase: watch::Sender<Phase>,
    working: Vec<(String, oneshot::Receiver<Result<(), String>>)>,
    found: Vec<Violation>,
}

impl Hands {
    pub(crate) fn new(cast: Cast) -> Self {
        Self { cast }
    }

    /// Who there is, in order.
    pub fn names(&self) -> Vec<String> {
        self.cast.members(&Busy::default()).into_iter().map(|member| member.name).collect()
    }

    /// Has everybody begin, as tasks of `env`. Each finds the node where `to` says for its name, and draws from a stream of
    /// its own of `random`.
    pub fn start(self, env: &Env, random: &Random, pace: Pace, to: impl Fn(&str) -> SocketAddr) -> AtWork {
        let phase = watch::Sender::new(Phase::Faults);
        let (begun, clock) = (env.mono(), env.clone());
        let notes =
            Notes::new(move || u64::try_from(clock.mono().saturating_since(begun).as_nanos()).unwrap_or(u64::MAX));
        // Whoever starts real processes has their stores verified from outside.
        let shared = Shared { notes, phase: phase.subscribe(), busy: Busy::default(), pace, verifies: false };
        let start = |member: Member| {
            let hand = shared.hand(&member.name, env.clone(), random.stream(&member.name), to(&member.name));
            let (told, ended) = oneshot::channel();
            let work = member.work(hand);
            env.tasks().spawn("hand", async move {
                // Nobody listens any more only where the run was given up.
                let _ = told.send(work.await);
            });
            (member.name, ended)
        };
        let working = self.cast.members(&shared.busy).into_iter().map(start).collect();
        AtWork { cast: self.cast, shared, phase, working, found: Vec::new() }
    }
}

impl AtWork {
    /// Tells everybody that nothing goes wrong any more: they come to an end.
    pub fn heal(&self) {
        self.phase.send_replace(Phase::Healed);
    }

    /// Waits until everybody has ended.
    ///
    /// # Cancel safety
    /// Whoever had ended by then is remembered; ask again to go on waiting.
    pub async fn ended(&mut self) {
        while let Some((name, end)) = self.working.last_mut() {
            let end = end.await;
            self.found.extend(judge_end(name, end.ok()));
            self.working.pop();
        }
    }

    /// What was written down, and what of it must not be.
    ///
    /// Nothing is judged where somebody failed or has not ended: the notes are then incomplete.
    pub fn judge(mut self) -> (Vec<Note>, Vec<Violation>) {
        let mut unfinished = Vec::new();
        for (name, end) in &mut self.working {
            match end.try_recv() {
                Err(TryRecvError::Empty) => unfinished.push(name.as_str()),
                end => self.found.extend(judge_end(name, end.ok())),
            }
        }
        if !unfinished.is_empty() {
            self.found.push(Violation::new("liveness", format!("not ended: {}", unfinished.join(", "))));
        }
        let notes = self.shared.notes.take();
        if self.found.is_empty() {
            self.found = self.cast.judge(&notes, self.shared.pace, Contract::Whole).found;
        }
        (notes, self.found)
    }
}

/// What is wrong with how `name` ended; `None` is an end without a word.
fn judge_end(name: &str, end: Option<Result<(), String>>) -> Option<Violation> {
    match end {
        Some(Ok(())) => None,
        Some(Err(why)) => Some(Violation::new("client", format!("{name} failed: {why}"))),
        None => Some(Violation::new("no panic", format!("{name} panicked"))),
    }
}
