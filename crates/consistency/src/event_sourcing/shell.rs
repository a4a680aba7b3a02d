//! What both services do in the world: write events down, append, wait between attempts, count.

use std::{
    fmt::Debug,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use quorate_data::{
    event::NewEvent,
    store::{AppendBatch, Appended, Store},
};
use quorate_runtime::{Env, random::Rng};

use super::{
    Config, DomainEvent, HandleError, Metadata,
    config::Counters,
    error::Refused,
    log::Log,
    reader::{Codec, Unwritable},
};

/// The world as a service of deciders sees it.
pub(super) struct Shell<E> {
    pub(super) store: Store,
    pub(super) env: Env,
    pub(super) config: Config,
    pub(super) codec: Codec<E>,
    pub(super) counters: Counters,
    source: Arc<str>,
    dice: Mutex<Rng>,
}

impl<E: DomainEvent> Shell<E> {
    /// `source` is that of events whose command names none.
    pub(super) fn new(store: &Store, config: Config, codec: Codec<E>, source: &str) -> Self {
        let env = store.env().scope("event_sourcing");
        Self {
            store: store.clone(),
            codec,
            counters: Counters::default(),
            source: config.source.clone().unwrap_or_else(|| source.into()),
            dice: Mutex::new(env.random("event_sourcing/backoff")),
            env,
            config,
        }
    }

    /// `events` as they go to the log.
    pub(super) fn write<R: Debug>(&self, events: &[E], metadata: &Metadata) -> Result<Vec<NewEvent>, HandleError<R>> {
        let written = events.iter().enumerate().map(|(index, event)| {
            let fresh_id = || self.store.event_id();
            self.codec.write(event, index, metadata, &self.source, fresh_id).map_err(|cause| {
                let kind = E::TYPES[event.type_index()].name;
                match cause {
                    Unwritable::Json(cause) => HandleError::Encode { index, kind, cause },
                    Unwritable::Tag(cause) => HandleError::Tag { index, kind, cause },
                }
            })
        });
        written.collect()
    }

    pub(super) async fn append<R: Debug>(
        &self,
        log: &mut impl Log,
        batch: AppendBatch,
    ) -> Result<Appended, Refused<R>> {
        Ok(log.append(batch).await?)
    }

    /// Counts a conflict, waits, and returns the number of the next attempt, counted from 1.
    ///
    /// What is waited is a random part of what may be, so that rivals do not meet again.
    pub(super) async fn next_attempt<R: Debug>(&self, attempt: u32, what: &str) -> Result<u32, HandleError<R>> {
        self.counters.conflicts.up();
        if attempt >= self.config.attempts.get() {
            return Err(HandleError::Contended { what: what.to_owned(), attempts: attempt });
        }
        let next = attempt + 1;
        let longest = u64::try_from(self.config.backoff_before(next).as_nanos()).unwrap_or(u64::MAX);
        if longest > 0 {
            let nanos = self.dice.lock().unwrap_or_else(PoisonError::into_inner).below(longest);
            self.env.sleep(Duration::from_nanos(nanos)).await;
        }
        Ok(next)
    }

    /// Events to read at a time.
    pub(super) fn page_events(&self) -> usize {
        self.config.page_events.get().min(self.store.limits().page_events)
    }

    /// `source` of the events of a command.
    pub(super) fn source<'a>(&'a self, metadata: &'a Metadata) -> &'a Arc<str> {
        metadata.source.as_ref().unwrap_or(&self.source)
    }
}
