//! Responders elsewhere: what they are handed leaves this process, and what they say comes back under a ticket.

use std::{fmt, str::FromStr};

use quorate_foundations::name::Name;
use quorate_resilience::deadline::Deadline;

use super::{Order, Requests, Serving, Voice};
use crate::request::{
    DeclareError, Payload,
    machine::{Receipt, RequestId, Seat, Verdict},
};

/// What a responder elsewhere names a request by: nobody can guess those of another one, and none is ever used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket {
    seat: u128,
    id: RequestId,
}

/// A text that is no ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is no request that quorate handed out")]
pub struct NoTicket;

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}-{}", self.seat, self.id.0)
    }
}

impl FromStr for Ticket {
    type Err = NoTicket;

    fn from_str(text: &str) -> Result<Self, NoTicket> {
        let (seat, id) = text.split_once('-').ok_or(NoTicket)?;
        let seat = u128::from_str_radix(seat, 16).map_err(|_| NoTicket)?;
        let ticket = Self { seat, id: RequestId(id.parse().map_err(|_| NoTicket)?) };
        // One way to write it: neither signs nor zeros in front.
        if ticket.to_string() == text { Ok(ticket) } else { Err(NoTicket) }
    }
}

/// What a responder elsewhere is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    /// To work on this, once it [begins](Remote::begin).
    Asked(Asking),
    /// Nobody waits for this any more. Its place is free when it is answered or [let go](Requests::let_go).
    Stop(Ticket),
}

/// What it is asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Asking {
    /// What its answer is given under.
    pub ticket: Ticket,
    /// What is asked.
    pub body: Payload,
    /// When nobody waits any more.
    pub deadline: Deadline,
}

/// A responder elsewhere, as long as it is there. Dropping this leaves: what it has begun on is *unknown* to callers, and what it was handed and has not begun on goes to others.
#[must_use = "dropping it leaves"]
pub struct Remote {
    serving: Serving,
    voice: Voice,
    seat: u128,
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Whoever knows a seat can answer in its place.
        f.debug_struct("Remote").field("voice", &self.voice).finish_non_exhaustive()
    }
}

impl Remote {
    /// What it is told next; `None` once the process serves nobody any more.
    ///
    /// # Cancel safety
    /// Nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Option<Told> {
        loop {
            match self.serving.next().await? {
                Order::Do(call) => {
                    let ticket = self.ticket(call.id);
                    return Some(Told::Asked(Asking { ticket, body: call.body, deadline: call.deadline }));
                }
                Order::Stop(id) if self.voice.has_begun(id) => return Some(Told::Stop(self.ticket(id))),
                // It was answered meanwhile, or has not been heard of there.
                Order::Stop(_) => {}
            }
        }
    }

    /// Begins on what it was told: say so before the request leaves this process. `false` if nobody waits for it any more: keep it here.
    pub fn begin(&self, ticket: Ticket) -> bool {
        ticket.seat == self.seat && self.voice.begin(ticket.id)
    }

    /// Has nothing more handed out to anybody: the process stops.
    pub fn close(&self) {
        self.serving.close();
    }

    fn ticket(&self, id: RequestId) -> Ticket {
        Ticket { seat: self.seat, id }
    }
}

impl Requests {
    /// Serves `kind` from elsewhere, with at most `window` requests at once: 1 to [`MAX_WINDOW`](Self::MAX_WINDOW).
    ///
    /// # Errors
    /// [`DeclareError::Invalid`] for the window; [`DeclareError::TooManyResponders`].
    pub fn serve_elsewhere(&self, kind: &Name, window: usize) -> Result<Remote, DeclareError> {
        let serving = self.serve(kind, Seat::Elsewhere, window)?;
        let (voice, seat) = (serving.voice(), self.inner.env.random("responders elsewhere").u128());
        self.inner.state().seats.insert(seat, (voice.id, kind.clone()));
        Ok(Remote { serving, voice, seat })
    }

    /// Says what came of a request of `kind` that a responder elsewhere has begun on.
    pub fn answer(&self, kind: &Name, ticket: Ticket, verdict: Verdict) -> Receipt {
        self.voice_of(kind, ticket).map_or(Receipt::NotHeld, |voice| voice.answer(ticket.id, verdict))
    }

    /// Says that a responder elsewhere works no more on a request of `kind` that it has begun on, and has nothing to say: its caller does not know what came of it.
    /// `false` if it has not begun on it, or is done with it.
    pub fn let_go(&self, kind: &Name, ticket: Ticket) -> bool {
        self.voice_of(kind, ticket).is_some_and(|voice| voice.let_go(ticket.id))
    }

    fn voice_of(&self, kind: &Name, ticket: Ticket) -> Option<Voice> {
        let state = self.inner.state();
        let (id, _) = state.seats.get(&ticket.seat).filter(|(_, of)| of == kind)?;
        Some(Voice { requests: self.clone(), id: *id })
    }
}

#[cfg(test)]
mod tests;
