//! Going on with a course that was stopped.

use quorate_foundations::time::Wall;

use super::{Course, Seen, Standing};
use crate::saga::choreography::Process;

/// A stopped course as it was right before the event that stopped it.
#[derive(Clone, Debug)]
pub struct Resumed {
    /// The course.
    pub course: Course,
    /// Its events up to there.
    pub trail: Vec<Seen>,
    /// The event that stopped it, and those that have come since, in the order of the log: they are to be taken in.
    pub left: Vec<Seen>,
}

impl Course {
    /// How it was before it was stopped, by what `process` says now. Times run from when their events were recorded; what was told to be
    /// overdue is not told again; limits of chains of causes count from the event that stopped it, so that it may go round as often again.
    /// `trail`: all of its events; `wall`: by the wall clock; `now`: by the clock of the process.
    ///
    /// # Errors
    /// Why it cannot go on, in words.
    pub fn resumed(&self, process: &Process, mut trail: Vec<Seen>, wall: Wall, now: Wall) -> Result<Resumed, String> {
        if self.standing != Standing::Stopped {
            return Err(format!("it is {}, and not stopped", self.standing.word()));
        }
        if trail.len() >= Process::MAX_EVENTS {
            return Err(format!("it has {} events, and no course has more", trail.len()));
        }
        // Whatever came behind the event that stopped it was late.
        let late = usize::try_from(self.late).unwrap_or(usize::MAX);
        let Some(at) = trail.len().checked_sub(late.saturating_add(1)) else {
            return Err("its events do not say which of them stopped it".to_owned());
        };
        let left = trail.split_off(at);
        let counted_from = left.first().map_or(0, |first| first.position.get());
        let (state, repeated) = (self.state.clone(), self.repeated);
        let mut course = Self { state, repeated, counted_from, ..Self::default() };
        let mut before = Vec::with_capacity(trail.len());
        for seen in trail {
            let lag = wall.saturating_since(seen.at);
            course.take(process, &mut before, seen, lag, now);
        }
        for one in &mut course.pending {
            one.overdue = self.told.iter().any(|told| told.is_same(one));
        }
        if !course.standing.is_over() {
            course.stand();
        }
        Ok(Resumed { course, trail: before, left })
    }
}
