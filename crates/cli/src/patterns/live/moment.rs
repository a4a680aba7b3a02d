//! A moment by all clocks of the machine, to lay side by side what different processes say of it.

use std::time::Duration;

use quorate_foundations::time::{Boot, Mono, Wall};
use quorate_runtime::Env;

/// A moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    /// By this process's clock.
    pub(super) mono: Mono,
    /// By the clock that all processes of the machine read.
    pub(super) boot: Boot,
    /// As events have it.
    pub(super) wall: Wall,
}

impl Moment {
    pub(super) fn now(env: &Env) -> Self {
        Self { mono: env.mono(), boot: env.boot(), wall: env.wall() }
    }

    /// What another process read from the machine's clock behind this, by this process's clock.
    pub(super) fn mono_of(&self, boot: Boot) -> Mono {
        self.mono + boot.saturating_since(self.boot)
    }

    /// How long this was before `later`.
    pub(super) fn until(&self, later: &Self) -> Duration {
        later.mono.saturating_since(self.mono)
    }
}
