//! Sagas that steps start, or have undone: in the transaction of the step's record.

use quorate_data::{event::Version, store::DynTx};

use super::{
    Arc, Attempt, Failure, Happened, Journal, Leg, Run, SagaError, SagaKey, Stop, Transition, Unwritten, Work, call,
    clipped, family, put, rows, weight_of,
};
use crate::saga::{
    Config,
    definition::{Action, Child},
    event::{ChildRef, Parent, Planned},
    machine,
    value::{as_read, small},
};

/// A saga that begins with the turn.
pub(super) struct Born {
    saga: SagaKey,
    started: Happened,
    leg: Leg,
    attempt: u32,
}

impl Run<'_> {
    /// What is known of an attempt from the run of this transaction before.
    pub(super) fn verdict(&self, leg: &Leg, number: u32) -> Option<Failure> {
        let mut known = self.work.verdicts.iter().filter(|(failed, attempt, _)| failed == leg && *attempt == number);
        known.next().map(|(_, _, failure)| failure.clone())
    }

    pub(super) fn is_child(&self, attempt: &Attempt) -> bool {
        self.action(attempt).is_some_and(Action::is_child)
    }

    /// Notes of the children whose end came in that it did.
    ///
    /// Ordering: before the rules are followed, which may have one of them undone and wait for it again.
    pub(super) async fn hear_children(&self, tx: &mut DynTx) -> Result<(), Stop> {
        for (happened, _) in &self.work.turn.news {
            let (Happened::StepDone { step, direction, .. } | Happened::StepFailed { step, direction, .. }) = happened
            else {
                continue;
            };
            let child = self.journal.step(step).and_then(|step| step.way(*direction).child.as_deref());
            if let Some(child) = child {
                family::heard(tx, &child.key()).await.map_err(unwritten)?;
            }
        }
        Ok(())
    }

    /// Begins an attempt that is a saga of its own.
    pub(super) async fn child(&mut self, tx: &mut DynTx, attempt: Attempt) -> Result<Happened, Stop> {
        let action = self.action(&attempt).cloned();
        let Attempt { leg, of, number, planned } = attempt;
        let begun = match (self.verdict(&leg, number), action) {
            (Some(failure), _) => Err(failure),
            (None, Some(Action::Child(child))) => {
                self.work.answers_for(&leg, number);
                match self.check_family(tx, &child).await? {
                    Ok(()) => self.begin(&child, (&leg, &of, number), planned.as_deref()),
                    Err(failure) => Err(failure),
                }
            }
            (None, _) => {
                self.work.answers_for(&leg, number);
                self.reopen(tx, &leg).await?
            }
        };
        match begun {
            Ok(child) => {
                let Leg { step, direction } = leg;
                Ok(Happened::ChildBegun { step, direction, attempt: number, child: Box::new(child), planned })
            }
            Err(failure) => {
                let definition = &self.work.turn.definition;
                let answer = Err(failure);
                Ok(machine::answered(&self.journal, definition, leg, number, answer, planned, &mut self.dice))
            }
        }
    }

    /// Whether the family has a place for one more.
    async fn check_family(&mut self, tx: &mut DynTx, child: &Child) -> Result<Result<(), Failure>, Stop> {
        let max = Child::MAX_FAMILY;
        let written = match self.family {
            Some(written) => written,
            None => family::family(tx, &self.work.turn.saga, max).await.map_err(unwritten)?,
        };
        self.family = Some(written);
        if written + self.born.len() < max {
            return Ok(Ok(()));
        }
        let name = child.name.as_str();
        Ok(Err(Failure::Refused(format!("saga `{name}` would be one of more than {max} that began with the same one"))))
    }

    /// The saga that a step starts: it is written with everything else of the turn.
    fn begin(
        &mut self,
        child: &Child,
        (leg, of, attempt): (&Leg, &Arc<str>, u32),
        planned: Option<&Planned>,
    ) -> Result<ChildRef, Failure> {
        let turn = &self.work.turn;
        let name = child.name.as_str();
        let depth = Child::depth_below(&self.journal);
        if depth > Child::MAX_DEPTH {
            let max = Child::MAX_DEPTH;
            return Err(Failure::Refused(format!("saga `{name}` would have {depth} above it, and may have {max}")));
        }
        let Some(definition) = turn.shared.child_definition(&child.name, child.version) else {
            let version = child.version.map_or_else(String::new, |version| format!(" of version {version}"));
            // Nothing was tried: it may be declared yet, or be known elsewhere.
            return Err(Failure::Held(format!("no saga `{name}`{version} can be started here")));
        };
        let call = call(&turn.saga, &turn.definition, &self.journal, (leg, of, attempt), planned);
        // Whoever panics is known by that.
        put(&self.work.current, Some((leg.clone(), attempt)));
        let input = child.input_for(&call);
        let input = input.and_then(|input| {
            let key = definition.key_of.as_ref().map_or(Ok(None), |key_of| key_of(&input));
            Ok((key.map_err(Failure::Refused)?, input))
        });
        put(&self.work.current, None);
        let (key, input) = input?;
        if !small(&input) {
            let max = Config::MAX_VALUE_BYTES;
            return Err(Failure::Refused(format!("saga `{name}` would be started with more than {max} bytes")));
        }
        let key = key.map(Arc::from).or_else(|| self.journal.key.clone());
        if key.as_ref().is_some_and(|key: &Arc<str>| key.is_empty() || key.len() > Config::MAX_KEY_BYTES) {
            let max = Config::MAX_KEY_BYTES;
            return Err(Failure::Refused(format!("the business key of saga `{name}` would not have 1 to {max} bytes")));
        }
        let parent = Parent {
            saga: turn.saga.name.clone(),
            id: turn.saga.id.clone(),
            step: leg.step.clone(),
            direction: leg.direction,
            attempt,
            depth,
        };
        let deadline_ms = definition.deadline.map(|span| u64::try_from(span.as_millis()).unwrap_or(u64::MAX));
        let (version, parent) = (definition.version, Some(Box::new(parent)));
        let started = Happened::Started { version, key, input: as_read(input), deadline_ms, parent };
        self.bytes += weight_of(&started);
        let id = Child::id_for(&call);
        let saga = SagaKey { name: child.name.clone(), id: id.clone() };
        self.born.push(Born { saga, started, leg: leg.clone(), attempt });
        Ok(ChildRef { saga: child.name.clone(), id, version })
    }

    /// Has the saga undone that the step was.
    async fn reopen(&mut self, tx: &mut DynTx, leg: &Leg) -> Result<Result<ChildRef, Failure>, Stop> {
        let turn = &self.work.turn;
        let child = self.journal.step(&leg.step).and_then(|step| step.forward.child.clone());
        let Some(child) = child else {
            return Ok(Err(Failure::refused("it started no saga that could be undone")));
        };
        let (name, id) = (turn.saga.name.as_str(), &turn.saga.id);
        let why = self.journal.abort.as_deref().unwrap_or_default();
        let asked =
            Happened::UndoAsked { why: clipped(format!("saga `{name}` `{id}`, whose step it is, turned back: {why}")) };
        let saga = child.key();
        let event = rows::recorded(turn.store.event_id(), &saga, &asked, self.work.now);
        let event =
            event.map_err(|cause| unwritten(SagaError::invalid(format!("an event cannot be written: {cause}"))))?;
        let reopened = family::reopen(tx, &saga, event, turn.owner, self.work.now).await;
        if let Err(why) = reopened.map_err(Stop::Unwritten)? {
            return Ok(Err(Failure::Refused(format!("saga `{}` `{}` {why}", child.saga.as_str(), child.id))));
        }
        self.reopened.push(saga);
        Ok(Ok((*child).clone()))
    }
}

