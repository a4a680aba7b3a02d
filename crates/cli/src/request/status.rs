//! What became of a durable request.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use clap::Args;
use serde_json::Value;

use super::show;
use crate::{
    client::{Call, Client, ClientError, Target},
    exit::{Exit, Failure},
    output::{Format, Out},
    settling::span,
};

/// A durable request, by its type and its id.
#[derive(Args, Debug)]
pub(crate) struct Status {
    /// The type
    name: String,
    /// The id under which it was asked
    id: String,
    /// Wait for so long until nothing more happens to it; at most the node's `http.max-wait`
    #[arg(long, value_name = "SPAN", value_parser = crate::span)]
    wait: Option<Duration>,
    /// Print the answer byte for byte, and nothing else
    #[arg(long)]
    answer: bool,
}

impl Status {
    /// Prints what became of it.
    pub(super) async fn run(&self, client: &Client, format: Format) -> Result<(), Failure> {
        let target = Target::path(&["v1", "requests", &self.name, &self.id]).with_some("wait", self.wait.map(span));
        let patient = client.clone().waiting(self.wait.unwrap_or_default());
        let status = patient.answer(&Call::get(target)).await?;
        if !self.answer {
            return show::status(&status, format);
        }
        let text = |what: &Value| what.as_str().unwrap_or_default().to_owned();
        match text(&status["status"]).as_str() {
            "done" => {
                let mut out = Out::new();
                out.write(&bytes(client, &status["answer"])?)?;
                out.flush()
            }
            "failed" => {
                let fault = &status["fault"];
                let what = format!("it has no answer: {}: {}", text(&fault["code"]), text(&fault["detail"]));
                Err(Failure::new(Exit::Refused, what))
            }
            "unanswered" => {
                Err(Failure::new(Exit::Unknown, "it was settled without an answer, and may have been done"))
            }
            other => Err(Failure::new(Exit::Unavailable, format!("it has no answer yet: {other}"))),
        }
    }
}

/// What an answer says.
fn bytes(client: &Client, answer: &Value) -> Result<Vec<u8>, Failure> {
    let Some(coded) = answer["body-base64"].as_str() else {
        return Ok(answer["body"].as_str().unwrap_or_default().as_bytes().to_vec());
    };
    STANDARD.decode(coded).map_err(|wrong| {
        let what = format!("an answer that is no base64: {wrong}");
        ClientError::Strange { server: client.server().clone(), what }.into()
    })
}
