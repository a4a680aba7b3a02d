//! Sagas: documents, starting, looking, telling, deciding.

use axum::extract::{Request, State};
use http::{
    StatusCode,
    header::{HeaderValue, LOCATION},
    request::Parts,
};
use quorate_consistency::saga::{
    Above, Awaited, Awaiting, ChildRef, Description, Failure, Leg, Operation, Phase, Progress, Refusal, SagaError,
    Sagas, Search, State as Standing, Status, Summary, Verb, declared::Document,
};
use quorate_data::{event::Timestamp, store::reserved_for};
use quorate_foundations::{name::Name, time::Wall};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Node, Shared,
    declaration::{self, Declaration},
    document, percent,
    policies::fault,
    problem::{Code, Problem},
    reply,
    request::{self, Params},
    streams::once,
};
use crate::verbs::DeclareSagaError;

type Reply = Result<axum::response::Response, Problem>;

impl From<SagaError> for Problem {
    fn from(error: SagaError) -> Self {
        let told = |code| Self::of(code, &error).retry(error.retry());
        match &error {
            SagaError::Invalid { .. } => told(Code::InvalidParameter),
            SagaError::Undefined { name } => told(Code::SagaUndefined).with("saga", name.as_str()),
            SagaError::NotFound { name, id } => told(Code::SagaNotFound).with("saga", name.as_str()).with("id", &**id),
            SagaError::IdReused { name, id } => told(Code::SagaIdReused).with("saga", name.as_str()).with("id", &**id),
            SagaError::AlreadyDefined { name, version } => {
                told(Code::SagaTaken).with("saga", name.as_str()).with("version", *version)
            }
            SagaError::Stalled { name, id, version } => {
                told(Code::SagaStalled).with("saga", name.as_str()).with("id", &**id).with("version", *version)
            }
            SagaError::Refused { name, id, cause } => {
                let code = if *cause == Refusal::Ended { Code::SagaEnded } else { Code::SagaRefuses };
                told(code).with("saga", name.as_str()).with("id", &**id).with("reason", cause.to_string())
            }
            SagaError::Full { running } => told(Code::Overloaded).with("limit", *running),
            SagaError::Overtaken { .. } => told(Code::Overloaded),
            SagaError::Store(cause) => cause.clone().into(),
            SagaError::Unreadable { .. } => told(Code::StoreCorrupt),
            _ => told(Code::StoreFailed),
        }
    }
}

impl From<DeclareSagaError> for Problem {
    fn from(error: DeclareSagaError) -> Self {
        match &error {
            DeclareSagaError::Unreadable(faults) => {
                let list: Vec<Value> = faults.list.iter().map(fault).collect();
                Self::of(Code::InvalidSaga, &error).with("faults", list).with("more", faults.more)
            }
            DeclareSagaError::Other { .. } => Self::of(Code::InvalidSaga, &error),
            DeclareSagaError::TooMany { max } | DeclareSagaError::TooLarge { max } => {
                Self::of(Code::TooManySagas, &error).with("limit", *max)
            }
            DeclareSagaError::Unusable { name, version } => {
                Self::of(Code::SagaStalled, &error).with("saga", name.as_str()).with("version", *version)
            }
            DeclareSagaError::Saga(cause) => cause.clone().into(),
        }
    }
}

/// Refuses to have `stream` written to where its name is that of a saga's journal, whether there is such a saga or not.
pub(super) fn not_a_sagas(stream: &Name) -> Result<(), Problem> {
    match reserved_for(stream.as_str()) {
        Some("saga") => Err(of_a_saga(stream, "nobody but the saga appends to it")),
        _ => Ok(()),
    }
}

/// Refuses to have events of `stream` forgotten, or to have it said which of them may be, where a saga needs them or will.
pub(super) async fn not_an_open_sagas(node: &Node, stream: &Name) -> Result<(), Problem> {
    if reserved_for(stream.as_str()) != Some("saga") {
        return Ok(());
    }
    match node.sagas.owner(stream).await? {
        Some(status) if status.is_ended() => Ok(()),
        Some(_) => Err(of_a_saga(stream, "the saga is open, and needs all of its events")),
        None => Err(of_a_saga(stream, "one that begins finds there what was said before")),
    }
}

