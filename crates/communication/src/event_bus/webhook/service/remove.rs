//! Deleting: an endpoint goes with all that is known of it, in steps that can be done again.

use quorate_data::subscription::{SubscriptionError, Subscriptions};
use quorate_foundations::name::Name;

use super::{TRIES, Webhooks};
use crate::event_bus::webhook::{
    WebhookError,
    rows::{self, Head},
};

/// Attempts that are deleted with their endpoint in one transaction.
const DELETED_AT_ONCE: u32 = 500;

impl Webhooks {
    /// Deletes an endpoint with all that is known of it. Nothing is sent any more; what is under way may still arrive.
    ///
    /// # Errors
    /// [`WebhookError::NotFound`] if there is none.
    ///
    /// # Cancel safety
    /// Dropping the future may leave a part, which goes when the webhooks are run next, or it is deleted or declared again.
    pub async fn delete(&self, name: &Name) -> Result<(), WebhookError> {
        for _ in 0..TRIES {
            let found = rows::find(&self.room.store, name).await?;
            let found = found.ok_or_else(|| WebhookError::NotFound { name: name.clone() })?;
            if found.is_deleting || self.change(&Head { is_deleting: true, ..found.clone() }, false).await? {
                return self.clear(&found).await;
            }
        }
        Err(WebhookError::Contended { name: name.clone() })
    }

    /// Deletes what is left of an endpoint that is being deleted: the row last, so that it can be done again.
    pub(in super::super) async fn clear(&self, head: &Head) -> Result<(), WebhookError> {
        self.unsubscribe(head).await?;
        self.forget(head).await
    }

    pub(super) async fn unsubscribe(&self, head: &Head) -> Result<(), WebhookError> {
        match self.room.subscriptions.delete(&head.subscription()?).await {
            Ok(()) | Err(SubscriptionError::NotFound { .. }) => Ok(()),
            Err(refused) => Err(refused.into()),
        }
    }

    /// Deletes subscriptions of webhooks that are gone: what a crash, or two who deleted at one time, may leave.
    pub(super) async fn sweep(&self) -> Result<(), WebhookError> {
        let mut after = Name::new(rows::PREFIX).ok();
        loop {
            let page = self.room.subscriptions.list(after.as_ref(), Subscriptions::MAX_PAGE).await?;
            // Ordering: the rows behind the subscriptions, since a row is there before its subscription.
            let all = rows::ids(&self.room.store).await?;
            for one in &page {
                let is_orphan = rows::row_of(&one.name).is_some_and(|id| !all.contains(&id));
                if is_orphan {
                    tracing::info!(subscription = one.name.as_str(), "what was left of a webhook is deleted");
                    match self.room.subscriptions.delete(&one.name).await {
                        Ok(()) | Err(SubscriptionError::NotFound { .. }) => {}
                        Err(refused) => return Err(refused.into()),
                    }
                }
            }
            match page.last().filter(|last| last.name.as_str().starts_with(rows::PREFIX)) {
                Some(last) if page.len() == Subscriptions::MAX_PAGE as usize => after = Some(last.name.clone()),
                _ => return Ok(()),
            }
        }
    }

    pub(super) async fn forget(&self, head: &Head) -> Result<(), WebhookError> {
        let id = head.id;
        loop {
            let deleted = self.room.store.transact(move |tx| {
                Box::pin(async move {
                    let deleted = rows::delete_attempts(tx, id, DELETED_AT_ONCE).await?;
                    if deleted == 0 {
                        rows::delete(tx, id).await?;
                    }
                    Ok::<_, WebhookError>(deleted)
                })
            });
            if deleted.await.map_err(WebhookError::of_transaction)? == 0 {
                break;
            }
        }
        for outcome in ["delivered", "refused", "failed"] {
            self.room.attempts.remove(&[("webhook", head.name.as_str().to_owned()), ("outcome", outcome.to_owned())]);
        }
        self.room.touch();
        Ok(())
    }
}
