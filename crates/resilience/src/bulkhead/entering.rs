//! Waiting for a place.

use std::{
    fmt,
    future::Future,
    ops::Deref,
    pin::Pin,
    task::{Context, Poll, ready},
};

use quorate_foundations::{name::Name, time::Mono};

use super::{
    config::Ask,
    front::{Answer, Bulkhead, Permit},
    machine::{Rejected, Ticket},
};
use crate::{
    deadline::Deadline,
    timeout::{Alarm, Timers},
};

/// Waits for a place in a bulkhead.
///
/// # Cancel safety
/// Dropping it leaves the queue; a place that it was just given goes to the next.
#[must_use = "futures do nothing unless polled"]
pub struct Entering<P: Deref<Target = Bulkhead>> {
    /// `None` once the permit was given away.
    bulkhead: Option<P>,
    ask: Ask,
    state: State,
}

enum State {
    Entered(Option<Name>, Mono),
    Arriving(Timers, Mono),
    Waiting { alarm: Alarm, ticket: Ticket, tenant: Option<Name> },
    Ended,
}

impl Bulkhead {
    /// A place for one call that comes at `now`, as soon as there is one: at once, where there is room; otherwise in the
    /// queue, for as long as the configuration and the deadline of the call allow.
    ///
    /// # Errors
    /// [`Rejected`], which says why.
    pub fn enter<P: Deref<Target = Self>>(this: P, timers: &Timers, now: Mono, ask: Ask) -> Entering<P> {
        let state =
            if this.enter_word(now, &ask) { State::Entered(None, now) } else { State::Arriving(timers.clone(), now) };
        Entering { bulkhead: Some(this), ask, state }
    }
}

impl<P: Deref<Target = Bulkhead> + Unpin> Future for Entering<P> {
    type Output = Result<Permit<P>, Rejected>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let Some(bulkhead) = this.bulkhead.as_ref() else { panic!("polled after it was done") };
        if let State::Arriving(timers, now) = &this.state {
            this.state = match bulkhead.arrive(*now, &this.ask, true, cx.waker()) {
                Ok((Answer::Entered, tenant)) => State::Entered(tenant, *now),
                Ok((Answer::Waits(ticket, ends), tenant)) => {
                    State::Waiting { alarm: timers.alarm(Deadline::at(ends)), ticket, tenant }
                }
                Err(rejected) => return this.refused(rejected),
            };
        }
        if let State::Waiting { alarm, ticket, tenant } = &mut this.state {
            let mut answer = bulkhead.answered(*ticket, cx.waker());
            if answer.is_pending() {
                ready!(alarm.ring(cx));
                // Its time is up, and the machine says so, unless a place became free in this very moment.
                bulkhead.tick(alarm.env().mono());
                answer = bulkhead.answered(*ticket, cx.waker());
            }
            let now = alarm.env().mono();
            match ready!(answer) {
                Ok(()) => this.state = State::Entered(tenant.take(), now),
                Err(rejected) => return this.refused(rejected),
            }
        }
        let state = std::mem::replace(&mut this.state, State::Ended);
        let (State::Entered(tenant, since), Some(bulkhead)) = (state, this.bulkhead.take()) else {
            unreachable!("who hasn't entered was refused or waits")
        };
        if this.ask.deadline.has_passed(since) {
            // It was answered in time, and hears of it too late: nobody waits for this call any more.
            let rejected = bulkhead.too_late();
            drop(Permit::of(bulkhead, tenant, since));
            return Poll::Ready(Err(rejected));
        }
        Poll::Ready(Ok(Permit::of(bulkhead, tenant, since)))
    }
}

impl<P: Deref<Target = Bulkhead>> Entering<P> {
    fn refused<T>(&mut self, rejected: Rejected) -> Poll<Result<T, Rejected>> {
        (self.bulkhead, self.state) = (None, State::Ended);
        Poll::Ready(Err(rejected))
    }
}

impl<P: Deref<Target = Bulkhead>> Drop for Entering<P> {
    fn drop(&mut self) {
        let Some(bulkhead) = self.bulkhead.take() else { return };
        match std::mem::replace(&mut self.state, State::Ended) {
            State::Entered(tenant, since) => drop(Permit::of(bulkhead, tenant, since)),
            State::Waiting { ticket, tenant, alarm } => bulkhead.leave(alarm.env().mono(), ticket, tenant),
            State::Arriving(..) | State::Ended => {}
        }
    }
}

impl<P: Deref<Target = Bulkhead>> fmt::Debug for Entering<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entering").field("ask", &self.ask).finish_non_exhaustive()
    }
}
