//! Care for processes: how they stand together, and going on with a course that was stopped.

use std::{ops::Bound, sync::Arc};

use quorate_data::{
    event::Position,
    store::{StoreError, TransactError},
};
use quorate_foundations::name::Name;

use super::{Known, Processes, stream_of};
use crate::saga::choreography::{
    Overview, Process, ProcessError, Standing, Tally,
    rows::{self, Place},
    turn::{Turn, Undone, Wish},
    watched::{Watched, lock},
};

impl Processes {
    /// The longest name of somebody who has a course go on, in bytes.
    pub const MAX_BY_BYTES: usize = 256;
    /// The longest reason for that, in bytes.
    pub const MAX_NOTE_BYTES: usize = 1_000;

    /// Has a stopped course go on: the event that stopped it, and what has come since, is taken in by what the process says now, and process
    /// managers react to it. All of that is one transaction with the event that says who wanted it and why. How the course stands then.
    ///
    /// What it expected before is expected again, within what is left of the time, and what was told to be overdue is not told again. It
    /// may go round in circles as often as at first. Times that are over are told as soon as its follower has looked.
    ///
    /// `by`: 1 to [`MAX_BY_BYTES`](Self::MAX_BY_BYTES); `note`: at most [`MAX_NOTE_BYTES`](Self::MAX_NOTE_BYTES).
    ///
    /// # Errors
    /// [`ProcessError::Undeclared`], [`ProcessError::NotFound`], [`ProcessError::Invalid`]. [`ProcessError::Refused`]: it is not stopped, or it
    /// would be stopped again, and is left as it was. Where the [outcome is unknown](ProcessError::is_outcome_unknown), look at the course.
    ///
    /// # Cancel safety
    /// Dropping the future abandons the wait: it goes on, or not, all the same.
    pub async fn resume(&self, name: &Name, key: &str, by: &str, note: &str) -> Result<Standing, ProcessError> {
        let (most, longest) = (Self::MAX_BY_BYTES, Self::MAX_NOTE_BYTES);
        if by.is_empty() || by.len() > most || note.len() > longest {
            return Err(ProcessError::invalid(format!("`by` has 1 to {most} bytes and `note` at most {longest}")));
        }
        let wish = Wish { key: key.into(), by: by.into(), note: note.into() };
        let (this, name) = (self.clone(), name.clone());
        self.to_its_end("course goes on", async move { this.resumed(&name, wish).await }).await
    }

    async fn resumed(&self, name: &Name, wish: Wish) -> Result<Standing, ProcessError> {
        let _alone = self.shared.declaring.lock().await;
        let Known { process, watched, .. } = self.known(name)?;
        let key = wish.key.clone();
        let refused = |why: Arc<str>| ProcessError::Refused { name: name.clone(), key: key.clone(), why };
        let process = process.ok_or_else(|| refused("nobody declares the process".into()))?;
        let done = self.go_on(process, wish).await;
        // Whatever became of it: its follower looks where the process is.
        watched.wake();
        let (tally, standing) = done.map_err(|failed| match failed {
            TransactError::Aborted(Undone::Refused(why)) => refused(why),
            TransactError::Aborted(Undone::Failed(cause)) => cause,
            TransactError::Aborted(Undone::Overtaken | Undone::Behind) => {
                ProcessError::Undeclared { name: name.clone() }
            }
            TransactError::Store(cause) => cause.into(),
            TransactError::TooLong { .. } => StoreError::Busy.into(),
            other => refused(other.to_string().into()),
        })?;
        watched.count(tally);
        Ok(standing)
    }

    async fn go_on(&self, process: Arc<Process>, wish: Wish) -> Result<(Tally, Standing), TransactError<Undone>> {
        let store = &self.shared.store;
        let (now, wall) = (self.shared.now(), store.env().wall());
        let stream = stream_of(&process).map_err(|cause| TransactError::Aborted(cause.into()))?;
        let turn = Turn { process, stream, place: Place::default(), now, wall };
        let gone_on = store.transact(move |tx| {
            let (turn, wish) = (turn.clone(), wish.clone());
            Box::pin(async move {
                // Read here: whatever its follower does at the same time, one of the two comes first.
                let place = rows::place_now(tx, &turn.process.name).await?.ok_or(Undone::Overtaken)?;
                Turn { place, ..turn }.resume(tx, &wish).await
            })
        });
        gone_on.await
    }

    /// How processes stand, at most `limit` in order of their names, behind `after`. What cannot be read of one is missing there, and nowhere else.
    pub async fn overview(&self, after: Option<&Name>, limit: usize) -> Vec<Overview> {
        let behind = after.map_or(Bound::Unbounded, Bound::Excluded);
        let known: Vec<(Name, Arc<Watched>)> = {
            let known = lock(&self.shared.known);
            let page = known.range::<Name, _>((behind, Bound::Unbounded)).take(limit);
            page.map(|(name, known)| (name.clone(), known.watched.clone())).collect()
        };
        let mut all = Vec::with_capacity(known.len());
        for (name, watched) in known {
            let open = rows::census(&self.shared.store, &name, &Standing::OPEN).await.map_err(ProcessError::from);
            let position = self.position(&name, &watched).await.ok();
            let (trouble, counts) = (watched.why(), watched.counts());
            all.push(Overview { name, trouble, position, counts, open });
        }
        all
    }

    /// The processes that do not go on right now, and why not.
    pub fn troubles(&self) -> Vec<(Name, Arc<str>)> {
        let known = lock(&self.shared.known);
        known.iter().filter_map(|(name, known)| Some((name.clone(), known.watched.why()?))).collect()
    }

    /// So far the log was followed.
    pub(super) async fn position(&self, name: &Name, watched: &Watched) -> Result<Position, ProcessError> {
        match watched.position() {
            Some(seen) => Ok(seen),
            None => Ok(rows::place(&self.shared.store, name).await?.map_or(Position::ZERO, |place| place.checkpoint)),
        }
    }
}
