//! Declared views: documents in and out, and rows explained.

use axum::extract::{Request, State};
use bytes::Bytes;
use http::{
    HeaderMap, StatusCode,
    header::{CONTENT_TYPE, ETAG, HeaderValue},
    request::Parts,
};
use quorate_data::materialized_view::{
    ViewName,
    declared::{Asked, Change, Document, Explanation, Faults, Format},
};
use serde_json::{Value, json};

use super::{Reply, named};
use crate::http::{
    Node, Shared,
    body_in::Received,
    cloud_events::essence,
    problem::{Code, Problem},
    reply,
    request::{self, Params},
    streams::once,
};

/// The media type of TOML.
pub(crate) const TOML: &str = "application/toml";

/// The media type of YAML (RFC 9512).
pub(crate) const YAML: &str = "application/yaml";

/// `GET /view.schema.json`: the JSON Schema of documents.
pub(crate) async fn schema() -> Reply {
    let body = Document::SCHEMA.as_bytes().into();
    Ok(reply::whole(reply::bytes(StatusCode::OK, crate::http::schemas::SCHEMA, body)))
}

/// `PUT /v1/views/{name}/document`: 201 if this version is new, 200 if it is known.
pub(crate) async fn declare(State(node): State<Shared>, request: Request) -> Reply {
    let (document, head, received) = sent(&node, request).await?;
    let effect = async {
        let declared = node.views.declare(document).await?;
        let status = if declared.new { StatusCode::CREATED } else { StatusCode::OK };
        let shown = json!({ "view": declared.view.as_str(), "version": declared.version, "new": declared.new });
        Ok(reply::json(status, &shown))
    };
    once(&node, &head, &received.bytes, effect).await
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
    let media = match kept.format {
        Format::Toml => TOML,
        Format::Json => reply::JSON,
        Format::Yaml => YAML,
    };
    let mut response = reply::bytes(StatusCode::OK, media, kept.text.into());
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
async fn sent(node: &Node, request: Request) -> Result<(Document, Parts, Received), Problem> {
    let (head, body) = request.into_parts();
    let name = named(&head.uri)?;
    Params::of(&head.uri, &[])?;
    let format = format(&head.headers)?;
    let received = node.receive(&head, body).await?;
    if received.bytes.len() > Document::MAX_BYTES {
        let (max, bytes) = (Document::MAX_BYTES, received.bytes.len());
        let detail = format!("a document has at most {max} bytes, this one has {bytes}");
        return Err(Problem::new(Code::TooLarge, detail).with("limit", max));
    }
    let text = std::str::from_utf8(&received.bytes).map_err(|wrong| {
        Problem::new(Code::InvalidView, format!("the document is not UTF-8 at byte {}", wrong.valid_up_to()))
    })?;
    let document = Document::read(text, format).map_err(|faults| refused(&faults))?;
    if *document.view() != name {
        let detail = format!("the document is about view `{}`, the address about `{name}`", document.view());
        return Err(Problem::new(Code::InvalidView, detail));
    }
    Ok((document, head, received))
}

fn format(headers: &HeaderMap) -> Result<Format, Problem> {
    let given = request::header(headers, &CONTENT_TYPE)?.unwrap_or_default();
    match essence(given) {
        media if media.eq_ignore_ascii_case(TOML) => Ok(Format::Toml),
        media if media.eq_ignore_ascii_case(reply::JSON) => Ok(Format::Json),
        media if media.eq_ignore_ascii_case(YAML) => Ok(Format::Yaml),
        _ => {
            let (given, json) = (request::short(given), reply::JSON);
            let detail = format!("`content-type: {given}` is none of {TOML}, {YAML} and {json}");
            Err(Problem::new(Code::UnsupportedMediaType, detail))
        }
    }
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
