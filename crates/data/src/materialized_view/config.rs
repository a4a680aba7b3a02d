//! How a view is kept up to date.

use std::time::Duration;

use super::{Feeds, ViewError};

/// How a view is kept up to date.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// In transactions of its own, or in that of the append. Default: its own.
    pub mode: Mode,
    /// Into how many shards keys are spread: 1 to 64, and 1 for a view kept in the append. Fixed per build. Default 1.
    pub shards: u32,
    /// What becomes of an event that cannot be applied. Default: stop, and say so.
    pub on_poison: OnPoison,
    /// How often an event is tried alone before that, unless it would [certainly](super::ApplyError::certain) fail again: 1 to
    /// 1,000. Default 5.
    pub max_attempts: u32,
    /// How long it rests after the first failure; then twice as long each time. Default 100 ms.
    pub first_rest: Duration,
    /// At most. Default 30 s.
    pub longest_rest: Duration,
    /// The time of the store's one writer that a transaction aims at: 100 µs to 500 ms. Default 5 ms.
    pub batch_time: Duration,
    /// Events per transaction at most: 1 to 10,000. Default 5,000.
    pub batch_events: usize,
    /// How far the checkpoint may fall behind while only events pass by that do not matter to the view: what is looked at
    /// again, in the index, after a restart. 1 to 1,000,000. Default 4,096.
    pub stride: u64,
    /// When readers are given a new build. Default: as soon as it has caught up.
    pub switch: Switch,
    /// What happens where the code of a version changed, which its fingerprint shows. Default: it is refused.
    pub changed: Changed,
    /// Parked events of a build; when there are so many it stops. 1 to 10,000. Default 10,000.
    pub max_parked: u64,
    /// How often an effect is tried before it is parked: 1 to 1,000. Default 10.
    pub effect_attempts: u32,
    /// When somebody else owns a shard, how long it must have been silent before it is taken over. `None`: as the store needs
    /// it. Where only one process can have it open, the newest to come takes over at once, and whoever it fences does once
    /// that one has left; where several can, it is 10 s. Default: `None`.
    pub takeover: Option<Duration>,
    /// The view's contract with its readers: how stale it may be where they do not say it themselves. Default: none.
    pub staleness: Option<Staleness>,
    /// Of a view of other services' events: whose, and how far behind them it may be, by their own time, when it is read. Such a
    /// view has one shard. What they said is kept from a build's beginning; a source that is added later is unknown until it
    /// speaks. Default: none.
    pub feeds: Option<Feeds>,
}

/// How stale a view may be when it is read. The first bound that does not hold decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Staleness {
    /// Positions of the log behind the view, at most.
    pub max_events: Option<u64>,
    /// Age in seconds of the oldest event behind it that matters to it, at most.
    pub max_seconds: Option<u64>,
    /// What becomes of a read beyond that, or beyond what [feeds](Config::feeds) may lag.
    pub then: WhenStale,
}

/// What becomes of a read of a view that is staler than it may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenStale {
    /// It is refused.
    #[default]
    Refuse,
    /// It is answered, and the answer says so.
    Flag,
}

/// In which transaction events are applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// In one of the view's own, soon after. An append never waits for it, nor fails with it.
    #[default]
    Async,
    /// In the append's: no reader ever sees the log ahead of the view. An event that cannot be applied is refused.
    Inline,
}

/// What becomes of an event that cannot be applied, once it was tried often enough.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnPoison {
    /// The shard stops before it. Nothing is wrong, but the view falls behind.
    #[default]
    Stop,
    /// It is put aside, with every later event of its key behind it, to be replayed or skipped by somebody.
    Park,
    /// It is left out; a record says which and why.
    Skip,
}

/// When readers are given a build that has caught up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Switch {
    /// As soon as it has caught up with the one they have, unless events of it are parked; the first one all the same.
    #[default]
    WhenCaughtUp,
    /// When somebody says so.
    Manual,
}

/// What happens where the code of a version changed without its number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Changed {
    /// The view is not started, and the error says what to do. Readers keep what they have.
    #[default]
    Refuse,
    /// Another build is begun beside the one of the earlier code.
    Rebuild,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            mode: Mode::Async,
            shards: 1,
            on_poison: OnPoison::Stop,
            max_attempts: 5,
            first_rest: Duration::from_millis(100),
            longest_rest: Duration::from_secs(30),
            batch_time: Duration::from_millis(5),
            batch_events: 5_000,
            stride: 4_096,
            switch: Switch::WhenCaughtUp,
            changed: Changed::Refuse,
            max_parked: 10_000,
            effect_attempts: 10,
            takeover: None,
            staleness: None,
            feeds: None,
        }
    }
}

impl Config {
    /// The default for a view kept in the append's transaction.
    pub fn inline() -> Self {
        Self { mode: Mode::Inline, ..Self::default() }
    }

    /// Checks every range.
    ///
    /// # Errors
    /// [`ViewError::Invalid`] names the field.
    pub fn check(&self) -> Result<(), ViewError> {
        let shards = if self.mode == Mode::Inline || self.feeds.is_some() { 1 } else { 64 };
        self.feeds.as_ref().map_or(Ok(()), Feeds::check)?;
        within("shards", self.shards, 1, shards)?;
        within("max_attempts", self.max_attempts, 1, 1_000)?;
        within("effect_attempts", self.effect_attempts, 1, 1_000)?;
        within("batch_events", self.batch_events, 1, 10_000)?;
        within("stride", self.stride, 1, 1_000_000)?;
        within("max_parked", self.max_parked, 1, 10_000)?;
        within("batch_time in µs", self.batch_time.as_micros(), 100, 500_000)?;
        if self.first_rest > self.longest_rest {
            return Err(ViewError::invalid("`first_rest` is at most `longest_rest`"));
        }
        Ok(())
    }
}

fn within<N: PartialOrd + std::fmt::Display>(field: &str, value: N, least: N, most: N) -> Result<(), ViewError> {
    if value < least || value > most {
        return Err(ViewError::invalid(format!("`{field}` is {least} to {most}, {value} was asked for")));
    }
    Ok(())
}

macro_rules! stored_as_text {
    ($kind:ident { $($variant:ident = $text:literal),* $(,)? }) => {
        impl $kind {
            /// As text, as it is stored and shown.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),* }
            }

            pub(super) fn stored(text: &str) -> Option<Self> {
                match text { $($text => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

stored_as_text!(Mode { Async = "async", Inline = "inline" });
stored_as_text!(OnPoison { Stop = "stop", Park = "park", Skip = "skip" });
stored_as_text!(Switch { WhenCaughtUp = "when-caught-up", Manual = "manual" });
