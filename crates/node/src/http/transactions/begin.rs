//! Beginning a transaction under its caller's name.

use axum::extract::{Request, State};
use bytes::Bytes;
use http::{HeaderValue, StatusCode, header::LOCATION};
use quorate_consistency::two_phase_commit::{
    self, Answer, Ended, RequestId, Requested, Transaction, TxnError, Work, WorkError,
};
use quorate_data::{
    event::NewEvent,
    store::{AppendBatch, ExpectedVersion, StreamAppend},
};
use quorate_foundations::name::Name;
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

use super::{Reply, not_of_coordinators};
use crate::{
    http::{
        Node, Shared,
        append::{Part, one_part, within_limits},
        document, percent,
        problem::{Code, Problem},
        reply,
        request::{self, Params},
        sagas::not_a_sagas,
    },
    verbs::{AddressError, Coordinating},
};

/// Events that a decision appends beside those of its caller.
const OWN_EVENTS: usize = 3;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document<'b> {
    id: String,
    #[serde(borrow)]
    participants: Vec<Taking<'b>>,
    #[serde(default, borrow)]
    events: Vec<Part<'b>>,
    #[serde(default)]
    answer: Answering,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Taking<'b> {
    #[serde(default)]
    url: Option<String>,
    #[serde(default)]
    participant: Option<String>,
    #[serde(borrow)]
    work: &'b RawValue,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Answering {
    #[default]
    Applied,
    Decided,
}

impl From<AddressError> for Problem {
    fn from(error: AddressError) -> Self {
        match &error {
            AddressError::Forbidden(forbidden) => {
                let problem = Self::of(Code::ForbiddenTarget, &error).with("address", forbidden.address.to_string());
                problem.with("setting", "transactions.allow")
            }
            AddressError::Invalid { .. } => Self::of(Code::InvalidParameter, &error).with("parameter", "url"),
        }
    }
}

/// The id of a transaction, as a path or a document has it.
pub(super) fn id(text: &str) -> Result<RequestId, Problem> {
    RequestId::new(text).map_err(|wrong| Problem::of(Code::InvalidName, &wrong))
}

/// How a request stands, in a word. What may be either is in doubt, and never told as one of the others.
pub(super) fn status(ended: &Ended) -> &'static str {
    match ended {
        Ended::Committed => "committed",
        Ended::Aborted { .. } => "aborted",
        Ended::Unknown => "in-doubt",
    }
}

/// Who said no, and why; nulls where nobody did.
pub(super) fn reason(ended: &Ended) -> [Value; 2] {
    match ended {
        Ended::Aborted { by, why } => [json!(by.as_ref().map(Name::as_str)), json!(why)],
        Ended::Committed | Ended::Unknown => [Value::Null, Value::Null],
    }
}

/// `POST /v1/transactions`: 200 if it has ended, 202 if it may be either.
pub(in crate::http) async fn begin(State(node): State<Shared>, request: Request) -> Reply {
    let (head, body) = request.into_parts();
    Params::of(&head.uri, &[])?;
    document::is_json(&head.headers)?;
    let received = node.receive(&head, body).await?;
    let max = Coordinating::MAX_DOCUMENT_BYTES;
    if received.bytes.len() > max {
        let detail = format!("a transaction's document has at most {max} bytes, this one has {}", received.bytes.len());
        return Err(Problem::new(Code::TooLarge, detail).with("limit", max));
    }
    let document: Document<'_> = document::envelope(&received.bytes)?;
    let (id, digest) = (id(&document.id)?, document::digest(&received.bytes)?);
    // Ordering: what was begun is told before anything is refused.
    if let Some(begun) = node.coordinating.begun(&id, &digest).await? {
        return Ok(told(&id, &begun));
    }
    let (transaction, services) = read(&node, &received.bytes, &document)?;
    let begun = two_phase_commit::Request::new(id.clone(), digest, transaction);
    let requested = node.coordinating.begin(begun, &services).await.map_err(|error| match &error {
        // Of what is asked for here, not of what is looked for.
        TxnError::Invalid { .. } => Problem::of(Code::InvalidParameter, &error),
        TxnError::UnknownParticipant { name } => Problem::of(Code::InvalidParameter, &error)
            .with("parameter", "participant")
            .with("participant", name.as_str()),
        _ => error.into(),
    })?;
    Ok(told(&id, &requested))
}

