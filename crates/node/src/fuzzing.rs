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

/// How many inputs are made up for each target.
const MADE_UP: usize = 400;

/// Tries `target` on `seeds` (names and bytes), on seeds with bits flipped and ends cut off, and on a bounded number of
/// inputs made of pieces of seeds and of noise: the same ones each time. What libFuzzer does for hours, for a moment, with
/// any compiler. Says what was not judged as its name says: a seed whose name begins with `bad-` is refused, any other taken.
///
/// # Panics
/// Where the target does.
pub fn exercise(target: Target, seeds: Vec<(String, Vec<u8>)>) -> Vec<String> {
    let mut wrong = Vec::new();
    let (mut taken, mut refused) = (0, 0);
    for (name, seed) in &seeds {
        let is_taken = target(seed);
        if is_taken == name.starts_with("bad-") {
            wrong.push(name.clone());
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
    if taken == 0 || refused == 0 {
        wrong.push(format!("a corpus has both, this one {taken} taken and {refused} refused"));
    }
    let mut dice = Dice(0x5eed);
    for _ in 0..MADE_UP {
        target(&made_up(&mut dice, &seeds));
    }
    wrong
}

/// An input of a few pieces: parts of seeds, bytes at random, bytes that often matter.
fn made_up(dice: &mut Dice, seeds: &[(String, Vec<u8>)]) -> Vec<u8> {
    const OFTEN: [&[u8]; 12] =
        [b"\"", b"\\u0000", b"{", b"[", b"}", b"null", b"-1", b"1e999", b"\n\n", b"\0", b"\xff\xfe", b": "];
    let mut input = Vec::new();
    for _ in 0..1 + dice.below(5) {
        match dice.below(4) {
            0 => {
                let count = dice.below(64);
                input.extend(std::iter::repeat_with(|| dice.below(256) as u8).take(count));
            }
            1 => input.extend_from_slice(OFTEN[dice.below(OFTEN.len())]),
            _ => {
                let Some((_, seed)) = seeds.get(dice.below(seeds.len())) else { continue };
                let from = dice.below(seed.len() + 1);
                let to = from + dice.below((seed.len() - from).min(4_096) + 1);
                input.extend_from_slice(&seed[from..to]);
            }
        }
    }
    input
}

/// SplitMix64.
struct Dice(u64);

impl Dice {
    /// A number below `end`; 0 where that is 0.
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let end = end.max(1) as u64;
        usize::try_from((x ^ (x >> 31)) % end).unwrap_or_default()
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the corpus is read where it lies in the tree")]
mod tests {
    use super::{TARGETS, exercise};

    #[test]
    fn every_decoder_takes_and_refuses_what_its_corpus_says() {
        let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
        for (name, target) in TARGETS {
            let folder = std::fs::read_dir(corpus.join(name)).unwrap_or_else(|cause| panic!("{name}: {cause}"));
            let seed = |entry: std::io::Result<std::fs::DirEntry>| {
                let path = entry.unwrap().path();
                (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(&path).unwrap())
            };
            let wrong = exercise(target, folder.map(seed).collect());
            assert!(wrong.is_empty(), "{name}: {wrong:?}");
        }
    }

    #[test]
    fn every_target_of_the_fuzzer_is_run_here_or_in_the_command_line() {
        let targets = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/fuzz_targets");
        let known =
            |name: &str| ["import_line", "sse"].contains(&name) || TARGETS.iter().any(|(known, _)| *known == name);
        let files = std::fs::read_dir(targets).unwrap().map(|file| file.unwrap().path());
        let names: Vec<String> = files.map(|file| file.file_stem().unwrap().to_string_lossy().into_owned()).collect();
        assert!(names.iter().all(|name| known(name)), "{names:?}");
        assert_eq!(names.len(), TARGETS.len() + 2);
    }
}
