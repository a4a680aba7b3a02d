//! The values that programs work on.

use std::{cmp::Ordering, collections::BTreeMap, fmt, sync::Arc};

use super::{
    meter::{Meter, Step, Stop},
    number::{NoNumber, Number},
    stack::roomy,
};

/// How deep lists and objects lie in each other, at most.
pub(super) const MAX_DEPTH: u16 = 256;
/// What an item of a list, and a member of an object, take besides what is in them, in bytes.
pub(super) const ITEM: usize = 48;
pub(super) const MEMBER: usize = 96;
/// The longest value in an error's message, in bytes.
const SHOWN: usize = 80;

/// A JSON value, cheap to clone.
///
/// Members of objects come in the order of their names, however they were written.
#[derive(Clone, Debug, Default)]
pub enum Value {
    /// `null`
    #[default]
    Null,
    /// `true` or `false`
    Boolean(bool),
    /// A number.
    Number(Number),
    /// A string.
    Text(Arc<str>),
    /// An array.
    List(Arc<List>),
    /// An object.
    Object(Arc<Object>),
}

/// Items, and how deep they are nested.
#[derive(Clone, Debug, Default)]
pub struct List {
    pub(super) items: Vec<Value>,
    depth: u16,
}

/// Members, and how deep they are nested.
#[derive(Clone, Debug, Default)]
pub struct Object {
    pub(super) members: BTreeMap<Arc<str>, Value>,
    depth: u16,
}

fn deeper(inside: impl Iterator<Item = u16>) -> Step<u16> {
    let depth = inside.max().unwrap_or(0) + 1;
    if depth > MAX_DEPTH { Err(Stop::raise(format!("a value is nested at most {MAX_DEPTH} deep"))) } else { Ok(depth) }
}

impl Value {
    /// A string.
    pub fn text(text: impl AsRef<str>) -> Self {
        Self::Text(text.as_ref().into())
    }

