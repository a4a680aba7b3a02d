//! The hybrid logical clock: stamps that respect cause and effect and still say roughly what time it is.
//!
//! Its time is the latest wall reading seen anywhere, own or heard of; while that stands still or a wall clock runs
//! backwards, a counter goes on. So stamps only grow, a receipt is later than the sending, and a stamp is at most
//! [`Config::max_offset`] ahead of the wall clock of whoever accepted it.
//!
//! # Two traps, and what is done about them
//! **One bad clock drags all others along.** A stamp further ahead than `max_offset` is refused with
//! [`HlcError::TooFarAhead`] and leaves no trace. The node whose own clock is behind refuses everybody, which is how it
//! is found; alarm on [`Hlc::ahead_of`] and on refusals. Below the bound, clocks are believed.
//!
//! **A restart forgets.** If the wall clock was set back meanwhile, new stamps would repeat the past. So the clock hands
//! out only stamps below a [`Mark`] that is already durable, a window ahead of time so that persisting is rare, and a
//! restart goes on from the mark:
//!
//! ```text
//!        handed out            reserved            needs a new mark
//! ───────────────────────┬─────────────────┬──────────────────────────▶ time
//!                       last             mark (durable)
//! ```
//!
//! A restart thus runs ahead of the wall clock by up to the window. That must not add up over a crash loop, nor between
//! peers that hear of each other: a new mark is reserved from *wall readings*, never from the clock's own time, beyond
//! which it grows a single nanosecond (room for 2³² stamps). And the window is at most half of `max_offset`, so that a
//! restarted node is still believed by peers whose clocks differ by the other half.
//!
//! # What it does not promise
//! A smaller stamp does not mean *happened before*; it may be concurrent. And a wall clock that leaps into the future and
//! back leaves this clock there: stamps go on growing, peers refuse them, and only time or an operator helps.
//!
//! Source: S. Kulkarni et al., "Logical Physical Clocks and Consistent Snapshots in Globally Distributed Databases"
//! (2014), figure 5 and section 6. Ours differs in the mark, in refusing instead of ignoring stamps beyond the bound, and
//! in a full counter carrying into the wall time.

mod stamp;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub use stamp::{Mark, Stamp, StampError};

use crate::time::Wall;

/// How far clocks may differ, and how far ahead stamps are reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    max_offset: Duration,
    window: Duration,
}

/// Why two spans do not make a [`Config`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// Without a window every stamp would wait for a disk.
    #[error("the hybrid clock's window must not be zero")]
    ZeroWindow,
    /// A restarted node could be refused by its peers.
    #[error("the hybrid clock's window of {window:?} is more than half of its max-offset of {max_offset:?}")]
    WindowTooWide {
        /// The window asked for.
        window: Duration,
        /// The bound asked for.
        max_offset: Duration,
    },
}

/// A hybrid logical clock as a pure machine: it is told the time and keeps nothing but two numbers.
///
/// # Example
/// ```
/// use quorate_foundations::{ordering::hlc::{Answer, Config, Hlc, Mark, Stamp}, time::Wall};
///
/// /// What a shell does: persist when told so, then ask again.
/// fn tick(clock: &mut Hlc, now: Wall, disk: &mut Mark) -> Stamp {
///     loop {
///         match clock.tick(now).expect("before the year 2262") {
///             Answer::Stamp(stamp) => return stamp,
///             Answer::PersistFirst(mark) => {
///                 *disk = mark; // durable before the next line
///                 clock.persisted(mark);
///             }
///         }
///     }
/// }
///
/// let mut disk = Mark::START;
/// let mut clock = Hlc::resume(Config::default(), disk);
/// let before = tick(&mut clock, Wall::from_unix_nanos(1_700_000_000_000_000_000), &mut disk);
///
/// // The process restarts, and the wall clock was set back by years.
/// let mut clock = Hlc::resume(Config::default(), disk);
/// assert!(tick(&mut clock, Wall::from_unix_nanos(1_500_000_000_000_000_000), &mut disk) > before);
/// ```
#[derive(Clone, Debug)]
pub struct Hlc {
    config: Config,
    // Invariant: `mark` is durable and allows `last`, or no stamp was ever handed out.
    last: Stamp,
    mark: Mark,
}

/// What the clock says when asked for a stamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Answer {
    /// The stamp, larger than every earlier one, those before restarts included.
    Stamp(Stamp),
    /// Nothing changed. Make this mark durable, report it with [`Hlc::persisted`], and ask again.
    ///
    /// The order matters: a stamp seen by anybody before its mark is durable can come a second time after a crash.
    PersistFirst(Mark),
}

/// Why the clock gives no stamp. It is as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HlcError {
    /// The remote stamp is from too far in the future: its clock is ahead or ours is behind. Repeating helps once the
    /// wall clock has come closer.
    #[error("the stamp is {offset:?} ahead of this wall clock, more than the bound of {bound:?}")]
    TooFarAhead {
        /// How far ahead it is.
        offset: Duration,
        /// How far it might be.
        bound: Duration,
    },
    /// A clock has reached the year 2262 and no larger stamp exists. Repeating does not help.
    #[error("the hybrid clock has reached its end in the year 2262")]
    Exhausted,
}