fn of_a_saga(stream: &Name, why: &str) -> Problem {
    let detail = format!("stream `{}` belongs to a saga, and {why}", stream.as_str());
    Problem::new(Code::StreamOfSaga, detail).with("stream", stream.as_str())
}

/// The saga that a path names: its definition, and its id.
fn saga(uri: &http::Uri) -> Result<(Name, String), Problem> {
    let name = request::saga(uri)?;
    let segment = uri.path().split('/').nth(4).unwrap_or_default();
    let id = percent::decode(segment).map_err(|wrong| {
        Problem::new(Code::InvalidName, format!("the saga's id in the path cannot be read: {wrong}"))
    })?;
    Ok((name, id.into_owned()))
}

fn address(name: &Name, id: &str) -> String {
    let mut address = "/v1/sagas/".to_owned();
    percent::encode(name.as_str(), &mut address);
    address.push('/');
    percent::encode(id, &mut address);
    address
}

fn time(wall: Wall) -> Value {
    Timestamp::from(wall).as_str().into()
}

fn summary(one: &Summary) -> Value {
    json!({
        "saga": one.name.as_str(), "id": &*one.id, "version": one.version, "status": one.status.word(),
        "stalled": one.stalled, "trouble": one.trouble.as_deref(), "key": one.key.as_deref(), "parent": one.parent.as_ref().map(above), "started": time(one.started_at), "updated": time(one.updated_at),
    })
}

fn above(above: &Above) -> Value {
    json!({ "saga": above.name.as_str(), "id": &*above.id, "step": &*above.step })
}

fn child(child: &ChildRef) -> Value {
    json!({ "saga": child.saga.as_str(), "id": &*child.id, "version": child.version })
}

fn described(found: &Description) -> Value {
    let Description { name, id, journal, stalled, trouble, waiting, children } = found;
    let waiting: Vec<Value> = waiting.iter().map(awaited).collect();
    let steps: Vec<Value> = journal
        .steps
        .iter()
        .map(|step| {
            json!({
                "step": &*step.name, "forward": way(&step.forward), "compensation": way(&step.compensation),
            })
        })
        .collect();
    let signals: Vec<Value> = journal
        .signals
        .iter()
        .map(|signal| json!({ "id": &*signal.id, "signal": &*signal.name, "data": signal.data }))
        .collect();
    let parent = journal.parent.as_ref();
    let parent = parent.map(|one| json!({ "saga": one.saga.as_str(), "id": &*one.id, "step": &*one.step }));
    let children: Vec<Value> = children.iter().map(summary).collect();
    let ended = matches!(journal.phase, Phase::Ended(_));
    json!({
        "saga": name.as_str(), "id": &**id, "version": journal.version, "status": journal.status().word(), "stalled": stalled,
        "trouble": trouble.as_deref(), "waiting": waiting, "parent": parent, "children": children,
        "ended": ended, "key": journal.key.as_deref(), "input": journal.input, "output": journal.output,
        "abort": journal.abort, "stuck": journal.stuck, "steps": steps, "signals": signals,
        "started": time(journal.started_at), "updated": time(journal.updated_at),
        "stream": format!("saga-{}:{id}", name.as_str()),
    })
}

