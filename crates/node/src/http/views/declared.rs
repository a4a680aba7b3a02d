//! Declared views: documents in and out, and rows explained.

use axum::extract::{Request, State};
use bytes::Bytes;
use http::{
    StatusCode,
    header::{ETAG, HeaderValue},
    request::Parts,
};
use quorate_data::materialized_view::{
    ViewName,
    declared::{Asked, Change, Document, Explanation, Faults},
};
use serde_json::{Value, json};

use super::{Reply, named};
use crate::http::{
    Node, Shared,
    declaration::{self, Declaration},
    problem::{Code, Problem},
    reply,
    request::{self, Params},
    streams::once,
};

/// `GET /view.schema.json`: the JSON Schema of documents.
pub(crate) async fn schema() -> Reply {
    let body = Document::SCHEMA.as_bytes().into();
    Ok(reply::whole(reply::bytes(StatusCode::OK, crate::http::schemas::SCHEMA, body)))
}

/// `PUT /v1/views/{name}/document`: 201 if this version is new, 200 if it is known.
pub(crate) async fn declare(State(node): State<Shared>, request: Request) -> Reply {
    let (document, sent, head) = sent(&node, request).await?;
    let effect = async {
        let declared = node.views.declare(document).await?;
        let status = if declared.new { StatusCode::CREATED } else { StatusCode::OK };
        let shown = json!({ "view": declared.view.as_str(), "version": declared.version, "new": declared.new });
        Ok(reply::json(status, &shown))
    };
    once(&node, &head, sent.bytes(), effect).await
}

/// `POST /v1/views/{name}/check`: what declaring it would find wrong.
pub(crate) async fn check(State(node): State<Shared>, request: Request) -> Reply {
    let (document, ..) = sent(&node, request).await?;
    let shown = json!({ "view": document.view().as_str(), "version": document.version(), "valid": true });
    node.views.check(document).await?;
    Ok(reply::whole(reply::json(StatusCode::OK, &shown)))
}

/// `GET /v1/views/{name}/document`: as it was declared.
pub(crate) async fn document(State(node): State<Shared>, request: Request) -> Reply {
    let name = named(request.uri())?;
    let params = Params::of(request.uri(), &["version"])?;
    let version = params.counted("version")?.map(u32::try_from).transpose();
    let version = version.map_err(|_| request::wrong("version", "there are not so many versions".to_owned()))?;
    let kept = node.views.document(&name, version).await?;
    let mut response = declaration::sent_back(kept.format, kept.text);
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{}\"", kept.version)) {
        response.headers_mut().insert(ETAG, tag);
    }
    Ok(reply::whole(response))
}

/// `DELETE /v1/views/{name}`: the view, with its documents and all its builds.
pub(crate) async fn delete(State(node): State<Shared>, request: Request) -> Reply {
    let (head, _) = request.into_parts();
    let name = named(&head.uri)?;
    Params::of(&head.uri, &[])?;
    let effect = async {
        node.views.delete(&name).await?;
        Ok(reply::json(StatusCode::OK, &json!({ "view": name.as_str(), "deleted": true })))
    };
    once(&node, &head, &Bytes::new(), effect).await
}

/// `GET /v1/views/{name}/explain`: the events that made a row.
pub(crate) async fn explain(State(node): State<Shared>, request: Request) -> Reply {
    let name = named(request.uri())?;
    let params = Params::of(request.uri(), &["table", "key"])?;
    let table = params.one("table")?.ok_or_else(|| request::wrong("table", "a `table` has to be named".to_owned()))?;
    let asked = Asked { table: table.to_owned(), key: params.all("key").map(str::to_owned).collect() };
    let explanation = node.views.explain(&name, &asked).await?;
    Ok(reply::whole(reply::json(StatusCode::OK, &explained(&name, &asked, &explanation))))
}

/// The document in a request's body, which has to be about the view that the path names; and the request.
async fn sent(node: &Node, request: Request) -> Result<(Document, Declaration, Parts), Problem> {
    let (head, body) = request.into_parts();
    let name = named(&head.uri)?;
    Params::of(&head.uri, &[])?;
    let sent = Declaration::receive(node, &head, body, Document::MAX_BYTES, Code::InvalidView).await?;
    let document = Document::read(sent.text(), sent.format).map_err(|faults| refused(&faults))?;
    if *document.view() != name {
        let detail = format!("the document is about view `{}`, the address about `{name}`", document.view());
        return Err(Problem::new(Code::InvalidView, detail));
    }
    Ok((document, sent, head))
}

/// The problem with a document: each fault with its place.
pub(crate) fn refused(faults: &Faults) -> Problem {
    let one = |fault: &quorate_data::materialized_view::declared::Fault| json!({ "line": fault.line, "column": fault.column, "field": fault.field, "message": fault.what });
    let list: Vec<Value> = faults.list.iter().map(one).collect();
    Problem::of(Code::InvalidView, faults).with("faults", list).with("more", faults.more)
}

fn explained(name: &ViewName, asked: &Asked, explanation: &Explanation) -> Value {
    json!({
        "view": name.as_str(),
        "table": asked.table,
        "key": asked.key,
        "build": explanation.build.get(),
        "version": explanation.version,
        "logposition": explanation.position.to_string(),
        "row": explanation.row,
        "total": explanation.total,
        "events": explanation.changes.iter().map(change).collect::<Vec<_>>(),
    })
}

fn change(change: &Change) -> Value {
    json!({
        "logposition": change.position.to_string(),
        "stream": change.stream,
        "streamversion": change.stream_version.to_string(),
        "type": change.kind,
        "id": change.id,
        "before": change.before,
        "after": change.after,
    })
}
