//! Given these events, when this is asked, then that happens: rules of a decider as one sentence of a test.

use std::fmt::Debug;

use super::{Decider, DomainEvent};

/// A decider with a past, for tests. See [`given`].
pub struct Given<D: Decider> {
    decider: D,
    state: D::State,
}

/// A decider's answer, for tests. See [`given`].
#[must_use = "say what happens then"]
pub struct When<D: Decider> {
    given: Given<D>,
    decided: Result<Vec<D::Event>, D::Rejection>,
}

/// Begins a test: what has happened so far.
///
/// Each `then` also writes the events as JSON and reads them back, so that an event that would not survive the log is
/// found here.
///
/// # Example
/// ```
/// # use quorate_consistency::{event_sourcing::{Decider, given}, event_types};
/// # use serde::{Deserialize, Serialize};
/// # struct Counter;
/// # #[derive(Debug, PartialEq, Serialize, Deserialize)] enum Event { Counted { by: u8 } }
/// # event_types! { Event { Counted = "counted" version 1 } }
/// # #[derive(Debug, PartialEq)] struct Full;
/// # impl Decider for Counter {
/// #     type Command = u8; type Event = Event; type State = u8; type Rejection = Full;
/// #     fn decide(&self, sum: &u8, by: &u8) -> Result<Vec<Event>, Full> {
/// #         sum.checked_add(*by).ok_or(Full)?;
/// #         Ok(if *by == 0 { vec![] } else { vec![Event::Counted { by: *by }] })
/// #     }
/// #     fn evolve(sum: u8, Event::Counted { by }: &Event) -> u8 { sum + by }
/// # }
/// given(Counter, [Event::Counted { by: 250 }])
///     .when(5)
///     .then([Event::Counted { by: 5 }])
///     .when(1)
///     .then_rejected(Full)
///     .when(0)
///     .then_nothing()
///     .state(|sum| assert_eq!(*sum, 255));
/// ```
pub fn given<D: Decider>(decider: D, events: impl IntoIterator<Item = D::Event>) -> Given<D> {
    let state = events.into_iter().fold(D::State::default(), |state, event| D::evolve(state, &event));
    Given { decider, state }
}

impl<D: Decider> Given<D> {
    /// What is asked for.
    pub fn when(self, command: D::Command) -> When<D> {
        let decided = self.decider.decide(&self.state, &command);
        When { given: self, decided }
    }

    /// Looks at the state.
    pub fn state(self, look: impl FnOnce(&D::State)) -> Self {
        look(&self.state);
        self
    }
}

impl<D: Decider<Event: Debug + PartialEq, Rejection: Debug>> When<D> {
    /// These events happen. The test can go on from there.
    ///
    /// # Panics
    /// If something else happens, or an event does not survive its own JSON.
    #[track_caller]
    pub fn then(self, expected: impl IntoIterator<Item = D::Event>) -> Given<D> {
        let events = match self.decided {
            Ok(events) => events,
            Err(rejection) => panic!("the command was rejected: {rejection:?}"),
        };
        assert_eq!(events, expected.into_iter().collect::<Vec<_>>());
        events.iter().for_each(assert_survives_json);
        let Given { decider, state } = self.given;
        Given { decider, state: events.iter().fold(state, D::evolve) }
    }

    /// Nothing happens, and nothing is wrong with that.
    ///
    /// # Panics
    /// If something happens.
    #[track_caller]
    pub fn then_nothing(self) -> Given<D> {
        self.then([])
    }

    /// A rule forbids it. The test can go on from the same state.
    ///
    /// # Panics
    /// If it is allowed, or forbidden for another reason.
    #[track_caller]
    pub fn then_rejected(self, expected: D::Rejection) -> Given<D>
    where
        D::Rejection: PartialEq,
    {
        match self.decided {
            Ok(events) => panic!("the command was not rejected: {events:?}"),
            Err(rejection) => assert_eq!(rejection, expected),
        }
        self.given
    }
}

#[track_caller]
fn assert_survives_json<E: DomainEvent + Debug + PartialEq>(event: &E) {
    let mut data = Vec::new();
    if let Err(cause) = event.encode(&mut data) {
        panic!("{event:?} cannot be written as JSON: {cause}");
    }
    match E::decode(event.type_index(), &data) {
        Ok(read) => assert_eq!(&read, event, "the event reads back differently from {}", data.escape_ascii()),
        Err(cause) => panic!("{event:?} cannot be read back from {}: {cause}", data.escape_ascii()),
    }
}
