//! Choreographed processes: documents, how they and their courses stand, what led to what, going on.

mod show;

use axum::extract::{Request, State};
use bytes::Bytes;
use http::{StatusCode, Uri, request::Parts};
use quorate_consistency::saga::choreography::{Declared, Document, ProcessError, Processes, Search, Standing};
use quorate_data::store::reserved_for;
use quorate_foundations::name::Name;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Node, Shared, accept,
    cloud_events::essence,
    declaration::{self, Declaration},
    document, percent,
    policies::fault,
    problem::{Code, Problem},
    reply,
    request::{self, Params},
    streams::once,
};
use crate::verbs::ProcessCareError;

type Reply = Result<axum::response::Response, Problem>;

/// The media types of graphs beside JSON.
pub(super) const MERMAID: &str = "text/vnd.mermaid";
/// See above.
pub(super) const DOT: &str = "text/vnd.graphviz";
/// See above: an event under the one that caused it.
pub(super) const TREE: &str = "text/plain; charset=utf-8";

impl From<ProcessError> for Problem {
    fn from(error: ProcessError) -> Self {
        let told = |code| Self::of(code, &error).retry(error.retry());
        match &error {
            ProcessError::Invalid { .. } => told(Code::InvalidParameter),
            ProcessError::Cycle { path } => told(Code::ProcessCycle).with("path", path.as_str()),
            ProcessError::TooMany { max } => told(Code::TooManyProcesses).with("limit", *max),
            ProcessError::Undeclared { name } => told(Code::ProcessNotFound).with("process", name.as_str()),
            ProcessError::NotFound { name, key } => {
                told(Code::CourseNotFound).with("process", name.as_str()).with("course", &**key)
            }
            ProcessError::OfProgram { name } => told(Code::ProcessOfProgram).with("process", name.as_str()),
            ProcessError::Refused { name, key, why } => {
                told(Code::CourseRefuses).with("process", name.as_str()).with("course", &**key).with("reason", &**why)
            }
            ProcessError::Store(cause) => cause.clone().into(),
            _ => told(Code::StoreFailed),
        }
    }
}

impl From<ProcessCareError> for Problem {
    fn from(error: ProcessCareError) -> Self {
        match &error {
            ProcessCareError::Unreadable(faults) => {
                let list: Vec<Value> = faults.list.iter().map(fault).collect();
                Self::of(Code::InvalidProcess, &error).with("faults", list).with("more", faults.more)
            }
            ProcessCareError::Other { .. } => Self::of(Code::InvalidProcess, &error),
            ProcessCareError::NoDocument { name } => {
                Self::of(Code::ProcessOfProgram, &error).with("process", name.as_str())
            }
            ProcessCareError::Illegible { name } => {
                Self::of(Code::InvalidProcess, &error).with("process", name.as_str())
            }
            ProcessCareError::Process(cause) => cause.clone().into(),
        }
    }
}

/// Refuses to have a stream closed for good in which a process says what it has to, or will. What stands there may be forgotten: nobody decides by it.
pub(super) fn not_a_processes(stream: &Name) -> Result<(), Problem> {
    match reserved_for(stream.as_str()) {
        Some("process") => {
            let why = "is that of a process, which could not tell any more what is overdue";
            let detail = format!("stream `{}` {why}", stream.as_str());
            Err(Problem::new(Code::StreamOfProcess, detail).with("stream", stream.as_str()))
        }
        _ => Ok(()),
    }
}

/// The course that a path names: its process, and its key.
fn course(uri: &Uri) -> Result<(Name, String), Problem> {
    let name = request::process(uri)?;
    let segment = uri.path().split('/').nth(5).unwrap_or_default();
    let key = percent::decode(segment).map_err(|wrong| {
        Problem::new(Code::InvalidName, format!("the course's key in the path cannot be read: {wrong}"))
    })?;
    Ok((name, key.into_owned()))
}

/// How many items a page shall have.
fn page(node: &Node, params: &Params<'_>) -> Result<usize, Problem> {
    params.limit_within(node, Processes::MAX_PAGE)
}

