//! Whose a saga is, as its runner sees it.

use super::Runner;
use crate::saga::rows::{self, Owner};

impl Runner {
    /// Whether it is to be left to whoever owns it. On a store of this process the newest owner is the right one; elsewhere it is taken only from
    /// the one it was to be taken from.
    pub(super) fn is_anothers(&self, owner: Owner) -> bool {
        match self.shared.has_others {
            false => owner > self.shared.owner,
            true => owner != self.shared.owner && Some(owner) != self.from,
        }
    }

    /// Whether it was taken over meanwhile. Where that cannot be told it stays in doubt, and the next write tells.
    pub(super) async fn is_lost(&mut self) -> bool {
        let owner = rows::owner(&self.shared.store, &self.saga).await;
        self.is_doubted = owner.is_err();
        let is_lost = owner.is_ok_and(|owner| owner != Some(self.shared.owner));
        if is_lost {
            self.shared.store.env().reached("saga: another owner has it");
        }
        is_lost
    }
}
