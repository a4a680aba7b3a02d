//! Folding: a state from a stream's events, page by page, in constant memory.

use std::sync::Arc;

use quorate_data::{
    event::{ChainHash, Position, Recorded, Version},
    store::{ReadStream, Store, StreamPage, Token},
};
use quorate_foundations::name::Name;

use super::{Decider, LoadError, config::Counters, log::Log, metadata::token_at, reader::Codec};

/// A state and where in its stream it stands.
pub(super) struct Folded<D: Decider> {
    pub(super) state: Arc<D::State>,
    /// The last event in it; what the next one has to follow.
    pub(super) version: Version,
    /// The position of the last event that was read with one; zero before the first.
    pub(super) position: Position,
    /// The append that the last event came with, where it was made here and not read.
    pub(super) token: Option<Token>,
    /// The first version that was still there when it was folded: another one means that the stream was truncated, and
    /// that this is no longer the fold of what it holds.
    pub(super) first: Version,
    /// The version of the snapshot it is ahead of.
    pub(super) snapshot: Version,
    /// Whether encrypted data flowed into it, so that it must not be kept in the clear.
    pub(super) encrypted: bool,
    /// The link that the event at `version` has to carry, where that is still to be shown.
    pub(super) anchor: Option<ChainHash>,
}

/// What a page made of a fold.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// It goes on with this version.
    More,
    /// The stream has no further event.
    Done,
    /// The stream is not the one that the fold began with: begin anew.
    Void,
}

/// What to do with an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Take {
    /// Let it act on the state.
    Fold,
    /// Leave it out.
    Skip,
    /// End before it.
    Stop,
}

impl<D: Decider> Clone for Folded<D> {
    fn clone(&self) -> Self {
        Self { state: self.state.clone(), ..*self }
    }
}

impl<D: Decider> Folded<D> {
    /// Before the first event.
    pub(super) fn start() -> Self {
        Self {
            state: Arc::default(),
            version: Version::ZERO,
            position: Position::ZERO,
            token: None,
            first: Version::new(1),
            snapshot: Version::ZERO,
            encrypted: false,
            anchor: None,
        }
    }

    /// What to read next. Where an anchor is to be checked the page begins with it.
    pub(super) fn next_page(&self, stream: &Name, limit: usize) -> ReadStream {
        let read = ReadStream::forward(stream.clone(), limit);
        match self.anchor {
            Some(_) => read.from(self.version),
            None if self.version == Version::ZERO => read,
            None => read.from(self.version.next()),
        }
    }

    /// Folds what `page` holds, as far as `take` wants it.
    pub(super) fn take_page(
        &mut self,
        stream: &Name,
        page: &StreamPage,
        folding: &Folding<'_, D>,
        take: impl Fn(&Recorded) -> Take,
    ) -> Result<Progress, LoadError> {
        if page.head.tombstoned {
            return Err(LoadError::Tombstoned { stream: stream.clone() });
        }
        if self.version == Version::ZERO {
            self.begin(page.head.first);
        }
        let mut events = page.events.as_slice();
        let elsewhere = page.head.first != self.first || page.head.version < self.version;
        if elsewhere || !self.is_anchored(&mut events) {
            return Ok(Progress::Void);
        }
        for event in events {
            self.expect(stream, event)?;
            match take(event) {
                Take::Stop => return Ok(Progress::Done),
                Take::Skip => self.pass(event),
                Take::Fold => {
                    folding.codec.read(event, folding.counters, |event| self.evolve(&event))?;
                    self.encrypted |= event.is_encrypted();
                    self.pass(event);
                }
            }
        }
        Ok(if page.next.is_some() { Progress::More } else { Progress::Done })
    }

    /// Lets `event` act on the state.
    pub(super) fn evolve(&mut self, event: &D::Event) {
        let state = Arc::make_mut(&mut self.state);
        *state = D::evolve(std::mem::take(state), event);
    }

    /// The newest append that is in it.
    pub(super) fn token(&self, store: &Store) -> Token {
        self.token.unwrap_or_else(|| token_at(store, self.position))
    }

    fn begin(&mut self, first: Version) {
        self.first = first.max(Version::new(1));
        self.version = Version::new(self.first.get() - 1);
    }

    /// Whether the event at the fold's version is the very event it was made of. Takes it off the page.
    fn is_anchored(&mut self, events: &mut &[Recorded]) -> bool {
        let Some(anchor) = self.anchor.take() else { return true };
        let Some((event, rest)) = events.split_first() else { return false };
        *events = rest;
        event.version() == self.version && event.hash() == anchor
    }

    fn expect(&self, stream: &Name, event: &Recorded) -> Result<(), LoadError> {
        if event.version() == self.version.next() {
            return Ok(());
        }
        Err(LoadError::Gap { stream: stream.clone(), after: self.version, found: event.version() })
    }

    fn pass(&mut self, event: &Recorded) {
        self.version = event.version();
        // What a transaction reads of its own appends may have none yet.
        if event.position() > Position::ZERO {
            self.position = event.position();
            self.token = None;
        }
    }
}

/// What folding needs besides a page.
pub(super) struct Folding<'a, D: Decider> {
    pub(super) codec: &'a Codec<D::Event>,
    pub(super) counters: &'a Counters,
    pub(super) page_events: usize,
}

impl<D: Decider> Folding<'_, D> {
    /// How often a fold begins anew because its stream was truncated meanwhile.
    const RESTARTS: u32 = 5;

    /// Goes on with `folded` to the end of the stream, or to where `take` stops.
    ///
    /// Begins from nothing if the stream turns out not to be the one that `folded` was made of.
    pub(super) async fn go_on(
        &self,
        log: &mut impl Log,
        stream: &Name,
        mut folded: Folded<D>,
        take: impl Fn(&Recorded) -> Take,
    ) -> Result<Folded<D>, LoadError> {
        let mut restarts = 0;
        loop {
            let page = log.page(folded.next_page(stream, self.page_events)).await?;
            match folded.take_page(stream, &page, self, &take)? {
                Progress::More => {}
                Progress::Done => return Ok(folded),
                Progress::Void if restarts == Self::RESTARTS => {
                    return Err(LoadError::Moving { stream: stream.clone() });
                }
                Progress::Void => {
                    restarts += 1;
                    folded = Folded::start();
                }
            }
        }
    }
}
