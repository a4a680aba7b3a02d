//! Clients that append to streams they share, on expectations and conditions, and read what there is.

use serde_json::{Value, json};

use crate::{
    cast::Cast,
    client::{Call, NoReply, Reply},
    hand::{self, Hand},
    notes::{Action, Expected, Told},
};

const CLIENTS: usize = 4;
const STREAMS: usize = 3;
const ROUNDS: usize = 40;
/// How often a client repeats a request that nobody answered, before it gives up and will never know.
const REPEATS: usize = 12;

/// Who takes part.
pub(crate) fn cast() -> Cast {
    (0..CLIENTS).fold(Cast::new(), |cast, n| cast.hand(&format!("client-{n}"), work))
}

async fn work(mut hand: Hand) {
    for round in 0..ROUNDS {
        let stream = format!("order-{}", hand.below(STREAMS));
        match hand.below(10) {
            0..=1 => drop(hand.read_stream(&stream).await),
            2 => drop(hand.read_log().await),
            3..=4 => append_if(&mut hand, &stream, round).await,
            _ => append(&mut hand, &stream, round).await,
        }
        hand.rest().await;
    }
}

/// Appends one to three events on an expectation that is right, unless somebody else is first.
pub(crate) async fn append(hand: &mut Hand, stream: &str, round: usize) {
    let expected = match hand.below(3) {
        0 => Expected::Any,
        _ => match hand.read_stream(stream).await {
            None => return,
            Some(0) => Expected::New,
            Some(version) => Expected::Exact(version),
        },
    };
    let count = 1 + hand.below(3);
    let ids: Vec<String> = (0..count).map(|n| format!("{}-{round}-{n}", hand.name)).collect();
    let events: Vec<Value> = ids.iter().map(|id| event(id, None)).collect();
    let call = Call::post(format!("/v1/streams/{stream}/events"));
    let call = call.json("application/cloudevents-batch+json", &Value::Array(events));
    let call = match expected {
        Expected::Any => call,
        Expected::New => call.header("if-none-match", "*"),
        Expected::Exact(version) => call.header("if-match", &format!("\"{version}\"")),
    };
    let invoked = hand.notes.now();
    let told = insist(hand, &call).await;
    hand.notes.add(&hand.name, invoked, Action::Append { stream: stream.to_owned(), ids, expected, told });
}

/// Appends an event with a tag unless somebody else has appended one since the log was read.
async fn append_if(hand: &mut Hand, stream: &str, round: usize) {
    let Some(reply) = hand.ask(&Call::get("/v1/events?after=0&limit=1000")).await else { return };
    let after = hand::seen(&reply.value()).last().map_or(0, |event| event.position);
    let (id, tag) = (format!("{}-{round}", hand.name), format!("seat:{}", hand.below(3)));
    let body = json!({
        "streams": [{ "stream": stream, "events": [event(&id, Some(&tag))] }],
        "conditions": [{ "failIfEventsMatch": { "items": [{ "tags": [tag] }] }, "after": after.to_string() }],
    });
    let call = Call::post("/v1/events").json("application/json", &body);
    let invoked = hand.notes.now();
    let told = insist(hand, &call).await;
    hand.notes.add(&hand.name, invoked, Action::AppendIf { stream: stream.to_owned(), id, tag, after, told });
}

/// Makes a call until something certain is answered; now and then makes it twice, on two connections.
pub(crate) async fn insist(hand: &mut Hand, call: &Call) -> Told {
    for _ in 0..REPEATS {
        if hand.below(8) == 0 {
            let _ = hand.another().call(call).await;
        }
        match hand.client.call(call).await {
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
        return version(first).map_or(Told::Unknown, |version| Told::Done { version });
    }
    if reply.status.is_client_error() {
        return Told::Refused { actual: version(&value) };
    }
    Told::Unknown
}

/// An event of no meaning.
pub(crate) fn event(id: &str, tag: Option<&str>) -> Value {
    let mut event = json!({
        "specversion": "1.0", "id": id, "source": "/scenario", "type": "order.changed",
        "datacontenttype": "application/json", "data": { "by": id },
    });
    if let Some(tag) = tag {
        event["tags"] = json!(tag);
    }
    event
}
