//! The difference between two JSON values, as a list of places.

use serde_json::{Map, Value};

/// A place in which two states differ.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// Where: a JSON Pointer (RFC 6901). Empty for the whole.
    pub pointer: String,
    /// What stood there before; `None` where nothing did.
    pub before: Option<Value>,
    /// What stands there after; `None` where nothing does.
    pub after: Option<Value>,
}

/// The places in which `after` differs from `before`, in order of their members' names and items' numbers.
///
/// Objects are compared member by member and arrays item by item; anything else as a whole.
///
/// # Example
/// ```
/// use quorate_consistency::event_sourcing::difference;
/// use serde_json::json;
/// let changes = difference(&json!({"balance": 3, "owner": "ada"}), &json!({"balance": 5, "owner": "ada"}));
/// assert_eq!(changes.len(), 1);
/// assert_eq!(changes[0].pointer, "/balance");
/// assert_eq!(changes[0].after, Some(json!(5)));
/// ```
pub fn difference(before: &Value, after: &Value) -> Vec<Change> {
    let mut changes = Vec::new();
    compare(&mut String::new(), Some(before), Some(after), &mut changes);
    changes
}

fn compare(pointer: &mut String, before: Option<&Value>, after: Option<&Value>, changes: &mut Vec<Change>) {
    match (before, after) {
        (before, after) if before == after => {}
        (Some(Value::Object(before)), Some(Value::Object(after))) => members(pointer, before, after, changes),
        (Some(Value::Array(before)), Some(Value::Array(after))) => items(pointer, before, after, changes),
        (before, after) => {
            changes.push(Change { pointer: pointer.clone(), before: before.cloned(), after: after.cloned() })
        }
    }
}

fn members(pointer: &mut String, before: &Map<String, Value>, after: &Map<String, Value>, changes: &mut Vec<Change>) {
    let mut names: Vec<&String> = before.keys().chain(after.keys()).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        let token = name.replace('~', "~0").replace('/', "~1");
        below(pointer, &token, before.get(name), after.get(name), changes);
    }
}

fn items(pointer: &mut String, before: &[Value], after: &[Value], changes: &mut Vec<Change>) {
    for n in 0..before.len().max(after.len()) {
        below(pointer, &n.to_string(), before.get(n), after.get(n), changes);
    }
}

fn below(pointer: &mut String, token: &str, before: Option<&Value>, after: Option<&Value>, changes: &mut Vec<Change>) {
    let parent = pointer.len();
    pointer.push('/');
    pointer.push_str(token);
    compare(pointer, before, after, changes);
    pointer.truncate(parent);
}

#[cfg(test)]
mod tests {
    use super::{Change, difference};
    use proptest::prelude::*;
    use serde_json::{Value, json};

    #[test]
    fn every_place_that_differs_is_named_once_and_no_other() {
        let before = json!({"a/b": 1, "kept": {"x": [1, 2, 3]}, "gone": null, "m": {"~": 1}});
        let after = json!({"a/b": 2, "kept": {"x": [1, 5]}, "new": null, "m": {"~": []}});
        let places: Vec<_> = difference(&before, &after)
            .into_iter()
            .map(|Change { pointer, before, after }| (pointer, before, after))
            .collect();
        assert_eq!(
            places,
            [
                ("/a~1b".into(), Some(json!(1)), Some(json!(2))),
                ("/gone".into(), Some(Value::Null), None),
                ("/kept/x/1".into(), Some(json!(2)), Some(json!(5))),
                ("/kept/x/2".into(), Some(json!(3)), None),
                ("/m/~0".into(), Some(json!(1)), Some(json!([]))),
                ("/new".into(), None, Some(Value::Null)),
            ]
        );
    }

    #[test]
    fn values_of_different_kinds_differ_as_a_whole() {
        let changes = difference(&json!([1]), &json!({"0": 1}));
        assert_eq!(
            changes,
            [Change { pointer: String::new(), before: Some(json!([1])), after: Some(json!({"0": 1})) }]
        );
    }

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![Just(Value::Null), any::<bool>().prop_map(Value::from), (0..3).prop_map(Value::from)];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-c/~]{0,2}", inner, 0..4).prop_map(|map| map.into_iter().collect()),
            ]
        })
    }

    proptest! {
        #[test]
        fn each_change_shows_what_its_pointer_finds_on_both_sides(before in values(), after in values()) {
            let changes = difference(&before, &after);
            prop_assert_eq!(changes.is_empty(), before == after);
            for change in changes {
                prop_assert_eq!(before.pointer(&change.pointer), change.before.as_ref());
                prop_assert_eq!(after.pointer(&change.pointer), change.after.as_ref());
                prop_assert_ne!(change.before, change.after);
            }
        }
    }
}
