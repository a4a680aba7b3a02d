//! What a statement's parameters are bound to, and their values for an event.

use std::borrow::Cow;

use quorate_foundations::jq::{Failed, Limits, Program};
use serde_json::value::RawValue;
use smallvec::{SmallVec, smallvec};

use super::{
    extract::Extractor,
    kind::{Kind, as_it_is, micros},
    path::{Attribute, Path, Step},
    served::served,
};
use crate::{
    event::{Recorded, Scalar, Timestamp},
    store::Value,
};

/// The most items that `each` takes from one event, and the most outputs of `jq`.
pub(super) const MAX_ITEMS: usize = 10_000;
/// What `jq` may take for one event. It is counted, not timed: an event is poison on every machine or on none. A view's
/// transaction has a second by default; so many steps take some tens of milliseconds of it.
const JQ: Limits = Limits { steps: 500_000, bytes: 32 << 20, depth: 4_000, outputs: MAX_ITEMS };

/// One parameter, as the document binds it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Binding {
    pub(super) name: String,
    /// The path as it is written.
    pub(super) written: String,
    pub(super) path: Path,
    /// `None`: as it stands in the event.
    pub(super) kind: Option<Kind>,
    /// Whether a column gave it that type which the column of its own name would not have given.
    pub(super) by_use: bool,
    /// Whether it is null where nothing stands at the path; otherwise such an event cannot be applied.
    pub(super) optional: bool,
}

/// All parameters of a rule.
#[derive(Debug, Default)]
pub(super) struct Bindings {
    list: Vec<(Binding, Source)>,
    data: Extractor,
    item: Extractor,
    items: Items,
}

/// Where a rule's items come from: its statements run once for each.
#[derive(Debug)]
pub(super) enum ItemsOf {
    /// From a list in the data, at a path as it is written.
    Each(Vec<Step>, String),
    /// A program's outputs for the event.
    Jq(Box<Program>),
}

#[derive(Debug, Default)]
enum Items {
    /// There are none, and the statements run once.
    #[default]
    None,
    /// The number of the path in `data` whose items are taken one by one, and how it is written.
    Each(usize, String),
    Jq(Box<Program>),
}

#[derive(Debug)]
enum Source {
    Attribute(Attribute),
    Data(usize),
    Item(usize),
}

/// The values of a rule's parameters; most have few.
pub(super) type Values = SmallVec<[Value; 4]>;
/// One list of them for each time that a rule's statements run, which is once for most events.
pub(super) type Rounds = SmallVec<[Values; 1]>;

impl Bindings {
    /// These parameters, once or for each of the items.
    pub(super) fn new(list: Vec<Binding>, items: Option<ItemsOf>) -> Self {
        let (mut data, mut item) = (Extractor::default(), Extractor::default());
        let items = match items {
            None => Items::None,
            Some(ItemsOf::Each(steps, written)) => Items::Each(data.add(&steps), written),
            Some(ItemsOf::Jq(program)) => Items::Jq(program),
        };
        let placed = list.into_iter().map(|binding| {
            let source = match &binding.path {
                Path::Attribute(attribute) => Source::Attribute(attribute.clone()),
                Path::Data(steps) => Source::Data(data.add(steps)),
                Path::Item(steps) => Source::Item(item.add(steps)),
            };
            (binding, source)
        });
        let list = placed.collect();
        Self { list, data, item, items }
    }

    /// The parameters, by name, whose types come from what statements do with them and cannot be told from their names.
    pub(super) fn by_use(&self) -> impl Iterator<Item = (&str, Kind)> {
        let told = self.list.iter().filter(|(binding, _)| binding.by_use);
        told.filter_map(|(binding, _)| Some((binding.name.as_str(), binding.kind?)))
    }

    /// The values that `event` gives the parameters. Where its data is gone, what is not there is null, whether it may be
    /// missing otherwise or not; a program that cannot do without the data has no outputs then, as a list that is gone has no
    /// items.
    ///
    /// # Errors
    /// Which parameter it has no value for, and why.
    pub(super) fn values(&self, event: &Recorded) -> Result<Rounds, String> {
        let data = event.data();
        let text = data.map(std::str::from_utf8).transpose().map_err(|_| "its data is not UTF-8".to_owned())?;
        let found = match text.filter(|_| !self.data.is_empty()) {
            Some(text) => self.data.run(text).map_err(|cause| format!("its data is not JSON: {cause}"))?,
            None => self.data.nothing(),
        };
        match &self.items {
            Items::None => Ok(smallvec![self.round(event, &found, &[])?]),
            Items::Each(each, written) => {
                let Some(list) = found[*each].filter(|raw| raw.get() != "null") else { return Ok(Rounds::new()) };
                let items: Vec<&RawValue> =
                    serde_json::from_str(list.get()).map_err(|_| format!("`{written}` is not a list"))?;
                if items.len() > MAX_ITEMS {
                    return Err(format!("`{written}` has more than {MAX_ITEMS} items"));
                }
                self.rounds(event, &found, items.into_iter().map(RawValue::get))
            }
            Items::Jq(program) => {
                let outputs = match program.run(served(event)?, JQ) {
                    Err(Failed::Raised { .. }) if event.is_gone() => Vec::new(),
                    outputs => outputs.map_err(|why| format!("`jq`: {why}"))?,
                };
                self.rounds(event, &found, outputs.iter().map(String::as_str))
            }
        }
    }

