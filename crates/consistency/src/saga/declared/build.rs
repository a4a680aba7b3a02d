//! From a document to a definition: its steps, done with the hands that there are.

use std::{collections::BTreeSet, sync::Arc};

use quorate_communication::message_queue::{NewMessage, QueueError, Queues};
use quorate_data::{
    event::NewEvent,
    store::{Retry, StoreError},
};
use quorate_foundations::name::Name;
use quorate_runtime::BoxFuture;
use serde_json::Value;

use super::{Act, Declared, Document, Hands, HttpAct, QueueAct, Request, SagaAct, Stage, plan, template::percent};
use crate::saga::{
    definition::{Action, Before, Call, Child, Definition, Step},
    event::{Direction, Failure},
};

pub(super) fn definition(document: &Document, hands: &Hands) -> Definition {
    let mut definition = Definition::new(document.name.clone(), document.version).in_order();
    definition = definition.of_document(document.text.clone());
    for stage in document.stages.iter() {
        if let Stage::Steps(steps) = stage {
            definition = definition.parallel(steps.iter().map(|declared| step(declared, hands)));
        }
    }
    if let Some(span) = document.deadline {
        definition = definition.deadline(span);
    }
    if let Some(before) = hands.queues.as_ref().and_then(|queues| known_queues(document, queues)) {
        definition = definition.before(before);
    }
    if document.key.is_some() {
        let document = document.clone();
        definition = definition.keyed(Arc::new(move |input| document.key_of(input)));
    }
    let document = document.clone();
    definition.plan(move |journal| plan::next(&document, journal))
}

/// Has the queues known that the document names: another process may have declared one a moment ago. Inside the transaction that would wait for
/// a second connection, while others with one each wait for theirs.
fn known_queues(document: &Document, queues: &Queues) -> Option<Arc<Before>> {
    let steps = document.stages.iter().flat_map(|stage| match stage {
        Stage::Steps(steps) => steps.as_slice(),
        Stage::Wait(_) => &[],
    });
    let named = steps.flat_map(|step| [Some(&step.act), step.undo.as_ref()]).flatten().filter_map(|act| match act {
        Act::Queue(act) => Some(act.queue.clone()),
        Act::Http(_) | Act::Saga(_) => None,
    });
    let named = named.collect::<BTreeSet<Name>>();
    if named.is_empty() {
        return None;
    }
    let queues = queues.clone();
    Some(Arc::new(move || -> BoxFuture<'static, Result<(), StoreError>> {
        let is_unknown = |name| matches!(queues.get(name), Err(QueueError::NotFound { .. }));
        if !named.iter().any(is_unknown) {
            return Box::pin(std::future::ready(Ok(())));
        }
        let queues = queues.clone();
        Box::pin(async move {
            match queues.refresh().await {
                Err(QueueError::Store(cause)) if cause.retry() != Retry::Never => Err(cause),
                // Whatever else keeps the queue from being known, its step says that it is not.
                _ => Ok(()),
            }
        })
    }))
}

fn step(declared: &Declared, hands: &Hands) -> Step {
    let mut step = Step::new(&declared.name, action(&declared.act, hands));
    step.kind = declared.kind;
    step.compensation = declared.undo.as_ref().map(|act| action(act, hands));
    (step.attempts, step.compensation_attempts) = (declared.attempts, declared.undo_attempts);
    (step.backoff, step.time, step.quiet) = (declared.backoff, declared.time, declared.quiet);
    step.may_be_refused = declared.may_be_refused;
    step
}

fn action(act: &Act, hands: &Hands) -> Action {
    match act {
        Act::Http(act) => {
            let (act, caller) = (act.clone(), hands.caller.clone());
            Action::Remote(Arc::new(move |call| {
                let (request, caller) = (request(&act, &call), caller.clone());
                Box::pin(async move { caller.call(request?).await })
            }))
        }
        Act::Saga(act) => Action::child(child(act)),
        Act::Queue(act) => {
            let (act, queues) = (act.clone(), hands.queues.clone());
            Action::local(move |tx, call| {
                let (act, queues) = (act.clone(), queues.clone());
                Box::pin(async move {
                    let Some(queues) = queues else {
                        return Err(Failure::refused("this store keeps no message queues"));
                    };
                    let message = message(&act, &call)?;
                    let queue = queues.get(&act.queue).map_err(unsent)?;
                    queue.send_in(tx, vec![message]).await.map_err(unsent)?;
                    Ok(Value::Null)
                })
            })
        }
    }
}

fn child(act: &Arc<SagaAct>) -> Child {
    let mut child = Child::of(act.saga.clone());
    if let Some(version) = act.version {
        child = child.version(version);
    }
    let act = act.clone();
    child.input(move |call| match &act.input {
        Some(program) => plan::one(program, &seen(call)).map_err(Failure::Refused),
        None => Ok(call.journal.input.clone()),
    })
}

/// What programs see of a call: what happened, and for a compensation what the step answered, as `output`.
fn seen(call: &Call) -> Value {
    let mut seen = plan::seen(call.saga.as_str(), Some(&call.id), &call.journal);
    if call.direction == Direction::Compensation
        && let Value::Object(members) = &mut seen
    {
        members.insert("output".to_owned(), call.journal.output(&call.step).cloned().unwrap_or_default());
    }
    seen
}

fn request(act: &HttpAct, call: &Call) -> Result<Request, Failure> {
    let seen = seen(call);
    let url = act.url.fill(&seen, percent).map_err(Failure::Refused)?;
    let header = |(name, value): &(Arc<str>, super::Template)| {
        let value = value.fill(&seen, |text| Ok(text.to_owned()))?;
        if value.contains(|letter: char| letter.is_control()) {
            return Err(format!("header `{name}` would hold a control character"));
        }
        Ok((name.to_string(), value))
    };
    let headers = act.headers.iter().map(header).collect::<Result<_, _>>().map_err(Failure::Refused)?;
    let body = act.body.as_ref().map(|program| plan::one(program, &seen)).transpose().map_err(Failure::Refused)?;
    Ok(Request {
        step: call.step.clone(),
        method: act.method,
        url,
        headers,
        body,
        key: call.key(),
        time: call.time,
        attempt: call.attempt,
        undoes: call.direction == Direction::Compensation,
        policy: act.policy.clone(),
    })
}

fn message(act: &QueueAct, call: &Call) -> Result<NewMessage, Failure> {
    let seen = seen(call);
    let run = |program: &quorate_foundations::jq::Program| plan::one(program, &seen).map_err(Failure::Refused);
    // The key is the message's id: the queue knows it when it comes again.
    let mut event = NewEvent::new(call.key(), "/quorate/saga", act.kind.clone());
    event.correlation_id = Some(format!("{}/{}", call.saga.as_str(), call.id).into());
    if let Some(program) = &act.data {
        event = event.json(run(program)?.to_string());
    }
    let mut message = NewMessage::of(event);
    if let Some(program) = &act.group {
        message.group = match run(program)? {
            Value::Null => None,
            Value::String(group) => Some(group.into()),
            other => Some(other.to_string().into()),
        };
    }
    Ok(message)
}

/// A queue that is not there may be declared yet, and a full one may empty itself.
fn unsent(cause: QueueError) -> Failure {
    match cause {
        QueueError::NotFound { .. } | QueueError::Full { .. } => Failure::transient(cause),
        QueueError::Store(cause @ StoreError::OutcomeUnknown) => Failure::unknown(cause),
        QueueError::Store(cause) => Failure::transient(cause),
        other => Failure::refused(other),
    }
}
