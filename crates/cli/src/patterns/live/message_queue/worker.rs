//! A worker: takes a message, hands its mail in, and acknowledges.

use std::time::Duration;

use quorate_runtime::Env;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::mailbox::Mail;
use crate::{
    client::{Call, Client, JSON},
    exit::{Exit, Failure},
    patterns::live::node::client,
};

/// How long it rests when somebody did not answer.
const REST: Duration = Duration::from_millis(100);

/// A worker.
#[derive(Debug, Serialize, Deserialize)]
pub(in crate::patterns::live) struct Worker {
    /// Which one it is.
    pub(super) number: usize,
    /// Where the queue is.
    pub(super) node: String,
    /// Where mails are handed in.
    pub(super) mailbox: String,
}

impl Worker {
    /// Works until the environment's tasks are told to stop.
    pub(in crate::patterns::live) async fn work(&self, env: &Env) {
        let (Ok(node), Ok(mailbox)) = (client(env, &self.node), client(env, &self.mailbox)) else { return };
        while !env.tasks().stop().is_cancelled() {
            // Whatever failed, the message comes again: when it was given back, or when its lease has run out.
            if self.work_once(&node, &mailbox).await.is_err() {
                env.sleep(REST).await;
            }
        }
    }

    async fn work_once(&self, node: &Client, mailbox: &Client) -> Result<(), Failure> {
        let receive = json!({ "max": 1, "wait": "500ms" });
        let got = node.answer(&Call::post("/v1/queues/mails/receive", JSON, receive.to_string())).await?;
        for delivery in got["deliveries"].as_array().into_iter().flatten() {
            let mail = self.mail(delivery)?;
            let body = serde_json::to_string(&mail).map_err(|cause| Failure::of(Exit::Failed, &cause))?;
            let handed_in = mailbox.connection().call(&Call::post("/mails", JSON, body)).await?;
            let leases = json!([delivery["lease"]]);
            let (how, settled) = match handed_in {
                Ok(_) => ("ack", json!({ "leases": leases })),
                Err(refused) => ("nack", json!({ "leases": leases, "reason": refused.to_string() })),
            };
            node.answer(&Call::post(format!("/v1/queues/mails/{how}"), JSON, settled.to_string())).await?;
        }
        Ok(())
    }

    fn mail(&self, delivery: &Value) -> Result<Mail, Failure> {
        let event = &delivery["event"];
        let (id, data) = (event["id"].as_str().unwrap_or_default().to_owned(), event["data"].clone());
        let data = serde_json::from_value(data).map_err(|cause| Failure::of(Exit::Failed, &cause))?;
        Ok(Mail { id, worker: self.number, data })
    }
}