    /// An object with these members; of several with one name, the last.
    ///
    /// # Errors
    /// They are nested too deep.
    pub fn object<'n>(members: impl IntoIterator<Item = (&'n str, Self)>) -> Result<Self, TooDeep> {
        let members = members.into_iter().map(|(name, value)| (Arc::from(name), value)).collect();
        Self::of_members(members).map_err(|_| TooDeep)
    }

    pub(super) fn number(number: Result<Number, NoNumber>) -> Step<Self> {
        number.map(Self::Number).map_err(Stop::raise_from)
    }

    pub(super) fn count(count: usize) -> Self {
        Self::Number(i64::try_from(count).unwrap_or(i64::MAX).into())
    }

    /// A list that is new: its items are counted.
    pub(super) fn list(meter: &mut Meter, items: Vec<Self>) -> Step<Self> {
        meter.build(ITEM + items.len() * ITEM)?;
        Self::of_items(items)
    }

    pub(super) fn of_items(items: Vec<Self>) -> Step<Self> {
        let depth = deeper(items.iter().map(Self::depth))?;
        Ok(Self::List(Arc::new(List { items, depth })))
    }

    pub(super) fn of_members(members: BTreeMap<Arc<str>, Self>) -> Step<Self> {
        let depth = deeper(members.values().map(Self::depth))?;
        Ok(Self::Object(Arc::new(Object { members, depth })))
    }

    /// A text that is new: its bytes are counted.
    pub(super) fn written(meter: &mut Meter, text: &str) -> Step<Self> {
        meter.build(text.len() + ITEM)?;
        Ok(Self::Text(text.into()))
    }

    fn depth(&self) -> u16 {
        match self {
            Self::List(list) => list.depth,
            Self::Object(object) => object.depth,
            _ => 0,
        }
    }

    /// Neither `null` nor `false`.
    pub(super) fn is_true(&self) -> bool {
        !matches!(self, Self::Null | Self::Boolean(false))
    }

    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Boolean(_) => "boolean",
            Self::Number(_) => "number",
            Self::Text(_) => "string",
            Self::List(_) => "array",
            Self::Object(_) => "object",
        }
    }

    /// The value as an error's message shows it.
    pub(super) fn shown(&self) -> String {
        let mut text = String::new();
        let whole = Writer { text: &mut text, most: SHOWN }.write(self);
        if whole.is_err() {
            text.truncate(text.floor_char_boundary(SHOWN));
            text.push('…');
        }
        match self {
            Self::Null => text,
            _ => format!("{} {text}", self.kind()),
        }
    }

    /// The value as JSON, without blanks.
    pub(super) fn to_json(&self, meter: &mut Meter) -> Step<String> {
        let mut text = String::new();
        self.write(meter, &mut text)?;
        Ok(text)
    }

    fn write(&self, meter: &mut Meter, text: &mut String) -> Step {
        let before = text.len();
        meter.step(1)?;
        match self {
            Self::List(_) | Self::Object(_) => roomy(|| self.write_inside(meter, text)),
            leaf => {
                leaf.write_leaf(text);
                meter.build(text.len() - before)
            }
        }
    }

    fn write_inside(&self, meter: &mut Meter, text: &mut String) -> Step {
        match self {
            Self::List(list) => {
                text.push('[');
                for (n, item) in list.items.iter().enumerate() {
                    if n > 0 {
                        text.push(',');
                    }
                    item.write(meter, text)?;
                }
                text.push(']');
                meter.build(2 + list.items.len())
            }
            Self::Object(object) => {
                text.push('{');
                for (n, (name, value)) in object.members.iter().enumerate() {
                    if n > 0 {
                        text.push(',');
                    }
                    quote(name, text);
                    text.push(':');
                    meter.build(name.len() + 4)?;
                    value.write(meter, text)?;
                }
                text.push('}');
                meter.build(2)
            }
            _ => Ok(()),
        }
    }

    fn write_leaf(&self, text: &mut String) {
        use fmt::Write as _;
        match self {
            Self::Boolean(yes) => text.push_str(if *yes { "true" } else { "false" }),
            Self::Number(number) => drop(write!(text, "{number}")),
            Self::Text(said) => quote(said, text),
            _ => text.push_str("null"),
        }
    }

    /// Which comes first: `null`, `false`, `true`, numbers, strings, arrays, objects; objects by their names first.
    pub(super) fn compare(&self, other: &Self, meter: &mut Meter) -> Step<Ordering> {
        meter.step(1)?;
        Ok(match (self, other) {
            (Self::Text(one), Self::Text(two)) => {
                meter.look(one.len().min(two.len()))?;
                one.cmp(two)
            }
            (Self::Boolean(one), Self::Boolean(two)) => one.cmp(two),
            (Self::Number(one), Self::Number(two)) => one.cmp(two),
            (Self::List(_), Self::List(_)) | (Self::Object(_), Self::Object(_)) => {
                return roomy(|| self.compare_inside(other, meter));
            }
            _ => self.rank().cmp(&other.rank()),
        })
    }

    fn compare_inside(&self, other: &Self, meter: &mut Meter) -> Step<Ordering> {
        Ok(match (self, other) {
            (Self::List(one), Self::List(two)) => {
                for (one, two) in one.items.iter().zip(&two.items) {
                    match one.compare(two, meter)? {
                        Ordering::Equal => {}
                        decided => return Ok(decided),
                    }
                }
                one.items.len().cmp(&two.items.len())
            }
            (Self::Object(one), Self::Object(two)) => {
                let (one, two) = (&one.members, &two.members);
                for (n, m) in one.keys().zip(two.keys()) {
                    meter.step(1)?;
                    meter.look(n.len().min(m.len()))?;
                    match n.cmp(m) {
                        Ordering::Equal => {}
                        decided => return Ok(decided),
                    }
                }
                match one.len().cmp(&two.len()) {
                    Ordering::Equal => {}
                    decided => return Ok(decided),
                }
                for (one, two) in one.values().zip(two.values()) {
                    match one.compare(two, meter)? {
                        Ordering::Equal => {}
                        decided => return Ok(decided),
                    }
                }
                Ordering::Equal
            }
            _ => Ordering::Equal,
        })
    }

    fn rank(&self) -> u8 {
        match self {
            Self::Null => 0,
            Self::Boolean(_) => 1,
            Self::Number(_) => 2,
            Self::Text(_) => 3,
            Self::List(_) => 4,
            Self::Object(_) => 5,
        }
    }

    /// How many steps it may take to compare it with another one.
    pub(super) fn weigh(&self, meter: &mut Meter) -> Step<u64> {
        meter.step(1)?;
        match self {
            Self::Text(text) => Ok(1 + (text.len() / 64) as u64),
            Self::List(_) | Self::Object(_) => roomy(|| self.weigh_inside(meter)),
            _ => Ok(1),
        }
    }

    fn weigh_inside(&self, meter: &mut Meter) -> Step<u64> {
        let mut weight = 1_u64;
        match self {
            Self::List(list) => {
                for item in &list.items {
                    weight = weight.saturating_add(item.weigh(meter)?);
                }
            }
            Self::Object(object) => {
                for (name, value) in &object.members {
                    weight = weight.saturating_add(value.weigh(meter)? + 1 + (name.len() / 64) as u64);
                }
            }
            _ => {}
        }
        Ok(weight)
    }
}

