//! Going on with what others declared: a view is kept up to date although whoever declared it has left.

use std::time::Duration;

use crate::{
    materialized_view::{Config, ViewError, Views, claim},
    store::StoreError,
};

/// How long after a failure of the store it is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// Starts what was declared and does not run here, whenever another owner has left, until the views or the store end.
/// `again`: something waits for the store to be well.
pub(super) async fn run(views: Views, again: bool) {
    let stop = views.shared.tasks.stop().clone();
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        () = watch(&views, again) => {}
    }
}

async fn watch(views: &Views, mut again: bool) {
    let store = &views.shared.store;
    let mut present = store.presence().watch();
    let silence = claim::silence(store, &Config::default());
    loop {
        tokio::select! {
            _ = present.changed() => {}
            () = store.env().sleep(AGAIN), if again => {}
            () = store.env().sleep(silence.unwrap_or_default()), if silence.is_some() => {}
        }
        again = match views.start_known().await {
            Ok(again) => again,
            Err(ViewError::Store(StoreError::Closed)) => return,
            Err(failed) => {
                tracing::warn!(%failed, "views that others declared are looked for later");
                true
            }
        };
    }
}
