//! Changing: what people do with an endpoint that is there.

use std::time::Duration;

use quorate_foundations::name::Name;

use super::{Disabled, TRIES, Webhooks};
use crate::event_bus::webhook::{
    Secret, WebhookError,
    rows::{self, Head},
};

impl Webhooks {
    /// Sends nothing to an endpoint until it is enabled; `why` is for people. Nothing is skipped: its events wait. One that a person
    /// disabled stays so, for the reason it was; one that disabled itself is from now on disabled by whoever says so here.
    pub async fn disable(&self, name: &Name, why: &str) -> Result<(), WebhookError> {
        let why = if why.is_empty() { "somebody disabled it".to_owned() } else { why.chars().take(1_000).collect() };
        let disabled = Disabled { since: self.room.store.env().wall(), why, is_automatic: false };
        let disable = |head: &Head| Some(Head { disabled: Some(disabled.clone()), ..head.clone() });
        let is_disabled = |head: &Head| head.disabled.as_ref().is_some_and(|disabled| !disabled.is_automatic);
        self.changed(name, false, |head| if is_disabled(head) { None } else { disable(head) }).await
    }

    /// Sends to an endpoint again, from where it was. Its breaker is closed; its failures, and what it asked for, are forgotten in the
    /// transaction that enables it.
    pub async fn enable(&self, name: &Name) -> Result<(), WebhookError> {
        let is_well = |head: &Head| head.disabled.is_none() && head.failing.is_none() && head.paused.is_none();
        let enable = |head: &Head| Some(Head { disabled: None, ..head.clone() });
        self.changed(name, true, |head| if is_well(head) { None } else { enable(head) }).await?;
        self.room.calls.reset(name);
        Ok(())
    }

    /// Signs with `secret`, or with a new one, from now on; those that sign so far go on for `overlap` (at most
    /// [`MAX_OVERLAP`](Self::MAX_OVERLAP)), by the wall clock. Of more than ten the oldest stop. Returns the new one.
    ///
    /// What the endpoint made of the old one (its failures, what disabled it by itself) is forgotten in the same transaction.
    pub async fn rotate(&self, name: &Name, secret: Option<Secret>, overlap: Duration) -> Result<Secret, WebhookError> {
        if overlap > Self::MAX_OVERLAP {
            let what = format!("`overlap` is at most {:?}, {overlap:?} was asked for", Self::MAX_OVERLAP);
            return Err(WebhookError::Invalid { what });
        }
        let secret = secret.unwrap_or_else(|| self.room.with_dice(Secret::draw));
        let now = self.room.store.env().wall();
        let rotated = |head: &Head| {
            let secrets = head.secrets.rotated(secret.clone(), now, now + overlap);
            let is_new = head.secrets.newest() != Some(&secret);
            is_new.then(|| Head { secrets, ..head.clone() }.given_another_chance())
        };
        self.changed(name, true, rotated).await?;
        Ok(secret)
    }

    /// Changes the endpoint `name` as `how` says; `None` of it changes nothing.
    async fn changed(
        &self,
        name: &Name,
        forgives: bool,
        how: impl Fn(&Head) -> Option<Head>,
    ) -> Result<(), WebhookError> {
        for _ in 0..TRIES {
            let found = self.complete(self.find(name).await?).await?;
            match how(&found) {
                Some(head) if !self.change(&head, forgives).await? => {}
                _ => return Ok(()),
            }
        }
        Err(WebhookError::Contended { name: name.clone() })
    }

    /// Writes `head`, as changed from what was found, and where it `forgives` that it never failed; false if somebody else was first, and
    /// then nothing is forgiven.
    pub(in super::super) async fn change(&self, head: &Head, forgives: bool) -> Result<bool, WebhookError> {
        let changed = self.write(&Head { revision: head.revision + 1, ..head.clone() }, forgives).await?;
        if changed && forgives {
            // Ordering: before the courier hears of the change, whose first call would be refused otherwise.
            self.room.calls.reset(&head.name);
        }
        self.room.touch();
        Ok(changed)
    }

    pub(super) async fn write(&self, head: &Head, forgives: bool) -> Result<bool, WebhookError> {
        let head = head.clone();
        let written = self.room.store.transact(move |tx| {
            let head = head.clone();
            Box::pin(async move {
                let written = rows::update(tx, &head).await?;
                if written && forgives {
                    rows::forgive(tx, (head.id, head.revision)).await?;
                }
                Ok(written)
            })
        });
        written.await.map_err(WebhookError::of_transaction)
    }
}
