//! What a round does for sagas of steps, whose ones above may be in other processes.

use std::sync::Arc;

use quorate_foundations::name::Name;

use super::{PAGE, Place};
use crate::saga::{
    SagaError,
    rows::{SagaKey, children as rows},
    service::{Room, Shared},
};

/// Before all of them.
pub(super) fn start() -> Place {
    (Arc::from(""), Arc::from(""))
}

/// Has those sagas look at their children whose children ended at another process.
pub(super) async fn hear(shared: &Shared) -> Result<(), SagaError> {
    let mut after = start();
    loop {
        let found = rows::to_be_told(&shared.store, shared.owner, after, PAGE).await?;
        for (name, id) in &found {
            if let Ok(name) = Name::new(name.clone()) {
                shared.look_at_children(&SagaKey { name, id: id.clone() });
            }
        }
        match found.last() {
            Some(last) if found.len() as i64 == PAGE => after = last.clone(),
            _ => return Ok(()),
        }
    }
}

/// Runs open sagas of steps that are this process's own and that nobody runs: it was not known whether the turn was written that began them and the
/// one above is elsewhere by now, or whoever ran them panicked. A page in each round, so that none takes long.
pub(super) async fn run_own(shared: &Arc<Shared>, room: &Arc<Room>, swept: &mut Place) -> Result<(), SagaError> {
    let found = rows::own(&shared.store, shared.owner, swept.clone(), PAGE).await?;
    for (name, id, version) in &found {
        if let Ok(name) = Name::new(name.clone())
            && shared.definition(&name, *version).is_some()
        {
            // Whoever runs it goes on. What another process took meanwhile is left to it.
            shared.clone().take_over(room, SagaKey { name, id: id.clone() }, Some(shared.owner))?;
        }
    }
    let last = found.last().filter(|_| found.len() as i64 == PAGE);
    *swept = last.map_or_else(start, |(name, id, _)| (name.clone(), id.clone()));
    Ok(())
}
