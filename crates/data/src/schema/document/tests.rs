use super::{Schema, SchemaFault};
use crate::schema::Limits;
use serde_json::{Map, Value, json};

fn fault(json: Value) -> SchemaFault {
    match Schema::parse(&json, &Limits::default()) {
        Err(fault) => fault,
        Ok(_) => panic!("{} was accepted", super::clipped(json.to_string(), 200)),
    }
}

fn chain(links: usize, link: impl Fn(&str) -> Value) -> Value {
    let mut defs: Map<String, Value> =
        (0..links).map(|at| (format!("d{at}"), link(&format!("#/$defs/d{}", at + 1)))).collect();
    defs.insert(format!("d{links}"), json!({"type": "string"}));
    json!({"$ref": "#/$defs/d0", "$defs": defs})
}

#[test]
fn a_fault_is_named_with_its_place() {
    let message = |json| fault(json).to_string();
    assert!(message(json!({"properties": {"a": {"minimum": "x"}}})).starts_with("`/properties/a/minimum`: "));
    assert!(message(json!({"type": "objekt"})).starts_with("`/type`: "));
    assert!(matches!(fault(json!("a string")), SchemaFault::Invalid { at, .. } if at.is_empty()));
    assert!(matches!(
        fault(json!({"items": {"$ref": "https://example.com/a.json#/b"}})),
        SchemaFault::RemoteRef { at, reference } if at == "/items" && reference == "https://example.com/a.json#/b"
    ));
    assert!(matches!(fault(json!({"$ref": "#name"})), SchemaFault::RemoteRef { .. }));
    assert!(matches!(fault(json!({"$ref": "#/$defs/nobody"})), SchemaFault::DanglingRef { .. }));
    assert!(matches!(fault(json!({"$ref": "#/const", "const": {}})), SchemaFault::DanglingRef { .. }));
    let draft7 = json!({"$schema": "http://json-schema.org/draft-07/schema#"});
    assert!(matches!(fault(draft7), SchemaFault::Dialect { .. }));
    assert!(matches!(fault(json!({"not": {"$id": "a"}})), SchemaFault::Unsupported { keyword: "$id", .. }));
    assert!(matches!(fault(json!({"$dynamicRef": "#a"})), SchemaFault::Unsupported { .. }));
}

#[test]
fn a_root_that_names_itself_still_refers_to_itself() {
    let named = json!({
        "$schema": super::DIALECT, "$id": "https://json-schema.org/draft/2020-12/schema",
        "$ref": "#/$defs/a%20b", "$defs": {"a b": {"type": "string"}},
    });
    let schema = Schema::parse(&named, &Limits::default()).unwrap();
    assert!(schema.compile().unwrap().is_valid(&json!("x")));
    assert!(!schema.compile().unwrap().is_valid(&json!({})));
    let part = schema.compile_at("/$defs/a b").unwrap();
    assert!(part.is_valid(&json!("x")) && !part.is_valid(&json!(1)));
}

#[test]
fn patterns_that_could_take_exponential_time_or_much_memory_are_refused() {
    for pattern in ["(?=a)b", r"(\w)\1", r"\p{L}{1000}", "(((a{100}){100}){100}){100}", "["] {
        for schema in [json!({"pattern": pattern}), json!({"patternProperties": {pattern: true}})] {
            assert!(matches!(fault(schema), SchemaFault::Invalid { .. }), "{pattern}");
        }
    }
    let linear = Schema::parse(&json!({"pattern": "^(a+)+$"}), &Limits::default()).unwrap().compile().unwrap();
    assert!(!linear.is_valid(&json!("a".repeat(100_000) + "!")));
    assert!(matches!(fault(json!({"pattern": "a".repeat(1_025)})), SchemaFault::TooLarge { .. }));
    let many: Map<_, _> = (0..65).map(|at| (format!("^{at}"), json!(true))).collect();
    assert!(matches!(fault(json!({"patternProperties": many})), SchemaFault::TooLarge { found: 65, .. }));
}

#[test]
fn a_schema_that_applies_itself_to_the_same_value_is_refused() {
    assert!(matches!(fault(json!({"$ref": "#"})), SchemaFault::Endless { at } if at.is_empty()));
    let round = json!({"$defs": {"a": {"anyOf": [{"$ref": "#/$defs/b"}]}, "b": {"not": {"$ref": "#/$defs/a"}}}});
    assert!(matches!(fault(round), SchemaFault::Endless { .. }));
    assert!(Schema::parse(&json!({"properties": {"next": {"$ref": "#"}}}), &Limits::default()).is_ok());
}

