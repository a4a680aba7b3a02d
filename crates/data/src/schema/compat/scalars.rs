//! Keywords that look at a value without looking into it.

use super::{
    Gap,
    conjunction::{Conjunction, Node, bounds},
    kinds::Kinds,
    numbers::{End, count, whole},
    prover::{Prover, gap, short, unproved},
};
use crate::schema::vocabulary::join;
use serde_json::{Number, Value};

impl<'a> Prover<'a> {
    pub(super) fn scalar(
        &mut self,
        keyword: &'a str,
        value: &'a Value,
        writer: &Conjunction<'a>,
        reader: &Node<'a>,
    ) -> Vec<Gap> {
        let found = match keyword {
            "type" => types(value, writer, reader),
            "enum" | "const" => Some(choice(keyword, value, writer, reader)),
            "minimum" | "exclusiveMinimum" => bound(End::Lower, keyword, writer, reader),
            "maximum" | "exclusiveMaximum" => bound(End::Upper, keyword, writer, reader),
            "multipleOf" => multiple(value, writer, reader),
            "minLength" | "minItems" | "minProperties" => least(keyword, value, writer, reader),
            "maxLength" | "maxItems" | "maxProperties" => most(keyword, value, writer, reader),
            "uniqueItems" => unique(value, writer, reader),
            "pattern" | "format" => text(keyword, value, writer, reader),
            "unevaluatedItems" | "unevaluatedProperties" if *value == Value::Bool(true) => None,
            "unevaluatedItems" | "unevaluatedProperties" | "dependencies" => Some(unproved(keyword, writer, reader)),
            _ => (!writer.says(keyword, value)).then(|| unproved(keyword, writer, reader)),
        };
        found.into_iter().collect()
    }
}

fn types(value: &Value, writer: &Conjunction<'_>, reader: &Node<'_>) -> Option<Gap> {
    let allowed = Kinds::of_type(value);
    let refused = writer.kinds.without(allowed);
    let affected = match refused {
        _ if writer.kinds == Kinds::ALL => "of another type".to_owned(),
        refused => format!("with a value that is {refused}"),
    };
    (!refused.is_empty()).then(|| Gap {
        reader: format!("{allowed}"),
        ..gap(writer.at("type"), join(&reader.at, "type"), format!("{}", writer.kinds), &affected)
    })
}

fn choice(keyword: &str, value: &Value, writer: &Conjunction<'_>, reader: &Node<'_>) -> Gap {
    let values = value.as_array().filter(|_| keyword == "enum").map_or(1, Vec::len);
    let reader_says = match (keyword, values) {
        ("const", _) => format!("only `{}`", short(value)),
        _ => format!("one of {values} values"),
    };
    Gap {
        reader: reader_says,
        ..gap(writer.at("type"), join(&reader.at, keyword), format!("{}", writer.kinds), "with any other value")
    }
}

fn bound(end: End, keyword: &str, writer: &Conjunction<'_>, reader: &Node<'_>) -> Option<Gap> {
    let exclusive = keyword.starts_with("exclusive");
    let wanted = bounds(reader, end).into_iter().find(|bound| bound.exclusive == exclusive)?;
    let known = writer.bound(end);
    if known.as_ref().is_some_and(|known| known.implies(&wanted, end)) {
        return None;
    }
    let words = |bound: &super::numbers::Bound| match (end, bound.exclusive) {
        (End::Lower, false) => format!("at least {}", bound.at),
        (End::Lower, true) => format!("more than {}", bound.at),
        (End::Upper, false) => format!("at most {}", bound.at),
        (End::Upper, true) => format!("less than {}", bound.at),
    };
    let affected = match end {
        End::Lower => "with a smaller number",
        End::Upper => "with a larger number",
    };
    Some(Gap {
        reader: words(&wanted),
        ..gap(
            end.keywords()
                .iter()
                .map(|(keyword, _)| writer.at(keyword))
                .find(|at| *at != writer.at)
                .unwrap_or_else(|| writer.at.clone()),
            join(&reader.at, keyword),
            known.as_ref().map_or("unbounded".into(), words),
            affected,
        )
    })
}

