//! Functions that are not written in jq.

use std::{cmp::Ordering, collections::BTreeMap, sync::Arc};

use super::{
    meter::{Meter, Step, Stop},
    number::{NoNumber, Number},
    path,
    stack::roomy,
    text,
    value::{ITEM, List, MEMBER, Object, Value, paid},
};

/// A function of its input and the values of its arguments.
pub(super) type Native = fn(&mut Meter, Value, &[Value]) -> Step<Value>;

/// A function that runs its arguments itself, or has any number of outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Special {
    Empty,
    Error,
    Path,
    GetPath,
    Range,
    Select,
    Recurse,
    Repeat,
    While,
    Until,
    First,
    Last,
    Limit,
    Skip,
    Any,
    All,
    SortBy,
    GroupBy,
    UniqueBy,
    MinBy,
    MaxBy,
}

/// The special function of that name with so many arguments.
pub(super) fn special(name: &str, arguments: usize) -> Option<Special> {
    use Special::*;
    Some(match (name, arguments) {
        ("empty", 0) => Empty,
        ("error", 0 | 1) => Error,
        ("path", 1) => Path,
        ("getpath", 1) => GetPath,
        ("range", 1..=3) => Range,
        ("select", 1) => Select,
        ("recurse", 0 | 1) => Recurse,
        ("repeat", 1) => Repeat,
        ("while", 2) => While,
        ("until", 2) => Until,
        ("first", 1) => First,
        ("last", 1) => Last,
        ("limit", 2) => Limit,
        ("skip", 2) => Skip,
        ("any", 2) => Any,
        ("all", 2) => All,
        ("sort_by", 1) => SortBy,
        ("group_by", 1) => GroupBy,
        ("unique_by", 1) => UniqueBy,
        ("min_by", 1) => MinBy,
        ("max_by", 1) => MaxBy,
        _ => return None,
    })
}

/// The function of that name with so many arguments.
pub(super) fn native(name: &str, arguments: usize) -> Option<Native> {
    Some(match (name, arguments) {
        ("not", 0) => |_, value, _| Ok((!value.is_true()).into()),
        ("type", 0) => |_, value, _| Ok(value.kind().into()),
        ("length", 0) => length,
        ("utf8bytelength", 0) => |_, value, _| Ok(Value::count(as_text(&value)?.len())),
        ("keys" | "keys_unsorted", 0) => keys,
        ("has", 1) => has,
        ("contains", 1) => |meter, value, args| Ok(contains(meter, &value, &args[0])?.into()),
        ("floor", 0) => |_, value, _| math(&value, Number::floor),
        ("ceil", 0) => |_, value, _| math(&value, Number::ceil),
        ("round", 0) => |_, value, _| math(&value, Number::round),
        ("trunc", 0) => |_, value, _| math(&value, Number::trunc),
        ("sqrt", 0) => |_, value, _| math(&value, Number::sqrt),
        ("abs" | "fabs", 0) => |_, value, _| math(&value, |number| Ok(number.abs())),
        ("tostring", 0) => text::to_string,
        ("tojson", 0) => |meter, value, _| Ok(Value::Text(value.to_json(meter)?.into())),
        ("fromjson", 0) => |meter, value, _| Value::read_within(&as_text(&value)?, meter),
        ("tonumber", 0) => to_number,
        ("sort", 0) => {
            |meter, value, _| items(meter, value).and_then(|items| sorted(meter, items)).and_then(Value::of_items)
        }
        ("unique", 0) => |meter, value, _| {
            let items = items(meter, value)?;
            let mut items = sorted(meter, items)?;
            items.dedup_by(|one, two| paid(one, two).is_eq());
            Value::of_items(items)
        },
        ("min", 0) => |meter, value, _| items(meter, value).and_then(|items| extreme(meter, items, Ordering::Less)),
        ("max", 0) => |meter, value, _| items(meter, value).and_then(|items| extreme(meter, items, Ordering::Greater)),
        ("reverse", 0) => reverse,
        ("join", 1) => join,
        ("setpath", 2) => |meter, value, args| {
            let way = way(&args[0])?;
            path::update(meter, value, &way.items, &mut |_, _| Ok(args[1].clone()))
        },
        ("delpaths", 1) => |meter, value, args| {
            let paths = items(meter, args[0].clone())?;
            path::delete(meter, value, paths)
        },
        ("indices", 1) => |meter, value, args| path::indices(meter, &value, &args[0]),
        _ => return text::native(name, arguments),
    })
}