#[test]
fn schemas_that_explode_when_written_out_are_refused_quickly() {
    let doubling = chain(22, |next| json!({"allOf": [{"$ref": next}, {"$ref": next}]}));
    assert!(matches!(fault(doubling), SchemaFault::TooLarge { .. }));
    let through_parts = chain(22, |next| json!({"properties": {"a": {"$ref": next}, "b": {"$ref": next}}}));
    assert!(matches!(fault(through_parts), SchemaFault::TooLarge { limit: 250_000, .. }));
    assert!(matches!(fault(chain(1_900, |next| json!({"$ref": next}))), SchemaFault::TooLarge { .. }));
    assert!(matches!(fault(chain(1_900, |next| json!({"items": {"$ref": next}}))), SchemaFault::TooLarge { .. }));
    let mut deep = json!({});
    (0..60).for_each(|_| deep = json!({"properties": {"a": deep.take()}}));
    assert!(matches!(fault(deep), SchemaFault::TooLarge { .. }));
    let wide: Map<_, _> = (0..2_000).map(|at| (format!("p{at}"), json!({"type": "string"}))).collect();
    assert!(matches!(fault(json!({"properties": wide})), SchemaFault::TooLarge { .. }));
    assert!(matches!(fault(json!({"title": "x".repeat(300_000)})), SchemaFault::TooLarge { .. }));
}

#[test]
fn what_long_names_come_to_as_pointers_is_counted_before_a_pointer_is_made() {
    let what = |json| match fault(json) {
        SchemaFault::TooLarge { what, found, limit } => (what, found > limit),
        other => panic!("{other}"),
    };
    let many =
        |count: usize| -> Value { (0..count).map(|at| (format!("p{at}"), json!({}))).collect::<Map<_, _>>().into() };
    for keyword in ["properties", "$defs", "dependentSchemas"] {
        let long = json!({ keyword: {"x".repeat(131_000): {"properties": many(10_000)}} });
        assert_eq!(what(long), ("a name in bytes", true), "{keyword}");
        let most = json!({ keyword: {"x".repeat(512): {"properties": many(500)}} });
        assert!(Schema::parse(&most, &Limits::default()).is_ok(), "{keyword}");
    }
    assert_eq!(what(json!({"properties": many(14_500)})), ("a number of subschemas", true));
    let mut nested = json!({"properties": many(1_500)});
    (0..8).for_each(|_| nested = json!({"properties": {"x".repeat(500): nested.take()}}));
    assert_eq!(what(nested), ("pointers to its subschemas in bytes", true));
    let mut patterns = json!({"properties": many(1_900)});
    (0..8).for_each(|_| patterns = json!({"patternProperties": {"x".repeat(1_024): patterns.take()}}));
    assert_eq!(what(patterns), ("pointers to its subschemas in bytes", true));
    let wide = json!({"properties": {"some.property": {"items": {"properties": many(1_900)}}}});
    assert!(Schema::parse(&wide, &Limits::default()).is_ok(), "a schema may be as wide as it may be");
}

/// JSON made of keywords, references and values in all the wrong places.
fn soup() -> impl proptest::strategy::Strategy<Value = Value> {
    use proptest::prelude::*;
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        proptest::sample::select(vec![
            "#",
            "#/$defs/a",
            "#/properties/a",
            "#/allOf/0",
            "string",
            "object",
            "^a",
            "(",
            "a"
        ])
        .prop_map(Value::from),
        Just(Value::Null),
    ];
    let keywords = [
        "type",
        "properties",
        "required",
        "additionalProperties",
        "patternProperties",
        "propertyNames",
        "items",
        "prefixItems",
        "contains",
        "minItems",
        "maxLength",
        "multipleOf",
        "minimum",
        "pattern",
        "format",
        "enum",
        "const",
        "allOf",
        "anyOf",
        "oneOf",
        "not",
        "if",
        "then",
        "$ref",
        "$defs",
        "dependentSchemas",
        "dependencies",
        "a",
        "$id",
    ];
    leaf.prop_recursive(5, 40, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(proptest::sample::select(keywords.to_vec()), inner, 0..5).prop_map(|map| map
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value))
                .collect::<Map<_, _>>()
                .into()),
        ]
    })
}

proptest::proptest! {
    #[test]
    fn no_schema_however_malformed_breaks_anything(a in soup(), b in soup()) {
        let limits = Limits::default();
        if let (Ok(a_schema), Ok(b_schema)) = (Schema::parse(&a, &limits), Schema::parse(&b, &limits)) {
            let validator = a_schema.compile().unwrap();
            let listed = validator.iter_errors(&b).count();
            proptest::prop_assert_eq!(listed == 0, validator.is_valid(&b));
            let direction = crate::schema::Direction::Backward;
            crate::schema::incompatibilities(&a_schema, &b_schema, direction, Default::default());
            crate::schema::incompatibilities(&a_schema, &b_schema, direction, crate::schema::Undeclared::Absent);
        }
    }
}