/// `GET /v1/processes`
pub(super) async fn list(State(node): State<Shared>, request: Request) -> Reply {
    let params = Params::of(request.uri(), &["after", "limit"])?;
    let limit = page(&node, &params)?;
    let after = match params.one("after")? {
        Some(after) => Some(Name::new(after)?),
        None => None,
    };
    let found = node.processes.list(after.as_ref(), limit).await?;
    let head = node.streams.store().head();
    let shown: Vec<Value> = found.iter().map(|one| show::overview(one, head)).collect();
    let mut response = reply::json(StatusCode::OK, &json!({ "processes": shown }));
    if let Some(last) = found.last().filter(|_| found.len() == limit) {
        let mut next = format!("/v1/processes?limit={limit}&after=");
        percent::encode(last.name.as_str(), &mut next);
        reply::next(response.headers_mut(), &next);
    }
    Ok(reply::whole(response))
}

/// `GET /v1/processes/{name}`
pub(super) async fn describe(State(node): State<Shared>, request: Request) -> Reply {
    let name = request::process(request.uri())?;
    Params::of(request.uri(), &[])?;
    let found = node.processes.describe(&name).await?;
    let head = node.streams.store().head();
    Ok(reply::whole(reply::json(StatusCode::OK, &show::described(&found, head))))
}

/// `PUT /v1/processes/{name}`: 201 if there was none of this name, 200 if there was, whatever it said.
pub(super) async fn declare(State(node): State<Shared>, request: Request) -> Reply {
    let (name, sent, head) = sent(&node, request).await?;
    let effect = async {
        let declared = node.processes.declare(&name, sent.text(), sent.format).await?;
        let status = if declared == Declared::New { StatusCode::CREATED } else { StatusCode::OK };
        let (new, changed) = (declared == Declared::New, declared == Declared::Changed);
        Ok(reply::json(status, &json!({ "process": name.as_str(), "new": new, "changed": changed })))
    };
    once(&node, &head, sent.bytes(), effect).await
}

/// `POST /v1/processes/{name}/check`: what declaring it would find wrong with it by itself.
pub(super) async fn check(State(node): State<Shared>, request: Request) -> Reply {
    let (name, sent, _) = sent(&node, request).await?;
    node.processes.check(&name, sent.text(), sent.format)?;
    Ok(reply::whole(reply::json(StatusCode::OK, &json!({ "process": name.as_str(), "valid": true }))))
}

/// `DELETE /v1/processes/{name}`: the process, with its courses.
pub(super) async fn delete(State(node): State<Shared>, request: Request) -> Reply {
    let (head, _) = request.into_parts();
    let name = request::process(&head.uri)?;
    Params::of(&head.uri, &[])?;
    let effect = async {
        node.processes.remove(&name).await?;
        Ok(reply::json(StatusCode::OK, &json!({ "process": name.as_str(), "deleted": true })))
    };
    once(&node, &head, &Bytes::new(), effect).await
}

/// `GET /v1/processes/{name}/document`: as it was declared.
pub(super) async fn document_of(State(node): State<Shared>, request: Request) -> Reply {
    let name = request::process(request.uri())?;
    Params::of(request.uri(), &[])?;
    let found = node.processes.document(&name).await?;
    Ok(reply::whole(declaration::sent_back(found.format(), found.text().to_string())))
}

/// `GET /v1/processes/{name}/courses`
pub(super) async fn courses(State(node): State<Shared>, request: Request) -> Reply {
    let name = request::process(request.uri())?;
    let params = Params::of(request.uri(), &["state", "after", "limit"])?;
    let (limit, state) = (page(&node, &params)?, params.one("state")?);
    let standing = state.map(standing).transpose()?;
    let after = params.one("after")?.unwrap_or_default().into();
    let found = node.processes.courses(&name, Search { standing, after, limit }).await?;
    let shown: Vec<Value> = found.iter().map(show::summary).collect();
    let mut response = reply::json(StatusCode::OK, &json!({ "courses": shown }));
    if let Some(last) = found.last().filter(|_| found.len() == limit) {
        let mut next = format!("{}?limit={limit}", request.uri().path());
        if let Some(standing) = standing {
            next.push_str(&format!("&state={}", standing.word()));
        }
        next.push_str("&after=");
        percent::encode(&last.key, &mut next);
        reply::next(response.headers_mut(), &next);
    }
    Ok(reply::whole(response))
}

