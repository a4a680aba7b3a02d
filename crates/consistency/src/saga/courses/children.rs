//! Steps that are sagas of their own, in the courses of the one above.

use super::{Direction, Failure, Fault, Happened, Input, Leg, World, machine};
use crate::saga::event::{ChildRef, Planned};

impl World<'_> {
    /// Begins one: it is there with its record, and its end is there for whoever looks.
    pub(super) fn child(&mut self, leg: Leg, attempt: u32, planned: Option<Box<Planned>>, fault: Option<Fault>) {
        let Leg { step, direction } = leg.clone();
        let child = ChildRef { saga: self.definition.name.clone(), id: step.clone(), version: 1 };
        self.note(Happened::ChildBegun { step, direction, attempt, child: Box::new(child), planned });
        if fault == Some(Fault::LateArrival) {
            self.late_child = Some((leg, attempt));
            return;
        }
        if fault == Some(Fault::CrashBeforeCall) {
            self.take(Input::interrupted());
        }
        let answer = self.serve(&leg);
        if matches!(fault, Some(Fault::CrashAfterEffect | Fault::LostRequest | Fault::LostAnswer)) {
            self.take(Input::interrupted());
        }
        let ended = || Input::Answer { leg: leg.clone(), attempt, answer: answer.clone().map(Into::into) };
        self.take(ended());
        if matches!(fault, Some(Fault::CrashAfterRecord | Fault::Duplicate)) {
            self.take(Input::interrupted());
            self.take(ended());
        }
    }

    /// Lets one end that was waited for; `false` if there is none.
    pub(super) fn late_child_ends(&mut self) -> bool {
        let Some((leg, attempt)) = self.late_child.take() else { return false };
        let is_called_back =
            leg.direction == Direction::Forward && machine::is_called_back(&self.journal, self.definition, &leg.step);
        let answer = match is_called_back {
            true => Err(Failure::refused("it was called back")),
            false => self.serve(&leg),
        };
        self.take(Input::Answer { leg, attempt, answer: answer.map(Into::into) });
        true
    }
}
