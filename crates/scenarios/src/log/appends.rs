//! Clients that append to streams they share, on expectations and conditions, and read what there is.

use quorate_sim::check::api::{Append, Expected, Query, SentEvent};
use serde_json::{Value, json};

use crate::{
    cast::Cast,
    client::{Call, NoReply, Reply},
    hand::Hand,
    notes::{Action, Refusal, Told, digest},
};

const CLIENTS: usize = 4;
const STREAMS: usize = 3;
const ROUNDS: usize = 40;
/// The type of events of no meaning.
const TYPE: &str = "order.changed";
/// How often a client repeats a request that nobody answered, before it gives up and will never know.
const REPEATS: usize = 12;

/// Who takes part.
pub(crate) fn cast() -> Cast {
    cast_for(ROUNDS)
}

/// The same, for so many rounds.
pub(crate) fn cast_for(rounds: usize) -> Cast {
    (0..CLIENTS).fold(Cast::new(), |cast, n| cast.hand(&format!("client-{n}"), move |hand| work(hand, rounds)))
}

async fn work(mut hand: Hand, rounds: usize) {
    let mut round = 0;
    while hand.goes_on(round, rounds) {
        let stream = format!("order-{}", hand.below(STREAMS));
        match hand.below(10) {
            0..=1 => drop(hand.read_stream(&stream).await),
            2 => drop(hand.read_log().await),
            3..=4 => append_if(&mut hand, &stream, round).await,
            _ => append(&mut hand, &stream, round).await,
        }
        hand.rest().await;
        round += 1;
    }
}

/// Appends one to three events on an expectation that is right, unless somebody else is first.
pub(crate) async fn append(hand: &mut Hand, stream: &str, round: usize) {
    let expected = match hand.below(3) {
        0 => Expected::Any,
        _ => match hand.read_stream(stream).await {
            None => return,
            Some(0) => Expected::NoStream,
            Some(version) => Expected::Exact(version),
        },
    };
    let count = 1 + hand.below(3);
    let events = (0..count).map(|n| sent(&format!("{}-{round}-{n}", hand.name), None)).collect();
    send(hand, Append::to(stream, expected, events)).await;
}

/// Appends an event with a tag unless somebody else has appended one since the log was read.
async fn append_if(hand: &mut Hand, stream: &str, round: usize) {
    let Some(after) = hand.read_log().await else { return };
    let (id, tag) = (format!("{}-{round}", hand.name), format!("seat:{}", hand.below(3)));
    let append = Append::to(stream, Expected::Any, vec![sent(&id, Some(&tag))]);
    let append = append.unless(Query::tagged([tag.as_str()]), after);
    let body = json!({
        "streams": [{ "stream": stream, "events": [event(&id, Some(&tag))] }],
        "conditions": [{ "failIfEventsMatch": { "items": [{ "tags": [tag] }] }, "after": after.to_string() }],
    });
    let call = Call::post("/v1/events").json("application/json", &body);
    write(hand, append, &call).await;
}

/// Sends an append of events of no meaning to one stream, insists on an answer, and writes down which.
pub(crate) async fn send(hand: &mut Hand, append: Append) {
    let events = append.events().map(|(_, sent)| event(&sent.id, None)).collect();
    send_events(hand, append, events).await;
}

/// The same with the events as they are sent, in the order in which `append` has them.
pub(crate) async fn send_events(hand: &mut Hand, append: Append, events: Vec<Value>) -> Told {
    let [part] = append.parts.as_slice() else { unreachable!("invariant: these are appends to one stream") };
    let call = Call::post(format!("/v1/streams/{}/events", part.stream));
    let call = call.json("application/cloudevents-batch+json", &Value::Array(events));
    let call = match part.expected {
        Expected::Any => call,
        Expected::NoStream => call.header("if-none-match", "*"),
        Expected::StreamExists => call.header("if-match", "*"),
        Expected::Exact(version) => call.header("if-match", &format!("\"{version}\"")),
    };
    let call = match &append.key {
        Some(key) => call.header("idempotency-key", &format!("\"{key}\"")),
        None => call,
    };
    write(hand, append, &call).await
}

