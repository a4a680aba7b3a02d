use super::{Certainty, Compatibility, Direction, Finding, Undeclared, incompatibilities};
use crate::schema::{Limits, Schema};
use serde_json::{Value, json};

fn parse(json: &Value) -> Schema {
    Schema::parse(json, &Limits::default()).unwrap_or_else(|fault| panic!("{json}: {fault}"))
}

fn backward(old: &Value, new: &Value) -> Vec<Finding> {
    incompatibilities(&parse(old), &parse(new), Direction::Backward, Undeclared::Possible)
}

fn forward(old: &Value, new: &Value) -> Vec<Finding> {
    incompatibilities(&parse(old), &parse(new), Direction::Forward, Undeclared::Possible)
}

/// An object schema that forbids what it does not declare.
fn closed(properties: Value, required: Value) -> Value {
    json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
}

#[track_caller]
fn widens(narrow: Value, wide: Value) {
    let none: Vec<Finding> = vec![];
    assert_eq!(backward(&narrow, &wide), none, "{narrow} -> {wide}");
    assert_ne!(backward(&wide, &narrow), none, "{wide} -> {narrow}");
    assert_ne!(forward(&narrow, &wide), none, "{narrow} <- {wide}");
}

#[test]
fn scalars_may_be_allowed_more_and_not_less() {
    widens(json!({"type": "integer"}), json!({"type": "number"}));
    widens(json!({"type": "integer"}), json!({"type": ["integer", "null"]}));
    widens(json!({"type": "integer", "minimum": 1}), json!({"type": "integer", "exclusiveMinimum": -1}));
    widens(json!({"type": "number", "exclusiveMaximum": 9}), json!({"type": "number", "maximum": 9}));
    widens(json!({"type": "integer", "multipleOf": 6}), json!({"type": "integer", "multipleOf": 3}));
    widens(json!({"type": "string", "minLength": 2, "maxLength": 4}), json!({"type": "string", "minLength": 1}));
    widens(json!({"type": "string", "pattern": "^a"}), json!({"type": "string"}));
    widens(json!({"type": "string", "format": "date"}), json!({"type": "string"}));
    widens(json!({"enum": ["a", 1]}), json!({"enum": [1, "b", "a"]}));
    widens(json!({"const": "a"}), json!({"type": "string"}));
    widens(json!({"type": "boolean"}), json!({"enum": [true, false, null]}));
    widens(json!(false), json!({"type": "null"}));
    widens(json!({"type": "string"}), json!(true));
}

#[test]
fn bounds_of_integers_compare_as_integers() {
    let at_least_one = json!({"type": "integer", "minimum": 1});
    let above_zero = json!({"type": "integer", "exclusiveMinimum": 0.0});
    assert_eq!(backward(&at_least_one, &above_zero), []);
    assert_eq!(forward(&at_least_one, &above_zero), []);
}

#[test]
fn objects_may_ask_less_and_open_up() {
    let a = json!({"a": {"type": "string"}});
    widens(closed(a.clone(), json!(["a"])), closed(a.clone(), json!([])));
    widens(closed(a.clone(), json!([])), closed(json!({"a": {"type": "string"}, "b": true}), json!([])));
    widens(closed(a.clone(), json!([])), json!({"type": "object", "properties": a}));
    widens(
        json!({"type": "object", "patternProperties": {"^x": {"type": "integer"}}, "additionalProperties": false}),
        json!({"type": "object", "patternProperties": {"^x": {"type": "number"}}, "additionalProperties": false}),
    );
    widens(
        json!({"type": "object", "additionalProperties": {"type": "integer"}}),
        json!({"type": "object", "additionalProperties": {"type": "number"}}),
    );
    widens(json!({"type": "object", "required": ["a", "b"]}), json!({"type": "object", "minProperties": 2}));
    widens(
        json!({"type": "object", "propertyNames": {"maxLength": 3}}),
        json!({"type": "object", "propertyNames": {"maxLength": 5}}),
    );
    widens(json!({"type": "object", "required": ["b"]}), json!({"type": "object", "dependentRequired": {"a": ["b"]}}));
}

