//! How long answers are kept.

use std::time::Duration;

use super::SetupError;

/// How long answers are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// How long the answer to a command is kept, by the wall clock: 1 min to 400 days. Default 7 days. What a command wrote
    /// is known longer, as [`Commands`](super::Commands) says; a rejection is then decided anew. An erasure ends it for all.
    pub keep_answers: Duration,
    /// Bytes of a rejection as JSON. Default 64 KiB.
    pub rejection_bytes: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { keep_answers: Duration::from_secs(7 * 86_400), rejection_bytes: 64 << 10 }
    }
}

impl Config {
    pub(super) fn check(&self) -> Result<(), SetupError> {
        let (least, most) = (Duration::from_secs(60), Duration::from_secs(400 * 86_400));
        if !(least..=most).contains(&self.keep_answers) {
            let what = format!("`keep_answers` is {least:?} to {most:?}, {:?} was asked for", self.keep_answers);
            return Err(SetupError::Invalid { what });
        }
        Ok(())
    }
}