/// Why a function that other jqs have is not here.
pub(super) fn absent(name: &str) -> Option<&'static str> {
    Some(match name {
        "now" | "localtime" | "strflocaltime" | "mktime" | "gmtime" | "strftime" | "strptime" | "dateadd"
        | "datesub" => "the time of day and the place of the machine are not known here; `fromdate` and `todate` are",
        "input" | "inputs" | "debug" | "stderr" | "input_filename" | "input_line_number" | "halt" | "halt_error"
        | "env" | "get_search_list" | "modulemeta" | "$ENV" | "$__loc__" | "$__prog_args" => {
            "there is no environment here: the same input gives the same outputs everywhere"
        }
        "pow" | "exp" | "exp2" | "exp10" | "log" | "log2" | "log10" | "sin" | "cos" | "tan" | "asin" | "acos"
        | "atan" | "atan2" | "cbrt" | "sinh" | "cosh" | "tanh" | "gamma" | "lgamma" | "tgamma" => {
            "its last digits differ from machine to machine"
        }
        "nan" | "infinite" | "isinfinite" | "isnan" | "isnormal" => "numbers are finite here",
        _ => return None,
    })
}

pub(super) fn as_text(value: &Value) -> Step<Arc<str>> {
    match value {
        Value::Text(text) => Ok(text.clone()),
        other => Err(Stop::raise(format!("a string is needed, not {}", other.shown()))),
    }
}

fn number(value: &Value) -> Step<Number> {
    match value {
        Value::Number(number) => Ok(*number),
        other => Err(Stop::raise(format!("a number is needed, not {}", other.shown()))),
    }
}

fn math(value: &Value, of: impl Fn(Number) -> Result<Number, NoNumber>) -> Step<Value> {
    Value::number(of(number(value)?))
}

pub(super) fn list(value: Value) -> Step<Arc<List>> {
    match value {
        Value::List(list) => Ok(list),
        other => Err(Stop::raise(format!("an array is needed, not {}", other.shown()))),
    }
}

/// The items of a list, which others may have, too.
pub(super) fn items(meter: &mut Meter, value: Value) -> Step<Vec<Value>> {
    let list = list(value)?;
    if Arc::strong_count(&list) > 1 {
        meter.look(list.items.len() * ITEM)?;
    }
    Ok(Arc::try_unwrap(list).map_or_else(|list| list.items.clone(), |list| list.items))
}

/// A path, as the list that programs write.
pub(super) fn way(value: &Value) -> Step<Arc<List>> {
    match value {
        Value::List(list) if list.items.len() <= usize::from(super::value::MAX_DEPTH) => Ok(list.clone()),
        Value::List(_) => Err(Stop::raise("a path has at most 256 steps")),
        other => Err(Stop::raise(format!("a path is an array, not {}", other.shown()))),
    }
}

fn length(meter: &mut Meter, value: Value, _: &[Value]) -> Step<Value> {
    Ok(match &value {
        Value::Null => Value::count(0),
        Value::Boolean(_) => return Err(Stop::raise(format!("{} has no length", value.shown()))),
        Value::Number(number) => Value::Number(number.abs()),
        Value::Text(text) => {
            meter.look(text.len())?;
            Value::count(text.chars().count())
        }
        Value::List(list) => Value::count(list.items.len()),
        Value::Object(object) => Value::count(object.members.len()),
    })
}

fn keys(meter: &mut Meter, value: Value, _: &[Value]) -> Step<Value> {
    let keys = match &value {
        Value::List(list) => {
            meter.build(list.items.len() * ITEM)?;
            (0..list.items.len()).map(Value::count).collect()
        }
        Value::Object(object) => {
            meter.build(object.members.len() * ITEM)?;
            object.members.keys().cloned().map(Value::Text).collect()
        }
        other => return Err(Stop::raise(format!("{} has no keys", other.shown()))),
    };
    Value::of_items(keys)
}

fn has(meter: &mut Meter, value: Value, args: &[Value]) -> Step<Value> {
    Ok(match (&value, &args[0]) {
        (Value::Object(object), Value::Text(name)) => {
            meter.look(name.len())?;
            object.members.contains_key(name).into()
        }
        (Value::List(list), Value::Number(number)) => {
            let at = number.floored().and_then(|at| usize::try_from(at).ok());
            at.is_some_and(|at| at < list.items.len()).into()
        }
        (value, key) => return Err(Stop::raise(format!("cannot tell whether {} has {}", value.shown(), key.shown()))),
    })
}

