//! What operators decide: what fits how the saga stands, and what comes of it.

use std::sync::Arc;

use serde_json::Value;

use super::{Operation, Refusal, is_past_pivot, is_pivot, unfit};
use crate::saga::{
    definition::{Definition, check_word},
    event::{Direction, Failure, Happened, Leg, Outcome, Verb},
    journal::{Journal, Phase, Progress},
};

/// What an operator's decision comes to.
pub(super) fn operated(
    journal: &Journal,
    definition: &Definition,
    operation: Operation,
) -> Result<Vec<Happened>, Refusal> {
    let Operation { verb, step, by, note, output } = operation;
    check_word("who decides", &by).map_err(unfit)?;
    let leg = match verb {
        Verb::Abort if is_past_pivot(journal, definition) => {
            return Err(unfit("the saga's pivot is done, or may be: it only goes ahead"));
        }
        Verb::Abort if journal.phase != Phase::Forward => return Err(unfit("the saga has turned back already")),
        Verb::Force if journal.stuck.is_none() && journal.stuck_legs().next().is_none() => {
            return Err(unfit("the saga is not stuck: abort it, or wait"));
        }
        Verb::Abort | Verb::Force => None,
        Verb::Retry if step.is_none() && journal.stuck.is_some() => None,
        Verb::MarkRefused => {
            let leg = stuck_leg(journal, verb, step)?;
            if !journal.step(&leg.step).is_some_and(|step| is_pivot(step, definition)) {
                return Err(unfit("there is no way back from this step: try it again, or skip it"));
            }
            Some(leg)
        }
        Verb::Retry => {
            let leg = stuck_leg(journal, verb, step)?;
            if journal.step(&leg.step).is_some_and(|step| is_of_forced(step.way(leg.direction))) {
                let what = "the saga of this step was ended by force: another one would do again what it did under other keys. \
                    See to it, and skip the step";
                return Err(unfit(what));
            }
            Some(leg)
        }
        Verb::Skip | Verb::MarkCompensated => Some(stuck_leg(journal, verb, step)?),
    };
    let direction = leg.as_ref().map_or(Direction::Forward, |leg| leg.direction);
    let mut happened = vec![Happened::Operated { verb, step: leg.map(|leg| leg.step), direction, by, note, output }];
    if verb == Verb::Force {
        happened.push(Happened::Ended { outcome: Outcome::Forced, output: Value::Null });
    }
    Ok(happened)
}

/// Whether nobody knows what became of the saga that it was.
fn is_of_forced(way: &Progress) -> bool {
    way.child.is_some() && matches!(way.failure, Some(Failure::Unknown(_)))
}

/// The leg that a verb is about: it has to be stuck.
fn stuck_leg(journal: &Journal, verb: Verb, step: Option<Arc<str>>) -> Result<Leg, Refusal> {
    let fits = |leg: &Leg| {
        let is_way = match verb {
            Verb::MarkCompensated => leg.direction == Direction::Compensation,
            Verb::MarkRefused => leg.direction == Direction::Forward,
            _ => true,
        };
        is_way && step.as_ref().is_none_or(|step| *step == leg.step)
    };
    let mut stuck = journal.stuck_legs().filter(fits);
    match (stuck.next(), stuck.next()) {
        (Some(leg), None) => Ok(leg),
        (Some(_), Some(_)) => Err(unfit("several steps are stuck: name the one that is meant")),
        (None, _) if verb == Verb::MarkCompensated => Err(unfit("no such compensation is stuck")),
        (None, _) => Err(unfit("no such step is stuck")),
    }
}