/// Makes the call that asks for `append` until something certain is answered, and writes down which.
async fn write(hand: &mut Hand, append: Append, call: &Call) -> Told {
    let begun = hand.notes.begin(&hand.name, Action::Append { append: append.clone(), told: Told::Unknown });
    let told = insist(hand, call).await;
    if let Told::Done { token, .. } = &told {
        hand.notes.keep_token(token.as_deref());
    }
    hand.notes.end(begun, Action::Append { append, told: told.clone() });
    told
}

/// Makes a call until something certain is answered; now and then makes it twice, on two connections, one after the other
/// or at once.
pub(crate) async fn insist(hand: &mut Hand, call: &Call) -> Told {
    for _ in 0..REPEATS {
        let (twice, mut other) = (hand.below(16), hand.another());
        let answer = match twice {
            0 => {
                let _ = other.call(call).await;
                hand.client.call(call).await
            }
            1 => tokio::join!(hand.client.call(call), other.call(call)).0,
            _ => hand.client.call(call).await,
        };
        match answer {
            Ok(reply) => match told(&reply) {
                Told::Unknown => {}
                certain => return certain,
            },
            Err(NoReply::NotSent | NoReply::Unknown) => {}
        }
        hand.rest().await;
    }
    Told::Unknown
}

/// What a reply says.
pub(crate) fn told(reply: &Reply) -> Told {
    let value = reply.value();
    let version = |value: &Value| value["streamversion"].as_str().and_then(|text| text.parse::<u64>().ok());
    if reply.status.is_success() {
        let first = if value["streams"].is_array() { &value["streams"][0] } else { &value };
        let done = |version| Told::Done { version, token: value["token"].as_str().map(str::to_owned) };
        // Whoever took that for no answer would ask again, and never tell.
        let silent = || Refusal::Other { problem: format!("{} without a version", reply.status) };
        return version(first).map_or_else(|| Told::Refused(silent()), done);
    }
    if reply.status.is_server_error() {
        return Told::Unknown;
    }
    let problem = value["type"].as_str().unwrap_or_default();
    Told::Refused(match problem.trim_start_matches("/errors/") {
        "version-conflict" => Refusal::Version { actual: version(&value) },
        "id-reused" | "batch-partly-known" => Refusal::Id,
        "condition-failed" => Refusal::Condition,
        "key-reused" => Refusal::Key,
        // Somebody else of the same name is at it, or the request did not arrive in time: ask again.
        "request-in-flight" | "request-timeout" => return Told::Unknown,
        other => Refusal::Other { problem: format!("{} {other}", reply.status) },
    })
}

/// An event of no meaning.
pub(crate) fn event(id: &str, tag: Option<&str>) -> Value {
    let mut event = json!({
        "specversion": "1.0", "id": id, "source": "/scenario", "type": TYPE,
        "datacontenttype": "application/json", "data": data(id),
    });
    if let Some(tag) = tag {
        event["tags"] = json!(tag);
    }
    event
}

/// The same, as checkers know it.
pub(crate) fn sent(id: &str, tag: Option<&str>) -> SentEvent {
    let tags = tag.into_iter().map(str::to_owned).collect();
    SentEvent { id: id.to_owned(), content: digest(&data(id)), kind: TYPE.to_owned(), tags }
}

fn data(id: &str) -> Value {
    json!({ "by": id })
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    #[test]
    fn an_append_that_was_acknowledged_without_a_version_is_told_as_what_nobody_expects() {
        let told = |status, body: &str| told(&Reply { status, token: None, body: body.to_owned().into() });
        assert_eq!(told(StatusCode::CREATED, r#"{"streamversion":"3"}"#), Told::Done { version: 3, token: None });
        let silent = Refusal::Other { problem: "201 Created without a version".to_owned() };
        assert_eq!(told(StatusCode::CREATED, r#"{"stream":"a"}"#), Told::Refused(silent));
        assert_eq!(told(StatusCode::SERVICE_UNAVAILABLE, ""), Told::Unknown);
    }
}
