use super::{
    COMPARING, Checked, Proposal, RegisterError, RegistryPolicy, Rejection, RowError, SchemaRegistry, SchemaRow,
    Schemas, UnknownType, Which, entry::Entry, shelf::Shelf,
};
use crate::schema::{Certainty, Compatibility, Limits, SchemaVersion};
use quorate_foundations::name::Name;
use quorate_runtime::Env;
use serde_json::{Value, json};
use std::sync::{Arc, Barrier, atomic::Ordering};

const FIRST: SchemaVersion = SchemaVersion::FIRST;

fn paid() -> Name {
    "payment.captured".parse().unwrap()
}

fn closed(properties: Value) -> Value {
    json!({"type": "object", "properties": properties, "additionalProperties": false})
}

fn registry() -> SchemaRegistry {
    SchemaRegistry::new(RegistryPolicy::default())
}

fn nested(levels: usize, leaf: Value) -> Value {
    (0..levels).fold(leaf, |inner, _| json!({"c": inner}))
}

fn row(version: u32, schema: &str) -> SchemaRow {
    let version = SchemaVersion::new(version).unwrap();
    SchemaRow { event_type: paid(), version, compatibility: Compatibility::None, schema: schema.into() }
}

#[test]
fn versions_count_from_one_and_the_same_schema_is_not_registered_twice() {
    let registry = registry();
    let (one, two) = (closed(json!({"a": true})), closed(json!({"a": true, "b": true})));
    let register = |schema| registry.register(&paid(), schema, Compatibility::Backward).unwrap();
    assert_eq!([register(&one), register(&two), register(&two), register(&one)].map(SchemaVersion::get), [1, 2, 2, 1]);
    assert_eq!(
        registry.current().subjects().map(|(name, version)| (name.clone(), version.get())).next(),
        Some((paid(), 2))
    );
}

#[test]
fn nothing_is_in_force_before_its_row_is_admitted_and_snapshots_do_not_change() {
    let registry = registry();
    let before = registry.current();
    let Ok(Proposal::New(row)) = before.propose(&paid(), &closed(json!({})), Compatibility::Full) else { panic!() };
    assert_eq!(registry.current().latest("payment.captured"), None);
    registry.clone().admit(row.clone()).unwrap();
    registry.admit(row.clone()).unwrap();
    assert_eq!(registry.current().row("payment.captured", FIRST), Some(row));
    assert_eq!(before.validate("payment.captured", Which::Latest, &json!(1)), Ok(Checked::NoSchema));
    assert!(registry.current().validate("payment.captured", Which::Latest, &json!(1)).is_err());
}

