//! Decoders as plain functions of bytes, for the fuzzer in `fuzz/` and the test that replays its corpus.
//!
//! Each says whether it took the bytes for what they claim to be, and panics where that would break a promise.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use quorate_data::{event::NewEvent, fuzzing as data};

use crate::{config::Layers, http::cloud_events};

/// A function that decodes bytes.
pub type Target = fn(&[u8]) -> bool;

/// Every target, by the name of its corpus.
pub const TARGETS: [(&str, Target); 16] = [
    ("archive", data::archive),
    ("block", data::block),
    ("cloud_event", cloud_event),
    ("cloud_event_batch", cloud_event_batch),
    ("cloud_event_binary", cloud_event_binary),
    ("event", data::event),
    ("lease", data::lease),
    ("ledger", data::ledger),
    ("name", data::name),
    ("program", data::program),
    ("run", data::run),
    ("schema", data::schema),
    ("settings", settings),
    ("token", data::token),
    ("traceparent", data::traceparent),
    ("view", data::view),
];

/// The most events of a batch here.
const BATCH: usize = 100;

/// One event as JSON.
pub fn cloud_event(bytes: &[u8]) -> bool {
    let body = Bytes::copy_from_slice(bytes);
    judged(cloud_events::event(&body, &body).map(|event| vec![event]))
}

/// A batch of events as JSON.
pub fn cloud_event_batch(bytes: &[u8]) -> bool {
    let body = Bytes::copy_from_slice(bytes);
    let events = cloud_events::batch(&body, &body, BATCH);
    assert!(events.as_ref().is_ok_and(|events| events.len() <= BATCH) || events.is_err(), "a batch keeps its limit");
    judged(events)
}

/// One event in binary mode: headers, one a line, an empty line, the data.
pub fn cloud_event_binary(bytes: &[u8]) -> bool {
    let mut headers = HeaderMap::new();
    let mut rest = bytes;
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let line = &rest[..end];
        rest = &rest[end + 1..];
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { break };
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(&line[..colon]), value) {
            headers.append(name, value);
        }
    }
    cloud_events::is_binary(&headers)
        && judged(cloud_events::from_headers(&headers, Bytes::copy_from_slice(rest)).map(|event| vec![event]))
}

/// Whatever is taken keeps the log's rules; whatever is not is explained.
fn judged(events: Result<Vec<NewEvent>, cloud_events::Fault>) -> bool {
    match events {
        Ok(events) => {
            events.iter().for_each(|event| assert_eq!(event.check(), Ok(()), "what is taken keeps the rules"));
            true
        }
        Err(fault) => {
            assert!(!fault.to_string().is_empty(), "a fault says what is wrong");
            false
        }
    }
}

/// A file of settings.
pub fn settings(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    Layers::defaults().file("quorate.toml", text).is_ok_and(|layers| layers.config().is_ok())
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the corpus is read where it lies in the tree")]
mod tests {
    use super::TARGETS;

    #[test]
    fn every_decoder_takes_and_refuses_what_its_corpus_says() {
        let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
        let mut wrong = Vec::new();
        for (name, target) in TARGETS {
            let (mut taken, mut refused) = (0, 0);
            for entry in std::fs::read_dir(corpus.join(name)).unwrap_or_else(|cause| panic!("{name}: {cause}")) {
                let path = entry.unwrap().path();
                let seed = std::fs::read(&path).unwrap();
                let is_taken = target(&seed);
                let file = path.file_name().unwrap().to_string_lossy().into_owned();
                if is_taken == file.starts_with("bad-") {
                    wrong.push(format!("{name}/{file}"));
                }
                *(if is_taken { &mut taken } else { &mut refused }) += 1;
                // Whatever a byte is changed to, and wherever it ends: an answer, and no panic.
                for at in 0..seed.len().min(200) {
                    let mut changed = seed.clone();
                    changed[at] ^= 1 << (at % 8);
                    target(&changed);
                    target(&seed[..at]);
                }
            }
            assert!(taken > 0 && refused > 0, "{name}: {taken} taken, {refused} refused");
        }
        assert!(wrong.is_empty(), "not judged as their names say: {wrong:?}");
    }
}