fn contains(meter: &mut Meter, whole: &Value, part: &Value) -> Step<bool> {
    meter.step(1)?;
    match (whole, part) {
        (Value::Text(whole), Value::Text(part)) => {
            meter.look(whole.len() + part.len())?;
            Ok(whole.contains(&**part))
        }
        (Value::List(whole), Value::List(part)) => {
            for wanted in &part.items {
                let mut found = false;
                for item in &whole.items {
                    meter.step(1)?;
                    found = same_kind(item, wanted) && roomy(|| contains(meter, item, wanted))?;
                    if found {
                        break;
                    }
                }
                if !found {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        (Value::Object(whole), Value::Object(part)) => {
            for (name, wanted) in &part.members {
                meter.step(1)?;
                meter.look(name.len())?;
                match whole.members.get(name) {
                    Some(item) if same_kind(item, wanted) && roomy(|| contains(meter, item, wanted))? => {}
                    _ => return Ok(false),
                }
            }
            Ok(true)
        }
        (whole, part) if same_kind(whole, part) => Ok(whole.compare(part, meter)?.is_eq()),
        (whole, part) => Err(Stop::raise(format!("{} cannot contain {}", whole.shown(), part.shown()))),
    }
}

fn same_kind(one: &Value, two: &Value) -> bool {
    one.kind() == two.kind()
}

fn to_number(meter: &mut Meter, value: Value, _: &[Value]) -> Step<Value> {
    match &value {
        Value::Number(_) => Ok(value),
        Value::Text(text) => {
            meter.look(text.len())?;
            let cannot = |why| Stop::raise(format!("{} cannot be read as a number: {why}", value.shown()));
            Number::read_loosely(text).map(Value::Number).map_err(cannot)
        }
        other => Err(Stop::raise(format!("{} cannot be read as a number", other.shown()))),
    }
}

fn reverse(meter: &mut Meter, value: Value, _: &[Value]) -> Step<Value> {
    match value {
        Value::Null => Value::of_items(Vec::new()),
        Value::Text(text) => {
            meter.look(text.len())?;
            let reversed: String = text.chars().rev().collect();
            Value::written(meter, &reversed)
        }
        value => {
            let mut items = items(meter, value)?;
            items.reverse();
            Value::list(meter, items)
        }
    }
}

fn join(meter: &mut Meter, value: Value, args: &[Value]) -> Step<Value> {
    let (list, mut joined) = (list(value)?, String::new());
    for (n, item) in list.items.iter().enumerate() {
        meter.step(1)?;
        if n > 0 {
            let between = as_text(&args[0])?;
            meter.build(between.len())?;
            joined.push_str(&between);
        }
        match item {
            Value::Null => {}
            Value::Text(text) => {
                meter.build(text.len())?;
                joined.push_str(text);
            }
            Value::Number(_) | Value::Boolean(_) => joined.push_str(&item.to_json(meter)?),
            other => return Err(Stop::raise(format!("{} cannot be joined to a string", other.shown()))),
        }
    }
    Value::written(meter, &joined)
}

/// The items in their order; equal ones stay as they are.
pub(super) fn sorted(meter: &mut Meter, items: Vec<Value>) -> Step<Vec<Value>> {
    let mut items = items;
    pay(meter, items.iter())?;
    meter.build(items.len() * ITEM)?;
    items.sort_by(paid);
    Ok(items)
}

/// Pays for sorting beforehand, so that nothing has to end in the middle of it.
pub(super) fn pay<'v>(meter: &mut Meter, items: impl ExactSizeIterator<Item = &'v Value>) -> Step {
    let rounds = u64::from(items.len().max(1).ilog2()) + 1;
    let mut weight = 0_u64;
    for item in items {
        weight = weight.saturating_add(item.weigh(meter)?);
    }
    meter.step(weight.saturating_mul(rounds))
}

fn extreme(meter: &mut Meter, items: Vec<Value>, wanted: Ordering) -> Step<Value> {
    let mut found: Option<Value> = None;
    for item in items {
        let is_better = match &found {
            None => true,
            // Of equal ones the first is the least and the last the greatest.
            Some(best) => {
                let order = item.compare(best, meter)?;
                order == wanted || (order.is_eq() && wanted == Ordering::Greater)
            }
        };
        if is_better {
            found = Some(item);
        }
    }
    Ok(found.unwrap_or_default())
}

/// `one + two`
pub(super) fn add(meter: &mut Meter, one: Value, two: Value) -> Step<Value> {
    match (one, two) {
        (Value::Null, other) | (other, Value::Null) => Ok(other),
        (Value::Number(one), Value::Number(two)) => Value::number(one.plus(two)),
        (Value::Text(one), Value::Text(two)) => {
            meter.build(one.len() + two.len() + ITEM)?;
            Ok(Value::Text(format!("{one}{two}").into()))
        }
        (Value::List(mut one), Value::List(two)) => {
            List::change(&mut one, meter, |items, meter| {
                meter.look(two.items.len() * ITEM)?;
                items.extend(two.items.iter().cloned());
                Ok(())
            })?;
            List::deepen(&mut one, two.inside())?;
            Ok(Value::List(one))
        }
        (Value::Object(mut one), Value::Object(two)) => {
            Object::change(&mut one, meter, |members, meter| {
                for (name, value) in &two.members {
                    meter.step(1)?;
                    meter.look(name.len())?;
                    members.insert(name.clone(), value.clone());
                }
                Ok(())
            })?;
            Object::deepen(&mut one, two.inside())?;
            Ok(Value::Object(one))
        }
        (one, two) => Err(unlike(&one, &two, "added")),
    }
}

fn unlike(one: &Value, two: &Value, done: &str) -> Stop {
    Stop::raise(format!("{} and {} cannot be {done}", one.shown(), two.shown()))
}

/// `one - two`
pub(super) fn subtract(meter: &mut Meter, one: Value, two: Value) -> Step<Value> {
    match (one, two) {
        (Value::Number(one), Value::Number(two)) => Value::number(one.minus(two)),
        (Value::List(one), Value::List(two)) => {
            let mut kept = Vec::new();
            for item in &one.items {
                meter.step(1)?;
                let mut is_there = false;
                for other in &two.items {
                    is_there = item.compare(other, meter)?.is_eq();
                    if is_there {
                        break;
                    }
                }
                if !is_there {
                    kept.push(item.clone());
                }
            }
            Value::list(meter, kept)
        }
        (one, two) => Err(unlike(&one, &two, "subtracted")),
    }
}

/// `one * two`
pub(super) fn multiply(meter: &mut Meter, one: Value, two: Value) -> Step<Value> {
    match (one, two) {
        (Value::Number(one), Value::Number(two)) => Value::number(one.times(two)),
        (Value::Text(text), Value::Number(times)) | (Value::Number(times), Value::Text(text)) => {
            if times <= Number::ZERO {
                return Ok(Value::Null);
            }
            let times = times.ceil().ok().and_then(Number::floored).and_then(|times| usize::try_from(times).ok());
            let times = times.unwrap_or(usize::MAX);
            meter.build(text.len().saturating_mul(times))?;
            Ok(Value::Text(text.repeat(times).into()))
        }
        (Value::Object(one), Value::Object(two)) => merge(meter, one, &two),
        (one, two) => Err(unlike(&one, &two, "multiplied")),
    }
}

fn merge(meter: &mut Meter, mut one: Arc<Object>, two: &Object) -> Step<Value> {
    for (name, value) in &two.members {
        meter.step(1)?;
        meter.look(name.len())?;
        let own = Object::change(&mut one, meter, |members, _| {
            Ok(match (members.get_mut(name), value) {
                (Some(Value::Object(inside)), Value::Object(_)) => Some(std::mem::take(inside)),
                _ => None,
            })
        })?;
        let merged = match (own, value) {
            (Some(own), Value::Object(other)) => roomy(|| merge(meter, own, other))?,
            (_, value) => value.clone(),
        };
        Object::put(&mut one, meter, name, merged)?;
    }
    Ok(Value::Object(one))
}

/// `one / two`
pub(super) fn divide(meter: &mut Meter, one: Value, two: Value) -> Step<Value> {
    match (one, two) {
        (Value::Number(one), Value::Number(two)) => Value::number(one.over(two)),
        (Value::Text(one), Value::Text(two)) => text::split(meter, &one, &two),
        (one, two) => Err(unlike(&one, &two, "divided")),
    }
}

/// `one % two`
pub(super) fn modulo(one: &Value, two: &Value) -> Step<Value> {
    match (one, two) {
        (Value::Number(one), Value::Number(two)) => Value::number(one.modulo(*two)),
        _ => Err(unlike(one, two, "divided")),
    }
}

/// An object of these members.
pub(super) fn object(meter: &mut Meter, members: BTreeMap<Arc<str>, Value>) -> Step<Value> {
    meter.build(members.len() * MEMBER + ITEM)?;
    Value::of_members(members)
}