fn awaited(one: &Awaited) -> Value {
    let of = |what: &str, leg: &Leg| json!({ "for": what, "step": &*leg.step, "way": leg.direction.word() });
    let mut shown = match &one.what {
        Awaiting::Decision(None) => json!({ "for": "decision" }),
        Awaiting::Decision(Some(leg)) => of("decision", leg),
        Awaiting::Answer(leg) => of("answer", leg),
        Awaiting::Child(leg, one) => {
            let mut shown = of("child", leg);
            shown["child"] = child(one);
            shown
        }
        Awaiting::Rest(leg) => of("rest", leg),
        Awaiting::Quiet(step) => json!({ "for": "quiet", "step": &**step }),
        Awaiting::Signal(name) => json!({ "for": "signal", "name": &**name }),
        Awaiting::Timer(name) => json!({ "for": "timer", "name": &**name }),
        Awaiting::Deadline => json!({ "for": "deadline" }),
    };
    if let Some(until) = one.until {
        shown["until"] = time(until);
    }
    shown
}

fn way(way: &Progress) -> Value {
    let state = match way.state {
        Standing::Idle => "idle",
        Standing::Running => "running",
        Standing::Resting => "resting",
        Standing::Done => "done",
        Standing::Refused => "refused",
        Standing::Unknown => "unknown",
        Standing::Skipped => "skipped",
        Standing::Stuck => "stuck",
    };
    let mut shown = json!({ "state": state, "attempts": way.attempts });
    if way.state == Standing::Done || way.state == Standing::Skipped {
        shown["output"] = way.output.clone();
    }
    if let Some(one) = &way.child {
        shown["child"] = child(one);
    }
    if way.unkept {
        shown["unkept"] = true.into();
    }
    if let Some(failure) = &way.failure {
        let kind = match failure {
            Failure::Refused(_) => "refused",
            Failure::Transient(_) => "transient",
            Failure::Held(_) => "held",
            Failure::Unknown(_) => "unknown",
        };
        shown["failure"] = json!({ "kind": kind, "reason": failure.reason() });
    }
    shown
}

fn status(word: &str) -> Result<Status, Problem> {
    let found = Status::ALL.into_iter().find(|status| status.word() == word);
    found.ok_or_else(|| {
        let all: Vec<&str> = Status::ALL.iter().map(|status| status.word()).collect();
        request::wrong("status", format!("`status={}` is none of {}", request::short(word), all.join(", ")))
    })
}

/// `GET /v1/sagas`, and `GET /v1/sagas/{name}`
pub(super) async fn list(State(node): State<Shared>, request: Request) -> Reply {
    let params = Params::of(request.uri(), &["key", "status", "parent", "after", "limit"])?;
    let limit = params.limit_within(&node, Sagas::MAX_PAGE)?;
    let of_one = request.uri().path() != "/v1/sagas";
    let name = if of_one { Some(request::saga(request.uri())?) } else { None };
    let after = params.one("after")?.map(|after| after_of(name.as_ref(), after)).transpose()?;
    let (key, status) = (params.one("key")?.map(Into::into), params.one("status")?.map(status).transpose()?);
    let parent = params.one("parent")?.map(parent_of).transpose()?;
    let found = node.sagas.list(Search { name: name.clone(), key, status, parent, after, limit }).await?;
    let shown: Vec<Value> = found.iter().map(summary).collect();
    let mut response = reply::json(StatusCode::OK, &json!({ "sagas": shown }));
    if let Some(last) = found.last().filter(|_| found.len() == limit) {
        let mut next = format!("{}?limit={limit}", request.uri().path());
        for (name, value) in ["key", "status", "parent"].map(|name| (name, params.one(name))) {
            if let Some(value) = value? {
                next.push_str(&format!("&{name}="));
                percent::encode(value, &mut next);
            }
        }
        next.push_str("&after=");
        let place = if name.is_some() { last.id.to_string() } else { format!("{}/{}", last.name.as_str(), last.id) };
        percent::encode(&place, &mut next);
        reply::next(response.headers_mut(), &next);
    }
    Ok(reply::whole(response))
}

/// The saga whose steps started them: its name, `/` and its id.
fn parent_of(parent: &str) -> Result<(Name, std::sync::Arc<str>), Problem> {
    let wrong = || request::wrong("parent", "`parent` is a saga's name, `/` and its id".to_owned());
    let (name, id) = parent.split_once('/').ok_or_else(wrong)?;
    Ok((Name::new(name).map_err(|_| wrong())?, id.into()))
}

