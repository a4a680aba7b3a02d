//! What should not be so at the end of a course.

use super::World;
use crate::saga::{
    definition::{Kind, Step},
    event::{Direction, Leg},
    journal::{State, Status},
};

impl World<'_> {
    pub(super) fn judge(&mut self) {
        let status = self.journal.status();
        if matches!(status, Status::Running | Status::Compensating) {
            self.wrong.push("it waits for what never comes".to_owned());
        }
        for step in &self.journal.steps {
            let had = |direction| self.effects.contains(&Leg { step: step.name.clone(), direction });
            let (forward, back) = (had(Direction::Forward), had(Direction::Compensation));
            let rule = self.definition.steps.get(&step.of);
            let (kind, can_be_undone) = (rule.map(|rule| rule.kind), rule.is_some_and(Step::can_be_undone));
            let name = &step.name;
            match status {
                Status::Completed if step.forward.state == State::Done && !forward => {
                    self.wrong.push(format!("`{name}` is recorded as done, and is not"));
                }
                Status::Completed if back => self.wrong.push(format!("`{name}` was undone, and the saga completed")),
                Status::Compensated if forward && can_be_undone && !back => {
                    self.wrong.push(format!("`{name}` was done, and is not made up for"));
                }
                Status::Compensated if forward && kind == Some(Kind::Pivot) => {
                    self.wrong.push(format!("the pivot `{name}` was done, and the saga turned back"));
                }
                _ => {}
            }
        }
        self.judge_order();
    }

    fn judge_order(&mut self) {
        let compensations = || self.effects.iter().filter(|leg| leg.direction == Direction::Compensation);
        for undone in compensations() {
            let place = |leg: &Leg| self.effects.iter().position(|effect| effect == leg);
            if place(&Leg::forward(undone.step.clone())) > place(undone) {
                let step = &undone.step;
                self.wrong.push(format!("`{step}` was made up for before it was done"));
                return;
            }
        }
    }
}
