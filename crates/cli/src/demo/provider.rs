//! The payment provider: somebody else's service, which fails at times.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use quorate_runtime::Env;
use serde_json::json;

use super::web::{self, Answer};
use crate::exit::Failure;

/// For how long it is silent, every other time that it fails.
const SILENCE: Duration = Duration::from_secs(2);

/// The provider.
pub(super) struct Provider {
    pub(super) address: SocketAddr,
    fails: Arc<AtomicBool>,
    failed: Arc<AtomicU64>,
}

impl Provider {
    /// Begins to answer.
    pub(super) async fn start(env: &Env) -> Result<Self, Failure> {
        let (fails, failed) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (failing, counting, waiting) = (fails.clone(), failed.clone(), env.clone());
        let handler = Arc::new(move |_: web::Asked| {
            let (failing, failed, env) = (failing.clone(), counting.clone(), waiting.clone());
            Box::pin(async move {
                if !failing.load(Ordering::Relaxed) {
                    return Answer::done(json!({ "authorised": true }));
                }
                if failed.fetch_add(1, Ordering::Relaxed).is_multiple_of(2) {
                    env.sleep(SILENCE).await;
                }
                Answer::unknown("we are looking into it")
            }) as quorate_runtime::BoxFuture<'static, Answer>
        });
        Ok(Self { address: web::serve(env, handler).await?, fails, failed })
    }

    /// How many requests it failed so far.
    pub(super) fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// Has it fail, or work again.
    pub(super) fn fail(&self, fails: bool) {
        self.fails.store(fails, Ordering::Relaxed);
    }
}
