//! A stopped course goes on: what stopped it and what came since is taken in and reacted to, with the record of who wanted it, or not at all.

use std::sync::Arc;

use quorate_data::{
    event::{NewEvent, Position, Recorded},
    store::{DynTx, Query, ReadLog},
};
use serde_json::json;

use super::{RESUMED, Tally, Turn, Undone};
use crate::saga::choreography::{
    ProcessError,
    machine::{Seen, Standing, Taken},
    rows::{self, Kept},
};

/// Who wants a course to go on, and why.
#[derive(Clone, Debug)]
pub(in super::super) struct Wish {
    pub(in super::super) key: Arc<str>,
    pub(in super::super) by: Arc<str>,
    pub(in super::super) note: Arc<str>,
}

impl Turn {
    /// Has a stopped course go on, and says how it stands then.
    ///
    /// # Errors
    /// [`Undone::Refused`] where it is not stopped, or what is left would stop it again.
    pub(in super::super) async fn resume(&self, tx: &mut DynTx, wish: &Wish) -> Result<(Tally, Standing), Undone> {
        let (name, key) = (&self.process.name, &wish.key);
        self.move_on(tx, self.place.checkpoint).await?;
        let not_found = || ProcessError::NotFound { name: name.clone(), key: key.clone() };
        let kept = rows::course(tx, name, key).await?.ok_or_else(not_found)?;
        let resumed = kept.course.resumed(&self.process, kept.trail, self.wall, self.now);
        let resumed = resumed.map_err(|why| Undone::Refused(why.into()))?;
        let (mut course, mut trail) = (resumed.course, resumed.trail);
        let mut tally = Tally { resumed: 1, ..Tally::default() };
        for seen in &resumed.left {
            let lag = self.wall.saturating_since(seen.at);
            match course.take(&self.process, &mut trail, seen.clone(), lag, self.now) {
                Taken::New if self.has_manager_of(seen) => {
                    let event = read(tx, seen).await?;
                    tally.emitted += self.react(tx, &event, key, &mut course).await?;
                }
                Taken::New | Taken::Repeated | Taken::Late => {}
                Taken::Stopped => {
                    let reason = course.reason.as_deref().unwrap_or_default();
                    return Err(Undone::Refused(format!("it would be stopped again: {reason}").into()));
                }
            }
        }
        tally.ended = course.standing.is_over().into();
        if let Some(first) = resumed.left.first() {
            let told = self.resumed(first, wish);
            self.tell(tx, vec![told]).await?;
        }
        let standing = course.standing;
        let kept = Kept { course, written: trail.len(), trail, first_at: kept.first_at };
        rows::write(tx, name, key, &kept, self.now).await?;
        Ok((tally, standing))
    }

    fn has_manager_of(&self, seen: &Seen) -> bool {
        self.process.reactions.iter().any(|reaction| reaction.act.is_some() && reaction.on == seen.kind)
    }

    fn resumed(&self, at: &Seen, Wish { key, by, note }: &Wish) -> NewEvent {
        let position = at.position.get().to_string();
        let data = json!({
            "process": self.process.name.as_str(), "course": &**key,
            "at": { "type": &*at.kind, "id": &*at.id, "logposition": position }, "by": &**by, "note": &**note,
        });
        self.told(self.id(&["resumed", key, &position]), RESUMED, key, at.id.clone(), &data)
    }
}

/// An event of a course as it stands in the log.
async fn read(tx: &mut DynTx, seen: &Seen) -> Result<Recorded, Undone> {
    let after = Position::new(seen.position.get().saturating_sub(1));
    let page = tx.read_log(ReadLog { query: Query::EVERYTHING, after, limit: 1 }).await?;
    let found = page.events.into_iter().find(|event| event.position() == seen.position && event.stub().is_none());
    found.ok_or_else(|| {
        Undone::Refused(
            format!("its event at {} is not in the log any more, and nobody can react to it", seen.position).into(),
        )
    })
}