    fn rounds<'i>(
        &self,
        event: &Recorded,
        data: &[Option<&RawValue>],
        items: impl Iterator<Item = &'i str>,
    ) -> Result<Rounds, String> {
        let round = |(n, item): (usize, &str)| {
            let inside = self.item.run(item).map_err(|cause| cause.to_string());
            inside.and_then(|inside| self.round(event, data, &inside)).map_err(|why| format!("item {n}: {why}"))
        };
        items.enumerate().map(round).collect()
    }

    fn round(
        &self,
        event: &Recorded,
        data: &[Option<&RawValue>],
        item: &[Option<&RawValue>],
    ) -> Result<Values, String> {
        let one = |(binding, source): &(Binding, Source)| {
            let value = match source {
                Source::Attribute(attribute) => of_attribute(attribute, event, binding.kind),
                Source::Data(n) => of_json(data[*n], binding.kind),
                Source::Item(n) => of_json(item.get(*n).copied().flatten(), binding.kind),
            };
            match value {
                Ok(Value::Null) if !(binding.optional || event.is_gone()) => {
                    Err(format!("there is nothing at `{}` for `:{}`", binding.written, binding.name))
                }
                Ok(value) => Ok(value),
                Err(why) => Err(format!("`{}` for `:{}`: {why}", binding.written, binding.name)),
            }
        };
        self.list.iter().map(one).collect()
    }
}

fn of_json(raw: Option<&RawValue>, kind: Option<Kind>) -> Result<Value, String> {
    let Some(raw) = raw else { return Ok(Value::Null) };
    kind.map_or_else(|| Ok(as_it_is(raw)), |kind| kind.read(raw))
}

fn of_attribute(attribute: &Attribute, event: &Recorded, kind: Option<Kind>) -> Result<Value, String> {
    let text: Option<Cow<'_, str>> = match attribute {
        Attribute::Id => Some(event.id().into()),
        Attribute::Source => Some(event.source().into()),
        Attribute::Type => Some(event.kind().into()),
        Attribute::Subject => event.subject().map(Into::into),
        Attribute::Time => event.time_text().map(Into::into),
        Attribute::ContentType => event.content_type().map(Into::into),
        Attribute::Schema => event.schema().map(Into::into),
        Attribute::CorrelationId => event.correlation_id().map(Into::into),
        Attribute::CausationId => event.causation_id().map(Into::into),
        Attribute::Tags => event.tags_text().map(Into::into),
        Attribute::DataSubject => event.data_subject().map(Into::into),
        Attribute::Stream => Some(event.stream().into()),
        Attribute::StreamVersion => return of_number(event.version().get(), kind),
        Attribute::LogPosition => return of_number(event.position().get(), kind),
        Attribute::RecordedTime if kind == Some(Kind::Timestamp) => {
            return Ok(micros(event.recorded_at().unix_nanos()));
        }
        Attribute::RecordedTime => Some(Timestamp::from(event.recorded_at()).as_str().to_owned().into()),
        Attribute::Extension(name) => match event.extensions().remove(name) {
            None => None,
            Some(Scalar::Boolean(yes)) if matches!(kind, None | Some(Kind::Boolean)) => return Ok(yes.into()),
            Some(Scalar::Boolean(yes)) if kind == Some(Kind::Json) => return Ok(yes.to_string().into()),
            Some(Scalar::Boolean(yes)) => Some(yes.to_string().into()),
            Some(Scalar::Integer(n)) if matches!(kind, None | Some(Kind::Integer)) => return Ok(n.into()),
            Some(Scalar::Integer(n)) if kind == Some(Kind::Json) => return Ok(n.to_string().into()),
            Some(Scalar::Integer(n)) => Some(n.to_string().into()),
            Some(Scalar::Text(text)) => Some(text.into()),
        },
    };
    let Some(text) = text else { return Ok(Value::Null) };
    if kind == Some(Kind::Json) {
        return serde_json::to_string(&*text).map(Into::into).map_err(|cause| cause.to_string());
    }
    kind.map_or_else(|| Ok(Value::from(&*text)), |kind| kind.of_text(&text))
}