fn standing(word: &str) -> Result<Standing, Problem> {
    Standing::named(word).ok_or_else(|| {
        let all = Standing::ALL.map(Standing::word).join(", ");
        request::wrong("state", format!("`state={}` is none of {all}", request::short(word)))
    })
}

/// `GET /v1/processes/{name}/courses/{key}`
pub(super) async fn describe_course(State(node): State<Shared>, request: Request) -> Reply {
    let (name, key) = course(request.uri())?;
    Params::of(request.uri(), &[])?;
    let found = node.processes.course(&name, &key).await?;
    Ok(reply::whole(reply::json(StatusCode::OK, &show::course(&name, &key, &found))))
}

/// A form that a graph has.
#[derive(Clone, Copy)]
enum Form {
    Json,
    Mermaid,
    Dot,
    Tree,
}

impl Form {
    const ALL: [Self; 4] = [Self::Json, Self::Mermaid, Self::Dot, Self::Tree];

    fn word(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Mermaid => "mermaid",
            Self::Dot => "dot",
            Self::Tree => "tree",
        }
    }

    fn media(self) -> &'static str {
        match self {
            Self::Json => reply::JSON,
            Self::Mermaid => MERMAID,
            Self::Dot => DOT,
            Self::Tree => TREE,
        }
    }

    /// The form that `format` names, or that `Accept` likes best; JSON for who takes none of them.
    fn of(params: &Params<'_>, headers: &http::HeaderMap) -> Result<Self, Problem> {
        let Some(word) = params.one("format")? else {
            let media = Self::ALL.map(|form| essence(form.media()));
            return Ok(accept::accepted(headers, &media).map_or(Self::Json, |at| Self::ALL[at]));
        };
        Self::ALL.into_iter().find(|form| form.word() == word).ok_or_else(|| {
            let all = Self::ALL.map(Self::word).join(", ");
            request::wrong("format", format!("`format={}` is none of {all}", request::short(word)))
        })
    }
}

/// `GET /v1/processes/{name}/courses/{key}/graph`: what led to what, as JSON, for Mermaid, for Graphviz, or as a tree.
pub(super) async fn graph(State(node): State<Shared>, request: Request) -> Reply {
    let (name, key) = course(request.uri())?;
    let params = Params::of(request.uri(), &["format"])?;
    let form = Form::of(&params, request.headers())?;
    let found = node.processes.graph(&name, &key).await?;
    let text = |text: String| reply::bytes(StatusCode::OK, form.media(), text.into());
    let mut response = match form {
        Form::Json => reply::json(StatusCode::OK, &show::graph(&found)),
        Form::Mermaid => text(found.mermaid()),
        Form::Dot => text(found.dot()),
        Form::Tree => text(found.tree()),
    };
    accept::varies(response.headers_mut());
    Ok(reply::whole(response))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Resuming {
    by: String,
    #[serde(default)]
    note: String,
}

/// `POST /v1/processes/{name}/courses/{key}/resume`
pub(super) async fn resume(State(node): State<Shared>, request: Request) -> Reply {
    let (head, body) = request.into_parts();
    let (name, key) = course(&head.uri)?;
    Params::of(&head.uri, &[])?;
    document::is_json(&head.headers)?;
    let received = node.receive(&head, body).await?;
    let Resuming { by, note } = document::parsed(&received.bytes)?;
    let effect = async {
        let standing = node.processes.resume(&name, &key, &by, &note).await?;
        let shown = json!({ "process": name.as_str(), "course": key, "state": standing.word() });
        Ok(reply::json(StatusCode::OK, &shown))
    };
    once(&node, &head, &received.bytes, effect).await
}

/// The document in a request's body, and the name in its path.
async fn sent(node: &Node, request: Request) -> Result<(Name, Declaration, Parts), Problem> {
    let (head, body) = request.into_parts();
    let name = request::process(&head.uri)?;
    Params::of(&head.uri, &[])?;
    let document = Declaration::receive(node, &head, body, Document::MAX_BYTES, Code::InvalidProcess).await?;
    Ok((name, document, head))
}