impl Config {
    /// Checks and takes both spans.
    ///
    /// `max_offset`: how far ahead of the wall clock a remote stamp may be. `window`: how far ahead stamps are reserved;
    /// under steady load one mark is persisted per half a window, and none while idle.
    ///
    /// # Errors
    /// [`ConfigError`] if the window is zero or more than half of `max_offset`.
    pub const fn new(max_offset: Duration, window: Duration) -> Result<Self, ConfigError> {
        if window.is_zero() {
            Err(ConfigError::ZeroWindow)
        } else if window.as_nanos() > max_offset.as_nanos() / 2 {
            Err(ConfigError::WindowTooWide { window, max_offset })
        } else {
            Ok(Self { max_offset, window })
        }
    }

    /// How far ahead of the wall clock a remote stamp may be. Default 500 ms.
    pub const fn max_offset(&self) -> Duration {
        self.max_offset
    }

    /// How far ahead stamps are reserved. Default 250 ms.
    pub const fn window(&self) -> Duration {
        self.window
    }
}

impl Default for Config {
    fn default() -> Self {
        Self { max_offset: Duration::from_millis(500), window: Duration::from_millis(250) }
    }
}

impl Hlc {
    /// The clock that goes on above `mark`, the largest one ever persisted, or `Mark::START` on the very first start.
    ///
    /// Whoever has lost the mark has lost the promise: stamps can repeat.
    pub const fn resume(config: Config, mark: Mark) -> Self {
        Self { config, last: mark.last_below(), mark }
    }

    /// Stamps a local event, the sending of a message included. `now` may be any reading, earlier ones too.
    ///
    /// # Errors
    /// [`HlcError::Exhausted`].
    pub fn tick(&mut self, now: Wall) -> Result<Answer, HlcError> {
        self.hand_out(now, now, self.last)
    }

    /// Stamps the receipt of a message that carries `remote`. After persisting a mark ask again with the same `remote`;
    /// a fresher `now` is welcome.
    ///
    /// # Errors
    /// [`HlcError::TooFarAhead`], whether or not this clock's own time is as far ahead; [`HlcError::Exhausted`].
    pub fn observe(&mut self, now: Wall, remote: Stamp) -> Result<Answer, HlcError> {
        let (offset, bound) = (remote.wall().saturating_since(Stamp::new(now, 0).wall()), self.config.max_offset);
        if offset > bound {
            return Err(HlcError::TooFarAhead { offset, bound });
        }
        self.hand_out(now, now.max(remote.wall()), self.last.max(remote))
    }

    /// Takes note that `mark` is durable. Call it only when that is true; older marks change nothing.
    pub fn persisted(&mut self, mark: Mark) {
        self.mark = self.mark.max(mark);
    }

    /// A mark worth persisting now though nothing waits for it yet: less than half of the window is left.
    ///
    /// A shell that asks on every batch, and writes the mark along with it, never has to wait for one.
    pub fn renewal(&self, now: Wall) -> Option<Mark> {
        let next = self.following(now, self.last).ok()?;
        let scarce = !self.mark.allows(Stamp::new(next.wall() + self.config.window / 2, 0));
        scarce.then(|| self.reserve(now, now, next)).flatten().filter(|mark| *mark > self.mark)
    }

    /// How far this clock runs ahead of the wall clock: the number to watch, and to alarm on beyond `max_offset`.
    pub fn ahead_of(&self, now: Wall) -> Duration {
        self.last.wall().saturating_since(Stamp::new(now, 0).wall())
    }

    /// The largest stamp that may have been handed out; [`Stamp::ZERO`] on the very first start.
    pub const fn last(&self) -> Stamp {
        self.last
    }

    /// The mark that is durable.
    pub const fn mark(&self) -> Mark {
        self.mark
    }

    /// Hands out the stamp that follows `seen`. `heard`: the latest wall reading known, own or remote.
    fn hand_out(&mut self, now: Wall, heard: Wall, seen: Stamp) -> Result<Answer, HlcError> {
        let stamp = self.following(now, seen)?;
        if !self.mark.allows(stamp) {
            return self.reserve(now, heard, stamp).map(Answer::PersistFirst).ok_or(HlcError::Exhausted);
        }
        self.last = stamp;
        Ok(Answer::Stamp(stamp))
    }

    /// The paper's `l' = max(l, l.m, pt)` with its four cases for `c'`: the wall reading if it is news, else one up.
    fn following(&self, now: Wall, seen: Stamp) -> Result<Stamp, HlcError> {
        match Stamp::new(now, 0) {
            reading if reading.wall() > seen.wall() => Ok(reading),
            _ => seen.next().ok_or(HlcError::Exhausted),
        }
    }

    /// A mark that allows `stamp`, and a window beyond what clocks have shown.
    ///
    /// Never a window beyond `stamp` itself: a restart makes stamps begin at the mark, so each crash would add a window.
    /// Never beyond `max_offset` either, or peers that restart in turn would push each other ahead.
    fn reserve(&self, now: Wall, heard: Wall, stamp: Stamp) -> Option<Mark> {
        let ahead = (heard + self.config.window).min(now + self.config.max_offset);
        Mark::above(stamp).map(|lowest| lowest.max(Mark::new(ahead)))
    }
}
