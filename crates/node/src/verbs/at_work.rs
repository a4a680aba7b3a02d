//! What a node keeps at work: it is started again and again until it works, and says until then what is in the way.

use std::sync::{Mutex, PoisonError};

use quorate_foundations::{name::Name, time::Wall};

/// When something was tried last, and why it failed.
pub(super) type Failed = (Wall, String);

/// Something at work, or why it is not yet.
pub(super) struct AtWork<T>(Mutex<Result<T, Option<Failed>>>);

impl<T: Clone> AtWork<T> {
    pub(super) fn not_yet() -> Self {
        Self(Mutex::new(Err(None)))
    }

    pub(super) fn get(&self) -> Result<T, Option<Failed>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn works(&self, now: T) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Ok(now);
    }

    /// Notes why it could not be started, and says so where that is news.
    pub(super) fn failed(&self, (kind, name): (&str, &Name), now: Wall, cause: &dyn std::error::Error) {
        let why = cause.to_string();
        if !matches!(self.get(), Err(Some((_, before))) if before == why) {
            tracing::warn!(%name, why, "a configured {kind} cannot be started; it is tried again every second");
        }
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Err(Some((now, why)));
    }
}

/// What is in the way, for people.
pub(super) fn in_the_way(why: Option<Failed>) -> String {
    why.map_or_else(|| "it is about to".to_owned(), |(_, why)| why)
}