/// Behind which saga: an id, or a name, `/` and an id.
fn after_of(name: Option<&Name>, after: &str) -> Result<(std::sync::Arc<str>, std::sync::Arc<str>), Problem> {
    match name {
        Some(name) => Ok((name.as_str().into(), after.into())),
        None => {
            let (name, id) = after
                .split_once('/')
                .ok_or_else(|| request::wrong("after", "`after` is a saga's name, `/` and its id".to_owned()))?;
            Ok((name.into(), id.into()))
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Starting {
    id: String,
    #[serde(default)]
    input: Value,
    key: Option<String>,
}

/// `POST /v1/sagas/{name}`
pub(super) async fn start(State(node): State<Shared>, request: Request) -> Reply {
    let (head, body) = request.into_parts();
    let name = request::saga(&head.uri)?;
    Params::of(&head.uri, &[])?;
    document::is_json(&head.headers)?;
    let received = node.receive(&head, body).await?;
    let Starting { id, input, key } = document::parsed(&received.bytes)?;
    let effect = async {
        let started = node.sagas.start(&name, &id, input, key.as_deref()).await?;
        let shown = json!({
            "saga": name.as_str(), "id": id, "version": started.journal.version, "repeated": started.repeated,
            "status": started.journal.status().word(),
        });
        let mut response = reply::json(StatusCode::ACCEPTED, &shown);
        if let Ok(address) = HeaderValue::from_str(&address(&name, &id)) {
            response.headers_mut().insert(LOCATION, address);
        }
        Ok(response)
    };
    once(&node, &head, &received.bytes, effect).await
}

/// `GET /v1/sagas/{name}/{id}`: as it stands; with `Prefer: wait=n`, once it has ended or is stuck, or the time is over.
pub(super) async fn describe(State(node): State<Shared>, request: Request) -> Reply {
    let (name, id) = saga(request.uri())?;
    Params::of(request.uri(), &[])?;
    let patience = request::wait(request.headers())?.min(node.config.http.max_wait);
    let found = node.sagas.settled(&name, &id, patience).await?;
    Ok(reply::whole(reply::json(StatusCode::OK, &described(&found))))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Telling {
    id: String,
    signal: String,
    #[serde(default)]
    data: Value,
}

/// `POST /v1/sagas/{name}/{id}/signal`
pub(super) async fn signal(State(node): State<Shared>, request: Request) -> Reply {
    let (head, body) = request.into_parts();
    let (name, id) = saga(&head.uri)?;
    Params::of(&head.uri, &[])?;
    document::is_json(&head.headers)?;
    let received = node.receive(&head, body).await?;
    let Telling { id: signal_id, signal, data } = document::parsed(&received.bytes)?;
    let effect = async {
        node.sagas.signal(&name, &id, &signal_id, &signal, data).await?;
        Ok(reply::json(StatusCode::OK, &json!({ "saga": name.as_str(), "id": id, "signal": signal_id })))
    };
    once(&node, &head, &received.bytes, effect).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Deciding {
    by: String,
    step: Option<String>,
    #[serde(default)]
    note: String,
    #[serde(default)]
    output: Value,
}

async fn decide(node: &Shared, request: Request, verb: Verb) -> Reply {
    let (head, body) = request.into_parts();
    let (name, id) = saga(&head.uri)?;
    Params::of(&head.uri, &[])?;
    document::is_json(&head.headers)?;
    let received = node.receive(&head, body).await?;
    let Deciding { by, step, note, output } = document::parsed(&received.bytes)?;
    let operation = Operation { verb, step: step.map(Into::into), by: by.into(), note, output };
    let effect = async {
        node.sagas.operate(&name, &id, operation).await?;
        Ok(reply::json(StatusCode::OK, &json!({ "saga": name.as_str(), "id": id, "verb": verb.word() })))
    };
    once(node, &head, &received.bytes, effect).await
}

/// `POST /v1/sagas/{name}/{id}/retry`
pub(super) async fn retry(State(node): State<Shared>, request: Request) -> Reply {
    decide(&node, request, Verb::Retry).await
}

/// `POST /v1/sagas/{name}/{id}/skip`
pub(super) async fn skip(State(node): State<Shared>, request: Request) -> Reply {
    decide(&node, request, Verb::Skip).await
}

/// `POST /v1/sagas/{name}/{id}/mark-compensated`
pub(super) async fn mark_compensated(State(node): State<Shared>, request: Request) -> Reply {
    decide(&node, request, Verb::MarkCompensated).await
}

/// `POST /v1/sagas/{name}/{id}/mark-refused`
pub(super) async fn mark_refused(State(node): State<Shared>, request: Request) -> Reply {
    decide(&node, request, Verb::MarkRefused).await
}

/// `POST /v1/sagas/{name}/{id}/abort`
pub(super) async fn abort(State(node): State<Shared>, request: Request) -> Reply {
    decide(&node, request, Verb::Abort).await
}

/// `POST /v1/sagas/{name}/{id}/force`
pub(super) async fn force(State(node): State<Shared>, request: Request) -> Reply {
    decide(&node, request, Verb::Force).await
}

/// `GET /v1/saga-definitions`
pub(super) async fn definitions(State(node): State<Shared>, request: Request) -> Reply {
    Params::of(request.uri(), &[])?;
    let all: Vec<Value> = node
        .sagas
        .definitions()
        .await?
        .into_iter()
        .map(|(name, versions)| json!({ "saga": name.as_str(), "versions": versions }))
        .collect();
    Ok(reply::whole(reply::json(StatusCode::OK, &json!({ "definitions": all }))))
}

/// `PUT /v1/saga-definitions/{name}`: 201 if there was none of this version, 200 if it was the same.
pub(super) async fn declare(State(node): State<Shared>, request: Request) -> Reply {
    let (name, sent, head) = sent(&node, request).await?;
    let effect = async {
        let declared = node.sagas.declare(&name, sent.text(), sent.format).await?;
        let status = if declared.new { StatusCode::CREATED } else { StatusCode::OK };
        let shown = json!({ "saga": name.as_str(), "version": declared.version, "new": declared.new });
        Ok(reply::json(status, &shown))
    };
    once(&node, &head, sent.bytes(), effect).await
}

/// `POST /v1/saga-definitions/{name}/check`: what declaring it would find wrong with it by itself.
pub(super) async fn check(State(node): State<Shared>, request: Request) -> Reply {
    let (name, sent, _) = sent(&node, request).await?;
    let document = node.sagas.check(&name, sent.text(), sent.format)?;
    let shown = json!({ "saga": name.as_str(), "version": document.version(), "valid": true });
    Ok(reply::whole(reply::json(StatusCode::OK, &shown)))
}

/// `GET /v1/saga-definitions/{name}`: a document as it was declared, the newest one if no version is asked for.
pub(super) async fn definition(State(node): State<Shared>, request: Request) -> Reply {
    let name = request::saga(request.uri())?;
    let params = Params::of(request.uri(), &["version"])?;
    let wanted = params.counted("version")?;
    let documents = node.sagas.documents(&name).await?;
    let found = match wanted {
        Some(version) => documents.iter().find(|document| u64::from(document.version()) == version),
        None => documents.last(),
    };
    let found: &Document = found.ok_or_else(|| Problem::from(SagaError::Undefined { name: name.clone() }))?;
    Ok(reply::whole(declaration::sent_back(found.format(), found.text().to_string())))
}

/// The document in a request's body, and the name in its path.
async fn sent(node: &Node, request: Request) -> Result<(Name, Declaration, Parts), Problem> {
    let (head, body) = request.into_parts();
    let name = request::saga(&head.uri)?;
    Params::of(&head.uri, &[])?;
    let document = Declaration::receive(node, &head, body, Document::MAX_BYTES, Code::InvalidSaga).await?;
    Ok((name, document, head))
}
