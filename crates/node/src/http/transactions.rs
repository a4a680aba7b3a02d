//! Transactions of two-phase commit: beginning one, what is in doubt, what became of one, ending one by hand.

mod begin;
pub(super) mod participants;

use axum::extract::{Request, State};
use http::{StatusCode, Uri};
use quorate_consistency::two_phase_commit::{
    Ended, Ending, Gid, Heuristic, Ledger, Order, ParticipantError, Record, RequestId, Standstill, TxnError,
};
use quorate_data::{event::NewEvent, store::StreamAppend};
use quorate_foundations::name::Name;
use serde::Deserialize;
use serde_json::{Value, json};

pub(super) use self::begin::begin;
use super::{
    Shared, document,
    problem::{Code, Problem},
    reply,
    request::{self, Params},
    streams::once,
};
use crate::verbs::{Branch, Decision, Doubtful, Resolved, Transactions};

type Reply = Result<axum::response::Response, Problem>;

impl From<TxnError> for Problem {
    fn from(error: TxnError) -> Self {
        let told = |code| Self::of(code, &error).retry(error.retry());
        match &error {
            // What is told in a request is checked before: this is said of what nobody knows.
            TxnError::Invalid { .. } => told(Code::TransactionNotFound),
            TxnError::UnknownParticipant { name } => told(Code::TransactionNotFound).with("participant", name.as_str()),
            TxnError::UnderWay { .. } | TxnError::Fenced => told(Code::TransactionUnderWay),
            TxnError::TooManyOrders { participant, most, .. } => {
                told(Code::TooManyOrders).with("participant", participant.as_str()).with("limit", *most)
            }
            TxnError::Participant { name, cause: ParticipantError::Contradicted { .. } } => {
                told(Code::TransactionEndedOtherwise).with("participant", name.as_str())
            }
            TxnError::Participant { name, .. } | TxnError::NotAsked { name, .. } => {
                told(Code::ParticipantAway).with("participant", name.as_str())
            }
            TxnError::IdReused { id } => told(Code::TransactionIdReused).with("id", id.as_str()),
            TxnError::TooManyParticipants { most } => told(Code::TooManyParticipants).with("limit", *most),
            TxnError::InUse { name } => told(Code::TransactionUnderWay).with("participant", name.as_str()),
            TxnError::Overloaded { unfinished } => told(Code::Overloaded).with("limit", *unfinished),
            TxnError::ParticipantOverloaded { name, unfinished } => {
                told(Code::Overloaded).with("participant", name.as_str()).with("limit", *unfinished)
            }
            TxnError::Closed => told(Code::ShuttingDown),
            TxnError::Stopped { gid } => told(Code::OutcomeUnknown).unknown().with("transaction", gid.to_string()),
            TxnError::Store(cause) => cause.clone().into(),
            _ => told(Code::StoreFailed),
        }
    }
}

/// Refuses events that only a coordinator of transactions appends: others would decide in its place.
pub(super) fn not_of_coordinators(parts: &[StreamAppend]) -> Result<(), Problem> {
    for part in parts {
        not_a_coordinators(&part.stream)?;
        if let Some(event) = part.events.iter().find(|event: &&NewEvent| Ledger::is_own_type(&event.kind)) {
            let detail = format!("only a coordinator of transactions appends events of type `{}`", event.kind);
            return Err(Problem::new(Code::StreamOfTransaction, detail).with("stream", part.stream.as_str()));
        }
    }
    Ok(())
}

/// Refuses what would change, or forget, the stream of a coordinator or of a transaction.
pub(super) fn not_a_coordinators(stream: &Name) -> Result<(), Problem> {
    if !Ledger::is_own_stream(stream.as_str()) {
        return Ok(());
    }
    let detail = format!("stream `{}` belongs to a coordinator of transactions", stream.as_str());
    Err(Problem::new(Code::StreamOfTransaction, detail).with("stream", stream.as_str()))
}

/// What a path calls a transaction.
enum Called {
    /// By its own name.
    Gid(Gid),
    /// By that of whoever began it.
    Id(RequestId),
}

fn called(uri: &Uri) -> Result<Called, Problem> {
    let name = request::transaction(uri)?;
    if !name.as_str().starts_with("quorate:") {
        return begin::id(name.as_str()).map(Called::Id);
    }
    let gid = name.as_str().parse().map(Called::Gid);
    gid.map_err(|wrong| Problem::new(Code::InvalidName, format!("`{}`: {wrong}", name.as_str())))
}

fn unknown(id: &RequestId) -> Problem {
    let detail = format!(
        "no transaction was begun here under the id `{id}`; one that is called by its own name is quorate:<uuid>:<takeover>-<number>"
    );
    Problem::new(Code::TransactionNotFound, detail).with("id", id.as_str())
}

fn ending(ending: Ending) -> &'static str {
    match ending {
        Ending::Commit => "commit",
        Ending::Abort => "abort",
    }
}

fn decision(decision: Decision) -> &'static str {
    match decision {
        Decision::Commit => "commit",
        Decision::None => "none",
        Decision::Unreadable => "unreadable",
    }
}

fn standing(standstill: Option<Standstill>) -> &'static str {
    match standstill {
        Some(Standstill::UnderWay) => "under-way",
        Some(Standstill::Ending(Ending::Commit)) => "committing",
        Some(Standstill::Ending(Ending::Abort)) => "aborting",
        Some(Standstill::Newer) => "of-successor",
        Some(Standstill::OlderTimeline) => "of-older-timeline",
        Some(Standstill::Unreadable) => "unreadable",
        None => "uncoordinated",
    }
}

fn branch(branch: &Branch) -> Value {
    let age = branch.age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
    json!({
        "participant": branch.participant.as_str(), "age-ms": age, "held": branch.held,
        "standing": standing(branch.standstill),
    })
}

