//! A worker that is handed messages by server-sent events.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use serde_json::Value;

use super::{PATH, POISON, note_delivery, settle};
use crate::{client::Call, hand::Hand, notes::Handling};

/// How long it waits for a frame.
const TURN: Duration = Duration::from_secs(1);
/// How many messages it takes from one connection. Their leases began no sooner than it: few keep that sharp.
const MESSAGES: usize = 3;

/// Takes some messages as they come, and settles most of them.
pub(super) async fn listen(hand: &mut Hand, diligent: bool) {
    let window = 1 + hand.below(2);
    let (invoked, call) = (hand.notes.now(), Call::get(format!("{PATH}/subscribe?window={window}")));
    let Ok((status, mut body)) = hand.another().open(&call).await else { return hand.rest().await };
    if !status.is_success() {
        return hand.rest().await;
    }
    let (mut buffer, mut taken) = (Vec::new(), 0);
    while taken < MESSAGES {
        let Some(Some(Ok(frame))) = hand.env.timeout(TURN, body.frame()).await else { return };
        buffer.extend_from_slice(&frame.into_data().unwrap_or_else(|_| Bytes::new()));
        while let Some(at) = buffer.windows(2).position(|pair| pair == b"\n\n") {
            let text: Vec<u8> = buffer.drain(..at + 2).collect();
            let Some(delivery) = message_of(&String::from_utf8_lossy(&text)) else { continue };
            taken += 1;
            let (lease, id) = note_delivery(hand, invoked, &delivery);
            let how = if id.starts_with(POISON) { Handling::Nack } else { Handling::Ack };
            if diligent || hand.below(6) > 0 {
                settle(hand, how, &[lease]).await;
            }
        }
    }
}

/// The message that a frame carries; `None` for heartbeats and signals.
fn message_of(frame: &str) -> Option<Value> {
    let is_message = frame.lines().any(|line| line == "event: message");
    let data = frame.lines().find_map(|line| line.strip_prefix("data:")).filter(|_| is_message)?;
    serde_json::from_str(data.trim()).ok()
}