#[test]
fn rows_read_back_restore_the_registry_and_rows_that_do_not_follow_are_refused() {
    let rows = [row(1, "true"), row(2, r#"{"type":"object"}"#)];
    let schemas = Schemas::from_rows(RegistryPolicy::default(), rows.clone()).unwrap();
    assert_eq!(schemas.row("payment.captured", SchemaVersion::new(2).unwrap()), Some(rows[1].clone()));
    let refused = |row| schemas.admitting(row).unwrap_err();
    assert!(matches!(refused(row(4, "true")), RowError::OutOfOrder { expected, .. } if expected.get() == 3));
    assert!(matches!(refused(row(2, "true")), RowError::Taken { .. }));
}

#[test]
fn an_incompatible_schema_is_refused_with_the_offending_path_and_the_version_it_breaks() {
    let registry = registry();
    let amount = |required: Value| json!({"type": "object", "properties": {"amount": {"type": "integer"}}, "required": required});
    registry.register(&paid(), &amount(json!([])), Compatibility::Backward).unwrap();
    let error = registry.register(&paid(), &amount(json!(["amount"])), Compatibility::Backward).unwrap_err();
    assert_eq!(
        error.to_string(),
        "payment.captured: not backward compatible; with version 1: `/properties/amount`: was optional, became \
         required: old events without it would be refused by new readers"
    );
    assert!(registry.register(&paid(), &amount(json!(["amount"])), Compatibility::Forward).is_ok());
}

#[test]
fn only_transitive_modes_look_beyond_the_latest_version() {
    let registry = registry();
    let (string, any, integer) = (json!({"type": "string"}), json!(true), json!({"type": ["integer", "boolean"]}));
    registry.register(&paid(), &string, Compatibility::None).unwrap();
    registry.register(&paid(), &integer, Compatibility::None).unwrap();
    let wider = json!({"type": ["number", "boolean"]});
    let error = registry.register(&paid(), &wider, Compatibility::BackwardTransitive).unwrap_err();
    let RegisterError::Incompatible { with, .. } = error else { panic!("{error}") };
    assert_eq!(with.iter().map(|with| with.version.get()).collect::<Vec<_>>(), [1]);
    assert_eq!(registry.register(&paid(), &wider, Compatibility::Backward).unwrap().get(), 3);
    assert_eq!(registry.register(&paid(), &any, Compatibility::BackwardTransitive).unwrap().get(), 4);
}

#[test]
fn there_is_a_most_number_of_versions() {
    let limits = Limits { versions: 1, ..Limits::default() };
    let registry = SchemaRegistry::new(RegistryPolicy { limits, ..RegistryPolicy::default() });
    registry.register(&paid(), &json!(true), Compatibility::None).unwrap();
    let error = registry.register(&paid(), &json!({}), Compatibility::None).unwrap_err();
    assert!(matches!(error, RegisterError::TooManyVersions { limit: 1, .. }));
}

#[test]
fn an_unknown_type_or_version_is_answered_by_policy() {
    let strict = RegistryPolicy { unknown_type: UnknownType::Closed, ..RegistryPolicy::default() };
    let check = |policy| Schemas::new(policy).validate_bytes("who", Which::Latest, b"not json");
    assert_eq!(check(RegistryPolicy::default()), Ok(Checked::NoSchema));
    assert_eq!(check(strict), Err(Rejection::UnknownType));
    let schemas = Schemas::from_rows(strict, [row(1, "true")]).unwrap();
    let ninth = SchemaVersion::new(9).unwrap();
    let asked = schemas.validate("payment.captured", Which::Exactly(ninth), &json!(1));
    assert_eq!(asked, Err(Rejection::UnknownVersion { asked: ninth, latest: FIRST }));
}

#[test]
fn violations_name_the_place_in_the_data_and_the_rule_and_never_quote_the_data() {
    let schema =
        r#"{"properties":{"lines":{"items":{"required":["sku"],"properties":{"sku":{"pattern":"^[A-Z]+$"}}}}}}"#;
    let schemas = Schemas::from_rows(RegistryPolicy::default(), [row(1, schema)]).unwrap();
    let check = |data: Value| schemas.validate("payment.captured", Which::Latest, &data);
    let Err(Rejection::Violations { violations, more, .. }) =
        check(json!({"lines": [{"sku": "A"}, {}, {"sku": "secret"}]}))
    else {
        panic!()
    };
    let places: Vec<_> = violations.iter().map(|found| (found.instance.as_str(), found.schema.as_str())).collect();
    let items = "/properties/lines/items";
    assert_eq!(
        places,
        [
            ("/lines/1", format!("{items}/required").as_str()),
            ("/lines/2/sku", format!("{items}/properties/sku/pattern").as_str()),
        ]
    );
    assert!(!more && !violations[1].message.contains("secret"), "{violations:?}");
    let Err(Rejection::Violations { violations, more, .. }) = check(json!({"lines": vec![json!({}); 1_000]})) else {
        panic!()
    };
    assert_eq!((violations.len(), more), (Limits::default().violations, true));
    let not_json = schemas.validate_bytes("payment.captured", Which::Latest, b"{\n  oops");
    assert_eq!(not_json, Err(Rejection::NotJson { line: 2, column: 3 }));
}

#[test]
fn names_of_members_that_the_schema_does_not_mention_are_never_quoted() {
    let secret = json!({"TOPSECRET": 1});
    let inner = json!({"properties": {"known": {"type": "integer"}}});
    let nested = json!({"TOPSECRET": {"known": "x"}});
    let numbers = json!({"TOPSECRET": {"0151": {"known": "x"}}});
    let cases = [
        (json!({"additionalProperties": false}), &secret, ""),
        (json!({"properties": {"known": {}}, "additionalProperties": false}), &secret, ""),
        (json!({"type": "object", "additionalProperties": false}), &secret, ""),
        (json!({"unevaluatedProperties": false}), &secret, ""),
        (json!({"propertyNames": {"maxLength": 3}}), &secret, ""),
        (json!({"propertyNames": false}), &secret, ""),
        (json!({"unevaluatedItems": false}), &json!(["TOPSECRET"]), ""),
        (json!({"additionalProperties": inner}), &nested, "/*/known"),
        (json!({"patternProperties": {"^T": inner}}), &nested, "/*/known"),
        (json!({"additionalProperties": {"additionalProperties": inner}}), &numbers, "/*/*/known"),
        (json!({"additionalProperties": {"items": inner}}), &json!({"TOPSECRET": [{"known": ""}]}), "/*/0/known"),
    ];
    for (schema, data, place) in cases {
        let schemas = Schemas::from_rows(RegistryPolicy::default(), [row(1, &schema.to_string())]).unwrap();
        let refused = schemas.validate("payment.captured", Which::Latest, data).unwrap_err();
        let told = format!("{refused} {refused:?}");
        assert!(!told.contains("TOPSECRET") && !told.contains("0151"), "{schema}: {told}");
        let Rejection::Violations { violations, .. } = refused else { panic!("{told}") };
        assert_eq!(violations[0].instance, place, "{schema}");
    }
    let closed = json!({"properties": {"known": {}}, "additionalProperties": false}).to_string();
    let schemas = Schemas::from_rows(RegistryPolicy::default(), [row(1, &closed)]).unwrap();
    let refused = schemas.validate("payment.captured", Which::Latest, &json!({"a": 1, "b": 2})).unwrap_err();
    assert!(refused.to_string().ends_with("2 members that the schema does not allow"), "{refused}");
}

#[test]
fn documents_that_multiply_alternatives_are_answered_in_time() {
    let again = |key: &str| json!({"properties": {"c": {"$ref": "#"}, key: {"const": 1}}, "required": [key]});
    let schema = json!({"oneOf": [again("k"), again("z"), {"required": ["leaf"]}]}).to_string();
    let schemas = Schemas::from_rows(RegistryPolicy::default(), [row(1, &schema)]).unwrap();
    let check = |data: &Value| schemas.validate("payment.captured", Which::Latest, data);
    let mut both = json!({"leaf": 1});
    (0..60).for_each(|_| both = json!({"c": both.take(), "k": 1, "z": 2}));
    assert_eq!(check(&both), Ok(Checked::Valid(FIRST)));
    let Err(Rejection::Violations { violations, more, .. }) = check(&nested(60, json!({}))) else { panic!() };
    assert!(violations.len() == 1 && more, "{violations:?}");
    assert_eq!(check(&nested(64, json!({}))), Err(Rejection::TooDeep { limit: 64 }));
}

#[test]
fn the_deepest_document_under_the_deepest_schema_fits_on_a_small_stack() {
    let mut inner = json!({"properties": {"c": {"$ref": "#"}}, "patternProperties": {"^x": {"$ref": "#"}}});
    (0..11).for_each(|_| inner = json!({"allOf": [{"anyOf": [inner.take()]}]}));
    let schemas = Schemas::from_rows(RegistryPolicy::default(), [row(1, &inner.to_string())]).unwrap();
    assert!(schemas.validate("payment.captured", Which::Latest, &nested(63, json!({}))).is_ok());
    let mut refusing = inner;
    refusing["not"] = json!({"required": ["bad"]});
    let schemas = Schemas::from_rows(RegistryPolicy::default(), [row(1, &refusing.to_string())]).unwrap();
    assert!(schemas.validate("payment.captured", Which::Latest, &nested(63, json!({"bad": 1}))).is_err());
}

#[test]
fn a_stored_schema_that_was_damaged_refuses_events_by_name_and_nothing_panics() {
    for damaged in ["{", "5", r#"{"$ref":"https://example.com"}"#] {
        let schemas = Schemas::from_rows(RegistryPolicy::default(), [row(1, damaged)]).unwrap();
        let refused = schemas.validate("payment.captured", Which::Latest, &json!(1));
        assert!(matches!(refused, Err(Rejection::Broken { version: FIRST, .. })), "{damaged}");
        let proposed = schemas.propose(&paid(), &json!(true), Compatibility::None);
        assert!(matches!(proposed, Err(RegisterError::Broken { .. })), "{damaged}");
    }
}

#[test]
fn racing_registrations_agree_on_versions() {
    let registry = registry();
    let other = registry.clone();
    let proposal = registry.current().propose(&paid(), &json!({"title": "slow"}), Compatibility::None).unwrap();
    other.register(&paid(), &json!({"title": "fast"}), Compatibility::None).unwrap();
    let Proposal::New(row) = proposal else { panic!() };
    assert!(matches!(registry.admit(row), Err(RowError::Taken { .. })));
    assert_eq!(registry.register(&paid(), &json!({"title": "slow"}), Compatibility::None).unwrap().get(), 2);
}

#[test]
fn no_more_schemas_are_kept_compiled_than_the_limit_allows_and_all_are_checked() {
    let limits = Limits { compiled_bytes: 200_000, ..Limits::default() };
    let registry = SchemaRegistry::new(RegistryPolicy { limits, ..RegistryPolicy::default() });
    let name = |n: u32| -> Name { format!("type.{n}").parse().unwrap() };
    for n in 0..60 {
        let number = json!({"type": "integer", "minimum": n});
        let properties: serde_json::Map<String, Value> = (0..20).map(|m| (format!("p{m}"), number.clone())).collect();
        registry.register(&name(n), &closed(properties.into()), Compatibility::None).unwrap();
    }
    let schemas = registry.current();
    for _ in 0..3 {
        for n in 0..60 {
            let check = |of: u32| schemas.validate(name(n).as_str(), Which::Latest, &json!({"p7": of}));
            assert_eq!(check(n), Ok(Checked::Valid(FIRST)));
            assert!(n == 0 || check(n - 1).is_err(), "type {n}");
            let (kept, bytes) = schemas.shelf.kept();
            assert!(bytes <= limits.compiled_bytes, "{kept} schemas take {bytes} bytes");
        }
    }
    assert!(schemas.shelf.kept().0 > 1, "there is room for some");
}

#[test]
fn a_schema_larger_than_the_limit_is_kept_alone() {
    let limits = Limits { compiled_bytes: 1, ..Limits::default() };
    let registry = SchemaRegistry::new(RegistryPolicy { limits, ..RegistryPolicy::default() });
    let closed = closed(json!({"pence": {"type": "integer"}}));
    for n in 0..3 {
        let version =
            registry.register(&paid(), &json!({"title": n.to_string(), "allOf": [closed]}), Compatibility::None);
        assert_eq!(version.unwrap().get(), n + 1);
    }
    let schemas = registry.current();
    for version in [1, 2, 3, 3, 1] {
        let which = Which::Exactly(SchemaVersion::new(version).unwrap());
        assert!(schemas.validate("payment.captured", which, &json!({"pence": 1})).is_ok());
        assert_eq!(schemas.shelf.kept().0, 1, "one that is larger than the limit is kept alone");
    }
}

#[test]
fn comparing_with_every_version_compiles_none_and_puts_none_away() {
    let version = |n: u32| closed(json!({"a": {"type": "integer", "title": n.to_string()}}));
    let rows = (1..=50).map(|n| row(n, &version(n).to_string()));
    let schemas = Schemas::from_rows(RegistryPolicy::default(), rows).unwrap();
    let again = schemas.propose(&paid(), &version(7), Compatibility::FullTransitive);
    assert_eq!(again.map(|proposal| proposal.version().get()), Ok(7));
    let spaced = serde_json::to_string_pretty(&version(51)).unwrap();
    let with = schemas.admitting(row(51, &spaced)).unwrap();
    let same = with.propose(&paid(), &version(51), Compatibility::FullTransitive);
    assert_eq!(same.map(|proposal| proposal.version().get()), Ok(51), "however it is laid out");
    let text = closed(json!({"a": {"type": "string"}}));
    let refused = schemas.propose(&paid(), &text, Compatibility::FullTransitive);
    let Err(RegisterError::Incompatible { with, not_compared, .. }) = refused else { panic!("{refused:?}") };
    assert_eq!(with.iter().map(|with| with.version.get()).collect::<Vec<_>>(), [50, 49, 48, 47]);
    assert_eq!(not_compared, 46, "enough was found");
    assert_eq!(schemas.shelf.kept().0, 0);
    assert!(!schemas.is_made("payment.captured", Which::Latest));
    schemas.validate("payment.captured", Which::Latest, &json!({"a": 1})).unwrap();
    assert!(schemas.is_made("payment.captured", Which::Latest) && schemas.is_made("else", Which::Latest));
    assert_eq!(schemas.shelf.kept().0, 1, "what an event is held against is compiled");
}

#[test]
fn all_versions_together_have_one_effort_and_a_schema_that_outlasts_it_is_refused() {
    let version = |n: u32| closed(json!({"a": {"type": "integer", "title": n.to_string()}}));
    let rows = || (1..=50).map(|n| row(n, &version(n).to_string()));
    let propose = |comparing_effort, mode| {
        let limits = Limits { comparing_effort, ..Limits::default() };
        let policy = RegistryPolicy { limits, ..RegistryPolicy::default() };
        Schemas::from_rows(policy, rows()).unwrap().propose(&paid(), &version(51), mode)
    };
    assert!(propose(100, Compatibility::Full).is_ok(), "enough for one");
    assert!(propose(10_000, Compatibility::FullTransitive).is_ok(), "and for all");
    let refused = propose(100, Compatibility::FullTransitive).unwrap_err();
    let told = refused.to_string();
    assert!(
        told.contains("effort") && told.contains("cannot be proved") && told.ends_with("were not compared"),
        "{told}"
    );
    let RegisterError::Incompatible { with, not_compared, .. } = refused else { panic!("{told}") };
    let unproved = with.iter().flat_map(|with| &with.findings).all(|found| found.certainty == Certainty::Unproved);
    assert!(unproved && with.len() == 1 && not_compared > 0, "{told}");
}

#[tokio::test]
async fn a_comparison_that_nobody_waits_for_any_more_keeps_its_place_to_its_end() {
    let (registry, env) = (registry(), Env::real());
    let (go_on, held) = std::sync::mpsc::channel::<()>();
    let held = Arc::new(std::sync::Mutex::new(held));
    let mut ended = vec![];
    for _ in 0..COMPARING {
        let (began, has_begun) = tokio::sync::oneshot::channel();
        let (end, has_ended) = tokio::sync::oneshot::channel();
        let held = held.clone();
        let waiting = registry.comparing(&env, move |_| {
            began.send(()).unwrap();
            let _ = held.lock().unwrap().recv();
            end.send(()).unwrap();
        });
        tokio::select! {
            () = waiting => panic!("it is held"),
            begun = has_begun => begun.unwrap(),
        }
        ended.push(has_ended);
    }
    assert_eq!(registry.shared.comparing.available_permits(), 0, "whoever waited has gone, the work has not");
    drop(go_on);
    for ended in ended {
        ended.await.unwrap();
    }
    assert_eq!(registry.comparing(&env, |schemas| schemas.generation()).await, 0, "and then there is room again");
}

#[test]
fn a_schema_that_many_need_at_once_is_compiled_once() {
    let entry = Arc::new(Entry::new(closed(json!({"a": {"type": "integer"}})).to_string(), Compatibility::None));
    let (shelf, limits) = (Shelf::default(), Limits::default());
    let begin = Barrier::new(8);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                begin.wait();
                assert!(entry.ready(&limits, &shelf).is_ok());
            });
        }
    });
    assert_eq!((entry.compiled.load(Ordering::Relaxed), shelf.kept().0), (1, 1));
}
