//! What is asked: a charge, which is not to be made twice.

use serde::{Deserialize, Serialize};

/// The type of the requests.
pub(super) const KIND: &str = "charge";
/// The most that there is for anybody, in cents. Whoever asks for more is told so by the application.
const LIMIT: u32 = 1_000;
/// The fault that says so.
pub(super) const TOO_DEAR: &str = "too-dear";

/// A charge.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Charge {
    pub(super) id: String,
    pub(super) cents: u32,
    pub(super) course: Course,
}

/// What is done to it on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Course {
    Plain,
    /// Its responder goes on with it until it is told to stop, and answers nevertheless.
    Slow,
    /// It is made, and its responder killed before it hears so.
    Struck,
    /// It is made, and its responder hears so once the node was told to stop.
    Held,
}

impl Charge {
    pub(super) fn new(id: impl Into<String>, course: Course) -> Self {
        Self { id: id.into(), cents: 100, course }
    }

    /// One that is refused by the rule.
    pub(super) fn too_dear(id: String) -> Self {
        Self { id, cents: LIMIT + 1, course: Course::Plain }
    }

    pub(super) fn is_too_dear(&self) -> bool {
        self.cents > LIMIT
    }
}
