//! What is wrong with a document's text is told with its place.

use std::time::Duration;

use proptest::prelude::*;

use super::super::{Document, Fault, Format, Kind, source::parse};
use crate::{
    materialized_view::{Feeds, Mode, OnPoison, Silence},
    store::{Query, QueryItem},
};

const VISITS: &str = r#"view = "visits"
version = 3
mode = "inline"
on-poison = "skip"
from = { categories = ["person"], tags = ["site:1"] }
staleness = { max-events = 10, then = "flag" }

[tables.visit]
key = ["person", "day"]
columns = { person = "text", day = "date", n = "integer", note = "json?" }

[[on]]
type = ["entered", "returned"]
bind = { person = "$.stream", day = "$.time" }
sql = "INSERT INTO visit (person, day, n) VALUES (:person, :day, 1) ON CONFLICT (person, day) DO UPDATE SET n = visit.n + 1"
"#;

fn fault(text: &str) -> Fault {
    match Document::read(text, Format::Toml) {
        Ok(_) => panic!("it was taken:\n{text}"),
        Err(faults) => faults.list[0].clone(),
    }
}

#[test]
fn a_document_says_events_tables_and_how_it_is_kept() {
    let visits = Document::read(VISITS, Format::Toml).unwrap();
    assert_eq!((visits.view().as_str(), visits.version()), ("visits", 3));
    assert_eq!((visits.config().mode, visits.config().on_poison), (Mode::Inline, OnPoison::Skip));
    let item = QueryItem {
        types: vec!["entered".into(), "returned".into()],
        categories: vec!["person".into()],
        tags: vec!["site:1".into()],
    };
    assert_eq!(visits.query(), &Query::of([item]));
    let kinds: Vec<Kind> = visits.tables()[0].columns.iter().map(|column| column.kind).collect();
    assert_eq!(kinds, [Kind::Text, Kind::Date, Kind::Integer, Kind::Json]);
    assert_eq!(visits.config().staleness.unwrap().max_events, Some(10));
}

#[test]
fn a_document_names_the_feeds_it_is_made_of_and_how_far_behind_them_it_may_be() {
    let fed = VISITS.replace("from = {", "from = { source = '/gate', heartbeat = 'tick',");
    let fed = fed.replace("max-events = 10", "max-feed-seconds = 60, silence = 'idle'");
    let document = Document::read(&fed, Format::Toml).unwrap();
    let feeds = Feeds { sources: vec!["/gate".into()], max_lag: Some(Duration::from_secs(60)), silence: Silence::Idle };
    assert_eq!(document.config().feeds, Some(feeds));
    let beats = QueryItem { types: vec!["tick".into()], ..QueryItem::default() };
    assert_eq!(document.query().items[0].types, ["entered", "returned"]);
    assert_eq!(document.query().items[1..], [beats], "heartbeats are read as well, whatever stream they are in");
    let wide = fed.replace(", categories = [\"person\"], tags = [\"site:1\"]", "");
    let wide = Document::read(&wide, Format::Toml).unwrap();
    let item = QueryItem { types: vec!["entered".into(), "returned".into(), "tick".into()], ..QueryItem::default() };
    assert_eq!(wide.query(), &Query::of([item]));
    let all = fed.replace("type = [\"entered\", \"returned\"]\n", "");
    assert_eq!(Document::read(&all, Format::Toml).unwrap().query().items[0].types, [""; 0], "every type is");
    assert_eq!(Document::read(VISITS, Format::Toml).unwrap().config().feeds, None);
}

#[test]
fn both_forms_and_any_layout_mean_the_same() {
    let visits = Document::read(VISITS, Format::Toml).unwrap();
    let root = parse(VISITS, Format::Toml).unwrap();
    let json = Document::read(&root.value.to_json(), Format::Json).unwrap();
    assert_eq!(visits.meaning(), json.meaning());
    // JSON is YAML, too.
    let yaml = Document::read(&root.value.to_json(), Format::Yaml).unwrap();
    assert_eq!(visits.meaning(), yaml.meaning());
    let commented = format!("# {VISITS}\n{VISITS}\n# the end\n").replacen("# view = \"visits\"\n", "#\n", 1);
    let tail = commented.rfind("view = ").unwrap();
    assert_eq!(Document::read(&commented[tail..], Format::Toml).unwrap().meaning(), visits.meaning());
    let other = Document::read(&VISITS.replace("n + 1", "n + 2"), Format::Toml).unwrap();
    assert_ne!(other.meaning(), visits.meaning());
}

