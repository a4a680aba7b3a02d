//! Clients send requests under idempotency keys, also ones that are refused, and send them again much later: the first answer
//! stands, whatever has become of the stream.

use quorate_sim::check::api::{Append, Expected};

use super::appends::{send, sent};
use crate::{cast::Cast, hand::Hand};

const CLIENTS: usize = 3;
const ROUNDS: usize = 25;

/// Who takes part.
pub(crate) fn cast() -> Cast {
    (0..CLIENTS).fold(Cast::new(), |cast, n| cast.hand(&format!("client-{n}"), work))
}

async fn work(mut hand: Hand) {
    let (mut known, mut round) = (Vec::new(), 0);
    while hand.goes_on(round, ROUNDS) {
        if !known.is_empty() && hand.below(2) == 0 {
            let nth = hand.below(known.len());
            send(&mut hand, Append::clone(&known[nth])).await;
        } else if let Some(new) = new(&mut hand, round).await {
            send(&mut hand, new.clone()).await;
            known.push(new);
        }
        hand.rest().await;
        round += 1;
    }
}

/// An append to a version that the stream is at, or may come to be at, under a key of its own.
async fn new(hand: &mut Hand, round: usize) -> Option<Append> {
    let stream = format!("order-{}", hand.below(2));
    let version = hand.read_stream(&stream).await?;
    let expected = match version + hand.rng.below(3) {
        0 => Expected::NoStream,
        wanted => Expected::Exact(wanted),
    };
    let key = format!("{}-{round}", hand.name);
    Some(Append::to(stream, expected, vec![sent(&key, None)]).with_key(key))
}
