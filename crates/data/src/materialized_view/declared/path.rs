//! Paths into an event, as JSONPath writes them: `$.stream`, `$.data.customer.name`, `$.data['odd name'][0]`.
//!
//! The root is the event as the node serves it: CloudEvents attributes, quorate's own, `data`. Only singular queries are
//! paths: each names one place or none. Source: RFC 9535, section 2.3.5.1.

use std::{fmt, str::FromStr};

/// The most steps of a path.
pub(super) const MAX_STEPS: usize = 16;

/// A place in an event.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Path {
    /// An attribute.
    Attribute(Attribute),
    /// A place in the data; the data itself where there are no steps.
    Data(Vec<Step>),
    /// A place in one of the values that `each` takes from the event.
    Item(Vec<Step>),
}

/// A step down.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Step {
    /// A member of an object.
    Member(String),
    /// An item of an array, counted from 0.
    Index(usize),
}

/// An attribute of an event.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Attribute {
    Id,
    Source,
    Type,
    Subject,
    Time,
    ContentType,
    Schema,
    CorrelationId,
    CausationId,
    Tags,
    DataSubject,
    Stream,
    StreamVersion,
    LogPosition,
    RecordedTime,
    /// Any other: metadata of the producer's own.
    Extension(String),
}

impl Attribute {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "id" => Self::Id,
            "source" => Self::Source,
            "type" => Self::Type,
            "subject" => Self::Subject,
            "time" => Self::Time,
            "datacontenttype" => Self::ContentType,
            "dataschema" => Self::Schema,
            "correlationid" => Self::CorrelationId,
            "causationid" => Self::CausationId,
            "tags" => Self::Tags,
            "datasubject" => Self::DataSubject,
            "stream" => Self::Stream,
            "streamversion" => Self::StreamVersion,
            "logposition" => Self::LogPosition,
            "recordedtime" => Self::RecordedTime,
            _ => {
                let extension = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
                return extension.then(|| Self::Extension(name.to_owned()));
            }
        })
    }
}

/// Why a text is no path, and at which of its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PathFault {
    pub(super) at: usize,
    pub(super) what: String,
}

impl fmt::Display for PathFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl FromStr for Path {
    type Err = PathFault;

    fn from_str(text: &str) -> Result<Self, PathFault> {
        let fault = |at: usize, what: &str| PathFault { at, what: what.to_owned() };
        let rest = text.strip_prefix('$').ok_or_else(|| fault(0, "a path begins with `$`, as in `$.data.amount`"))?;
        let mut steps = steps(text, text.len() - rest.len())?;
        if steps.len() > MAX_STEPS {
            return Err(fault(0, "a path has at most 16 steps"));
        }
        if steps.is_empty() {
            return Err(fault(1, "a path names an attribute, or goes into `$.data`"));
        }
        let below = steps.split_off(1);
        let Some(Step::Member(first)) = steps.pop() else {
            return Err(fault(1, "an event is an object: its members have names"));
        };
        match first.as_str() {
            "data" => return Ok(Self::Data(below)),
            "item" => return Ok(Self::Item(below)),
            _ => {}
        }
        let attribute = Attribute::named(&first).ok_or_else(|| {
            fault(1, "an event has no such attribute: their names have lower-case letters and digits only")
        })?;
        if below.is_empty() { Ok(Self::Attribute(attribute)) } else { Err(fault(1, "attributes have nothing inside")) }
    }
}

fn steps(text: &str, mut at: usize) -> Result<Vec<Step>, PathFault> {
    let mut steps = Vec::new();
    while at < text.len() {
        let (step, next) = match text.as_bytes()[at] {
            b'.' => dotted(text, at + 1)?,
            b'[' => bracketed(text, at + 1)?,
            _ => return Err(PathFault { at, what: "a `.` or `[` stands here".to_owned() }),
        };
        steps.push(step);
        at = next;
    }
    Ok(steps)
}

/// `name` behind a dot.
fn dotted(text: &str, start: usize) -> Result<(Step, usize), PathFault> {
    let part = |c: char| c.is_ascii_alphanumeric() || c == '_' || !c.is_ascii();
    let length = text[start..].find(|c| !part(c)).unwrap_or(text.len() - start);
    let name = &text[start..start + length];
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        let what = "a name stands behind the dot; an odd one is written `['…']`, and only single places are paths";
        return Err(PathFault { at: start, what: what.to_owned() });
    }
    Ok((Step::Member(name.to_owned()), start + length))
}

/// `'name']`, `"name"]` or `0]` behind a bracket.
fn bracketed(text: &str, start: usize) -> Result<(Step, usize), PathFault> {
    let fault = |at: usize, what: &str| PathFault { at, what: what.to_owned() };
    let rest = &text[start..];
    let Some(quote) = rest.chars().next().filter(|quote| "'\"".contains(*quote)) else {
        let end = rest.find(']').ok_or_else(|| fault(start, "the bracket is not closed"))?;
        let index = rest[..end].parse::<usize>().ok().filter(|index| index.to_string() == rest[..end]);
        let index = index.ok_or_else(|| fault(start, "a name in quotes or an index from 0 stands in brackets"))?;
        return Ok((Step::Index(index), start + end + 1));
    };
    let mut name = String::new();
    let mut letters = rest.char_indices().skip(1);
    while let Some((at, letter)) = letters.next() {
        match letter {
            '\\' => match letters.next() {
                Some((_, escaped)) if "'\"\\".contains(escaped) => name.push(escaped),
                _ => return Err(fault(start + at, "only quotes and backslashes are escaped here")),
            },
            letter if letter == quote => {
                let closed = rest[at + 1..].starts_with(']');
                let end = start + at + 2;
                return if closed {
                    Ok((Step::Member(name), end))
                } else {
                    Err(fault(start + at, "a `]` stands here"))
                };
            }
            letter => name.push(letter),
        }
    }
    Err(fault(start, "the quote is not closed"))
}

#[cfg(test)]
mod tests {
    use super::{Attribute, Path, Step};

    fn path(text: &str) -> Path {
        text.parse().unwrap()
    }

    #[test]
    fn a_path_names_an_attribute_or_a_place_in_the_data() {
        let member = |name: &str| Step::Member(name.to_owned());
        assert_eq!(path("$.stream"), Path::Attribute(Attribute::Stream));
        assert_eq!(path("$['logposition']"), Path::Attribute(Attribute::LogPosition));
        assert_eq!(path("$.tenant"), Path::Attribute(Attribute::Extension("tenant".to_owned())));
        assert_eq!(path("$.data"), Path::Data(vec![]));
        assert_eq!(
            path("$.data.a['b.c'][0][\"d\\\"\"]"),
            Path::Data(vec![member("a"), member("b.c"), Step::Index(0), member("d\"")])
        );
        assert_eq!(path("$.item.größe"), Path::Item(vec![member("größe")]));
    }

    #[test]
    fn what_names_several_places_or_none_is_no_path() {
        for (bad, at) in [
            ("data.a", 0),
            ("$", 1),
            ("$.data.*", 7),
            ("$..a", 2),
            ("$.data[*]", 7),
            ("$.data[-1]", 7),
            ("$.data[01]", 7),
            ("$.data[?@.a]", 7),
            ("$.data['a", 7),
            ("$.data['a'x]", 9),
            ("$.data.a b", 8),
            ("$[0]", 1),
            ("$.Stream", 1),
            ("$.stream.a", 1),
            ("$.data.0", 7),
        ] {
            let fault = bad.parse::<Path>().unwrap_err();
            assert_eq!(fault.at, at, "{bad}: {fault}");
        }
    }
}
