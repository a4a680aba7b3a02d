//! Time travel: what a state was, and what changed between two moments.

use std::fmt::Display;

use quorate_data::event::{Position, Recorded, Version};
use quorate_foundations::{name::Name, time::Wall};
use serde::Serialize;

use super::{
    Aggregate, Aggregates, Change, LoadError, Loaded, TimeTravelError, difference,
    fold::{Folded, Take},
    metadata::token_at,
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

impl<D: Aggregate> Aggregates<D> {
    /// The state of the aggregate `id` at `moment`: its events up to then, folded in the order of the stream.
    ///
    /// Folds with today's `evolve`. Of a truncated stream, what is left is folded.
    /// [`Loaded::version`] is that of the last event looked at: with times, later ones may have been left out.
    ///
    /// # Errors
    /// [`TimeTravelError::VersionAhead`], [`PositionAhead`](TimeTravelError::PositionAhead) for a version or position
    /// that does not exist yet, [`Truncated`](TimeTravelError::Truncated) for one whose events are gone.
    ///
    /// # Example
    /// See [`event_sourcing`](super).
    pub async fn at(&self, id: impl Display + Send, moment: Moment) -> Result<Loaded<D>, TimeTravelError> {
        let stream = D::stream(id).map_err(LoadError::Name)?;
        let folded = self.past(&stream, moment).await?;
        Ok(Loaded { token: token_at(self.store(), folded.position), version: folded.version, state: folded.state })
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
        let folded = self.refold(stream, |event| moment.take(event)).await?;
        match moment {
            Moment::Version(Version::ZERO) => Ok(Folded::start()),
            Moment::Version(asked) if asked < folded.first => {
                Err(TimeTravelError::Truncated { asked, first: folded.first })
            }
            Moment::Version(asked) if asked > folded.version => {
                Err(TimeTravelError::VersionAhead { asked, head: folded.version })
            }
            _ => Ok(folded),
        }
    }
}
