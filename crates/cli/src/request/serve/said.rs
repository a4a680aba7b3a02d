//! What is said of a request, and saying it.

use std::time::Duration;

use http::header::CONTENT_TYPE;
use quorate_resilience::deadline::Deadline;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::child::{Did, MAX_DETAIL};
use crate::{
    client::{Call, Client, Connection, JSON, Target},
    exit::Failure,
    output::note,
};

/// How long to wait before what was not heard is said again.
const PAUSE: Duration = Duration::from_millis(100);

/// What is said of a request.
pub(super) enum Said {
    /// The answer, and its media type.
    Answer(Vec<u8>, String),
    /// That there is none, and why.
    Fault(String),
    /// That it is worked on no more.
    LetGo,
}

impl Said {
    pub(super) fn of(did: Did, content_type: &str) -> Self {
        match did {
            Did::Answered(answer) => Self::Answer(answer, content_type.to_owned()),
            Did::Failed { code, detail } => Self::fault(&code, &detail),
            Did::Vanished => Self::LetGo,
        }
    }

    fn fault(code: &str, detail: &str) -> Self {
        Self::Fault(json!({ "code": code, "detail": detail }).to_string())
    }

    fn word(&self) -> &'static str {
        match self {
            Self::Answer(..) => "answer",
            Self::Fault(_) => "fault",
            Self::LetGo => "let-go",
        }
    }

    /// Says it, and returns what was said in the end, and what became of that.
    ///
    /// A node that cannot take it now is told again for as long as somebody waits, and one that never takes it is told why there is none. That it is
    /// worked on no more is said until it is heard: the place would stay taken. All of it ends with the `connection` over which the request came.
    pub(super) async fn tell(
        mut self,
        client: &Client,
        (kind, request): (&str, &str),
        (deadline, connection): (Deadline, &CancellationToken),
    ) -> (&'static str, String) {
        let (env, mut line, mut was_said) = (client.env(), client.connection(), false);
        loop {
            let (failure, again) = match self.say(client, &mut line, (kind, request)).await {
                // What was said before may have been heard.
                Ok(receipt) if was_said && receipt == "not-held" => return (self.word(), "unknown".to_owned()),
                Ok(receipt) => return (self.word(), receipt),
                Err(failed) => failed,
            };
            let again = again.filter(|pause| matches!(self, Self::LetGo) || deadline.allows(env.mono(), *pause));
            was_said |= again.is_some();
            self = match (self, again) {
                (said, Some(pause)) => {
                    tokio::select! {
                        biased;
                        () = connection.cancelled() => return (said.word(), given_up(&failure)),
                        () = env.sleep(pause.max(PAUSE)) => said,
                    }
                }
                (Self::Answer(..), None) if !deadline.has_passed(env.mono()) => {
                    note(&failure.to_string());
                    let detail = format!("the request was done, and its answer was not taken: {failure}");
                    let end = detail.floor_char_boundary(MAX_DETAIL);
                    Self::fault("answer-refused", &detail[..end])
                }
                (Self::LetGo, None) => return (Self::LetGo.word(), given_up(&failure)),
                (Self::Answer(..) | Self::Fault(_), None) => {
                    note(&failure.to_string());
                    Self::LetGo
                }
            };
        }
    }

    /// Says it once: what became of that, or why it was not heard and after how long it may be.
    async fn say(
        &self,
        client: &Client,
        line: &mut Connection,
        (kind, request): (&str, &str),
    ) -> Result<String, (Failure, Option<Duration>)> {
        let call = self.call(kind, request).map_err(|failure| (failure, None))?;
        match line.call(&call).await {
            Ok(Ok(reply)) => {
                let receipt = reply.json(client.server()).ok();
                Ok(receipt.and_then(|told| told["receipt"].as_str().map(str::to_owned)).unwrap_or_default())
            }
            // Whoever waited was told when the connection broke off over which it came.
            Ok(Err(problem)) if ["request-not-held", "lease-lost"].contains(&&*problem.slug) => {
                Ok("not-held".to_owned())
            }
            Ok(Err(problem)) => Err((Failure::from(problem.clone()), problem.retry())),
            Err(broken) => Err((Failure::from(broken), Some(PAUSE))),
        }
    }

    fn call(&self, kind: &str, request: &str) -> Result<Call, Failure> {
        let target = Target::path(&["v1", "request-types", kind, "requests", request, self.word()]);
        match self {
            Self::Answer(answer, media) => Call::post(target, JSON, answer.clone()).header(CONTENT_TYPE, media),
            Self::Fault(fault) => Ok(Call::post(target, JSON, fault.clone())),
            Self::LetGo => Ok(Call::post(target, JSON, "")),
        }
    }
}

fn given_up(failure: &Failure) -> String {
    note(&failure.to_string());
    "not-told".to_owned()
}
