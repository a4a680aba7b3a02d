//! Requests with an answer: callers and responders, both over HTTP.

use std::time::Duration;

use quorate_communication::request::{Answering, Asked, Deadline, Fault};
use serde_json::{Value, json};

use crate::{
    client::{Client, Reply, Request, get, post, request},
    node::{Node, node, node_with},
    subscribe::{Sse, Subscriber},
};

const TYPE: &str = "/v1/request-types/price";
const ASK: &str = "/v1/requests/price";

async fn declare(node: &Node, config: Value) {
    let declared = node.send(request("PUT", TYPE).json(config.to_string())).await;
    assert_eq!(declared.status, 200, "{}", declared.text());
}

async fn serve(node: &Node, window: usize) -> Subscriber {
    Subscriber::start(node, get(format!("{TYPE}/serve?window={window}"))).await
}

/// Asks, and does not wait.
async fn ask(node: &Node, body: &str, timeout: &str) -> Client {
    let mut caller = node.client().await;
    caller.begin(&asking(body, timeout)).await;
    caller
}

fn asking(body: &str, timeout: &str) -> Request {
    post(ASK).header("content-type", "text/plain").header("quorate-timeout", timeout).body(body)
}

async fn told(caller: &mut Client) -> Reply {
    caller.reply().await.expect("a reply")
}

/// The request that a responder is handed next: what it is named by, and what it says.
async fn asked(responder: &mut Subscriber) -> (String, Value) {
    let sse = responder.told().await;
    assert_eq!(sse.event, "request", "{sse:?}");
    let asked = sse.json();
    (asked["request"].as_str().unwrap().to_owned(), asked)
}

async fn say(node: &Node, asked: &str, how: &str, body: &str) -> Reply {
    let media = if how == "fault" { "application/json" } else { "text/csv; charset=utf-8" };
    node.send(post(format!("{TYPE}/requests/{asked}/{how}")).header("content-type", media).body(body)).await
}