/// An order of values whose cost was paid beforehand, by [`Value::weigh`].
pub(super) fn paid(one: &Value, two: &Value) -> Ordering {
    match (one, two) {
        (Value::Text(one), Value::Text(two)) => one.cmp(two),
        (Value::Boolean(one), Value::Boolean(two)) => one.cmp(two),
        (Value::Number(one), Value::Number(two)) => one.cmp(two),
        (Value::List(_), Value::List(_)) | (Value::Object(_), Value::Object(_)) => roomy(|| paid_inside(one, two)),
        _ => one.rank().cmp(&two.rank()),
    }
}

fn paid_inside(one: &Value, two: &Value) -> Ordering {
    match (one, two) {
        (Value::List(one), Value::List(two)) => {
            let differing = one.items.iter().zip(&two.items).map(|(one, two)| paid(one, two));
            differing.into_iter().find(|order| order.is_ne()).unwrap_or(one.items.len().cmp(&two.items.len()))
        }
        (Value::Object(one), Value::Object(two)) => one.members.keys().cmp(two.members.keys()).then_with(|| {
            let mut differing = one.members.values().zip(two.members.values()).map(|(one, two)| paid(one, two));
            differing.find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
        }),
        _ => Ordering::Equal,
    }
}

/// Lists and objects lie too deep in each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a value is nested at most 256 deep")]
pub struct TooDeep;

impl List {
    /// How deep its items are nested.
    pub(super) fn inside(&self) -> u16 {
        self.depth.saturating_sub(1)
    }

    /// Its items.
    pub fn items(&self) -> &[Value] {
        &self.items
    }

    /// Changes the items of a list, which is copied where somebody else has it, too.
    pub(super) fn change<T>(
        list: &mut Arc<Self>,
        meter: &mut Meter,
        change: impl FnOnce(&mut Vec<Value>, &mut Meter) -> Step<T>,
    ) -> Step<T> {
        if Arc::get_mut(list).is_none() {
            meter.build(list.items.len() * ITEM)?;
        }
        let own = Arc::make_mut(list);
        let before = own.items.len();
        let given = change(&mut own.items, meter)?;
        meter.build(own.items.len().saturating_sub(before) * ITEM)?;
        Ok(given)
    }

    /// Puts a value in the place of an item.
    pub(super) fn put(list: &mut Arc<Self>, meter: &mut Meter, at: usize, value: Value) -> Step {
        let nesting = value.nesting();
        Self::change(list, meter, |items, _| {
            items[at] = value;
            Ok(())
        })?;
        Self::deepen(list, nesting)
    }

    /// Takes a value into account that became an item, by its nesting. The list was just changed: nobody else has it.
    pub(super) fn deepen(list: &mut Arc<Self>, value: u16) -> Step {
        let own = Arc::make_mut(list);
        own.depth = own.depth.max(deeper(std::iter::once(value))?);
        Ok(())
    }
}

