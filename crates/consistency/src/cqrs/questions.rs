//! The read side: questions to views, and how fresh their answers are.

use quorate_data::{
    event::Position,
    materialized_view::{Freshness, ViewError, ViewName, Views},
    store::{Retry, Row, Value},
};

/// A question to a view.
pub trait Question: Sync {
    /// The view it is put to.
    const VIEW: &'static str;
    /// What it is answered with.
    type Answer;

    /// The query, in which `{loan}` stands for the view's table `loan`.
    fn sql(&self) -> &str;

    /// Its parameters: `$1`, `$2`, …
    fn params(&self) -> Vec<Value> {
        Vec::new()
    }

    /// The answer that the rows are. `None` where they are not of the shape that the code expects: those of a version of the
    /// view that it does not know.
    fn answer(&self, rows: &[Row]) -> Option<Self::Answer>;
}

/// An answer, and what it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered<A> {
    /// The answer.
    pub answer: A,
    /// It holds every event up to here, and may hold later ones.
    pub position: Position,
    /// But for so many events that could not be applied.
    pub parked: u64,
    /// The version of the view.
    pub version: u32,
}

/// Why a question has no answer. Nothing was changed: a question changes nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// The view has none right now: it is behind, or in the making, or not there.
    #[error(transparent)]
    View(#[from] ViewError),
    /// The rows are not what the question expects.
    #[error("version {version} of view `{view}` does not have the rows that the question expects")]
    Shape {
        /// The view.
        view: ViewName,
        /// Its version.
        version: u32,
    },
}

impl AskError {
    /// Whether asking again can help. The command before it is never to be repeated for that.
    pub fn retry(&self) -> Retry {
        match self {
            Self::View(failed) => failed.retry(),
            Self::Shape { .. } => Retry::Never,
        }
    }
}

/// Puts questions to views. Cheap to clone.
///
/// It has no way to the log or to a transaction, so asking never waits for a writer, and changes nothing.
#[derive(Clone)]
pub struct Questions {
    views: Views,
}

impl Questions {
    /// Questions to `views`.
    pub fn of(views: &Views) -> Self {
        Self { views: views.clone() }
    }

    /// Puts `question`, and waits as `fresh` asks for.
    ///
    /// # Errors
    /// [`ViewError::Behind`] says how far the view was when time ran out.
    pub async fn ask<Q: Question>(&self, question: &Q, fresh: Freshness) -> Result<Answered<Q::Answer>, AskError> {
        let name = ViewName::new(Q::VIEW).map_err(|cause| ViewError::Invalid { what: cause.to_string() })?;
        let view = self.views.get(&name).await?;
        let reading = view.query_fresh(fresh, question.sql(), question.params()).await?;
        let version = reading.version;
        let answer = question.answer(&reading.rows).ok_or(AskError::Shape { view: name, version })?;
        Ok(Answered { answer, position: reading.position, parked: reading.parked, version })
    }
}
