//! The copies of a call as futures: whoever is first wins, and the others are dropped.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    task::{Context, Poll, ready},
    time::Duration,
};

use quorate_foundations::{machine::Machine as _, time::Mono};

use super::machine::{Config, Copies, Effect, Input};
use crate::{
    deadline::Deadline,
    retry::Repeatable,
    timeout::{Alarm, Timers},
};

/// What a call is, as far as hedging has to know.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// When and how often.
    pub config: Config,
    /// After how long the answer is late, if that is known: see [`Config::delay`].
    pub delay: Option<Duration>,
    /// What doing it twice would do.
    pub repeatable: Repeatable,
    /// After which nobody waits for it.
    pub deadline: Deadline,
}

/// An answer, and what it took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Won<T> {
    /// The answer.
    pub answer: T,
    /// Of which copy: 0 is the first.
    pub copy: u32,
    /// How many were sent.
    pub sent: u32,
}

/// Makes a call at `now`, and again when its answer is late. The first answer that `is_good` is the caller's, or the last one if
/// none is; all other copies are dropped in the same moment, which cancels them.
///
/// `charge` asks the dependency's budget for one call more, as [`Retries::charge`](crate::retry::Retries::charge) does: copies cost
/// what retries cost, so that together they stay below its bound. `make` gets
/// the number of the copy. While one answer comes in time, nothing is allocated.
///
/// # Cancel safety
/// Dropping it drops all copies.
pub async fn race<F: Future>(
    timers: &Timers,
    now: Mono,
    plan: Plan,
    mut charge: impl FnMut(Mono) -> bool,
    mut make: impl FnMut(u32) -> F,
    is_good: impl Fn(&F::Output) -> bool,
) -> Won<F::Output> {
    let Plan { config, delay, repeatable, deadline } = plan;
    let mut copies = Copies::new(config, delay, repeatable, deadline, now);
    let mut first = pin!(Some(make(0)));
    let mut others: Vec<(u32, Pin<Box<F>>)> = Vec::new();
    let mut alarm = Alarm::new(timers, due(&copies));
    let mut effects = Vec::new();
    poll_fn(|cx| {
        loop {
            while let Some((copy, answer)) = next_answer(first.as_mut(), &mut others, cx) {
                if copies.sent() == 1 {
                    // The only answer is the caller's, whatever it is.
                    return Poll::Ready(Won { answer, copy, sent: 1 });
                }
                copies.step(now, Input::Ended { copy, good: is_good(&answer) }, &mut effects);
                // Only an answer that is delivered has an effect: those under way are dropped before anybody sees it.
                if effects.drain(..).any(|effect| effect == Effect::Deliver(copy)) {
                    first.set(None);
                    others.clear();
                    return Poll::Ready(Won { answer, copy, sent: copies.sent() });
                }
            }
            ready!(alarm.ring(cx));
            let now = timers.env().mono();
            copies.tick(now, &mut effects);
            if effects.drain(..).any(|effect| effect == Effect::Ask) {
                copies.step(now, Input::Budget(charge(now)), &mut effects);
            }
            for effect in effects.drain(..) {
                if let Effect::Send(copy) = effect {
                    others.push((copy, Box::pin(make(copy))));
                }
            }
            alarm.reset(due(&copies));
        }
    })
    .await
}

fn due(copies: &Copies) -> Deadline {
    copies.wake_at().map_or(Deadline::NEVER, Deadline::at)
}

/// The answer of one copy that has one.
fn next_answer<F: Future>(
    mut first: Pin<&mut Option<F>>,
    others: &mut Vec<(u32, Pin<Box<F>>)>,
    cx: &mut Context<'_>,
) -> Option<(u32, F::Output)> {
    if let Some(running) = first.as_mut().as_pin_mut()
        && let Poll::Ready(answer) = running.poll(cx)
    {
        first.set(None);
        return Some((0, answer));
    }
    for place in 0..others.len() {
        let (copy, running) = &mut others[place];
        if let Poll::Ready(answer) = running.as_mut().poll(cx) {
            let copy = *copy;
            drop(others.swap_remove(place));
            return Some((copy, answer));
        }
    }
    None
}

#[cfg(test)]
mod tests;
