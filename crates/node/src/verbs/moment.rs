//! A moment of the past: which events there were by then.

use quorate_data::event::Recorded;
use quorate_foundations::time::Wall;

/// A moment that events are held against. Times need not follow the order of the log: what came late is left out, and
/// what follows it is not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// When it had *happened*: events whose `time` (the recorded time where there is none) is not later.
    pub happened_by: Option<Wall>,
    /// When it was *known*: events whose recorded time is not later.
    pub recorded_by: Option<Wall>,
}

impl Moment {
    /// Whether every event was there by then: no moment was named.
    pub fn is_any(&self) -> bool {
        *self == Self::default()
    }

    /// Whether `event` was there by then.
    pub fn admits(&self, event: &Recorded) -> bool {
        self.happened_by.is_none_or(|by| event.happened_at() <= by)
            && self.recorded_by.is_none_or(|by| event.recorded_at() <= by)
    }
}
