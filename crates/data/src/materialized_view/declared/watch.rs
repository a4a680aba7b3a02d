//! Going on with what others declared: a view is kept up to date although whoever declared it has left.

use crate::{
    materialized_view::{Config, ViewError, Views, claim, runner::AFTER_FAILURE},
    store::StoreError,
};

/// Starts what was declared and does not run here, whenever another owner has left, until the views or the store end.
pub(super) async fn run(views: Views) {
    let stop = views.shared.tasks.stop().clone();
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        () = watch(&views) => {}
    }
}

async fn watch(views: &Views) {
    let store = &views.shared.store;
    let mut present = store.presence().watch();
    let silence = claim::silence(store, &Config::default());
    loop {
        tokio::select! {
            _ = present.changed() => {}
            () = store.env().sleep(silence.unwrap_or_default()), if silence.is_some() => {}
        }
        match views.start_known().await {
            Ok(()) => {}
            Err(ViewError::Store(StoreError::Closed)) => return,
            Err(failed) => {
                tracing::warn!(%failed, "views that others declared are looked for later");
                present.mark_changed();
                store.env().sleep(AFTER_FAILURE).await;
            }
        }
    }
}
