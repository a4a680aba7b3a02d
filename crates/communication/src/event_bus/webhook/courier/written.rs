//! What is written down of an attempt, and what it makes of the endpoint.

use std::sync::PoisonError;

use quorate_foundations::time::Wall;

use super::Term;
use crate::event_bus::webhook::{
    Attempt, WebhookError,
    machine::{Effect, Endpoint, Why},
    rows,
    service::Disabled,
};

/// What an endpoint is when an attempt was written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// What the machine says.
    AsJudged,
    /// Disabled by this attempt.
    Disabled,
    /// One that others have delivered to since this process failed to.
    TakenElsewhere,
}

impl Term {
    /// Writes down the attempt and what it says about the endpoint; what the endpoint is by then.
    pub(super) async fn write(&self, effects: &[Effect], attempt: &Attempt) -> Result<Standing, WebhookError> {
        let (id, revision, now) = (self.head.id, self.head.revision, self.room.store.env().wall());
        let (effects, attempt) = (effects.to_vec(), attempt.clone());
        let written = self.room.store.transact(move |tx| {
            let (effects, attempt) = (effects.clone(), attempt.clone());
            Box::pin(async move {
                if !rows::record(tx, id, &attempt).await? {
                    return Ok(Standing::AsJudged);
                }
                // Also where this process knows of no failure: others may.
                if effects.contains(&Effect::Ack) {
                    rows::recovered(tx, (id, revision)).await?;
                }
                let mut standing = Standing::AsJudged;
                for effect in &effects {
                    match *effect {
                        Effect::Failing { since, so_far } => rows::failing(tx, (id, revision), since, so_far).await?,
                        Effect::Pause(span) => rows::pause(tx, (id, revision), now + span).await?,
                        Effect::Disable(why) => {
                            // Others may reach it from where this process does not.
                            let failing = effects.iter().find_map(|effect| match effect {
                                Effect::Failing { since, .. } if matches!(why, Why::Failing(_)) => Some(*since),
                                _ => None,
                            });
                            if rows::has_taken_since(tx, id, failing).await? {
                                rows::recovered(tx, (id, revision)).await?;
                                standing = Standing::TakenElsewhere;
                            } else if rows::disable(tx, (id, revision), failing.is_some(), &told(why, now, &attempt))
                                .await?
                            {
                                standing = Standing::Disabled;
                            }
                        }
                        Effect::Recovered | Effect::Ack | Effect::Nack(_) | Effect::GiveBack => {}
                    }
                }
                Ok::<_, WebhookError>(standing)
            })
        });
        let standing = written.await.map_err(WebhookError::of_transaction)?;
        if standing == Standing::TakenElsewhere {
            // Its next failure begins anew; otherwise it would be judged by a success that leaves the list some day.
            *self.endpoint.lock().unwrap_or_else(PoisonError::into_inner) = Endpoint::default();
        }
        Ok(standing)
    }

    pub(super) fn complain(&self, written: Result<Standing, WebhookError>) {
        if let Err(cause) = written {
            tracing::warn!(webhook = self.head.name.as_str(), %cause, "an attempt could not be written down");
        }
    }
}

fn told(why: Why, since: Wall, attempt: &Attempt) -> Disabled {
    let why = match why {
        Why::Gone => "it answered that it is gone (410)".to_owned(),
        Why::Failing(so_far) => {
            let hours = so_far.as_secs_f64() / 3_600.0;
            format!("it has taken nothing for {hours:.1} hours; the last attempt: {}", attempt.outcome)
        }
    };
    Disabled { since, why, is_automatic: true }
}
