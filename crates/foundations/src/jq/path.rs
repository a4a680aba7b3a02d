//! Places in a value: reading, changing and deleting what stands there.

use std::{collections::BTreeMap, ops::Range, rc::Rc, sync::Arc};

use super::{
    meter::{Meter, Step, Stop},
    value::{ITEM, List, MAX_DEPTH, Object, Value},
};

/// The farthest index that a list is filled up to.
const FARTHEST: usize = 100_000;

/// The way from a program's input down to a value, longest first.
#[derive(Clone, Debug, Default)]
pub(super) struct Path(Option<Rc<Node>>);

#[derive(Debug)]
struct Node {
    key: Value,
    above: Path,
    length: u16,
}

impl Path {
    pub(super) fn below(&self, key: Value) -> Step<Self> {
        let length = self.0.as_ref().map_or(0, |node| node.length) + 1;
        if length > MAX_DEPTH {
            return Err(Stop::raise(format!("a path has at most {MAX_DEPTH} steps")));
        }
        Ok(Self(Some(Rc::new(Node { key, above: self.clone(), length }))))
    }

    pub(super) fn steps(&self) -> Vec<Value> {
        let mut steps = Vec::new();
        let mut at = self;
        while let Some(node) = &at.0 {
            steps.push(node.key.clone());
            at = &node.above;
        }
        steps.reverse();
        steps
    }
}

/// What stands at `key`; `null` where nothing does.
pub(super) fn index(meter: &mut Meter, value: &Value, key: &Value) -> Step<Value> {
    match (value, key) {
        (Value::Object(object), Value::Text(name)) => {
            meter.look(name.len())?;
            Ok(object.members.get(name).cloned().unwrap_or_default())
        }
        (Value::List(list), Value::Number(_)) => {
            let at = place(key, list.items.len());
            Ok(at.and_then(|at| list.items.get(at)).cloned().unwrap_or_default())
        }
        (Value::Null, Value::Text(_) | Value::Number(_) | Value::Null) => Ok(Value::Null),
        (Value::List(_) | Value::Text(_) | Value::Null, Value::Object(_)) => {
            let (from, to) = bounds(key)?;
            slice(meter, value, &from, &to)
        }
        (Value::List(_), Value::List(_)) => indices(meter, value, key),
        _ => Err(unlike(value, key)),
    }
}

fn unlike(value: &Value, key: &Value) -> Stop {
    Stop::raise(format!("cannot index {} with {}", value.shown(), key.shown()))
}

/// Where the item is that a number names; `None`: before the first one.
fn place(key: &Value, length: usize) -> Option<usize> {
    let Value::Number(number) = key else { return None };
    let at = number.floored()?;
    let at = if at < 0 { at.checked_add(i64::try_from(length).ok()?)? } else { at };
    usize::try_from(at).ok()
}

/// The bounds that `{"start": …, "end": …}` says.
fn bounds(key: &Value) -> Step<(Value, Value)> {
    match key {
        Value::Object(object) => {
            let of = |name: &str| object.members.get(name).cloned().unwrap_or_default();
            Ok((of("start"), of("end")))
        }
        _ => Err(Stop::raise("a slice has a start and an end")),
    }
}

/// The key of a slice in a path.
pub(super) fn slice_key(from: Value, to: Value) -> Value {
    let members = [(Arc::from("start"), from), (Arc::from("end"), to)].into_iter().collect::<BTreeMap<_, _>>();
    Value::of_members(members).unwrap_or_default()
}

/// From where to where, in items or characters.
fn range(length: usize, from: &Value, to: &Value) -> Step<Range<usize>> {
    let bound = |bound: &Value, unsaid: usize, up: bool| match bound {
        Value::Null => Ok(unsaid),
        Value::Number(number) => {
            let whole = if up { number.ceil().ok().and_then(|number| number.floored()) } else { number.floored() };
            let at = whole.unwrap_or(if *number < super::number::Number::ZERO { i64::MIN } else { i64::MAX });
            let size = i64::try_from(length).unwrap_or(i64::MAX);
            let at = if at < 0 { at.saturating_add(size) } else { at };
            Ok(usize::try_from(at.clamp(0, size)).unwrap_or(0))
        }
        other => Err(Stop::raise(format!("a slice's bounds are numbers, not {}", other.shown()))),
    };
    let (from, to) = (bound(from, 0, false)?, bound(to, length, true)?);
    Ok(from..to.max(from))
}