/// Waits until the type stands so at the node.
async fn until(node: &Node, what: &str, count: u64) {
    while node.get(TYPE).await.json()[what] != count {
        node.pause(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_reaches_its_caller_as_it_was_sent_with_its_media_type() {
    let node = node().await;
    declare(&node, json!({ "time-limit": "20s" })).await;
    let mut responder = serve(&node, 2).await;
    let mut caller = ask(&node, "tea \"\n☂", "15S").await;
    let (ticket, what) = asked(&mut responder).await;
    assert_eq!((&what["body"], &what["content-type"]), (&json!("tea \"\n☂"), &json!("text/plain")));
    assert!(what["timeout"].as_str().is_some_and(|left| left.ends_with(['u', 'n', 'm'])), "{what}");
    let shown = node.get(TYPE).await.json();
    assert_eq!((&shown["responders"], &shown["running"], &shown["waiting"]), (&json!(1), &json!(1), &json!(0)));
    assert_eq!(say(&node, &ticket, "answer", "250;EUR").await.json()["receipt"], "taken");
    let answer = told(&mut caller).await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "250;EUR"));
    assert_eq!(answer.header("content-type"), Some("text/csv; charset=utf-8"));
    assert_eq!(say(&node, &ticket, "answer", "again").await.code(), "request-not-held");
    let mut caller = node.client().await;
    caller.begin(&post(ASK).body([0xff_u8, 0])).await;
    let (ticket, what) = asked(&mut responder).await;
    assert_eq!((&what["body-base64"], &what["content-type"]), (&json!("/wA="), &Value::Null));
    assert_eq!(say(&node, &ticket, "answer", "").await.status, 200);
    assert_eq!(told(&mut caller).await.body, b"");
    assert_eq!(node.metric("quorate_request_answered").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_comes_with_its_code() {
    let node = node().await;
    declare(&node, json!({})).await;
    let mut responder = serve(&node, 1).await;
    let mut caller = ask(&node, "coal", "15S").await;
    let (ticket, _) = asked(&mut responder).await;
    for (wrong, code) in [("{}", "invalid-json"), (r#"{"code":""}"#, "invalid-parameter")] {
        assert_eq!(say(&node, &ticket, "fault", wrong).await.code(), code);
    }
    let said = say(&node, &ticket, "fault", r#"{"code":"not-sold","detail":"there is no coal"}"#).await;
    assert_eq!(said.status, 200, "{}", said.text());
    let problem = told(&mut caller).await;
    assert_eq!((problem.status, problem.code().as_str()), (422, "request-fault"));
    let problem = problem.json();
    assert_eq!((&problem["fault"], &problem["faultdetail"]), (&json!("not-sold"), &json!("there is no coal")));
    assert_eq!((&problem["outcome"], &problem["retry"]), (&json!("answered"), &json!("never")));
}

#[tokio::test(flavor = "multi_thread")]
async fn with_nobody_there_a_caller_is_told_so_at_once() {
    let node = node().await;
    let missing = told(&mut ask(&node, "tea", "15S").await).await;
    assert_eq!((missing.status, missing.code().as_str()), (404, "request-type-not-found"));
    declare(&node, json!({ "time-limit": "1h" })).await;
    // The type's limit is an hour, and the caller has none.
    let nobody = node.send(post(ASK).body("tea")).await;
    assert_eq!((nobody.status, nobody.code().as_str()), (503, "no-responder"));
    assert_eq!(nobody.json()["outcome"], "unchanged");
    let responder = serve(&node, 1).await;
    let mut begun = ask(&node, "tea", "15S").await;
    until(&node, "running", 1).await;
    let mut waiting = ask(&node, "tea", "15S").await;
    until(&node, "waiting", 1).await;
    drop(responder);
    let unknown = told(&mut begun).await;
    assert_eq!((unknown.status, unknown.code().as_str()), (504, "request-unknown"));
    assert_eq!((&unknown.json()["outcome"], &unknown.json()["reason"]), (&json!("unknown"), &json!("responder-left")));
    assert_eq!(told(&mut waiting).await.code(), "no-responder");
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_deadline_what_was_begun_is_unknown_and_what_waited_was_not_done() {
    let node = node().await;
    declare(&node, json!({ "idempotent": true })).await;
    let mut responder = serve(&node, 1).await;
    let mut begun = ask(&node, "tea", "4S").await;
    let (ticket, _) = asked(&mut responder).await;
    let refused = told(&mut ask(&node, "tea", "1S").await).await;
    assert_eq!((refused.status, refused.code().as_str()), (503, "request-refused"));
    assert_eq!((&refused.json()["outcome"], &refused.json()["reason"]), (&json!("unchanged"), &json!("expired")));
    let unknown = told(&mut begun).await;
    assert_eq!(unknown.code(), "request-unknown");
    let unknown = unknown.json();
    assert_eq!(
        (&unknown["outcome"], &unknown["reason"], &unknown["retry"]),
        (&json!("unknown"), &json!("deadline"), &json!("after"))
    );
    let stop = responder.told().await;
    assert_eq!((&*stop.event, stop.json()), ("stop", json!({ "request": ticket })));
    assert_eq!(say(&node, &ticket, "answer", "250").await.json()["receipt"], "late");
    assert_eq!(node.metric("quorate_request_late_answers").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_leaves_has_its_responder_told_and_the_place_is_free_when_it_lets_go() {
    let node = node().await;
    declare(&node, json!({})).await;
    let mut responder = serve(&node, 1).await;
    let leaving = ask(&node, "tea", "15S").await;
    let (ticket, _) = asked(&mut responder).await;
    drop(leaving);
    let Sse { event, data, .. } = responder.told().await;
    assert_eq!((&*event, data), ("stop", format!(r#"{{"request":"{ticket}"}}"#)));
    let mut next = ask(&node, "milk", "15S").await;
    until(&node, "waiting", 1).await;
    assert_eq!(say(&node, &ticket, "let-go", "").await.json()["receipt"], "let-go");
    let (ticket, what) = asked(&mut responder).await;
    assert_eq!(what["body"], "milk");
    assert_eq!(say(&node, &ticket, "let-go", "").await.status, 200);
    let given_up = told(&mut next).await;
    assert_eq!((given_up.code().as_str(), &given_up.json()["reason"]), ("request-unknown", &json!("let-go")));
    assert_eq!(say(&node, &ticket, "let-go", "").await.code(), "request-not-held");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_without_an_answer_is_handed_over_and_that_is_all() {
    let node = node().await;
    declare(&node, json!({ "exchange": "best-effort" })).await;
    assert_eq!(node.send(post(ASK).body("seen")).await.code(), "no-responder");
    let mut responder = serve(&node, 1).await;
    let handed = node.send(post(ASK).body("seen")).await;
    assert_eq!((handed.status, handed.json()), (202, json!({ "type": "price", "handed": true })));
    let (ticket, _) = asked(&mut responder).await;
    assert_eq!(say(&node, &ticket, "answer", "").await.status, 200);
    assert_eq!((node.metric("quorate_request_delivered").await, node.metric("quorate_request_lost").await), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_type_is_kept_over_restarts_and_its_responders_leave_with_it() {
    let node = node().await;
    for (wrong, code) in [
        (r#"{"exchange":"after-commit"}"#, "invalid-json"),
        (r#"{"time-limit":"0s"}"#, "invalid-parameter"),
        (r#"{"time-limit":"61m"}"#, "invalid-parameter"),
        (r#"{"exchange":"best-effort","idempotent":true}"#, "invalid-parameter"),
        (r#"{"limit":"1s"}"#, "invalid-json"),
    ] {
        assert_eq!(node.send(request("PUT", TYPE).json(wrong)).await.code(), code, "{wrong}");
    }
    declare(&node, json!({ "time-limit": "1s" })).await;
    declare(&node, json!({ "time-limit": "1500ms", "idempotent": true })).await;
    let node = node.restart().await;
    let shown = node.get(TYPE).await.json();
    assert_eq!(
        (&shown["time-limit"], &shown["idempotent"], &shown["exchange"]),
        (&json!("1s 500ms"), &json!(true), &json!("answer"))
    );
    assert_eq!(node.get("/v1/request-types").await.json(), json!({ "request-types": [shown] }));
    for (wrong, code) in
        [("window=0", "invalid-parameter"), ("window=1001", "limit-exceeded"), ("wait=1", "invalid-parameter")]
    {
        assert_eq!(node.get(&format!("{TYPE}/serve?{wrong}")).await.code(), code);
    }
    let mut responder = serve(&node, 1).await;
    assert_eq!(node.send(request("DELETE", TYPE)).await.json(), json!({ "type": "price", "deleted": true }));
    assert_eq!(responder.told().await.json(), json!({ "reason": "type-gone" }));
    assert_eq!(node.send(request("DELETE", TYPE)).await.code(), "request-type-not-found");
    assert_eq!(node.get(&format!("{TYPE}/serve")).await.code(), "request-type-not-found");
    declare(&node, json!({})).await;
    let mut responder = serve(&node, 1).await;
    node.stop();
    assert_eq!(responder.told().await.json(), json!({ "reason": "shutting-down" }));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_long_is_refused_and_a_request_remains_its_responders() {
    let node = node().await;
    declare(&node, json!({})).await;
    let mut responder = serve(&node, 1).await;
    let long = "x".repeat((1 << 20) + 1);
    assert_eq!(node.send(post(ASK).body(long.clone())).await.code(), "too-large");
    let keyed = node.send(post(ASK).header("idempotency-key", "k").body("tea")).await;
    assert_eq!(keyed.code(), "invalid-parameter", "no answer is kept, and nobody is led to believe so");
    let mut caller = ask(&node, "tea", "15S").await;
    let (ticket, _) = asked(&mut responder).await;
    assert_eq!(say(&node, &ticket, "answer", &long).await.code(), "too-large");
    let forged = format!("{}{}", if ticket.starts_with('0') { "1" } else { "0" }, &ticket[1..]);
    assert_eq!(say(&node, &forged, "answer", "1").await.code(), "request-not-held");
    assert_eq!(say(&node, "7", "answer", "1").await.code(), "invalid-parameter");
    let media = node.send(post(ASK).header("content-type", format!("a/{}", "b".repeat(254))).body("tea")).await;
    assert_eq!(media.code(), "invalid-parameter");
    assert_eq!(say(&node, &ticket, "answer", &long[..1 << 20]).await.status, 200);
    assert_eq!(told(&mut caller).await.body.len(), 1 << 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_that_wait_leave_a_place_for_the_answers() {
    let node = node_with(|config| config.http.max_requests = 4).await;
    declare(&node, json!({})).await;
    let mut responder = serve(&node, 8).await;
    let mut callers = [ask(&node, "1", "15S").await, ask(&node, "2", "15S").await];
    until(&node, "running", 2).await;
    assert_eq!(told(&mut ask(&node, "3", "15S").await).await.code(), "overloaded");
    for _ in 0..2 {
        let (ticket, what) = asked(&mut responder).await;
        let body = what["body"].as_str().unwrap().to_owned();
        assert_eq!(say(&node, &ticket, "answer", &body).await.status, 200);
    }
    for (caller, said) in callers.iter_mut().zip(["1", "2"]) {
        assert_eq!(told(caller).await.text(), said);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_told_to_stop_takes_the_answers_to_what_its_responders_work_on() {
    let node = node_with(|config| config.http.drain_timeout = Duration::from_secs(30)).await;
    declare(&node, json!({})).await;
    let mut responder = serve(&node, 2).await;
    let mut callers = [ask(&node, "1", "25S").await, ask(&node, "2", "25S").await];
    let mut tickets = Vec::new();
    for _ in 0..2 {
        tickets.push(asked(&mut responder).await);
    }
    let idle = serve(&node, 1).await;
    node.stop();
    assert_eq!(node.get("/readyz").await.status, 503);
    for (ticket, what) in tickets {
        let body = what["body"].as_str().unwrap().to_owned();
        assert_eq!(say(&node, &ticket, "answer", &body).await.json()["receipt"], "taken");
    }
    for (caller, said) in callers.iter_mut().zip(["1", "2"]) {
        let answer = told(caller).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, said));
    }
    for mut leaving in [responder, idle] {
        assert_eq!(leaving.told().await.json(), json!({ "reason": "shutting-down" }));
    }
    node.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_told_to_stop_does_not_wait_for_ever_for_an_answer() {
    let node = node_with(|config| config.http.drain_timeout = Duration::from_secs(1)).await;
    declare(&node, json!({})).await;
    let mut responder = serve(&node, 1).await;
    let mut caller = ask(&node, "tea", "10M").await;
    asked(&mut responder).await;
    node.stop();
    // Where that takes longer than what is left of the drain timeout, its connection ends instead.
    if let Some(unknown) = caller.reply().await {
        assert_eq!((unknown.code().as_str(), &unknown.json()["reason"]), ("request-unknown", &json!("responder-left")));
    }
    node.stopped().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_embeds_the_node_answers_what_is_asked_over_http_and_asks_who_answers_there() {
    let node = node().await;
    declare(&node, json!({ "time-limit": "30s" })).await;
    let answering = Answering { time_limit: Duration::from_secs(30), idempotent: false };
    let prices = node.requests.declare::<String, u64>(&"price".parse().unwrap(), answering).unwrap();
    let handler = |asked: Asked<String>| async move {
        if asked.body == "tea" { Ok(250) } else { Err(Fault::new("not-sold", "there is none")) }
    };
    let own = prices.respond(1, handler).unwrap();
    assert_eq!(node.get(TYPE).await.json()["responders"], 1);
    let answer = node.send(post(ASK).json("\"tea\"")).await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "250"));
    let fault = node.send(post(ASK).json("\"coal\"")).await;
    assert_eq!((fault.code().as_str(), &fault.json()["fault"]), ("request-fault", &json!("not-sold")));
    drop(own);
    until(&node, "responders", 0).await;
    let mut responder = serve(&node, 1).await;
    let milk = "milk".to_owned();
    let answering = async {
        let (named, what) = asked(&mut responder).await;
        assert_eq!(what["body"], "\"milk\"");
        let said = node.send(post(format!("{TYPE}/requests/{named}/answer")).json("90")).await;
        assert_eq!(said.json()["receipt"], "taken");
    };
    let (answer, ()) = tokio::join!(prices.request(&milk, Deadline::NEVER), answering);
    assert_eq!(answer.unwrap(), 90);
}
