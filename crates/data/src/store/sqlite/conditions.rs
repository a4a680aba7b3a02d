//! Conditions of appends: what indexed and earlier events say is looked up before the writer's turn, so that it has only
//! the events since to look at.
//!
//! An event that is readable stays where it is, with its type and tags: what one reader saw of the log up to some position
//! holds for good. Events are looked at in vain where a condition names types or categories without a tag, or tags that
//! are never together; all conditions of an append share one allowance for that, without the writer and with it.

use quorate_foundations::time::Mono;
use quorate_runtime::Env;

use super::{
    search::Search,
    shared::{Shared, View},
};
use crate::{
    event::Position,
    store::{
        AppendBatch, AppendCondition, AppendError, Query, StoreError,
        checked::{Look, Looked, Spent},
        shape,
    },
};

/// Events so near the end are looked at in memory, by the writer, sooner than anywhere else.
const NEAR: u64 = 2_000;

/// How many looks between two at the clock.
const CLOCK: usize = 1_024;

/// How much may still be looked at. One look is one event of up to 1 KiB, or one step from one list of the index to
/// another.
pub(super) struct Looks {
    left: usize,
    max: usize,
    /// When it must have ended.
    until: Option<(Env, Mono)>,
}

/// Why a search ended before its end.
#[derive(Debug)]
pub(super) enum Unsearched {
    /// It may not look at more.
    Spent(Spent),
    /// The store failed.
    Failed(StoreError),
}

impl From<StoreError> for Unsearched {
    fn from(cause: StoreError) -> Self {
        Self::Failed(cause)
    }
}

impl From<Spent> for Unsearched {
    fn from(spent: Spent) -> Self {
        Self::Spent(spent)
    }
}

impl Looks {
    pub(super) fn new(max: usize, env: &Env, until: Mono) -> Self {
        Self { left: max, max, until: Some((env.clone(), until)) }
    }

    /// For whoever has a bound of another kind.
    pub(super) fn unlimited() -> Self {
        Self { left: usize::MAX, max: usize::MAX, until: None }
    }

    /// Takes `count` looks.
    pub(super) fn spend(&mut self, count: usize) -> Result<(), Spent> {
        let before = self.left;
        self.left = before.checked_sub(count).ok_or(Spent::Looks(self.max))?;
        let is_time = before / CLOCK != self.left / CLOCK;
        let is_late = self.until.as_ref().is_some_and(|(env, until)| is_time && env.mono() > *until);
        if is_late { Err(Spent::Time) } else { Ok(()) }
    }
}

/// Whether looking before the writer's turn spares the writer anything.
pub(super) fn is_worthwhile(shared: &Shared, batch: &AppendBatch) -> bool {
    let published = shared.tail().published();
    let behind = |condition: &AppendCondition| published.saturating_sub(condition.after.get());
    batch.conditions.iter().map(behind).sum::<u64>() > NEAR && shape::check(batch, &shared.limits).is_ok()
}

/// Looks at what is readable now. What it cannot find out is left to the writer.
pub(super) fn look(env: &Env, shared: &Shared, conditions: &[AppendCondition]) -> Looked {
    let mut looks = Looks::new(AppendBatch::MAX_LOOKS, env, env.mono() + shared.limits.unit_time);
    let mut looked = Looked::new(shared.timeline);
    // Ordering: the tail before the database, which then has all that went from the one into the other.
    let glances: Vec<_> = conditions.iter().map(|condition| glance(shared, condition, &mut looks)).collect();
    let searched = shared.reading(|reader| {
        for (condition, (seen, indexed, until)) in conditions.iter().zip(glances) {
            let found = match seen {
                Ok(None) => {
                    let (query, after) = (&condition.fail_if_match, condition.after.get());
                    in_index(shared, reader.view(), query, after, indexed, &mut looks)
                }
                Ok(found) => Ok(found),
                Err(spent) => Err(spent.into()),
            };
            let look = match found {
                Ok(None) => Look::Clear { until },
                Ok(Some(position)) => Look::Matched(position),
                Err(Unsearched::Spent(spent)) => Look::Spent(spent),
                Err(Unsearched::Failed(cause)) => return Err(cause),
            };
            let is_last = !matches!(look, Look::Clear { .. });
            looked.push(look);
            if is_last {
                break;
            }
        }
        Ok::<_, StoreError>(())
    });
    if let Err(cause) = searched {
        tracing::debug!(%cause, "conditions of an append are left to the writer");
    }
    looked
}