/// A part of a list or a string.
pub(super) fn slice(meter: &mut Meter, value: &Value, from: &Value, to: &Value) -> Step<Value> {
    match value {
        Value::Null => Ok(Value::Null),
        Value::List(list) => {
            let range = range(list.items.len(), from, to)?;
            Value::list(meter, list.items[range].to_vec())
        }
        Value::Text(text) => {
            meter.look(text.len())?;
            let range = range(text.chars().count(), from, to)?;
            let start = byte(text, range.start);
            let end = start + byte(&text[start..], range.len());
            Value::written(meter, &text[start..end])
        }
        other => Err(Stop::raise(format!("cannot take a slice of {}", other.shown()))),
    }
}

/// At which byte the character number `n` begins.
fn byte(text: &str, n: usize) -> usize {
    text.char_indices().nth(n).map_or(text.len(), |(at, _)| at)
}

/// Where `wanted` stands in a list or string.
pub(super) fn indices(meter: &mut Meter, value: &Value, wanted: &Value) -> Step<Value> {
    let mut found = Vec::new();
    match (value, wanted) {
        (Value::Null, _) => return Ok(Value::Null),
        (Value::Text(text), Value::Text(part)) => {
            meter.look(text.len())?;
            // Overlapping ones count, too.
            let (mut n, mut rest) = (0, &**text);
            while !part.is_empty()
                && let Some(at) = rest.find(&**part)
            {
                // A search begins with a look at the whole of what it looks for.
                meter.look(part.len() + at)?;
                meter.build(ITEM)?;
                n += rest[..at].chars().count();
                found.push(Value::count(n));
                let next = at + rest[at..].chars().next().map_or(1, char::len_utf8);
                rest = &rest[next..];
                n += 1;
            }
        }
        (Value::List(list), Value::List(part)) => {
            let part = &part.items;
            for (n, window) in list.items.windows(part.len().max(1)).enumerate() {
                meter.step(1)?;
                let mut is_same = !part.is_empty();
                for (one, two) in window.iter().zip(part) {
                    is_same = one.compare(two, meter)?.is_eq();
                    if !is_same {
                        break;
                    }
                }
                if is_same {
                    meter.build(ITEM)?;
                    found.push(Value::count(n));
                }
            }
        }
        (Value::List(list), wanted) => {
            for (n, item) in list.items.iter().enumerate() {
                if item.compare(wanted, meter)?.is_eq() {
                    meter.build(ITEM)?;
                    found.push(Value::count(n));
                }
            }
        }
        _ => return Err(unlike(value, wanted)),
    }
    Value::of_items(found)
}

/// What stands at the end of a path; `null` where nothing does.
pub(super) fn get(meter: &mut Meter, value: &Value, path: &[Value]) -> Step<Value> {
    let mut at = value.clone();
    for key in path {
        meter.step(1)?;
        if matches!(at, Value::Null) {
            return Ok(Value::Null);
        }
        at = index(meter, &at, key)?;
    }
    Ok(at)
}

type Change<'c> = &'c mut dyn FnMut(&mut Meter, Value) -> Step<Value>;

/// Puts what `change` makes of it in the place of what stands at a path. Lists and objects on the way are made where there
/// is nothing.
pub(super) fn update(meter: &mut Meter, value: Value, path: &[Value], change: Change<'_>) -> Step<Value> {
    // Not by recursion: `change` may run a program, in which there may be another update, and so on.
    let (mut way, mut inside) = (Vec::with_capacity(path.len()), value);
    for key in path {
        meter.step(1)?;
        let (opened, next) = Opened::of(meter, inside, key)?;
        way.push(opened);
        inside = next;
    }
    meter.step(1)?;
    let changed = change(meter, inside)?;
    way.into_iter().rev().try_fold(changed, |inside, opened| opened.close(meter, inside))
}

/// A list or object on the way down to a place, without what was taken out of it.
enum Opened<'k> {
    Member(Arc<Object>, &'k Arc<str>),
    Item(Arc<List>, usize),
    Part(Arc<List>, Range<usize>),
}

