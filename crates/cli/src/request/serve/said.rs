//! What is said of a request, and saying it.

use std::time::Duration;

use http::header::CONTENT_TYPE;
use quorate_resilience::deadline::Deadline;
use serde_json::json;

use super::child::Did;
use crate::{
    client::{Call, Client, JSON, Target},
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
            Did::Failed { code, detail } => Self::Fault(json!({ "code": code, "detail": detail }).to_string()),
            Did::Vanished => Self::LetGo,
        }
    }

    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Answer(..) => "answer",
            Self::Fault(_) => "fault",
            Self::LetGo => "let-go",
        }
    }

    /// Says it, and returns what became of that. A node that cannot take it now is told again, for as long as somebody waits.
    pub(super) async fn tell(&self, client: &Client, (kind, request): (&str, &str), deadline: Deadline) -> String {
        let env = client.env();
        let call = match self.call(kind, request) {
            Ok(call) => call,
            Err(failure) => return given_up(&failure),
        };
        let mut connection = client.connection();
        loop {
            let (failure, pause) = match connection.call(&call).await {
                Ok(Ok(reply)) => {
                    let receipt = reply.json(client.server()).ok();
                    return receipt.and_then(|told| told["receipt"].as_str().map(str::to_owned)).unwrap_or_default();
                }
                // Whoever waited was told when the connection broke off over which it came.
                Ok(Err(problem)) if problem.slug == "request-not-held" => return "not-held".to_owned(),
                Ok(Err(problem)) => (Failure::from(problem.clone()), problem.retry()),
                Err(broken) => (Failure::from(broken), Some(PAUSE)),
            };
            match pause {
                Some(pause) if deadline.allows(env.mono(), pause) && deadline != Deadline::NEVER => {
                    env.sleep(pause).await
                }
                _ => return given_up(&failure),
            }
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
