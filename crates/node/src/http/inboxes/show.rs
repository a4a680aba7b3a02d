//! Inboxes and parked messages in JSON.

use bytes::{BufMut, Bytes, BytesMut};
use quorate_communication::inbox::{Description, InboxCounts, Parked, Standing};
use quorate_data::event::Timestamp;
use quorate_foundations::time::Wall;
use serde_json::{Value, json};

use crate::{
    config::Destination,
    http::{
        json::{string_bytes, write_number, write_string},
        queues::show as of_queues,
    },
    verbs::InboxStanding,
};

pub(super) fn inbox(one: &InboxStanding) -> Value {
    let (stream, queue) = match &one.spec.into {
        Destination::Stream(template) => (Some(template.to_string()), None),
        Destination::Queue(name) => (None, Some(name.to_string())),
    };
    let (state, last_error) = match &one.how {
        Ok(Description { standing, last_error, .. }) => (word(*standing), last_error.as_ref()),
        Err(why) => ("starting", why.as_ref()),
    };
    let described = one.how.as_ref().ok();
    json!({
        "inbox": one.spec.name.as_str(),
        "transport": one.spec.reach.address.to_string(),
        "topic": one.spec.inbox.topic.name.as_str(),
        "group": one.spec.inbox.group.as_str(),
        "stream": stream,
        "queue": queue,
        "state": state,
        "parked": described.map(|described| described.parked),
        "last-error": last_error.map(|(at, what)| json!({ "time": time(*at), "what": what })),
        "counts": described.map(|described| counts(described.counts)),
    })
}

fn word(standing: Standing) -> &'static str {
    match standing {
        Standing::Receiving => "receiving",
        Standing::Waiting => "waiting",
        Standing::Stopped => "stopped",
    }
}

fn counts(counts: InboxCounts) -> Value {
    let InboxCounts { done, repeated, failed, parked, held_back } = counts;
    json!({ "done": done, "repeated": repeated, "failed": failed, "parked": parked, "held-back": held_back })
}

/// Bytes that parked messages take together with their JSON, whose buffer is up to twice as large: it doubles when it is full.
pub(super) fn weight(all: &[Parked]) -> usize {
    let one = |one: &Parked| {
        let failures = one.failures.iter().map(|failure| 128 + string_bytes(failure.reason.as_bytes())).sum::<usize>();
        let bytes = one.message.event.size();
        bytes + 2 * (1_024 + 6 * (bytes + one.message.key.len() + one.message.identity.len()) + failures)
    };
    all.iter().map(one).sum()
}

/// `{"parked":[…]}`
pub(super) fn parked(all: &[Parked]) -> Bytes {
    let mut buffer = BytesMut::new();
    buffer.put_slice(b"{\"parked\":[");
    for (n, one) in all.iter().enumerate() {
        buffer.put_slice(if n == 0 { b"{\"place\":\"" } else { b",{\"place\":\"" });
        write_number(&mut buffer, one.place);
        buffer.put_slice(b"\",\"identity\":");
        write_string(&mut buffer, &one.message.identity);
        buffer.put_slice(b",\"key\":");
        write_string(&mut buffer, &one.message.key);
        buffer.put_slice(b",\"unreadable\":");
        match &one.message.unreadable {
            Some(why) => write_string(&mut buffer, why),
            None => buffer.put_slice(b"null"),
        }
        buffer.put_slice(b",\"event\":");
        of_queues::event(&mut buffer, &one.message.event);
        buffer.put_slice(b",\"attempts\":");
        write_number(&mut buffer, u64::from(one.attempts));
        let failures: Vec<Value> = one.failures.iter().map(of_queues::failure).collect();
        buffer.put_slice(b",\"failures\":");
        buffer.put_slice(Value::from(failures).to_string().as_bytes());
        buffer.put_u8(b'}');
    }
    buffer.put_slice(b"]}");
    buffer.freeze()
}

fn time(at: Wall) -> String {
    Timestamp::from(at).as_str().to_owned()
}
