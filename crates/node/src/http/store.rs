//! Care for the store: verify, back up, back up keys.

use std::{path::PathBuf, sync::Arc, time::Duration};

use axum::extract::{Request, State};
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header::CONTENT_TYPE, request::Parts};
use http_body_util::BodyExt as _;
use quorate_data::store::{Progress, Verified};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{
    Shared, accept,
    body_in::Received,
    body_out::{Gone, Pieces, pieces},
    document,
    problem::{Code, Problem},
    reply,
    request::Params,
    retention::shown,
    streams::once,
    views::LINES,
};
use crate::verbs::{ArchiveFiles, BackupError};

type Reply = Result<axum::response::Response, Problem>;

/// How often progress is told.
const BEAT: Duration = Duration::from_millis(200);

/// `POST /v1/store/verify`: a line of JSON for each step, the last one with what was found.
pub(super) async fn verify(State(node): State<Shared>, request: Request) -> Reply {
    Params::of(request.uri(), &[])?;
    let (progress, told) = progress();
    let verifying = node.clone();
    Ok(step_by_step(&node, "verify", told, async move {
        match verifying.care.verify(progress).await {
            Ok((found, files)) => verified(&verifying, &found, &files),
            Err(failed) => Problem::from(failed).document(),
        }
    }))
}

fn progress() -> (Progress, watch::Receiver<(u64, u64)>) {
    let (tell, told) = watch::channel((0, 0));
    let tell = move |done, of| {
        tell.send_replace((done, of));
    };
    (Arc::new(tell), told)
}

/// Does `work`, and replies with lines: how far it is now and then, and at last what came of it.
fn step_by_step(
    node: &Shared,
    name: &'static str,
    told: watch::Receiver<(u64, u64)>,
    work: impl Future<Output = Value> + Send + 'static,
) -> axum::response::Response {
    let (pieces, body) = pieces();
    let telling = node.clone();
    node.env.tasks().spawn(name, async move {
        let _gone = tell(&telling, pieces, told, work).await;
    });
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(LINES));
    response
}

async fn tell(
    node: &Shared,
    pieces: Pieces,
    mut told: watch::Receiver<(u64, u64)>,
    work: impl Future<Output = Value>,
) -> Result<(), Gone> {
    let mut work = std::pin::pin!(work);
    loop {
        let ended = tokio::select! {
            biased;
            ended = work.as_mut() => Some(ended),
            () = node.env.sleep(BEAT) => None,
        };
        if let Some(last) = ended {
            pieces.send(line(&last)).await?;
            pieces.end().await;
            return Ok(());
        }
        let (done, of) = *told.borrow_and_update();
        pieces.send(line(&json!({ "done": done, "of": of }))).await?;
    }
}

fn verified(node: &Shared, found: &Verified, files: &ArchiveFiles) -> Value {
    let findings: Vec<Value> =
        found.findings.iter().map(|one| json!({ "place": one.place, "what": one.what })).collect();
    json!({
        "sound": found.is_sound(),
        "events": found.events,
        "streams": found.streams,
        "rows": found.rows,
        "findings": findings,
        "archives": {
            "sound": files.sound,
            // Not damage: whoever keeps archives elsewhere moves them.
            "missing": files.missing.iter().map(|archive| shown(node, archive)).collect::<Vec<_>>(),
            "more": files.more_missing,
        },
    })
}

fn line(value: &Value) -> Bytes {
    Bytes::from(format!("{value}\n"))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Backup {
    to: String,
}

/// `POST /v1/store/backup`. Whoever accepts lines gets one for each step, and at last what others get.
pub(super) async fn backup(State(node): State<Shared>, request: Request) -> Reply {
    let asked = Asked::of(&node, request).await?;
    let (progress, told) = progress();
    let in_lines = accept::accepted(&asked.head.headers, &["application/json", LINES]) == Some(1);
    let copying = node.clone();
    let copied = async move {
        let care = &copying.care;
        asked.copied(&copying, |to| async move { care.backup(&to, progress).await }).await
    };
    if !in_lines {
        return copied.await;
    }
    Ok(step_by_step(&node, "backup", told, async move {
        let replied = async { document_of(copied.await?).await };
        replied.await.unwrap_or_else(|problem: Problem| problem.document())
    }))
}

/// `POST /v1/store/backup-keys`
pub(super) async fn backup_keys(State(node): State<Shared>, request: Request) -> Reply {
    let care = &node.care;
    Asked::of(&node, request).await?.copied(&node, |to| async move { care.backup_keys(&to).await }).await
}

/// What a reply that is one says.
async fn document_of(reply: axum::response::Response) -> Result<Value, Problem> {
    let strange = |why: String| Problem::new(Code::OutcomeUnknown, why);
    let body = reply.into_body().collect().await.map_err(|why| strange(why.to_string()))?.to_bytes();
    serde_json::from_slice(&body).map_err(|why| strange(why.to_string()))
}

/// A copy that was asked for.
struct Asked {
    head: Parts,
    body: Received,
    to: String,
}

impl Asked {
    async fn of(node: &Shared, request: Request) -> Result<Self, Problem> {
        let (head, body) = request.into_parts();
        Params::of(&head.uri, &[])?;
        document::is_json(&head.headers)?;
        let body = node.receive(&head, body).await?;
        let Backup { to } = document::parsed(&body.bytes)?;
        Ok(Self { head, body, to })
    }

    /// Has `write` make it.
    async fn copied<W>(self, node: &Shared, write: impl FnOnce(String) -> W) -> Reply
    where
        W: Future<Output = Result<(PathBuf, u64), BackupError>>,
    {
        let Self { head, body, to } = self;
        let effect = async {
            let (path, bytes) = write(to.clone()).await?;
            let document = json!({ "to": to, "path": path.to_string_lossy(), "bytes": bytes });
            Ok(reply::json(StatusCode::CREATED, &document))
        };
        once(node, &head, &body.bytes, effect).await
    }
}
