//! Is it alive, is it ready, has it started; and its metrics.

use axum::extract::State;
use http::StatusCode;
use quorate_data::store::{Query, ReadLog};
use serde_json::json;

use super::{
    Shared,
    problem::{Problem, with_causes},
    reply,
};

type Reply = Result<axum::response::Response, Problem>;

/// How long the store may take to answer before the node calls itself not ready.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(1);

/// `GET /livez`: the process answers. A failure means that only a restart helps.
pub(super) async fn live() -> Reply {
    Ok(reply::whole(reply::json(StatusCode::OK, &json!({ "status": "pass" }))))
}

/// `GET /startupz`: requests are taken only once the store is open.
pub(super) async fn started() -> Reply {
    live().await
}

/// `GET /readyz`: whether requests should be sent here.
pub(super) async fn ready(State(node): State<Shared>) -> Reply {
    let stopping = node.is_stopping();
    let store = check_store(&node).await;
    let transactions = check_transactions(&node).await;
    let ready = !stopping && store == "pass";
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let processes = check_processes(&node);
    // No other node ends what is in doubt, or tells what is overdue: whoever asks is warned, and sent here all the same.
    let said = match ready {
        true if transactions == "pass" && processes == "pass" => "pass",
        true => "warn",
        false => "fail",
    };
    let document = json!({
        "status": said,
        "checks": {
            "store": store, "accepting": if stopping { "fail: the node is stopping" } else { "pass" },
            "transactions": transactions, "processes": processes,
        },
    });
    Ok(reply::whole(reply::json(status, &document)))
}

async fn check_store(node: &Shared) -> String {
    // A node that takes no appends needs somebody, although it can be read.
    if let Err(cause) = node.streams.store().check_writes() {
        return format!("fail: {}", with_causes(&cause));
    }
    let read = ReadLog { query: Query::EVERYTHING, after: node.streams.store().head(), limit: 1 };
    match node.env.timeout(PATIENCE, node.streams.log(read)).await {
        Some(Ok(_)) => "pass".to_owned(),
        Some(Err(cause)) => format!("fail: {}", with_causes(&cause)),
        None => format!("fail: no answer within {PATIENCE:?}"),
    }
}

async fn check_transactions(node: &Shared) -> String {
    let limit = node.config.doubt_limit;
    match node.env.timeout(PATIENCE, node.transactions.standing()).await {
        Some(Ok(standing)) => match standing.oldest.filter(|oldest| *oldest > limit) {
            Some(oldest) => {
                let seconds = oldest.as_secs();
                format!("warn: something has been in doubt for {seconds} s; `quorate txn list` says what")
            }
            None => "pass".to_owned(),
        },
        Some(Err(cause)) => format!("warn: {}", with_causes(&cause)),
        None => format!("warn: no answer within {PATIENCE:?}"),
    }
}

/// What is overdue in a process that does not go on, nobody tells.
fn check_processes(node: &Shared) -> String {
    if let Some(why) = node.processes.unopened() {
        return format!("warn: no process is followed yet: {why}; it is tried again every few seconds");
    }
    match &node.processes.troubles()[..] {
        [] => "pass".to_owned(),
        [(name, why), rest @ ..] => {
            let more = if rest.is_empty() { String::new() } else { format!(", and {} more", rest.len()) };
            format!("warn: process `{}` does not go on: {why}{more}; `quorate process list` says more", name.as_str())
        }
    }
}

/// `GET /metrics`, in the text format of OpenMetrics.
pub(super) async fn metrics(State(node): State<Shared>) -> Reply {
    node.metrics.refresh(&node).await;
    let mut text = String::new();
    let written = prometheus_client::encoding::text::encode(&mut text, &node.env.metrics());
    written.unwrap_or_else(|_| unreachable!("writing into a text does not fail"));
    let media = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(reply::whole(reply::bytes(StatusCode::OK, media, text.into())))
}