fn read(node: &Node, body: &Bytes, document: &Document<'_>) -> Result<(Transaction, Vec<Name>), Problem> {
    let most = Transaction::MAX_PARTICIPANTS;
    if document.participants.is_empty() || document.participants.len() > most {
        let detail = format!("`participants` are 1 to {most}, these are {}", document.participants.len());
        return Err(Problem::new(Code::LimitExceeded, detail).with("limit", most));
    }
    let (mut transaction, mut services) = (Transaction::new(), Vec::new());
    for (n, taking) in document.participants.iter().enumerate() {
        let at = |problem: Problem| problem.with("participants", n);
        let name = match (&taking.url, &taking.participant) {
            (Some(url), None) => {
                let name = node.coordinating.address(url).map_err(|wrong| at(wrong.into()))?;
                services.push(name.clone());
                name
            }
            // What has a scheme is a service's address, and is told so.
            (None, Some(name)) if !name.contains(':') => Name::new(&**name).map_err(|wrong| at(wrong.into()))?,
            _ => {
                let detail = "a participant has a `url`, or is named by `participant` as the node's settings call it";
                return Err(at(request::wrong("participants", detail.to_owned())));
            }
        };
        let work = Work::of(Bytes::copy_from_slice(taking.work.get().as_bytes())).map_err(|wrong| {
            let code = if matches!(wrong, WorkError::TooLarge { .. }) { Code::TooLarge } else { Code::InvalidJson };
            at(Problem::of(code, &wrong).with("limit", Work::MAX_BYTES))
        })?;
        transaction = transaction.with(name, work);
    }
    let max = node.config.limits.batch_events;
    let mut batch = AppendBatch { streams: Vec::new(), conditions: Vec::new() };
    for (n, part) in document.events.iter().enumerate() {
        let part = one_part(body, part, max).map_err(|problem| problem.with("part", n))?;
        not_a_sagas(&part.stream)?;
        batch.streams.push(part);
    }
    not_of_coordinators(&batch.streams)?;
    // The decision's own events are in the same append.
    let named = document.participants.iter().filter_map(|one| one.url.as_ref().or(one.participant.as_ref()));
    let names = named.map(|name| name.len() + 8).sum::<usize>() + 64;
    for (data, count) in [(names, 1), (64, OWN_EVENTS - 1)] {
        let event = NewEvent::new("decision", "/coordinator", "quorate.txn.decision").json(vec![b' '; data]);
        let (stream, expected) = (Name::new("txn")?, ExpectedVersion::Any);
        batch.streams.push(StreamAppend { stream, expected, events: vec![event; count] });
    }
    within_limits(node, &batch)?;
    batch.streams.truncate(document.events.len());
    for part in batch.streams {
        transaction = transaction.append(part.stream, part.expected, part.events);
    }
    transaction = transaction.answered(match document.answer {
        Answering::Applied => Answer::Applied,
        Answering::Decided => Answer::Decided,
    });
    Ok((transaction, services))
}

fn told(id: &RequestId, Requested { gid, participants, ended, receipt }: &Requested) -> axum::response::Response {
    let names = |all: &[Name]| all.iter().map(|name| name.as_str().to_owned()).collect::<Vec<_>>();
    let [by, why] = reason(ended);
    let shown = json!({
        "id": id.as_str(), "transaction": gid.to_string(), "status": status(ended), "participants": names(participants),
        "by": by, "why": why,
        "unconfirmed": receipt.as_ref().map(|receipt| names(&receipt.unconfirmed)),
        "contradicted": receipt.as_ref().map(|receipt| names(&receipt.contradicted)),
    });
    let code = if *ended == Ended::Unknown { StatusCode::ACCEPTED } else { StatusCode::OK };
    let mut response = reply::json(code, &shown);
    let mut address = "/v1/transactions/".to_owned();
    percent::encode(id.as_str(), &mut address);
    // Only what is printable is left by the encoding.
    response.headers_mut().extend(HeaderValue::try_from(address).ok().map(|address| (LOCATION, address)));
    if let Some(token) = receipt.as_ref().and_then(|receipt| receipt.token) {
        reply::token(response.headers_mut(), &token);
    }
    reply::whole(response)
}
