//! The decider: the rules of one kind of thing, as pure functions.

use std::fmt::Display;

use quorate_data::store::Query;
use quorate_foundations::name::{Name, NameError};

use super::DomainEvent;

/// The rules of one kind of thing: what a command may lead to, and what an event changes.
///
/// Both functions are pure: the same arguments give the same answer, always. They read no clock and roll no dice; a
/// time or a random number that matters travels in the command and is kept in the event. A decision may be computed
/// several times before one of its results is written, and a state is folded again from its events years later.
///
/// # Example
/// See [`event_sourcing`](super).
///
/// Source: Chassaing, "Functional Event Sourcing Decider" (2021).
pub trait Decider: Send + Sync + 'static {
    /// What is asked for.
    type Command: Send + Sync;
    /// What happened.
    type Event: DomainEvent;
    /// What decisions are made against. The default is the state before the first event.
    type State: Default + Clone + Send + Sync + 'static;
    /// Why a command is refused: a rule of the domain, never a failure of the machinery.
    type Rejection: Send;

    /// What `command` leads to in `state`: events, none where there is nothing to do, or a rejection.
    ///
    /// Takes the command by reference, since it is decided again when another writer was first.
    fn decide(&self, state: &Self::State, command: &Self::Command) -> Result<Vec<Self::Event>, Self::Rejection>;

    /// The state after `event`. It refuses nothing: an event has happened.
    ///
    /// Has no `self`, so that no configuration can change what the past means.
    fn evolve(state: Self::State, event: &Self::Event) -> Self::State;
}

/// A decider whose boundary is one stream: the aggregate, the simple and the usual case.
pub trait Aggregate: Decider {
    /// The first part of its streams' names: `account` for `account-17`. Holds no `-`.
    const CATEGORY: &'static str;

    /// The stream of the aggregate `id`.
    ///
    /// # Errors
    /// [`NameError`] if category and id together are no name, because of a control character or their length.
    fn stream(id: impl Display) -> Result<Name, NameError> {
        Name::new(format!("{}-{id}", Self::CATEGORY))
    }
}

/// A decider whose boundary is drawn by each command: a query over the whole log, across streams.
///
/// The decision sees the events that match, and is written only if no further one has come meanwhile.
///
/// Source: Dynamic Consistency Boundaries, <https://dcb.events/specification/>.
pub trait DynamicBoundary: Decider {
    /// The events that matter for `command`. Items without types are narrowed to the types of [`Decider::Event`]; those with
    /// types are widened by the types that upcasters turn into these, so that old events are among them.
    fn boundary(&self, command: &Self::Command) -> Query;

    /// The stream that `event` goes to.
    ///
    /// # Errors
    /// [`NameError`] if what the event holds makes no name.
    fn stream(&self, event: &Self::Event) -> Result<Name, NameError>;
}
