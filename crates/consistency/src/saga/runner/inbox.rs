//! What a runner waits for, and what comes in.

use quorate_data::store::StoreError;

use super::{Input, Post, Runner, children::Looking};

/// Inputs that are taken together.
const BATCH: usize = 256;
/// Answers that are taken together, in bytes.
const BATCH_BYTES: usize = 2 << 20;

impl Runner {
    /// What others ask for. Answers are kept apart, until they are written.
    pub(super) async fn wait(&mut self) -> Option<Vec<Post>> {
        let env = self.shared.store.env().clone();
        let mut asked = Vec::new();
        // What could not be written is tried again at once: its rest is over. So is what was read again in between.
        if self.failures == 0 && !self.more && self.answers.is_empty() && self.looking != Looking::Now {
            let now = env.boot();
            let next = self.due.iter().filter(|(alarm, _)| !self.rung.contains(alarm)).map(|(_, (_, due))| *due).min();
            let most = self.longest_nap(now);
            let nap = next.map_or(most, |due| due.saturating_since(now).min(most));
            let first = tokio::select! {
                biased;
                () = env.tasks().stop().cancelled() => return None,
                () = self.whose.notified() => {
                    self.is_doubted = true;
                    None
                }
                first = self.inbox.recv() => first,
                () = env.sleep(nap) => None,
            };
            if first.is_none() && !self.is_blind() {
                self.looking = Looking::Now;
            }
            // Nobody says to those who sleep that the store was closed.
            if first.is_none() && matches!(self.shared.store.check_writes(), Err(StoreError::Closed)) {
                return None;
            }
            first.into_iter().for_each(|post| self.sort(post, &mut asked));
        }
        while asked.len() + self.answers.len() < BATCH
            && self.weight() < BATCH_BYTES
            && let Ok(post) = self.inbox.try_recv()
        {
            self.sort(post, &mut asked);
        }
        let now = env.boot();
        self.look_again(now);
        self.rung.extend(self.due.iter().filter(|(_, (_, due))| *due <= now).map(|(alarm, _)| alarm.clone()));
        Some(asked)
    }

    pub(super) fn sort(&mut self, post: Post, asked: &mut Vec<Post>) {
        if let Input::Answer { leg, attempt, .. } = &post.input {
            self.calling.remove(&(leg.clone(), *attempt));
            self.answers.push(post.input);
        } else {
            if post.input == Input::Look {
                self.looking = Looking::Now;
            }
            asked.push(post);
        }
    }
}
