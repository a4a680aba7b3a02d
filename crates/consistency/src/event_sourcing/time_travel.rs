//! Time travel: what a state was, and what changed between two moments.

use std::{
    fmt::{self, Display},
    sync::atomic::{AtomicU64, Ordering},
};

use quorate_data::event::{Position, Recorded, Timestamp, Version};
use quorate_foundations::{name::Name, time::Wall};
use serde::Serialize;

use super::{
    Aggregate, Aggregates, Change, LoadError, Loaded, TimeTravelError, difference,
    fold::{Folded, Take},
};

/// A moment in the life of an aggregate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Now.
    Now,
    /// After this many events of its stream; zero for before the first.
    Version(Version),
    /// After this many events of the whole log.
    Position(Position),
    /// When it had *happened*: the events whose `time` (the recorded time where there is none) is not later.
    Time(Wall),
    /// When it was *known*: the events whose recorded time is not later.
    RecordedTime(Wall),
}

impl Moment {
    /// What becomes of `event`. Times need not follow the order of the stream: what came late is left out, and what
    /// follows it is not.
    fn take(self, event: &Recorded) -> Take {
        let (before, otherwise) = match self {
            Self::Now => (true, Take::Stop),
            Self::Version(version) => (event.version() <= version, Take::Stop),
            Self::Position(position) => (event.position() <= position, Take::Stop),
            Self::Time(time) => (event.happened_at() <= time, Take::Skip),
            Self::RecordedTime(time) => (event.recorded_at() <= time, Take::Skip),
        };
        if before { Take::Fold } else { otherwise }
    }
}

impl Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Now => f.write_str("now"),
            Self::Version(version) => write!(f, "version {version}"),
            Self::Position(position) => write!(f, "position {position}"),
            Self::Time(time) => write!(f, "the time {}", Timestamp::from(*time).as_str()),
            Self::RecordedTime(time) => write!(f, "the recorded time {}", Timestamp::from(*time).as_str()),
        }
    }
}

impl<D: Aggregate> Aggregates<D> {
    /// The state of the aggregate `id` at `moment`: its events up to then, folded in the order of the stream.
    ///
    /// Folds with today's `evolve`. Of a truncated stream, what is left is folded.
    /// [`Loaded::version`] is that of the last event looked at: with times, later ones may have been left out.
    ///
    /// # Errors
    /// [`TimeTravelError::VersionAhead`], [`PositionAhead`](TimeTravelError::PositionAhead) for a version or position
    /// that does not exist yet, [`Truncated`](TimeTravelError::Truncated) for a moment, also one given as a time, from which
    /// no event of a truncated stream is left.
    ///
    /// # Example
    /// See [`event_sourcing`](super).
    pub async fn at(&self, id: impl Display + Send, moment: Moment) -> Result<Loaded<D>, TimeTravelError> {
        let stream = D::stream(id).map_err(LoadError::Name)?;
        let folded = self.past(&stream, moment).await?;
        Ok(Loaded { token: folded.token(self.store()), version: folded.version, state: folded.state })
    }

    /// Where the states of the aggregate `id` at two moments differ, as JSON.
    ///
    /// # Errors
    /// As [`at`](Self::at).
    pub async fn difference(
        &self,
        id: impl Display + Send,
        before: Moment,
        after: Moment,
    ) -> Result<Vec<Change>, TimeTravelError>
    where
        D::State: Serialize,
    {
        let stream = D::stream(id).map_err(LoadError::Name)?;
        let before = serde_json::to_value(&*self.past(&stream, before).await?.state)?;
        let after = serde_json::to_value(&*self.past(&stream, after).await?.state)?;
        Ok(difference(&before, &after))
    }

    async fn past(&self, stream: &Name, moment: Moment) -> Result<Folded<D>, TimeTravelError> {
        let head = self.store().head();
        if let Moment::Position(asked) = moment
            && asked > head
        {
            return Err(TimeTravelError::PositionAhead { asked, head });
        }
        // The last version that was taken in. Where the stream is truncated meanwhile, folding begins anew.
        let taken = AtomicU64::new(0);
        let take = |event: &Recorded| {
            let take = moment.take(event);
            if take == Take::Fold {
                taken.fetch_max(event.version().get(), Ordering::Relaxed);
            }
            take
        };
        let folded = self.refold(stream, take).await?;
        let gone = TimeTravelError::Truncated { asked: moment, first: folded.first };
        let is_left = folded.first == Version::new(1) || taken.into_inner() >= folded.first.get();
        match moment {
            Moment::Version(Version::ZERO) => Ok(Folded::start()),
            Moment::Version(asked) if asked < folded.first => Err(gone),
            Moment::Version(asked) if asked > folded.version => {
                Err(TimeTravelError::VersionAhead { asked, head: folded.version })
            }
            // Of what is left nothing had happened by then; what had is gone.
            Moment::Position(_) | Moment::Time(_) | Moment::RecordedTime(_) if !is_left => Err(gone),
            _ => Ok(folded),
        }
    }
}