impl Object {
    /// How deep its members are nested.
    pub(super) fn inside(&self) -> u16 {
        self.depth.saturating_sub(1)
    }

    /// Its members, in the order of their names.
    pub fn members(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.members.iter().map(|(name, value)| (&**name, value))
    }

    /// Changes the members of an object, which is copied where somebody else has it, too.
    pub(super) fn change<T>(
        object: &mut Arc<Self>,
        meter: &mut Meter,
        change: impl FnOnce(&mut BTreeMap<Arc<str>, Value>, &mut Meter) -> Step<T>,
    ) -> Step<T> {
        if Arc::get_mut(object).is_none() {
            meter.build(object.members.len() * MEMBER)?;
        }
        let own = Arc::make_mut(object);
        let before = own.members.len();
        let given = change(&mut own.members, meter)?;
        meter.build(own.members.len().saturating_sub(before) * MEMBER)?;
        Ok(given)
    }

    /// Puts a value in the place of a member.
    pub(super) fn put(object: &mut Arc<Self>, meter: &mut Meter, name: &Arc<str>, value: Value) -> Step {
        let nesting = value.nesting();
        Self::change(object, meter, |members, meter| {
            meter.look(name.len())?;
            members.insert(name.clone(), value);
            Ok(())
        })?;
        Self::deepen(object, nesting)
    }

    /// As [`List::deepen`].
    pub(super) fn deepen(object: &mut Arc<Self>, value: u16) -> Step {
        let own = Arc::make_mut(object);
        own.depth = own.depth.max(deeper(std::iter::once(value))?);
        Ok(())
    }
}

impl Value {
    /// How deep it is nested, as a list or object that takes it in has to know.
    pub(super) fn nesting(&self) -> u16 {
        self.depth()
    }
}

impl Stop {
    pub(super) fn raise_from(cause: impl fmt::Display) -> Self {
        Self::raise(cause.to_string())
    }
}

/// Writes until there is enough.
struct Writer<'t> {
    text: &'t mut String,
    most: usize,
}

impl Writer<'_> {
    fn write(&mut self, value: &Value) -> Result<(), ()> {
        match value {
            Value::List(list) => {
                self.text.push('[');
                for (n, item) in list.items.iter().enumerate() {
                    self.text.push_str(if n > 0 { "," } else { "" });
                    self.write(item)?;
                }
                self.text.push(']');
            }
            Value::Object(object) => {
                self.text.push('{');
                for (n, (name, value)) in object.members.iter().enumerate() {
                    self.text.push_str(if n > 0 { "," } else { "" });
                    quote(&name[..name.floor_char_boundary(self.most + 1)], self.text);
                    self.text.push(':');
                    self.write(value)?;
                }
                self.text.push('}');
            }
            Value::Text(text) => quote(&text[..text.floor_char_boundary(self.most + 1)], self.text),
            leaf => leaf.write_leaf(self.text),
        }
        if self.text.len() > self.most { Err(()) } else { Ok(()) }
    }
}

/// A JSON string.
pub(super) fn quote(said: &str, text: &mut String) {
    use fmt::Write as _;
    text.push('"');
    let mut rest = said;
    while let Some(at) = rest.find(|c: char| c < ' ' || c == '"' || c == '\\' || c == '\u{7f}') {
        text.push_str(&rest[..at]);
        let c = rest.as_bytes()[at];
        match c {
            b'"' => text.push_str("\\\""),
            b'\\' => text.push_str("\\\\"),
            b'\n' => text.push_str("\\n"),
            b'\r' => text.push_str("\\r"),
            b'\t' => text.push_str("\\t"),
            0x8 => text.push_str("\\b"),
            0xc => text.push_str("\\f"),
            _ => drop(write!(text, "\\u{c:04x}")),
        }
        rest = &rest[at + 1..];
    }
    text.push_str(rest);
    text.push('"');
}

impl From<bool> for Value {
    fn from(yes: bool) -> Self {
        Self::Boolean(yes)
    }
}

impl From<i64> for Value {
    fn from(whole: i64) -> Self {
        Self::Number(whole.into())
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::text(text)
    }
}