impl<'k> Opened<'k> {
    /// Takes out of a value what stands at `key`.
    fn of(meter: &mut Meter, value: Value, key: &'k Value) -> Step<(Self, Value)> {
        match (value, key) {
            (value @ (Value::Null | Value::Object(_)), Value::Text(name)) => {
                let mut object = match value {
                    Value::Object(object) => object,
                    _ => Arc::default(),
                };
                let inside = Object::change(&mut object, meter, |members, meter| {
                    meter.look(name.len())?;
                    Ok(members.get_mut(name).map(std::mem::take).unwrap_or_default())
                })?;
                Ok((Self::Member(object, name), inside))
            }
            (value @ (Value::Null | Value::List(_)), Value::Number(_)) => {
                let mut list = match value {
                    Value::List(list) => list,
                    _ => Arc::default(),
                };
                let at = place(key, list.items.len());
                let at = at.ok_or_else(|| Stop::raise(format!("there is no item {} to set", key.shown())))?;
                if at > list.items.len().max(FARTHEST) {
                    return Err(Stop::raise(format!("the index {at} is too large")));
                }
                let inside = List::change(&mut list, meter, |items, _| {
                    if at >= items.len() {
                        items.resize(at + 1, Value::Null);
                    }
                    Ok(std::mem::take(&mut items[at]))
                })?;
                Ok((Self::Item(list, at), inside))
            }
            (value @ (Value::Null | Value::List(_)), Value::Object(_)) => {
                let (from, to) = bounds(key)?;
                let part = slice(meter, &value, &from, &to)?;
                let list = match value {
                    Value::List(list) => list,
                    _ => Arc::default(),
                };
                let range = range(list.items.len(), &from, &to)?;
                Ok((Self::Part(list, range), part))
            }
            (value, key) => Err(unlike(&value, key)),
        }
    }

    /// Puts a value where another one was taken out.
    fn close(self, meter: &mut Meter, inside: Value) -> Step<Value> {
        match self {
            Self::Member(mut object, name) => {
                Object::put(&mut object, meter, name, inside)?;
                Ok(Value::Object(object))
            }
            Self::Item(mut list, at) => {
                List::put(&mut list, meter, at, inside)?;
                Ok(Value::List(list))
            }
            Self::Part(mut list, range) => {
                let Value::List(new) = inside else {
                    return Err(Stop::raise("a slice of an array can only become an array"));
                };
                meter.build(new.items.len() * ITEM)?;
                meter.look((list.items.len() - range.start) * ITEM)?;
                List::change(&mut list, meter, |items, _| {
                    items.splice(range, new.items.iter().cloned());
                    Ok(())
                })?;
                List::deepen(&mut list, new.inside())?;
                Ok(Value::List(list))
            }
        }
    }
}

/// Deletes what stands at each of the paths.
pub(super) fn delete(meter: &mut Meter, value: Value, paths: Vec<Value>) -> Step<Value> {
    // From the last to the first, so that no deletion moves what is still to be deleted.
    let paths = super::native::sorted(meter, paths)?;
    let mut value = value;
    for path in paths.iter().rev() {
        let Value::List(path) = path else {
            return Err(Stop::raise(format!("a path is an array, not {}", path.shown())));
        };
        value = delete_one(meter, value, &path.items)?;
    }
    Ok(value)
}

fn delete_one(meter: &mut Meter, value: Value, path: &[Value]) -> Step<Value> {
    let Some((key, above)) = path.split_last() else { return Ok(Value::Null) };
    // Where nothing is there is nothing to delete, and nothing to make for that.
    if matches!(get(meter, &value, above)?, Value::Null) {
        return Ok(value);
    }
    update(meter, value, above, &mut |meter, inside| remove(meter, inside, key))
}

/// A value without what stands at `key`.
fn remove(meter: &mut Meter, value: Value, key: &Value) -> Step<Value> {
    match (value, key) {
        (Value::Object(mut object), Value::Text(name)) => {
            Object::change(&mut object, meter, |members, meter| {
                meter.look(name.len())?;
                members.remove(name);
                Ok(())
            })?;
            Ok(Value::Object(object))
        }
        (Value::List(mut list), Value::Number(_)) => {
            let at = place(key, list.items.len()).filter(|at| *at < list.items.len());
            let Some(at) = at else { return Ok(Value::List(list)) };
            meter.look((list.items.len() - at) * ITEM)?;
            List::change(&mut list, meter, |items, _| {
                items.remove(at);
                Ok(())
            })?;
            Ok(Value::List(list))
        }
        (Value::List(mut list), Value::Object(_)) => {
            let (from, to) = bounds(key)?;
            let range = range(list.items.len(), &from, &to)?;
            meter.look((list.items.len() - range.start) * ITEM)?;
            List::change(&mut list, meter, |items, _| {
                items.drain(range);
                Ok(())
            })?;
            Ok(Value::List(list))
        }
        (value, key) => Err(unlike(&value, key)),
    }
}
