//! What the handle says of sagas, and what can be asked for.

use std::sync::Arc;

use quorate_foundations::{name::Name, time::Wall};

use crate::saga::{
    Above, Awaited,
    journal::{Journal, Status},
};

/// What happened to sagas since the store was opened here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Sagas started.
    pub started: u64,
    /// Sagas completed.
    pub completed: u64,
    /// Sagas compensated.
    pub compensated: u64,
    /// Sagas that an operator ended.
    pub forced: u64,
    /// How often one got stuck.
    pub stuck: u64,
    /// Calls made to somewhere else.
    pub calls: u64,
    /// Calls that are under way now: at most [`Config::max_calls`](crate::saga::Config::max_calls).
    pub calling: usize,
    /// Calls that wait until others are over.
    pub waiting: u64,
    /// Answers that came when nobody waited for them any more.
    pub late: u64,
    /// Sagas that are open here now.
    pub open: usize,
    /// Sagas whose next step cannot be written, and nothing but somebody's help changes that.
    pub troubled: usize,
}

/// A saga as it was started, now or before.
#[derive(Clone, Debug)]
pub struct Started {
    /// What is known of it.
    pub journal: Arc<Journal>,
    /// Whether it was there already.
    pub repeated: bool,
}

/// A saga.
#[derive(Clone, Debug)]
pub struct Description {
    /// Its definition.
    pub name: Name,
    /// Its id.
    pub id: Arc<str>,
    /// What is known of it.
    pub journal: Arc<Journal>,
    /// Whether it waits for its version of the definition to be registered.
    pub stalled: bool,
    /// Why what is next cannot be written (its stream was closed, say), where that does not pass by itself. It is tried again and again.
    pub trouble: Option<Arc<str>>,
    /// What it waits for, and until when; of one that is stalled, what is known without its definition.
    pub waiting: Vec<Awaited>,
    /// The sagas that its steps started, in order of their names and ids; at most [`Sagas::MAX_PAGE`](crate::saga::Sagas::MAX_PAGE) of them.
    pub children: Vec<Summary>,
}

/// A saga in a listing.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// Its definition.
    pub name: Name,
    /// Its id.
    pub id: Arc<str>,
    /// Its version of the definition.
    pub version: u32,
    /// How it stands.
    pub status: Status,
    /// Whether it waits for its version of the definition to be registered.
    pub stalled: bool,
    /// Why what is next cannot be written, where that does not pass by itself.
    pub trouble: Option<Arc<str>>,
    /// Its business key.
    pub key: Option<Arc<str>>,
    /// The step that started it.
    pub parent: Option<Above>,
    /// When it began.
    pub started_at: Wall,
    /// When something last happened.
    pub updated_at: Wall,
}

/// Which sagas to list.
#[derive(Clone, Debug, Default)]
pub struct Search {
    /// Of this definition.
    pub name: Option<Name>,
    /// With this business key.
    pub key: Option<Arc<str>>,
    /// That stand so.
    pub status: Option<Status>,
    /// That steps of this saga started, by its name and id.
    pub parent: Option<(Name, Arc<str>)>,
    /// Behind this one, by name and id.
    pub after: Option<(Arc<str>, Arc<str>)>,
    /// At most so many: 1 to [`Sagas::MAX_PAGE`](crate::saga::Sagas::MAX_PAGE).
    pub limit: usize,
}