/// What readers see of the tail: a match, how far the database has to be read, and the end.
fn glance(
    shared: &Shared,
    condition: &AppendCondition,
    looks: &mut Looks,
) -> (Result<Option<Position>, Spent>, u64, Position) {
    let tail = shared.tail();
    let published = tail.published();
    let found = tail.matching(&condition.fail_if_match, condition.after.get(), published, looks);
    (found, tail.indexed(), Position::new(published))
}

/// An event behind `after`, in the index up to `indexed`, that matches `query`.
fn in_index(
    shared: &Shared,
    view: View<'_>,
    query: &Query,
    mut after: u64,
    indexed: u64,
    looks: &mut Looks,
) -> Result<Option<Position>, Unsearched> {
    // Whoever asks behind the end of the index has the whole answer.
    if after >= indexed {
        return Ok(None);
    }
    let mut search = Search::new(view.connection, query)?;
    while let Some(candidate) = search.next(after, looks)?.filter(|position| *position <= indexed) {
        let event = shared.event(view, candidate)?;
        looks.spend(1 + event.bytes().len() / 1_024)?;
        if query.matches(&event) {
            return Ok(Some(Position::new(candidate)));
        }
        after = candidate;
    }
    Ok(None)
}

/// The writer's part: refuses an append whose conditions do not hold, events of the group being written included.
pub(super) fn enforce(
    shared: &Shared,
    view: View<'_>,
    conditions: &[AppendCondition],
    looked: &Looked,
    looks: &mut Looks,
) -> Result<(), AppendError> {
    let end = shared.tail().end();
    for (n, condition) in conditions.iter().enumerate() {
        // Behind the end nothing could match, now; but whoever knows more than the log read another timeline.
        if condition.after.get() > end {
            return Err(AppendError::Ahead { condition: n, after: condition.after, head: Position::new(end) });
        }
        let seen = match looked.at(shared.timeline, n) {
            Some(Look::Matched(position)) => {
                return Err(AppendError::ConditionFailed { condition: n, position: *position });
            }
            Some(Look::Spent(spent)) => return Err(refusal(shared, *spent)),
            Some(Look::Clear { until }) => *until,
            None => Position::ZERO,
        };
        let after = condition.after.max(seen).get();
        match matching(shared, view, &condition.fail_if_match, after, looks) {
            Ok(None) => {}
            Ok(Some(position)) => return Err(AppendError::ConditionFailed { condition: n, position }),
            Err(Unsearched::Spent(spent)) => return Err(refusal(shared, spent)),
            Err(Unsearched::Failed(cause)) => return Err(cause.into()),
        }
    }
    Ok(())
}

/// An event behind `after` that matches `query`, events of the group being written included.
fn matching(
    shared: &Shared,
    view: View<'_>,
    query: &Query,
    after: u64,
    looks: &mut Looks,
) -> Result<Option<Position>, Unsearched> {
    let indexed = {
        let tail = shared.tail();
        if let Some(found) = tail.matching(query, after, tail.end(), looks)? {
            return Ok(Some(found));
        }
        tail.indexed()
    };
    in_index(shared, view, query, after, indexed, looks)
}

fn refusal(shared: &Shared, spent: Spent) -> AppendError {
    let limit = match spent {
        Spent::Looks(max) => format!("look at more than {max} events and places of the index"),
        Spent::Time => format!("take longer than {:?} to look at", shared.limits.unit_time),
    };
    shape::too_broad(&limit)
}
