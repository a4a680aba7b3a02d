use super::*;

fn at(nanos: u64) -> Mono {
    Mono::from_nanos(nanos)
}

fn three_ways() -> History<String, u64> {
    let mut history = History::new();
    let a = history.invoke(ClientId(0), "a".into(), at(5));
    let b = history.invoke(ClientId(1), "b".into(), at(7));
    history.unknown(a, "timeout", at(9));
    let c = history.invoke(ClientId(2), "c".into(), at(9));
    history.ok(b, 3, at(12));
    history.failed(c, "refused", at(13));
    history.invoke(ClientId(0), "d".into(), at(14));
    history
}

#[test]
fn a_history_survives_being_written_and_read() {
    let history = three_ways();
    let text = history.to_ndjson().expect("strings and numbers are JSON");
    assert_eq!(text.lines().count(), 7);
    assert_eq!(text.lines().next(), Some(r#"{"op":0,"at_ns":5,"invoke":{"client":0,"call":"a"}}"#));
    assert_eq!(History::from_ndjson(&text).expect("it was just written"), history);
}

#[test]
fn what_was_over_before_something_began_precedes_it_even_in_the_same_nanosecond() {
    let history = three_ways();
    let [a, b, c, d] = history.operations() else { panic!("four operations") };
    assert!(a.precedes(c), "recorded as over before c began, at the same time");
    assert!(!a.precedes(b) && !b.precedes(c), "they overlap");
    assert!(b.precedes(d) && !d.precedes(b));
}

#[test]
fn time_never_runs_backwards_in_a_history() {
    let mut history: History<&str, ()> = History::new();
    history.invoke(ClientId(0), "a", at(50));
    let b = history.invoke(ClientId(1), "b", at(40));
    assert_eq!(history.get(b).map(|b| b.invoked.at), Some(at(50)));
}

#[test]
fn a_text_that_is_no_history_is_refused_with_its_line() {
    let read = |text: &str| History::<String, u64>::from_ndjson(text).expect_err("not a history").to_string();
    let invoked = r#"{"op":0,"at_ns":5,"invoke":{"client":0,"call":"a"}}"#;
    assert_eq!(read("{}"), "line 1 of the history can't be read");
    assert_eq!(read(r#"{"op":0,"at_ns":5,"ok":3}"#), "line 1 of the history: op 0 completes but was never invoked");
    assert_eq!(read(&format!("{invoked}\n{invoked}")), "line 2 of the history: op 0 is invoked out of turn");
    let done = r#"{"op":0,"at_ns":6,"ok":3}"#;
    assert_eq!(read(&format!("{invoked}\n{done}\n{done}")), "line 3 of the history: op 0 completes a second time");
}

#[test]
#[should_panic(expected = "op 0 completes a second time")]
fn completing_twice_is_the_recorders_fault() {
    let mut history: History<&str, u64> = History::new();
    let id = history.invoke(ClientId(0), "a", at(1));
    history.ok(id, 1, at(2));
    history.unknown(id, "late", at(3));
}

#[test]
fn clones_of_a_recorder_write_one_history() {
    let recorder: Recorder<&str, u64> = Recorder::new();
    let other = recorder.clone();
    let (a, b) = (recorder.client(), other.client());
    assert_ne!(a, b);
    let first = recorder.invoke(a, "x", at(1));
    let second = other.invoke(b, "y", at(2));
    other.ok(first, 1, at(3));
    recorder.failed(second, "full", at(4));
    assert_eq!(recorder.history().tally(), Tally { ok: 1, failed: 1, unknown: 0 });
    assert_eq!(recorder.take().operations().len(), 2);
    assert!(recorder.history().operations().is_empty());
}