#[test]
fn arrays_may_ask_less() {
    widens(
        json!({"type": "array", "items": {"type": "integer"}}),
        json!({"type": "array", "items": {"type": "number"}}),
    );
    widens(
        json!({"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}], "items": false}),
        json!({"type": "array", "items": {"type": ["integer", "string"]}, "maxItems": 2}),
    );
    widens(
        json!({"type": "array", "minItems": 2, "maxItems": 2}),
        json!({"type": "array", "minItems": 1, "maxItems": 3}),
    );
    widens(json!({"type": "array", "uniqueItems": true}), json!({"type": "array"}));
    widens(json!({"type": "array", "maxItems": 1}), json!({"type": "array", "uniqueItems": true}));
}

#[test]
fn what_one_keyword_leaves_over_another_has_to_take() {
    let refused = [
        (
            json!({"type": "object", "patternProperties": {"^x": {"type": "string"}}, "additionalProperties": false}),
            json!({"type": "object", "additionalProperties": {"type": "integer"}}),
        ),
        (
            json!({"type": "object", "properties": {"xa": {"type": "string"}}, "additionalProperties": false}),
            json!({"type": "object", "patternProperties": {"^x": {"type": "integer"}}}),
        ),
        (
            json!({"type": "object", "additionalProperties": {"type": "string"}}),
            json!({"type": "object", "patternProperties": {"^x": {"type": "integer"}}}),
        ),
        (
            json!({"type": "object", "additionalProperties": {"type": "string"}}),
            json!({"type": "object", "properties": {"a": {"type": "integer"}}}),
        ),
        (
            json!({"type": "array", "prefixItems": [{"type": "integer"}], "items": {"type": "string"}}),
            json!({"type": "array", "items": {"type": "integer"}}),
        ),
        (
            json!({"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}], "items": false}),
            json!({"type": "array", "prefixItems": [{"type": "integer"}], "items": {"type": "integer"}}),
        ),
    ];
    let either = json!({"if": {"minimum": 0}, "then": {"type": "integer"}, "else": {"type": "string"}});
    assert_ne!(backward(&json!({"type": "integer"}), &either), []);
    assert_eq!(backward(&json!({"type": "integer"}), &json!({"if": {"minimum": 0}, "then": {"type": "number"}})), []);
    for (old, new) in refused {
        assert_ne!(backward(&old, &new), [], "{old} -> {new}");
    }
}

#[test]
fn alternatives_may_be_added_and_discriminated_ones_stay_exclusive() {
    let event = |kind: &str| json!({"type": "object", "properties": {"kind": {"const": kind}}, "required": ["kind"]});
    widens(json!({"oneOf": [event("a"), event("b")]}), json!({"oneOf": [event("a"), event("c"), event("b")]}));
    widens(json!({"oneOf": [event("a"), event("b")]}), json!({"anyOf": [event("b"), event("a"), {"type": "null"}]}));
    widens(json!({"type": "string"}), json!({"anyOf": [{"type": "string"}, {"type": "null"}]}));
    widens(json!({"allOf": [{"type": "object"}, {"required": ["a"]}]}), json!({"type": "object"}));
    widens(json!({"type": "integer"}), json!({"not": {"type": "string"}}));
    let types = json!({"type": ["string", "null"]});
    assert_eq!(backward(&types, &json!({"oneOf": [{"type": "string"}, {"type": "null"}]})), []);
    // Both alternatives of the new `oneOf` accept 3, which makes neither the only one.
    assert_ne!(backward(&json!({"const": 3}), &json!({"oneOf": [{"type": "integer"}, {"minimum": 0}]})), []);
}

#[test]
fn references_are_followed_also_where_they_recur() {
    let tree = |leaf: &str| {
        json!({
            "$ref": "#/$defs/node",
            "$defs": {"node": closed(json!({
                "value": {"type": leaf},
                "children": {"type": "array", "items": {"$ref": "#/$defs/node"}},
            }), json!([]))},
        })
    };
    widens(tree("integer"), tree("number"));
    let inlined = closed(
        json!({"value": {"type": "number"}, "children": {"type": "array", "items": tree("number")["$defs"]["node"]}}),
        json!([]),
    );
    let inlined =
        json!({"$ref": "#/$defs/node", "$defs": {"node": inlined["properties"]["children"]["items"], "unused": true}});
    assert_eq!(backward(&tree("number"), &inlined), []);
}

#[test]
fn a_case_may_not_be_its_own_proof() {
    // The old schema's first alternative is also one of its conjuncts: telling the cases apart must not look like
    // coming back to the same question.
    let old = json!({"allOf": [{"$ref": "#/anyOf/0"}], "anyOf": [{"type": "integer"}, {"type": "string"}]});
    assert_ne!(backward(&old, &json!({"type": "null"})), []);
}

#[test]
fn annotations_change_nothing_and_unknown_keywords_are_not_trusted() {
    let old = json!({"type": "string", "title": "a", "x-owner": 1});
    let new = json!({"type": "string", "description": "b", "default": "c", "examples": ["d"], "x-owner": 2});
    assert_eq!(backward(&old, &new), []);
    let found = backward(&json!({"type": "string"}), &json!({"type": "string", "requried": ["a"]}));
    assert_eq!(found[0].certainty, Certainty::Unproved);
    assert_eq!(found[0].new, "/requried");
}

#[test]
fn what_cannot_be_proved_is_refused_and_says_so_unless_it_is_unchanged() {
    let clever = [
        json!({"not": {"required": ["a"]}}),
        json!({"if": {"required": ["a"]}, "then": {"required": ["b"]}}),
        json!({"contains": {"type": "integer"}, "minContains": 2}),
        json!({"unevaluatedProperties": false, "properties": {"a": true}}),
        json!({"dependentSchemas": {"a": {"minProperties": 2}}}),
        json!({"pattern": "^a"}),
    ];
    for schema in clever {
        let found = backward(&json!({}), &schema);
        assert!(!found.is_empty(), "{schema}");
        let mut documented = schema.clone();
        documented["description"] = json!("the same, documented");
        assert_eq!(backward(&schema, &documented), backward(&documented, &schema));
        if schema.get("unevaluatedProperties").is_none() {
            assert_eq!(backward(&schema, &documented), [], "{schema}");
        }
    }
    let text = backward(&json!({"pattern": "^a"}), &json!({"pattern": "^b"}))[0].to_string();
    assert!(text.starts_with("`/pattern`: was `\"^a\"`, became `\"^b\"`: old events"), "{text}");
    assert!(text.contains("cannot be proved"), "{text}");
}

#[test]
fn findings_point_into_both_schemas_and_tell_the_effect() {
    let old = json!({"type": "object", "$defs": {"money": {"type": "integer"}}, "properties": {"amount": {"$ref": "#/$defs/money"}}});
    let new = json!({"type": "object", "properties": {"amount": {"type": "string"}}});
    let found = backward(&old, &new);
    assert_eq!(
        found[0].to_string(),
        "`/properties/amount/type` (before: `/$defs/money/type`): was integer, became string: \
         old events with a value that is integer would be refused by new readers"
    );
    let old = closed(json!({"amount": {"type": "integer"}}), json!(["amount"]));
    let new = closed(json!({"amount": {"type": "integer"}}), json!([]));
    assert_eq!(
        forward(&old, &new)[0].to_string(),
        "`/properties/amount`: was required, became optional: new events without it would be refused by old readers"
    );
    let found = backward(&json!({"enum": ["a", "b"]}), &json!({"enum": ["a"]}));
    assert_eq!(
        found[0].to_string(),
        "`/enum`: was open to `\"b\"`, became without: old events with one of these values would be refused by new readers"
    );
}

#[test]
fn a_new_optional_property_of_an_open_object_is_safe_only_if_producers_keep_to_their_declarations() {
    let old = json!({"type": "object", "properties": {"a": {"type": "string"}}});
    let new = json!({"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}}});
    let found = backward(&old, &new);
    assert_eq!((found[0].new.as_str(), found[0].was.as_str()), ("/properties/b", "undeclared, yet allowed"));
    let declared = |direction| incompatibilities(&parse(&old), &parse(&new), direction, Undeclared::Absent);
    assert_eq!((declared(Direction::Backward), declared(Direction::Forward)), (vec![], vec![]));
    // What an alternative mentions is declared, whichever alternative a document takes.
    let alternatives = json!({"anyOf": [{"properties": {"a": true}}, {"properties": {"b": {"type": "integer"}}}]});
    let found = incompatibilities(&parse(&alternatives), &parse(&new), Direction::Backward, Undeclared::Absent);
    assert_ne!(found, []);
    let referred = json!({
        "properties": {"a": true},
        "anyOf": [{"$ref": "#/$defs/b"}, true],
        "$defs": {"b": {"properties": {"b": {"type": "string"}}}},
    });
    let new = json!({"properties": {"b": {"type": "string"}}});
    assert_ne!(incompatibilities(&parse(&referred), &parse(&new), Direction::Backward, Undeclared::Absent), []);
}

#[test]
fn what_any_part_of_a_schema_mentions_is_declared() {
    let absent =
        |old: &Value, new: &Value| incompatibilities(&parse(old), &parse(new), Direction::Backward, Undeclared::Absent);
    let a = json!({"a": {"type": "string"}});
    let new = closed(a.clone(), json!([]));
    assert_eq!(absent(&json!({"type": "object", "properties": a}), &new), []);
    let z = json!({"properties": {"z": {"type": "integer"}}});
    for mentioning in [
        json!({"anyOf": [z, {"properties": {"y": {"type": "integer"}}}]}),
        json!({"oneOf": [{"$ref": "#/$defs/z"}, {"required": ["a"]}], "$defs": {"z": z}}),
        json!({"if": {"required": ["a"]}, "then": z}),
        json!({"dependentSchemas": {"a": z}}),
        json!({"required": ["z"]}),
        json!({"anyOf": [{"required": ["z"]}, true]}),
        json!({"dependentRequired": {"a": ["z"]}}),
        json!({"dependentRequired": {"z": ["a"]}}),
    ] {
        let mut old = json!({"type": "object", "properties": a});
        old.as_object_mut().unwrap().extend(mentioning.as_object().unwrap().clone());
        assert_ne!(absent(&old, &new), [], "{old}");
        let defs = old.get("$defs").cloned().unwrap_or_else(|| json!({}));
        let inside = |part: &Value| json!({"type": "object", "properties": {"part": part}, "$defs": defs});
        assert_ne!(absent(&inside(&old), &inside(&new)), [], "{old}");
        let matched = json!({"type": "object", "properties": a, "patternProperties": {"^z": {"type": "boolean"}}});
        assert_ne!(absent(&old, &matched), [], "{old}");
    }
    let asks = json!({"type": "object", "properties": {"a": {}}, "required": ["id"]});
    assert_ne!(
        absent(&asks, &json!({"type": "string"})),
        [],
        "a schema that asks for more than it declares is not empty"
    );
    assert_ne!(absent(&asks, &json!({"type": "object", "properties": {"id": {"type": "string"}}})), []);
}

#[test]
fn what_an_alternative_says_of_a_part_declares_what_is_in_that_part() {
    let absent =
        |old: &Value, new: &Value| incompatibilities(&parse(old), &parse(new), Direction::Backward, Undeclared::Absent);
    let a = json!({"type": "object", "properties": {"a": true}});
    let w = json!({"properties": {"w": {"type": "integer"}}});
    let old = json!({"type": "object", "properties": {"z": a}, "anyOf": [{"properties": {"z": w}}, true]});
    let new = json!({"type": "object", "properties": {"z": closed(json!({"a": true}), json!([]))}});
    assert_ne!(absent(&old, &new), []);
    assert_eq!(absent(&json!({"type": "object", "properties": {"z": a}}), &new), []);
    let (old, new) = (json!({"type": "array", "items": a, "contains": w}), json!({"items": new["properties"]["z"]}));
    assert_ne!(absent(&old, &new), []);
    assert_eq!(absent(&json!({"type": "array", "items": a}), &new), []);
}

#[test]
fn an_assumption_that_fails_takes_back_what_was_concluded_from_it() {
    // While `t` is compared, `u` is found fine on the assumption that `t` is. Then `t` fails, which an alternative
    // forgives at `x`; at `y`, `u` has to be looked at again.
    let part = |name: &str| json!({"$ref": format!("#/$defs/{name}")});
    let old = json!({
        "type": "object", "properties": {"x": part("t"), "y": part("u")},
        "$defs": {
            "t": {"type": "object", "properties": {"u": part("u")}},
            "u": {"type": "object", "properties": {"t": part("t")}},
        },
    });
    let mut new = old.clone();
    new["$defs"]["t"]["required"] = json!(["k"]);
    new["properties"]["x"] = json!({"anyOf": [part("t"), true]});
    let found = backward(&old, &new);
    assert!(found.iter().any(|finding| finding.new == "/$defs/t/required"), "{found:?}");
    new["properties"]["y"] = json!(true);
    assert_eq!(backward(&old, &new), []);
}

#[test]
fn no_more_is_found_than_is_told_and_no_pointer_is_long() {
    let many = |leaf: &str, keyword: &str| {
        let parts: serde_json::Map<_, _> = (0..1_500).map(|at| (format!("p{at}"), json!({"type": leaf}))).collect();
        match keyword {
            "properties" => json!({"type": "object", "properties": parts}),
            _ => json!({"type": "array", "prefixItems": parts.values().collect::<Vec<_>>()}),
        }
    };
    let object = |part: &Value| json!({"type": "object", "additionalProperties": part});
    for (old, new) in [
        (many("string", "properties"), many("integer", "properties")),
        (many("string", "items"), many("integer", "items")),
        (many("string", "properties"), object(&json!({"type": "integer"}))),
        (many("string", "properties"), json!({"patternProperties": {"^p": {"type": "integer"}}})),
        (json!({"type": "object"}), json!({"required": (0..1_500).map(|at| at.to_string()).collect::<Vec<_>>()})),
    ] {
        let (old, new) = (parse(&old), parse(&new));
        let (gaps, _) = super::Prover::new(&old, &new, Undeclared::Possible, usize::MAX).gaps();
        assert_eq!(gaps.len(), super::MAX_FINDINGS, "{new}");
    }
    let nested = |leaf: &str| {
        let around = |inner: Value, _| closed(json!({ "é".repeat(250): inner }), json!([]));
        (0..8).fold(json!({"type": leaf}), around)
    };
    let found = backward(&nested("string"), &nested("integer"));
    let pointer = &found[0].new;
    assert!(pointer.len() <= 1_003 && pointer.ends_with('…') && found[0].old == *pointer, "{pointer}");
}

#[test]
fn what_the_effort_is_not_enough_for_is_not_proved() {
    let a = |title: &str| closed(json!({"a": {"type": "integer", "title": title}}), json!([]));
    let (old, new) = (parse(&a("one")), parse(&a("two")));
    let mut left = 1_000;
    let with = |left: &mut usize| super::compare(&old, &new, Direction::Backward, Undeclared::Possible, left);
    assert_eq!(with(&mut left), []);
    let spent = 1_000 - left;
    assert!((1..100).contains(&spent), "{spent}");
    for mut little in [0, 1, spent - 1] {
        let found = with(&mut little);
        assert!(!found.is_empty() && little == 0, "{found:?}");
        assert!(found.iter().all(|finding| finding.certainty == Certainty::Unproved), "{found:?}");
        assert!(found[0].became.contains("effort"), "{found:?}");
    }
}

#[test]
fn entangled_schemas_end_in_an_answer() {
    let property = |at: usize| {
        let same = json!({"$ref": format!("#/$defs/d{}", at + 1)});
        json!({"anyOf": [{"properties": {"a": same, "b": same}}, {"properties": {"a": same}, "maxProperties": at}]})
    };
    let build = |leaf: &str, levels: usize| {
        let mut defs: serde_json::Map<_, _> = (0..levels).map(|at| (format!("d{at}"), property(at))).collect();
        defs.insert(format!("d{levels}"), json!({"type": leaf}));
        json!({"$ref": "#/$defs/d0", "$defs": defs})
    };
    assert_eq!(backward(&build("string", 9), &build("string", 9)), []);
    let found = backward(&build("string", 9), &build("integer", 9));
    assert!(!found.is_empty() && found.len() <= super::MAX_FINDINGS);
}

#[test]
fn modes_are_read_as_they_are_written() {
    for mode in Compatibility::ALL {
        assert_eq!(mode.to_string().parse(), Ok(mode));
        assert_eq!(json!(mode), json!(mode.as_str()));
        assert_eq!(mode.is_transitive(), mode.as_str().ends_with("-transitive"));
    }
    assert!("BACKWARD".parse::<Compatibility>().is_err());
}

/// `{"$ref": d0}` with a chain of definitions, each an array of the next; the last one refers back or is a leaf.
fn arrays(length: usize, last: Value) -> Value {
    let next = |at: usize| json!({"type": "array", "items": {"$ref": format!("#/$defs/d{}", at + 1)}});
    let mut defs: serde_json::Map<_, _> = (0..length).map(|at| (format!("d{at}"), next(at))).collect();
    defs.insert(format!("d{length}"), last);
    json!({"$ref": "#/$defs/d0", "$defs": defs})
}

#[test]
fn circles_of_different_length_end_in_an_answer_on_a_small_stack() {
    let circle = |length| arrays(length, json!({"type": "array", "items": {"$ref": "#/$defs/d0"}}));
    assert_eq!(backward(&circle(2), &circle(4)), []);
    assert_eq!(backward(&circle(4), &circle(2)), []);
    let found = backward(&circle(22), &circle(28));
    assert!(found.iter().all(|finding| finding.certainty == Certainty::Unproved) && !found.is_empty(), "{found:?}");
    let (strings, integers) = (arrays(50, json!({"type": "string"})), arrays(50, json!({"type": "integer"})));
    assert_eq!(backward(&strings, &integers)[0].new, "/$defs/d50/type");
}

#[test]
fn wide_schemas_are_compared_in_bounded_time() {
    let branch = |at: usize| json!({"properties": {"a": {"enum": [at, "x", 1.5]}}});
    let wide: Vec<_> = (0..250).map(branch).collect();
    let names: serde_json::Map<_, _> = (0..250).map(|at| (format!("p{at}"), json!({"enum": [at, "y"]}))).collect();
    for keyword in ["allOf", "anyOf", "oneOf"] {
        let old = json!({keyword: wide, "properties": names});
        let mut new = old.clone();
        new["properties"]["p7"] = json!({"type": "boolean"});
        assert_ne!(backward(&old, &new), [], "{keyword}");
        assert_ne!(backward(&json!({"not": old}), &json!({"not": new})), [], "{keyword}");
    }
}
