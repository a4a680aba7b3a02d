//! Who goes on appending while something happens to the node.

use std::{ops::Range, time::Duration};

use quorate_foundations::time::Mono;
use quorate_runtime::Env;
use tokio_util::sync::CancellationToken;

use super::node::{PATIENCE, client};
use crate::{client::Call, exit::Failure};

/// How long is rested where nobody answered.
const REST: Duration = Duration::from_millis(50);

/// What is appended, and how fast.
pub(super) struct Pace {
    /// The number of the first event.
    pub(super) first: u64,
    /// How many come at once.
    pub(super) at_once: u64,
    /// How long is rested between two appends.
    pub(super) pause: Duration,
}

/// What was appended.
pub(super) struct Appended {
    /// When each event was known to be written down.
    pub(super) at: Vec<Mono>,
    /// The number behind the last of them, if all were acknowledged.
    pub(super) all: Option<u64>,
    /// The token of the last of them.
    pub(super) token: String,
    /// Appends that were sent again, because what became of them was not known.
    pub(super) again: usize,
}

impl Appended {
    /// Makes appends of event after event until `stop`. What was begun is ended: an append without an answer is sent again, as it was.
    pub(super) async fn go_on(
        env: &Env,
        url: &str,
        (pace, append): (Pace, impl Fn(Range<u64>) -> Call),
        stop: &CancellationToken,
    ) -> Result<Self, Failure> {
        let (mut nth, mut connection) = (pace.first, client(env, url)?.connection());
        let mut appended = Self { at: Vec::new(), all: None, token: String::new(), again: 0 };
        while !stop.is_cancelled() {
            let (call, by) = (append(nth..nth + pace.at_once), env.mono() + PATIENCE);
            let reply = loop {
                match connection.call(&call).await {
                    Ok(Ok(reply)) => break reply,
                    Ok(Err(_)) | Err(_) if env.mono() < by => appended.again += 1,
                    Ok(Err(refused)) => return Err(refused.into()),
                    Err(broken) => return Err(broken.into()),
                }
                env.sleep(REST).await;
            };
            nth += pace.at_once;
            appended.at.extend((0..pace.at_once).map(|_| env.mono()));
            appended.token = reply.header(&crate::client::TOKEN).unwrap_or_default().to_owned();
            env.sleep(pace.pause).await;
        }
        appended.all = Some(nth);
        Ok(appended)
    }
}