#[test]
fn every_fault_names_line_and_field() {
    for (from, to, line, field, what) in [
        ("view = \"visits\"", "view = \"Visits\"", 1, "view", "cannot name a view"),
        ("version = 3", "version = 0", 2, "version", "from 1"),
        ("mode = \"inline\"", "mode = \"sync\"", 3, "mode", "none of async, inline"),
        ("on-poison", "on-poisn", 4, "on-poisn", "did you mean `on-poison`?"),
        ("\"site:1\"", "\"site 1\"", 5, "from.tags", "holds a blank"),
        (
            "{ max-events = 10, then = \"flag\" }",
            "{ then = \"flag\" }",
            6,
            "staleness",
            "one of max-events, max-seconds, max-feed-seconds",
        ),
        ("max-events = 10", "max-events = -1", 6, "staleness.max-events", "from 0"),
        ("max-events", "max-feed-seconds", 6, "staleness.max-feed-seconds", "names no `source`"),
        ("max-events", "silence = 'idle', max-events", 6, "staleness.silence", "`max-feed-seconds`"),
        ("from = {", "from = { source = ['/a', '/a'],", 5, "from.source", "each once"),
        ("from = {", "from = { source = '',", 5, "from.source", "each once"),
        ("from = {", "from = { heartbeat = 'tick',", 5, "from.heartbeat", "names none"),
        ("from = {", "from = { source = '/a', heartbeat = 'tick*',", 5, "from.heartbeat", "a whole type"),
        ("from = {", "from = { source = '/a', heartbeat = 'entered',", 5, "from.heartbeat", "a rule is about it"),
        ("key = [\"person\", \"day\"]", "key = [\"persn\", \"day\"]", 9, "tables.visit.key", "no column `persn`"),
        ("key = [\"person\", \"day\"]", "key = [\"person\", \"note\"]", 9, "tables.visit.key", "always has a value"),
        ("n = \"integer\"", "n = \"number\"", 10, "tables.visit.columns.n", "`number` is no type"),
        ("n = \"integer\"", "rowid = \"integer\"", 10, "tables.visit.columns.rowid", "use another name"),
        ("note = \"json?\"", "Note = \"json?\"", 10, "tables.visit.columns.Note", "is no name"),
        ("[\"entered\", \"returned\"]", "\"*entered\"", 13, "on[0].type", "one `*` behind it"),
        ("$.stream", "stream", 14, "on[0].bind.person", "begins with `$`"),
        ("$.stream", "$.item.a", 14, "on[0].bind.person", "this rule has neither"),
        ("\"$.time\"", "{ path = \"$.time\", type = \"dat\" }", 14, "on[0].bind.day.type", "no type"),
        ("day = \"$.time\" }", "day = \"$.time\", who = \"$.id\" }", 14, "on[0].bind.who", "no statement uses `:who`"),
        ("VALUES (:person,", "VALUES (:who,", 15, "on[0].sql", "`:who` is not bound"),
        ("INTO visit", "INTO visits", 15, "on[0].sql", "no table `visits`"),
        (":day, 1)", "'no date', 1)", 15, "on[0].sql", "`visit.day` is date, and 'no date' is none"),
        (":day, 1)", ":day, 'one')", 15, "on[0].sql", "`visit.n` is integer, and 'one' is none"),
        (":day, 1)", ":day, 1.5)", 15, "on[0].sql", "`visit.n` is integer, and 1.5 is none"),
        (":day, 1)", ":day, NULL)", 15, "on[0].sql", "`visit.n` may not be null"),
        ("visit.n + 1\"", "TRUE\"", 15, "on[0].sql", "a truth value is none"),
        ("visit.n + 1\"", "1 WHERE visit.day = 'x'\"", 15, "on[0].sql", "'x' is none"),
        (":day, 1)", ":day, :day)", 15, "on[0].sql", "`visit.day` is date, and `visit.n` is integer"),
        (
            "day = \"$.time\"",
            "day = { path = \"$.time\", type = \"text\" }",
            15,
            "on[0].sql",
            "`:day` is bound as text",
        ),
        ("n + 1\"", "n + random()\"", 15, "on[0].sql", "come out the same"),
        ("bind =", "jq = \".data | foo\"\nbind =", 14, "on[0].jq", "there is no `foo`"),
        ("bind =", "jq = '.data | map('\nbind =", 14, "on[0].jq", "`(` is never closed"),
        ("bind =", "jq = 'now'\nbind =", 14, "on[0].jq", "the time of day"),
        ("bind =", "jq = '.'\neach = '$.data'\nbind =", 14, "on[0].jq", "not from both"),
    ] {
        assert!(VISITS.contains(from), "{from}");
        let fault = fault(&VISITS.replace(from, to));
        assert!(fault.what.contains(what), "{to}: {fault}");
        assert_eq!((fault.line, fault.field.as_str()), (line, field), "{to}: {fault}");
    }
}

#[test]
fn a_programs_text_is_part_of_what_a_document_means() {
    let with = |program: &str| {
        let text = VISITS.replace("bind =", &format!("jq = '{program}'\nbind ="));
        Document::read(&text, Format::Toml).unwrap_or_else(|faults| panic!("{faults}"))
    };
    assert_ne!(with(".").meaning(), with(". | .").meaning());
    assert_eq!(with(".").meaning(), with(".").meaning());
}

