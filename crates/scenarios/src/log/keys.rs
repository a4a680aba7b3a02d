//! Clients send requests under idempotency keys, also ones that are refused, and send them again much later: the first answer
//! stands, whatever has become of the stream.

use serde_json::Value;

use super::appends::{event, insist};
use crate::{cast::Cast, client::Call, hand::Hand, notes::Action};

const CLIENTS: usize = 3;
const ROUNDS: usize = 25;

/// Who takes part.
pub(crate) fn cast() -> Cast {
    (0..CLIENTS).fold(Cast::new(), |cast, n| cast.hand(&format!("client-{n}"), work))
}

/// A request that was sent under a key.
struct Sent {
    key: String,
    stream: String,
    call: Call,
}

async fn work(mut hand: Hand) {
    let mut sent: Vec<Sent> = Vec::new();
    for round in 0..ROUNDS {
        if !sent.is_empty() && hand.below(2) == 0 {
            let nth = hand.below(sent.len());
            send(&mut hand, &sent[nth]).await;
        } else if let Some(new) = new(&mut hand, round).await {
            send(&mut hand, &new).await;
            sent.push(new);
        }
        hand.rest().await;
    }
}

/// A request for a version that the stream is at, or may come to be at.
async fn new(hand: &mut Hand, round: usize) -> Option<Sent> {
    let stream = format!("order-{}", hand.below(2));
    let version = hand.read_stream(&stream).await?;
    let wanted = version + hand.rng.below(3);
    let key = format!("{}-{round}", hand.name);
    let body = Value::Array(vec![event(&key, None)]);
    let call = Call::post(format!("/v1/streams/{stream}/events"));
    let call = call.json("application/cloudevents-batch+json", &body).header("idempotency-key", &format!("\"{key}\""));
    let call = match wanted {
        0 => call.header("if-none-match", "*"),
        wanted => call.header("if-match", &format!("\"{wanted}\"")),
    };
    Some(Sent { key, stream, call })
}

async fn send(hand: &mut Hand, sent: &Sent) {
    let invoked = hand.notes.now();
    let told = insist(hand, &sent.call).await;
    let what = Action::Keyed { key: sent.key.clone(), stream: sent.stream.clone(), told };
    hand.notes.add(&hand.name, invoked, what);
}