impl Work {
    /// Writes the first event of sagas that steps start. One whose id is taken has its step refused.
    pub(super) async fn bear(&self, tx: &mut DynTx, born: Vec<Born>) -> Result<Vec<SagaKey>, Stop> {
        let (turn, mut written) = (&self.turn, Vec::new());
        for Born { saga, started, leg, attempt } in born {
            let mut journal = Journal::new();
            journal.apply(started.clone(), self.now);
            let taken = |what: &str| {
                let why = format!("saga `{}` `{}` {what}", saga.name.as_str(), saga.id);
                Stop::Step(leg.clone(), attempt, Failure::Refused(why))
            };
            let event = rows::recorded(turn.store.event_id(), &saga, &started, self.now);
            let event = event.map_err(|cause| taken(&format!("cannot be written: {cause}")))?;
            let stream = saga.stream().map_err(|cause| taken(&cause.to_string()))?;
            let first = Transition {
                saga: &saga,
                stream: &stream,
                journal: &journal,
                events: vec![event],
                at: Version::ZERO,
                mark: Version::ZERO,
                before: turn.owner,
                owner: turn.owner,
                others: false,
                undoable: None,
            };
            rows::write(tx, first).await.map_err(|unwritten| match unwritten {
                Unwritten::Exists => taken("is there, and this step did not start it"),
                Unwritten::Failed(cause @ SagaError::Invalid { .. }) => taken(&cause.to_string()),
                other => Stop::Unwritten(other),
            })?;
            written.push(saga);
        }
        Ok(written)
    }
}

fn unwritten(cause: impl Into<SagaError>) -> Stop {
    Stop::Unwritten(Unwritten::Failed(cause.into()))
}