fn doubtful(one: &Doubtful) -> Value {
    let branches: Vec<Value> = one.branches.iter().map(branch).collect();
    json!({ "transaction": one.gid.to_string(), "decision": decision(one.decision), "branches": branches })
}

fn heuristic(done: &Heuristic) -> Value {
    json!({
        "participant": done.participant.as_str(), "ending": ending(done.ending), "by": done.by, "why": done.why,
        "ordered": !done.is_found, "contradicts": done.contradicts,
    })
}

fn described(gid: &Gid, record: &Record, branches: &[Branch]) -> Value {
    let decided = if record.is_decided { Decision::Commit } else { Decision::None };
    let participants: Vec<&str> = record.participants.iter().map(Name::as_str).collect();
    let heuristics: Vec<Value> = record.heuristics.iter().map(heuristic).collect();
    let branches: Vec<Value> = branches.iter().map(branch).collect();
    json!({
        "transaction": gid.to_string(), "coordinator": gid.coordinator.to_string(), "decision": decision(decided),
        "participants": participants, "heuristics": heuristics, "branches": branches, "stream": gid.stream().as_str(),
    })
}

/// `GET /v1/transactions`: what is in doubt.
pub(super) async fn list(State(node): State<Shared>, request: Request) -> Reply {
    let params = Params::of(request.uri(), &["after", "limit"])?;
    let limit = params.limit_within(&node, Transactions::MAX_PAGE)?;
    let after = params.one("after")?.map(|after| {
        let wrong = |wrong| request::wrong("after", format!("`after={}`: {wrong}", request::short(after)));
        after.parse::<Gid>().map_err(wrong)
    });
    let found = node.transactions.in_doubt(after.transpose()?, limit).await?;
    let shown: Vec<Value> = found.transactions.iter().map(doubtful).collect();
    let silent: Vec<Value> = found
        .silent
        .iter()
        .map(|(participant, cause)| json!({ "participant": participant.as_str(), "why": cause.to_string() }))
        .collect();
    let mut response = reply::json(StatusCode::OK, &json!({ "transactions": shown, "silent": silent }));
    if let Some(last) = found.transactions.last().filter(|_| found.has_more) {
        reply::next(response.headers_mut(), &format!("/v1/transactions?limit={limit}&after={}", last.gid));
    }
    Ok(reply::whole(response))
}

/// `GET /v1/transactions/{transaction}`
pub(super) async fn describe(State(node): State<Shared>, request: Request) -> Reply {
    Params::of(request.uri(), &[])?;
    let gid = match called(request.uri())? {
        Called::Gid(gid) => gid,
        Called::Id(id) => return of_request(&node, &id, request.headers()).await,
    };
    let Some((record, branches)) = node.transactions.get(&gid).await? else {
        let detail =
            format!("the log says nothing of transaction {gid}, and nobody who can be asked holds anything of it");
        return Err(Problem::new(Code::TransactionNotFound, detail).with("transaction", gid.to_string()));
    };
    Ok(reply::whole(reply::json(StatusCode::OK, &described(&gid, &record, &branches))))
}

/// The transaction that was begun under an id: once it has ended, where whoever asks would wait for that.
async fn of_request(node: &Shared, id: &RequestId, headers: &http::HeaderMap) -> Reply {
    let patience = request::wait(headers)?.min(node.config.http.max_wait);
    let requested = node.coordinating.settled(id, patience).await?.ok_or_else(|| unknown(id))?;
    let (record, branches) =
        node.transactions.get_among(&requested.gid, &requested.participants).await?.unwrap_or_default();
    let mut shown = described(&requested.gid, &record, &branches);
    let [by, why] = begin::reason(&requested.ended);
    let participants: Vec<&str> = requested.participants.iter().map(Name::as_str).collect();
    shown["id"] = id.as_str().into();
    shown["status"] = begin::status(&requested.ended).into();
    shown["ended"] = (requested.ended != Ended::Unknown).into();
    (shown["by"], shown["why"], shown["participants"]) = (by, why, json!(participants));
    Ok(reply::whole(reply::json(StatusCode::OK, &shown)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Resolving {
    participant: String,
    ending: Ending,
    by: String,
    why: String,
}

/// `POST /v1/transactions/{transaction}/resolve`: 200 if it is done, 202 if it is recorded and waits.
pub(super) async fn resolve(State(node): State<Shared>, request: Request) -> Reply {
    let (head, body) = request.into_parts();
    let called = called(&head.uri)?;
    Params::of(&head.uri, &[])?;
    document::is_json(&head.headers)?;
    let received = node.receive(&head, body).await?;
    let Resolving { participant, ending: wanted, by, why } = document::parsed(&received.bytes)?;
    Name::check(&participant)?;
    let participant = Name::new(participant)?;
    let order = Order::new(&participant, wanted, &by, &why)
        .map_err(|wrong| Problem::of(Code::InvalidParameter, &wrong).with("parameter", "why"))?;
    let gid = match called {
        Called::Gid(gid) => gid,
        Called::Id(id) => {
            let requested = node.coordinating.settled(&id, std::time::Duration::ZERO).await?;
            requested.ok_or_else(|| unknown(&id))?.gid
        }
    };
    let effect = async {
        let Resolved { contradicts, waits } = node.transactions.resolve(&gid, order).await?;
        let status = if waits.is_none() { StatusCode::OK } else { StatusCode::ACCEPTED };
        let shown = json!({
            "transaction": gid.to_string(), "participant": participant.as_str(), "ending": ending(wanted),
            "done": waits.is_none(), "waits": waits, "contradicts": contradicts,
        });
        Ok(reply::json(status, &shown))
    };
    once(&node, &head, &received.bytes, effect).await
}