/// Whole divisors only, up to where floats count every integer; others have to be equal.
fn multiple(value: &Value, writer: &Conjunction<'_>, reader: &Node<'_>) -> Option<Gap> {
    let wanted = value.as_number()?;
    let exact = |number: &Number| whole(number).filter(|divisor| (1..1 << 53).contains(divisor));
    let divides = |known: &Value| {
        known == value || matches!((known.as_number().and_then(exact), exact(wanted)), (Some(a), Some(b)) if a % b == 0)
    };
    let integers = exact(wanted) == Some(1) && writer.kinds.and(Kinds::NUMBER).within(Kinds::INTEGER);
    let implied = integers || writer.values("multipleOf").any(divides);
    let known = writer.values("multipleOf").next();
    (!implied).then(|| Gap {
        reader: format!("a multiple of {wanted}"),
        ..gap(
            writer.at("multipleOf"),
            join(&reader.at, "multipleOf"),
            known.map_or("any number".into(), |known| format!("a multiple of {known}")),
            "with another number",
        )
    })
}

fn least(keyword: &str, value: &Value, writer: &Conjunction<'_>, reader: &Node<'_>) -> Option<Gap> {
    let wanted = count(value)?;
    let required = if keyword == "minProperties" { writer.required().len() as u64 } else { 0 };
    let known = writer.at_least(keyword).max(required);
    (known < wanted).then(|| Gap {
        reader: format!("at least {wanted} {}", unit(keyword)),
        ..gap(
            writer.at(keyword),
            join(&reader.at, keyword),
            if known == 0 { "unbounded".into() } else { format!("at least {known} {}", unit(keyword)) },
            "with fewer",
        )
    })
}

fn most(keyword: &str, value: &Value, writer: &Conjunction<'_>, reader: &Node<'_>) -> Option<Gap> {
    let wanted = count(value)?;
    let closed = if keyword == "maxItems" { closed_length(writer) } else { None };
    let known = writer.at_most(keyword).into_iter().chain(closed).min();
    (known.is_none_or(|known| known > wanted)).then(|| Gap {
        reader: format!("at most {wanted} {}", unit(keyword)),
        ..gap(
            writer.at(keyword),
            join(&reader.at, keyword),
            known.map_or("unbounded".into(), |known| format!("at most {known} {}", unit(keyword))),
            "with more",
        )
    })
}

/// How long an array can be that allows no items beyond its `prefixItems`.
pub(super) fn closed_length(writer: &Conjunction<'_>) -> Option<u64> {
    let closed = writer.nodes.iter().filter(|node| node.get("items") == Some(&Value::Bool(false)));
    closed.map(|node| node.list("prefixItems").len() as u64).min()
}

fn unit(keyword: &str) -> &'static str {
    match keyword {
        "minLength" | "maxLength" => "characters",
        "minItems" | "maxItems" => "items",
        _ => "properties",
    }
}

fn unique(value: &Value, writer: &Conjunction<'_>, reader: &Node<'_>) -> Option<Gap> {
    let longest = writer.at_most("maxItems").into_iter().chain(closed_length(writer)).min();
    let implied = *value == Value::Bool(false) || writer.says("uniqueItems", value) || longest.is_some_and(|n| n < 2);
    (!implied).then(|| Gap {
        reader: "without repetition".into(),
        ..gap(
            writer.at("uniqueItems"),
            join(&reader.at, "uniqueItems"),
            "open to repeated items",
            "with repeated items",
        )
    })
}

/// `pattern` and `format`: implied by themselves only.
fn text(keyword: &str, value: &Value, writer: &Conjunction<'_>, reader: &Node<'_>) -> Option<Gap> {
    (!writer.says(keyword, value)).then(|| {
        let gap = unproved(keyword, writer, reader);
        Gap { affected: format!("with text of another {keyword}"), ..gap }
    })
}
