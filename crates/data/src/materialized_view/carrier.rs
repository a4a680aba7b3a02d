//! The loop that carries out a view's effects, in order, once the transaction that asked for them has committed.

use std::{panic::AssertUnwindSafe, sync::Arc};

use futures_util::FutureExt as _;

use super::{
    EffectHandler, ViewError, effects,
    registered::{Registered, message},
    shared::Shared,
};
use crate::store::StoreError;

/// Carries effects out until the process or the store ends.
pub(super) async fn run(shared: Arc<Shared>, code: Arc<Registered>, handler: Arc<dyn EffectHandler>) {
    let stop = shared.tasks.stop().clone();
    // An effect under way is abandoned: it is carried out again, with the same key.
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        () = work(&shared, &code, handler.as_ref()) => {}
    }
}

async fn work(shared: &Shared, code: &Arc<Registered>, handler: &dyn EffectHandler) {
    let mut progress = shared.progress.subscribe();
    // What an inline view asks for is there with the append, and no runner tells of it.
    let mut head = shared.store.watch_head();
    loop {
        progress.mark_unchanged();
        head.mark_unchanged();
        if !is_current(shared, code) {
            return;
        }
        match round(shared, code, handler).await {
            Ok(true) => {}
            Ok(false) => {
                let moved = tokio::select! {
                    moved = progress.changed() => moved,
                    moved = head.changed() => moved,
                };
                if moved.is_err() {
                    return;
                }
            }
            Err(ViewError::Store(StoreError::Closed)) => return,
            Err(failed) => {
                tracing::warn!(view = %code.name, %failed, "effects wait");
                shared.store.env().sleep(effects::rest(3)).await;
            }
        }
    }
}

/// Whether the view is kept by this code still: it may have been deleted, and begun anew with another handler.
fn is_current(shared: &Shared, code: &Arc<Registered>) -> bool {
    shared.code().get(&(code.name.clone(), code.version)).is_some_and(|now| Arc::ptr_eq(now, code))
}

/// Ends once the view is kept by this code no more.
async fn let_go(shared: &Shared, code: &Arc<Registered>) {
    let mut nudged = shared.nudge.subscribe();
    while is_current(shared, code) {
        if nudged.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

/// Carries out the next effect; whether there was one.
async fn round(shared: &Shared, code: &Arc<Registered>, handler: &dyn EffectHandler) -> Result<bool, ViewError> {
    // Other versions of the view have carriers as well, and each effect is one for all of them.
    let turn = shared.store.presence().carrying(&code.name);
    let _turn = turn.lock().await;
    if !is_current(shared, code) {
        return Ok(true);
    }
    let Some(effect) = effects::released(&shared.store, &code.name, code.config.effect_attempts).await? else {
        return Ok(false);
    };
    // A handler that panics has failed, as any other that fails; the effects behind this one go on waiting for it.
    let carried = async { handler.carry_out(&effect).await };
    let outcome = tokio::select! {
        biased;
        // Nobody's effect any more, or another's: whoever is next does not wait for a handler that may never end.
        () = let_go(shared, code) => return Ok(true),
        outcome = AssertUnwindSafe(carried).catch_unwind() => outcome,
    };
    let outcome = outcome.unwrap_or_else(|panic| Err(format!("its handler panicked: {}", message(&*panic))));
    let failed = outcome.is_err();
    effects::settle(&shared.store, &effect, outcome).await?;
    if failed {
        // Later ones wait, so that effects stay in order; after its last attempt they go on without it.
        shared.store.env().sleep(effects::rest(effect.attempts)).await;
    }
    Ok(true)
}
