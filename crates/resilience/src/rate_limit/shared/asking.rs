//! Calls that wait for an answer about the same key ask for it together.
//!
//! While one answer is under way, whoever comes waits for the next one, which is asked for all of them at once: as a log syncs what came
//! during the last sync. So however many calls come at a time, whoever keeps the count is asked a few times.

use std::{collections::BTreeMap, num::NonZeroU32, sync::PoisonError};

use quorate_foundations::name::Name;
use tokio::sync::oneshot;

use super::{Allowed, Rejected, SILENT, Shared, Standing, Unavailable};
use crate::rate_limit::Portion;

/// Those who wait for the next answer, by keys about which one is asked for now. There are no more of them than calls under way.
pub(super) type Waiting = BTreeMap<Name, Vec<Waiter>>;

/// A call that waits.
pub(super) struct Waiter {
    cost: NonZeroU32,
    answer: oneshot::Sender<Answer>,
}

/// What became of asking.
pub(super) enum Answer {
    /// The units are the call's.
    Given(Standing),
    Refused(Rejected),
    Unavailable(Unavailable),
    /// There was none in time.
    Silence,
}

impl Waiter {
    fn tell(self, answer: Answer) {
        // Whoever has gone meanwhile loses what it was given.
        _ = self.answer.send(answer);
    }
}

/// Asks about one key until nobody waits for an answer. Dropped before, it leaves nobody waiting.
struct Asking {
    shared: Shared,
    key: Name,
    is_over: bool,
}

impl Shared {
    /// Asks for `cost` units of `key`, with all others who do. The answer is not heard if that has to end.
    pub(super) fn ask(&self, key: &Name, cost: NonZeroU32) -> oneshot::Receiver<Answer> {
        let (answer, heard) = oneshot::channel();
        let waiter = Waiter { cost, answer };
        let mut waiting = self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(others) = waiting.get_mut(key) {
            others.push(waiter);
            return heard;
        }
        waiting.insert(key.clone(), vec![waiter]);
        drop(waiting);
        let asking = Asking { shared: self.clone(), key: key.clone(), is_over: false };
        // A task, since each of those who wait may give up, and the others go on.
        self.0.env.tasks().spawn("rate limit/ask", asking.run());
        heard
    }
}

impl Asking {
    async fn run(mut self) {
        let mut left_over = Vec::new();
        loop {
            let Some(waiting) = self.next(std::mem::take(&mut left_over)) else { return };
            let waiting = self.serve_known(waiting);
            let Some(least) = waiting.iter().map(|waiter| waiter.cost).min() else { continue };
            match self.ask(least, &waiting).await {
                Some(Ok(Portion::Given { units, left })) => left_over = self.give(waiting, units, left),
                Some(Ok(Portion::Refused(refused))) => left_over = self.refuse(waiting, least, refused),
                Some(Err(cause)) => waiting.into_iter().for_each(|one| one.tell(Answer::Unavailable(cause.clone()))),
                // Those who came meanwhile would wait in vain as well.
                None => match self.next(waiting) {
                    Some(all) => all.into_iter().for_each(|one| one.tell(Answer::Silence)),
                    None => return,
                },
            }
        }
    }

    /// `first` and who came meanwhile, but for those who have gone. `None`: nobody waits, and it is over.
    fn next(&mut self, first: Vec<Waiter>) -> Option<Vec<Waiter>> {
        let mut waiting = self.shared.0.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let others = waiting.get_mut(&self.key).map(std::mem::take).unwrap_or_default();
        let mut all = first;
        all.extend(others);
        all.retain(|waiter| !waiter.answer.is_closed());
        self.is_over = all.is_empty();
        if self.is_over {
            waiting.remove(&self.key);
        }
        (!self.is_over).then_some(all)
    }

    /// Answers those of `waiting` for whom nobody has to be asked. The others, in order.
    fn serve_known(&self, waiting: Vec<Waiter>) -> Vec<Waiter> {
        let now = self.shared.0.env.mono();
        let mut unknown = Vec::new();
        for waiter in waiting {
            match self.shared.known(&self.key, now, waiter.cost) {
                Some(Ok(Allowed { left: Some(left), .. })) => waiter.tell(Answer::Given(left)),
                Some(Err(refused)) => waiter.tell(Answer::Refused(refused)),
                Some(Ok(Allowed { left: None, .. })) | None => unknown.push(waiter),
            }
        }
        unknown
    }

    /// Asks for as much as `waiting` want together, or else for a portion. `None`: there was no answer in time.
    async fn ask(&self, least: NonZeroU32, waiting: &[Waiter]) -> Option<Result<Portion, Unavailable>> {
        let shared = &self.shared.0;
        let all = waiting.iter().fold(0_u32, |sum, waiter| sum.saturating_add(waiter.cost.get()));
        // Never more than a burst, or nothing would ever be given.
        let burst = shared.rule.standing(0, shared.env.mono()).burst;
        let most =
            NonZeroU32::new(shared.config.portion.get().max(all).min(burst)).map_or(least, |most| most.max(least));
        let asked = shared.quota.take(&self.key, shared.config.rate, least, most);
        let answer = shared.env.timeout(shared.config.patience, asked).await;
        self.shared.silence().asked_again_at = match answer {
            Some(_) => None,
            None => Some(shared.env.mono() + SILENT),
        };
        answer
    }

    /// Gives `units` to as many of `waiting` as they suffice for, in order, and keeps the rest. Those whom they don't suffice for.
    fn give(&self, waiting: Vec<Waiter>, units: NonZeroU32, left: Standing) -> Vec<Waiter> {
        let (mut units, mut given, mut others) = (units.get(), Vec::new(), Vec::new());
        for waiter in waiting {
            match units.checked_sub(waiter.cost.get()) {
                _ if waiter.answer.is_closed() => {}
                Some(rest) => {
                    units = rest;
                    given.push(waiter);
                }
                None => others.push(waiter),
            }
        }
        // First of all, so that whoever is answered and comes again finds them.
        self.shared.hold(&self.key, self.shared.0.env.mono(), units, left);
        given.into_iter().for_each(|waiter| waiter.tell(Answer::Given(left)));
        others
    }

    /// Tells those of `waiting` that want `least` units that there are fewer. Those who want more: they come another time.
    fn refuse(&self, waiting: Vec<Waiter>, least: NonZeroU32, refused: Rejected) -> Vec<Waiter> {
        self.shared.remember(&self.key, self.shared.0.env.mono(), least, refused);
        let (told, others): (Vec<Waiter>, _) = waiting.into_iter().partition(|waiter| waiter.cost == least);
        told.into_iter().for_each(|waiter| waiter.tell(Answer::Refused(refused)));
        others
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        if !self.is_over {
            self.shared.0.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
        }
    }
}
