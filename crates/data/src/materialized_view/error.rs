//! What can go wrong with a view.

use std::time::Duration;

use quorate_foundations::time::Wall;

use super::{Build, InvalidSchema, ViewName, declared::Faults};
use crate::{
    event::Position,
    store::{Retry, SqlError, StoreError, TransactError},
};

/// What can go wrong with a view. Unless it says otherwise, nothing was changed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ViewError {
    /// There is no view of that name.
    #[error("there is no view `{view}`")]
    NotFound {
        /// The name.
        view: ViewName,
    },
    /// The view has no such build, or it was dropped.
    #[error("view `{view}` has no build {build}")]
    NoBuild {
        /// The view.
        view: ViewName,
        /// The build.
        build: Build,
    },
    /// There are as many as a store keeps.
    #[error("a store keeps at most {max} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// The limit.
        max: usize,
    },
    /// It is in the making: readers have nothing yet.
    #[error("view `{view}` is being built for the first time: it is at position {applied} of {head}")]
    NotBuilt {
        /// The view.
        view: ViewName,
        /// How far it is.
        applied: Position,
        /// Where the log ends.
        head: Position,
    },
    /// The view has not yet applied what a read wants to see. The read was not carried out.
    #[error("view `{view}` is at position {applied}, and the read wants to see position {wanted}")]
    Behind {
        /// The view.
        view: ViewName,
        /// How far it is.
        applied: Position,
        /// What the read wants to see.
        wanted: Position,
    },
    /// The view is older than the read, or its contract, allows. The read was not carried out.
    #[error(
        "view `{view}` is {behind} positions behind, at {applied}, and the oldest event that it lacks is {}: allowed are {}",
        aged(*lag), allowed(*max_lag, *max_events)
    )]
    Stale {
        /// The view.
        view: ViewName,
        /// How far it is.
        applied: Position,
        /// Positions of the log behind that.
        behind: u64,
        /// How old the oldest event is that it lacks, where that is known.
        lag: Option<Duration>,
        /// How old that may be.
        max_lag: Option<Duration>,
        /// How many positions there may be.
        max_events: Option<u64>,
    },
    /// A feed that the view is made of is silent or late, beyond what the view's contract allows. The read was not carried out.
    #[error("view `{view}` is behind `{feed}`, by what that said of its own time, by {}: {max_lag:?} are allowed", by(*lag))]
    FeedStale {
        /// The view.
        view: ViewName,
        /// The source of the feed that stands worst.
        feed: String,
        /// The latest time it has said; `None`: it never said any.
        said: Option<Wall>,
        /// How far behind it the view is.
        lag: Option<Duration>,
        /// How far it may be.
        max_lag: Duration,
    },
    /// As many queries run as may run at once.
    #[error("{concurrent} queries of views run already, which is as many as may")]
    Busy {
        /// How many.
        concurrent: usize,
    },
    /// A query names what is not there, or says something that cannot be said.
    #[error("{what}")]
    InvalidQuery {
        /// What is wrong, and what there is.
        what: String,
    },
    /// The view has no table of that name.
    #[error("view `{view}` has no table `{table}`; it has {}", tables.join(", "))]
    NoTable {
        /// The view.
        view: ViewName,
        /// The name.
        table: String,
        /// The tables there are.
        tables: Vec<String>,
    },
    /// The view became another one since the page that the cursor is from.
    #[error("the cursor is of another version of the view, or of another build: begin again without it")]
    OutdatedCursor,
    /// A token of another store or timeline.
    #[error(transparent)]
    Token(#[from] crate::store::TokenError),
    /// The code of a version changed without its number.
    #[error(
        "the fold of view `{view}` changed, but its version is still {version}: its rows were made by other code \
         (fingerprint {stored}, now {found}). Raise the version; code can also be started with `Changed::Rebuild`"
    )]
    FoldChanged {
        /// The view.
        view: ViewName,
        /// Its version.
        version: u32,
        /// The fingerprint of the code that made the rows.
        stored: String,
        /// The fingerprint of the code at hand.
        found: String,
    },
    /// No code of this view, or of the version asked for, was started in this process.
    #[error("no code of view `{view}` runs here, so nobody would build it")]
    NoCode {
        /// The view.
        view: ViewName,
    },
    /// The view is started already.
    #[error("version {version} of view `{view}` is started already")]
    Started {
        /// The view.
        view: ViewName,
        /// The version.
        version: u32,
    },
    /// The build has not caught up with the one readers have.
    #[error(
        "build {build} of view `{view}` is at position {applied}, readers have position {live}: it has to catch up"
    )]
    NotCaughtUp {
        /// The view.
        view: ViewName,
        /// The build.
        build: Build,
        /// How far it is.
        applied: Position,
        /// How far the live one is.
        live: Position,
    },
    /// The build has parked events, which readers would miss.
    #[error(
        "build {build} of view `{view}` has {parked} parked events: replay or skip them, or accept that they are missing"
    )]
    Incomplete {
        /// The view.
        view: ViewName,
        /// The build.
        build: Build,
        /// How many are parked.
        parked: u64,
    },
    /// Readers have this build.
    #[error("build {build} of view `{view}` is the one readers have: switch to another one first")]
    Live {
        /// The view.
        view: ViewName,
        /// The build.
        build: Build,
    },
    /// A parked event that was tried again failed again, and stays parked.
    #[error("the event at position {position} still cannot be applied: {reason}")]
    StillPoison {
        /// Where it stands.
        position: Position,
        /// Why.
        reason: String,
    },
    /// A field is out of its range.
    #[error("{what}")]
    Invalid {
        /// Which one, and its range.
        what: String,
    },
    /// A document that declares a view is wrong.
    #[error("the document was refused: {0}")]
    Document(#[from] Faults),
    /// A row could not be explained.
    #[error("the row could not be explained: {why}")]
    Unexplained {
        /// Why.
        why: String,
    },
    /// Another row is being explained: one at a time.
    #[error("another row is being explained")]
    Explaining,
    /// Its tables break a rule.
    #[error("the tables of the view were refused")]
    Schema(#[from] InvalidSchema),
    /// A statement was refused, or failed.
    #[error("a statement of the view failed")]
    Sql(#[source] SqlError),
    /// The store failed. After [`StoreError::OutcomeUnknown`] what was asked may have been done.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ViewError {
    pub(super) fn invalid(what: impl Into<String>) -> Self {
        Self::Invalid { what: what.into() }
    }

    pub(super) fn corrupt(place: impl Into<String>, what: impl std::fmt::Display) -> Self {
        Self::Store(StoreError::Corrupt { place: place.into(), what: what.to_string() })
    }

    /// What became of a transaction that refused nothing by itself.
    pub(super) fn of_transaction(failed: TransactError<Self>) -> Self {
        match failed {
            TransactError::Aborted(own) => own,
            TransactError::Store(cause) => Self::Store(cause),
            other => Self::Sql(SqlError::Failed { what: other.to_string() }),
        }
    }

    /// Whether repeating can help.
    pub fn retry(&self) -> Retry {
        match self {
            Self::NotBuilt { .. } | Self::Stale { .. } | Self::FeedStale { .. } | Self::Explaining => {
                Retry::After(Duration::from_secs(1))
            }
            Self::Behind { .. } | Self::NotCaughtUp { .. } | Self::Busy { .. } => {
                Retry::After(Duration::from_millis(100))
            }
            Self::Store(cause) | Self::Sql(SqlError::Store(cause)) => cause.retry(),
            _ => Retry::Never,
        }
    }
}

impl From<SqlError> for ViewError {
    fn from(failed: SqlError) -> Self {
        match failed {
            SqlError::Store(cause) => Self::Store(cause),
            other => Self::Sql(other),
        }
    }
}

fn aged(lag: Option<Duration>) -> String {
    lag.map_or_else(|| "of unknown age".to_owned(), |lag| format!("{lag:?} old"))
}

fn allowed(max_lag: Option<Duration>, max_events: Option<u64>) -> String {
    let lag = max_lag.map(|most| format!("{most:?}"));
    let events = max_events.map(|most| format!("{most} positions"));
    lag.into_iter().chain(events).collect::<Vec<_>>().join(" and ")
}

fn by(lag: Option<Duration>) -> String {
    lag.map_or_else(|| "nobody knows how much".to_owned(), |lag| format!("{lag:?}"))
}
