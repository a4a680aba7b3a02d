//! Care for the store: verify, back up, back up keys.

use std::{path::PathBuf, sync::Arc, time::Duration};

use axum::extract::{Request, State};
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header::CONTENT_TYPE};
use quorate_data::store::{Progress, Verified};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{
    Shared,
    body_out::{Gone, Pieces, pieces},
    document,
    problem::Problem,
    reply,
    request::Params,
    retention::shown,
    streams::once,
};
use crate::verbs::{ArchiveFiles, BackupError};

type Reply = Result<axum::response::Response, Problem>;

/// How often progress is told.
const BEAT: Duration = Duration::from_millis(200);

/// `POST /v1/store/verify`: a line of JSON for each step, the last one with what was found.
pub(super) async fn verify(State(node): State<Shared>, request: Request) -> Reply {
    Params::of(request.uri(), &[])?;
    let (progress, told) = progress();
    let (pieces, body) = pieces();
    node.clone().env.tasks().spawn("verify", async move {
        let verifying = node.care.verify(progress);
        let _ = tell(&node, pieces, told, verifying).await;
    });
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    Ok(response)
}

fn progress() -> (Progress, watch::Receiver<(u64, u64)>) {
    let (tell, told) = watch::channel((0, 0));
    let tell = move |done, of| {
        tell.send_replace((done, of));
    };
    (Arc::new(tell), told)
}

async fn tell(
    node: &Shared,
    pieces: Pieces,
    mut told: watch::Receiver<(u64, u64)>,
    verifying: impl Future<Output = Result<(Verified, ArchiveFiles), BackupError>>,
) -> Result<(), Gone> {
    let mut verifying = std::pin::pin!(verifying);
    loop {
        let ended = tokio::select! {
            biased;
            ended = verifying.as_mut() => Some(ended),
            () = node.env.sleep(BEAT) => None,
        };
        match ended {
            Some(ended) => {
                let last = match ended {
                    Ok((found, files)) => verified(node, &found, &files),
                    Err(failed) => Problem::from(failed).document(),
                };
                pieces.send(line(&last)).await?;
                pieces.end().await;
                return Ok(());
            }
            None => {
                let (done, of) = *told.borrow_and_update();
                pieces.send(line(&json!({ "done": done, "of": of }))).await?;
            }
        }
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

/// `POST /v1/store/backup`
pub(super) async fn backup(State(node): State<Shared>, request: Request) -> Reply {
    let care = &node.care;
    copy(&node, request, |to| async move { care.backup(&to, Arc::new(|_, _| {})).await }).await
}

/// `POST /v1/store/backup-keys`
pub(super) async fn backup_keys(State(node): State<Shared>, request: Request) -> Reply {
    let care = &node.care;
    copy(&node, request, |to| async move { care.backup_keys(&to).await }).await
}

/// Has `write` make the copy whose name stands in the request's body.
async fn copy<W>(node: &Shared, request: Request, write: impl FnOnce(String) -> W) -> Reply
where
    W: Future<Output = Result<(PathBuf, u64), BackupError>>,
{
    let (head, body) = request.into_parts();
    Params::of(&head.uri, &[])?;
    document::is_json(&head.headers)?;
    let received = node.receive(&head, body).await?;
    let Backup { to } = document::parsed(&received.bytes)?;
    let effect = async {
        let (path, bytes) = write(to.clone()).await?;
        let document = json!({ "to": to, "path": path.to_string_lossy(), "bytes": bytes });
        Ok(reply::json(StatusCode::CREATED, &document))
    };
    once(node, &head, &received.bytes, effect).await
}
