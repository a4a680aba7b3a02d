//! Standing by for builds that others began: a rebuild goes on although whoever asked for it has left.

use std::sync::Arc;

use super::{
    ViewError, Views, builds, claim,
    registered::Registered,
    runner::{AFTER_FAILURE, Hold},
};
use crate::store::StoreError;

/// Looks for builds of `code` that nobody in this process keeps up to date, until the views or the store end.
pub(super) async fn run(views: Views, code: Arc<Registered>) {
    let stop = views.shared.tasks.stop().clone();
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        () = look(&views, &code) => {}
    }
}

async fn look(views: &Views, code: &Arc<Registered>) {
    let store = &views.shared.store;
    let mut present = store.presence().watch();
    let silence = claim::silence(store, &code.config);
    loop {
        tokio::select! {
            // Where only this process can have the store open, nobody leaves unnoticed.
            _ = present.changed() => {}
            () = store.env().sleep(silence.unwrap_or_default()), if silence.is_some() => {}
        }
        let is_current =
            views.shared.code().get(&(code.name.clone(), code.version)).is_some_and(|now| Arc::ptr_eq(now, code));
        if !is_current {
            return;
        }
        let launched = builds::of(&mut &*store, code).await.and_then(|found| {
            found.iter().try_for_each(|build| views.launch(build, code, Hold::StandsBy)).map_err(ViewError::from)
        });
        match launched {
            Ok(()) => {}
            Err(ViewError::Store(StoreError::Closed)) => return,
            Err(failed) => {
                tracing::warn!(view = %code.name, %failed, "builds of others are looked for later");
                present.mark_changed();
                store.env().sleep(AFTER_FAILURE).await;
            }
        }
    }
}