#[test]
fn a_fault_in_a_program_names_its_column() {
    let fault = fault(&VISITS.replace("bind =", "jq = '.data | foo'\nbind ="));
    assert_eq!((fault.line, fault.column), (14, "jq = '.data | ".len() as u32 + 1));
}

#[test]
fn a_fault_in_a_statement_names_its_column() {
    let fault = fault(&VISITS.replace("INTO visit", "INTO visits"));
    let line = VISITS.lines().nth(14).unwrap();
    assert_eq!(fault.column as usize, line.find("visit (").unwrap() + 1);
}

#[test]
fn what_is_missing_is_said_all_at_once() {
    let faults = Document::read("{}", Format::Json).unwrap_err();
    let fields: Vec<&str> = faults.list.iter().map(|fault| fault.field.as_str()).collect();
    assert_eq!(fields, ["view", "version", "tables", "on"]);
}

#[test]
fn a_parameter_has_the_type_of_the_column_it_is_put_into() {
    let two = r#"
view = "a"
version = 1
tables.one = { key = "id", columns = { id = "text", at = "date" } }
tables.two = { key = "id", columns = { id = "text", at = "timestamp" } }
[[on]]
bind = { id = "$.id", at = "$.time" }
sql = ["INSERT INTO one (id, at) VALUES (:id, :at)", "INSERT INTO two (id, at) VALUES (:id, :at)"]
"#;
    let refused = fault(two);
    assert!(
        refused.what.contains("`one.at` is date, and `two.at` is timestamp: bind a parameter of its own"),
        "{refused}"
    );
    assert_eq!((refused.line, refused.field.as_str()), (8, "on[0].sql[1]"));
    let said = two.replace("\"$.time\"", "{ path = \"$.time\", type = \"text\" }");
    assert!(fault(&said).what.contains("`one.at` is date, and `:at` is bound as text"));
    let each = two
        .replace("at = \"$.time\" }", "at = \"$.time\", then = \"$.time\" }")
        .replace("two (id, at) VALUES (:id, :at)", "two (id, at) VALUES (:id, :then)");
    let read = Document::read(&each, Format::Toml).unwrap_or_else(|faults| panic!("{faults}"));
    assert!(read.meaning().contains("timestamp") || format!("{:?}", read.rules).contains("Timestamp"));
}

/// Pieces that a broken document is put together from.
const PIECES: [&str; 22] = [
    "'",
    "\"",
    "(",
    ")",
    ":",
    "$",
    "{",
    "}",
    "[",
    "]",
    "=",
    ",",
    "é",
    "\n",
    "--",
    "/*",
    "1e",
    "SELECT ",
    " ON CONFLICT ",
    "CASE ",
    " WITH a AS ",
    ".*",
];

proptest! {
    #[test]
    fn a_broken_document_is_refused_and_nothing_panics(
        cuts in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0..PIECES.len()), 1..6),
        as_json: bool,
    ) {
        let root = parse(VISITS, Format::Toml).unwrap();
        let (mut text, format) =
            if as_json { (root.value.to_json(), Format::Json) } else { (VISITS.to_owned(), Format::Toml) };
        for (at, length, piece) in cuts {
            let starts: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
            let first = at.index(starts.len());
            let end = starts.get(first + length.index(6)).copied().unwrap_or(text.len());
            text.replace_range(starts[first]..end, PIECES[piece]);
        }
        if let Err(faults) = Document::read(&text, format) {
            prop_assert!(!faults.list.is_empty() && !faults.to_string().is_empty());
        }
    }
}

#[test]
fn limits_are_refused_and_not_cut() {
    let large = format!("# {}\n{VISITS}", "x".repeat(Document::MAX_BYTES));
    assert!(fault(&large).what.contains("at most 262144 bytes"));
    let many = (0..=Document::MAX_RULES).map(|_| "[[on]]\nsql = \"DELETE FROM visit\"\n").collect::<String>();
    assert!(fault(&format!("{VISITS}{many}")).what.contains("1 to 100 rules"));
}

#[test]
fn the_schema_takes_what_is_read_and_refuses_what_it_can() {
    let schema: serde_json::Value = serde_json::from_str(Document::SCHEMA).unwrap();
    let schema = jsonschema::draft202012::new(&schema).unwrap();
    let json = |text: &str| -> serde_json::Value {
        serde_json::from_str(&parse(text, Format::Toml).unwrap().value.to_json()).unwrap()
    };
    let wrong: Vec<String> = schema.iter_errors(&json(VISITS)).map(|wrong| wrong.to_string()).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    for (from, to) in [
        ("version = 3", "version = 0"),
        ("on-poison", "on-poisn"),
        ("n = \"integer\"", "n = \"number\""),
        ("max-events = 10, ", ""),
        ("$.stream", "stream"),
        ("bind =", "jq = \".\"\neach = \"$.data\"\nbind ="),
        ("bind =", "jq = 1\nbind ="),
    ] {
        assert!(!schema.is_valid(&json(&VISITS.replace(from, to))), "{to}");
    }
}