/// A count of the log's.
fn of_number(number: u64, kind: Option<Kind>) -> Result<Value, String> {
    match kind {
        None | Some(Kind::Integer) => Ok(i64::try_from(number).unwrap_or(i64::MAX).into()),
        Some(other) => other.of_text(&number.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::{Binding, Bindings, ItemsOf, Path};
    use crate::{
        event::{NewEvent, Recorded, Scalar, Stub},
        materialized_view::{declared::kind::Kind, scratch::recorded},
        store::Value,
    };

    impl Bindings {
        fn listed(&self, event: &Recorded) -> Result<Vec<Vec<Value>>, String> {
            self.values(event).map(|rounds| rounds.into_iter().map(super::Values::into_vec).collect())
        }
    }

    fn event(data: &str) -> Recorded {
        let mut event = NewEvent::new("e-1", "/shop", "ordered").json(data.to_owned());
        event.time = Some("2026-11-22T09:30:00.5+02:00".parse().unwrap());
        event.extensions.insert("level".to_owned(), Scalar::Integer(7));
        recorded([("order-1".parse().unwrap(), event)]).unwrap().remove(0)
    }

    #[test]
    fn of_an_event_whose_data_is_gone_all_is_null_and_no_program_fails() {
        let gone = event(r#"{"lines": [{"n": 3}], "by": "ada"}"#).to_stub(Stub::Truncated);
        let none = Vec::<Vec<Value>>::new();
        for (program, rounds) in [
            ("{n: .data.by}", vec![vec![Value::Null]]),
            (".data.lines | {n: length}, {n: 1}", vec![vec![0_i64.into()], vec![1_i64.into()]]),
            (".data.lines[].n", none.clone()),
            (".data.by | ascii_downcase", none.clone()),
            ("{n: 1}, error(\"no data\")", none.clone()),
            ("if .stub then {n: 7} else .data.lines[] end", vec![vec![7_i64.into()]]),
        ] {
            assert_eq!(made(program, "$.item.n", None).listed(&gone).unwrap(), rounds, "{program}");
        }
        let endless = made("last(range(1e30))", "$.item", None);
        assert_eq!(endless.listed(&gone).unwrap_err(), "`jq`: it takes more than 500000 steps");
        let paths = bindings(&[("by", "$.data.by", Some(Kind::Text), false), ("s", "$.stream", None, false)], None);
        assert_eq!(paths.listed(&gone).unwrap(), [vec![Value::Null, "order-1".into()]]);
        let list = bindings(&[("n", "$.item.n", None, false)], Some("$.data.lines"));
        assert_eq!(list.listed(&gone).unwrap(), none);
    }

    fn bindings(list: &[(&str, &str, Option<Kind>, bool)], each: Option<&str>) -> Bindings {
        let one = |(name, path, kind, optional): &(&str, &str, Option<Kind>, bool)| Binding {
            name: (*name).to_owned(),
            written: (*path).to_owned(),
            path: path.parse().unwrap(),
            kind: *kind,
            by_use: false,
            optional: *optional,
        };
        let each = each.map(|path| match path.parse() {
            Ok(Path::Data(steps)) => ItemsOf::Each(steps, path.to_owned()),
            other => panic!("{other:?}"),
        });
        Bindings::new(list.iter().map(one).collect(), each)
    }

    fn made(program: &str, path: &str, kind: Option<Kind>) -> Bindings {
        let program = quorate_foundations::jq::Program::compile(program).unwrap();
        let binding = Binding {
            name: "x".to_owned(),
            written: path.to_owned(),
            path: path.parse().unwrap(),
            kind,
            by_use: false,
            optional: false,
        };
        Bindings::new(vec![binding], Some(ItemsOf::Jq(Box::new(program))))
    }

    #[test]
    fn each_output_of_a_program_gives_a_round_of_its_own() {
        let wanted = made(".data.lines[] | select(.n > 0) | .n", "$.item", None);
        let rounds = wanted.listed(&event(r#"{"lines": [{"n": 3}, {"n": 0}, {"n": 12345678901234567}]}"#)).unwrap();
        assert_eq!(rounds, [vec![3_i64.into()], vec![12_345_678_901_234_567_i64.into()]]);
        let money = made("[.data.lines[].eur] | {sum: add}", "$.item.sum", Some(Kind::Decimal(2)));
        let rounds =
            money.listed(&event(r#"{"lines": [{"eur": 0.10}, {"eur": 0.20}, {"eur": 99999999999.99}]}"#)).unwrap();
        assert_eq!(rounds, [vec![10_000_000_000_029_i64.into()]]);
        let event = event(r#"{"lines": "none"}"#);
        let refused = wanted.listed(&event).unwrap_err();
        assert_eq!(refused, "`jq`: there is nothing inside of string \"none\"");
        let endless = made("last(range(1e30))", "$.item", None);
        assert_eq!(endless.listed(&event).unwrap_err(), "`jq`: it takes more than 500000 steps");
        let wrong = made("1, {}", "$.item", Some(Kind::Integer));
        assert!(wrong.listed(&event).unwrap_err().starts_with("item 1: `$.item` for `:x`: {} is no integer"));
    }

    #[test]
    fn a_program_sees_the_event_as_it_is_served() {
        let all = made("del(.data) | tojson", "$.item", Some(Kind::Text));
        let said = all.listed(&event("{}")).unwrap().remove(0).remove(0);
        assert_eq!(
            said.as_str().unwrap(),
            r#"{"datacontenttype":"application/json","id":"e-1","level":7,"logposition":"1","recordedtime":"1970-01-01T00:00:01Z","source":"/shop","specversion":"1.0","stream":"order-1","streamversion":"1","time":"2026-11-22T09:30:00.5+02:00","type":"ordered"}"#
        );
        let none = made(".data", "$.item", None);
        assert!(none.listed(&event("nope")).unwrap_err().starts_with("its data is not JSON"));
    }

    #[test]
    fn parameters_come_from_attributes_and_from_the_data_as_their_types_say() {
        let wanted = bindings(
            &[
                ("s", "$.stream", None, false),
                ("day", "$.time", Some(Kind::Date), false),
                ("at", "$.time", Some(Kind::Timestamp), false),
                ("v", "$.streamversion", None, false),
                ("p", "$.logposition", Some(Kind::Text), false),
                ("level", "$.level", None, false),
                ("eur", "$.data.eur", Some(Kind::Decimal(2)), false),
                ("who", "$.data.by", None, true),
                ("r", "$.recordedtime", Some(Kind::Timestamp), false),
            ],
            None,
        );
        let values = wanted.listed(&event(r#"{"eur": 12.5}"#)).unwrap();
        let expected: Vec<Value> = vec![
            "order-1".into(),
            "2026-11-22".into(),
            1_795_332_600_500_000_i64.into(),
            1_i64.into(),
            "1".into(),
            7_i64.into(),
            1250_i64.into(),
            Value::Null,
            1_000_000_i64.into(),
        ];
        assert_eq!(values, [expected]);
    }

    #[test]
    fn an_attribute_in_a_column_of_json_is_json() {
        let given = event("{}");
        for (path, json) in [
            ("$.stream", "\"order-1\""),
            ("$.level", "7"),
            ("$.streamversion", "1"),
            ("$.recordedtime", "\"1970-01-01T00:00:01Z\""),
        ] {
            let wanted = bindings(&[("x", path, Some(Kind::Json), false)], None);
            assert_eq!(wanted.listed(&given).unwrap(), [vec![json.into()]], "{path}");
        }
        let absent = bindings(&[("x", "$.subject", Some(Kind::Json), true)], None);
        assert_eq!(absent.listed(&given).unwrap(), [vec![Value::Null]]);
    }

    #[test]
    fn what_is_missing_or_of_another_type_says_which_parameter_it_is() {
        let wanted = bindings(&[("eur", "$.data.eur", Some(Kind::Integer), false)], None);
        for (data, why) in [
            ("{}", "there is nothing at `$.data.eur` for `:eur`"),
            (r#"{"eur": null}"#, "there is nothing at"),
            (r#"{"eur": "x"}"#, "`$.data.eur` for `:eur`: \"x\" is no integer"),
            ("nope", "its data is not JSON"),
        ] {
            let refused = wanted.listed(&event(data)).unwrap_err();
            assert!(refused.contains(why), "{data}: {refused}");
        }
    }

    #[test]
    fn each_item_of_a_list_gives_a_round_of_its_own() {
        let list = [("sku", "$.item.sku", None, false), ("order", "$.stream", None, false)];
        let wanted = bindings(&list, Some("$.data.lines"));
        let rounds = wanted.listed(&event(r#"{"lines": [{"sku": "a"}, {"sku": "b"}]}"#)).unwrap();
        assert_eq!(rounds, [vec!["a".into(), "order-1".into()], vec!["b".into(), "order-1".into()]]);
        assert_eq!(wanted.listed(&event("{}")).unwrap(), Vec::<Vec<Value>>::new());
        let refused = wanted.listed(&event(r#"{"lines": [{"sku": "a"}, {}]}"#)).unwrap_err();
        assert!(refused.starts_with("item 1: there is nothing at `$.item.sku`"), "{refused}");
        assert!(wanted.listed(&event(r#"{"lines": {}}"#)).unwrap_err().contains("is not a list"));
    }
}
