//! From a text to a document: strictly, and everything that is wrong at once.

use std::{collections::BTreeSet, ops::Range, sync::Arc, time::Duration};

use humantime_serde::re::humantime::parse_duration;
use quorate_foundations::{
    document::{Fault, Faults, Format, Node, Reader, Table, Value, parse},
    jq::Program,
    name::Name,
};
use quorate_resilience::retry::Backoff;

use super::{
    Act, Declared, Document, HttpAct, QueueAct, SagaAct, Stage, Waiting,
    template::{Template, Wrong},
};
use crate::saga::{
    definition::{Definition, Kind, Output, Step},
    event::Failure,
};

/// The longest description, in bytes.
const MAX_DESCRIPTION: usize = 4_096;

const METHODS: [(&str, &str); 5] =
    [("GET", "GET"), ("POST", "POST"), ("PUT", "PUT"), ("PATCH", "PATCH"), ("DELETE", "DELETE")];
const KINDS: [(&str, Kind); 3] =
    [("compensatable", Kind::Compensatable), ("pivot", Kind::Pivot), ("retriable", Kind::Retriable)];

pub(super) fn document(text: &str, format: Format) -> Result<Document, Faults> {
    if text.len() > Document::MAX_BYTES {
        let what = format!("a document has at most {} bytes, this one has {}", Document::MAX_BYTES, text.len());
        return Err(Fault::at(text, 0, "", what).into());
    }
    let root = parse(text, format)?;
    let reader = Reader::new(text);
    let read = Table::of(&reader, "", &root).and_then(|table| Reading { reader: &reader }.whole(table));
    match (reader.finish(), read) {
        (None, Some(read)) => {
            let read = Document { text: text.into(), format, ..read };
            // What no single place is to blame for: the order of kinds, for one.
            let nobody = super::Hands { caller: Arc::new(Nobody), queues: None };
            match read.definition(&nobody).check() {
                Ok(()) => Ok(read),
                Err(wrong) => Err(Fault::at(text, 0, "steps", wrong.to_string()).into()),
            }
        }
        (Some(faults), _) => Err(faults),
        (None, None) => Err(Fault::at(text, 0, "", "this is no saga").into()),
    }
}

/// Makes no requests: a document is only looked at.
struct Nobody;

impl super::Caller for Nobody {
    fn call(&self, _: super::Request) -> quorate_runtime::BoxFuture<'static, Result<Output, Failure>> {
        Box::pin(std::future::ready(Err(Failure::refused("nobody makes requests here"))))
    }
}

struct Reading<'r, 't> {
    reader: &'r Reader<'t>,
}

type Fields<'r, 'n, 't> = Table<'r, 'n, 't>;

impl<'r, 't> Reading<'r, 't> {
    fn whole(&self, mut table: Fields<'r, '_, 't>) -> Option<Document> {
        let name = table.required_text("saga").and_then(|(name, span)| self.name("saga", name, &span));
        let version = self.version(&mut table);
        let description = table.text("description").map(|(text, span)| {
            if text.len() > MAX_DESCRIPTION {
                let what = format!("a description has at most {MAX_DESCRIPTION} bytes");
                self.reader.fault(&span, "description", what);
            }
            text.to_owned()
        });
        let deadline = self.span(&mut table, "deadline", Definition::MAX_SPAN);
        let key = self.program(&mut table, "key").map(Arc::new);
        let output = self.program(&mut table, "output").map(Arc::new);
        let stages = match table.list("steps") {
            Some(list) => self.stages(list),
            None => {
                table.missing("steps");
                Vec::new()
            }
        };
        table.end();
        let (format, text) = (Format::Json, "".into());
        let (description, stages) = (description.unwrap_or_default(), stages.into());
        Some(Document { name: name?, version: version?, description, format, text, deadline, key, output, stages })
    }

    fn name(&self, field: &str, name: &str, span: &Range<usize>) -> Option<Name> {
        Name::new(name).map_err(|wrong| self.reader.fault(span, field, wrong.to_string())).ok()
    }

    fn version(&self, table: &mut Fields<'_, '_, '_>) -> Option<u32> {
        let (number, span) = table.number("version")?;
        let version = number.parse::<u32>().ok().filter(|version| *version > 0);
        if version.is_none() {
            self.reader.fault(&span, "version", "a version is a whole number from 1");
        }
        version
    }

    fn span(&self, table: &mut Fields<'_, '_, '_>, key: &'static str, max: Duration) -> Option<Duration> {
        let (text, span) = table.text(key)?;
        match parse_duration(text) {
            Ok(read) if read <= max => Some(read),
            Ok(read) => {
                self.reader.fault(&span, &table.path(key), format!("this is at most {max:?}, not {read:?}"));
                None
            }
            Err(_) => {
                let what = format!("`{text}` is no time: write numbers with units, as in `1h 30m` or `500ms`");
                self.reader.fault(&span, &table.path(key), what);
                None
            }
        }
    }

    fn program(&self, table: &mut Fields<'_, '_, '_>, key: &'static str) -> Option<Program> {
        let (text, span) = table.text(key)?;
        let wrong = |fault: quorate_foundations::jq::Fault| {
            self.reader.fault_within(&span, text, fault.at, &table.path(key), fault.what);
        };
        Program::compile(text).map_err(wrong).ok()
    }

    fn template(&self, field: &str, text: &str, span: &Range<usize>) -> Option<Template> {
        let wrong = |Wrong { at, what }: Wrong| self.reader.fault_within(span, text, at, field, what);
        Template::read(text).map_err(wrong).ok()
    }

    fn stages(&self, list: &[Node]) -> Vec<Stage> {
        let mut known = BTreeSet::new();
        let stage = |(n, node): (usize, &Node)| self.stage(n, node, &mut known);
        list.iter().enumerate().filter_map(stage).collect()
    }

    fn stage(&self, n: usize, node: &Node, known: &mut BTreeSet<String>) -> Option<Stage> {
        let field = format!("steps[{n}]");
        let mut table = Table::of(self.reader, field.as_str(), node)?;
        if let Some(list) = table.list("together") {
            let field = table.path("together");
            table.end();
            let steps = list.iter().enumerate().filter_map(|(n, node)| {
                let mut table = Table::of(self.reader, format!("{field}[{n}]"), node)?;
                let step = self.step(&mut table, known);
                table.end();
                step
            });
            return Some(Stage::Steps(steps.collect()));
        }
        if let Some((signal, span)) = table.text("wait") {
            let waiting = self.waiting(&mut table, n, Some((signal, span)));
            table.end();
            return Some(Stage::Wait(waiting));
        }
        if let Some(pause) = self.span(&mut table, "pause", Definition::MAX_SPAN) {
            table.end();
            let timer = format!("steps[{n}]").into();
            return Some(Stage::Wait(Waiting { signal: None, at_most: Some(pause), aborts: false, timer }));
        }
        let step = self.step(&mut table, known);
        table.end();
        step.map(|step| Stage::Steps(vec![step]))
    }

    fn waiting(&self, table: &mut Fields<'_, '_, '_>, n: usize, signal: Option<(&str, Range<usize>)>) -> Waiting {
        let at_most = self.span(table, "at-most", Definition::MAX_SPAN);
        let aborts = table.choice("otherwise", &[("abort", true), ("continue", false)]).unwrap_or(true);
        let signal = signal.map(|(signal, span)| {
            if signal.is_empty() {
                self.reader.fault(&span, &table.path("wait"), "a signal has a name");
            }
            signal.into()
        });
        Waiting { signal, at_most, aborts, timer: format!("steps[{n}]").into() }
    }

    fn step(&self, table: &mut Fields<'_, '_, '_>, known: &mut BTreeSet<String>) -> Option<Declared> {
        let (name, span) = table.required_text("step")?;
        if !known.insert(name.to_owned()) {
            self.reader.fault(&span, &table.path("step"), format!("a step called `{name}` stands further up already"));
        }
        let kind = table.choice("kind", &KINDS).unwrap_or(Kind::Compensatable);
        let when = self.program(table, "when").map(Arc::new);
        let act = self.act(table);
        let undo = table.take("undo").and_then(|node| {
            let mut undo = Table::of(self.reader, table.path("undo"), node)?;
            let act = self.act(&mut undo);
            if let Some(Act::Http(act)) = &act {
                self.unknown_outputs(&undo, act, name);
            }
            undo.end();
            act
        });
        let usual = Step::new(name, crate::saga::Action::remote(|_| std::future::pending()));
        let (base, cap) =
            (self.span(table, "backoff", Step::MAX_TIME), self.span(table, "max-backoff", Step::MAX_TIME));
        let pace = usual.pace(crate::saga::Direction::Forward);
        let backoff = Backoff {
            base: base.unwrap_or(pace.base.min(cap.unwrap_or(pace.cap))),
            cap: cap.unwrap_or(pace.cap.max(base.unwrap_or_default())),
            ..pace
        };
        if backoff.base > backoff.cap {
            let what = format!("`backoff` ({:?}) is at most `max-backoff` ({:?})", backoff.base, backoff.cap);
            self.reader.fault(&span, &table.path("backoff"), what);
        }
        Some(Declared {
            name: name.into(),
            when,
            kind,
            undo,
            attempts: self.count(table, "attempts"),
            undo_attempts: self.count(table, "undo-attempts").unwrap_or(usual.compensation_attempts),
            backoff: (base.is_some() || cap.is_some()).then_some(backoff),
            time: self.span(table, "time", Step::MAX_TIME),
            quiet: self.span(table, "quiet", Step::MAX_TIME),
            may_be_refused: table.boolean("may-be-refused").unwrap_or(false),
            act: act?,
        })
    }

    /// What makes up for a step is needed above all where nobody knows what the step answered.
    fn unknown_outputs(&self, undo: &Fields<'_, '_, '_>, act: &HttpAct, step: &str) {
        let own = format!(".steps.{step}");
        let all = std::iter::once(&act.url).chain(act.headers.iter().map(|(_, value)| value));
        for program in all.flat_map(Template::programs) {
            if (program.contains(".output") || program.contains(&own)) && !program.contains("//") {
                let what = format!(
                    "`{program}` has no value where nobody knows what the step answered: say what stands there then, as in `{program} // .id`"
                );
                self.reader.fault(&undo.span, &undo.path("http"), what);
            }
        }
    }

    fn count(&self, table: &mut Fields<'_, '_, '_>, key: &'static str) -> Option<u32> {
        let (number, span) = table.number_if_there(key)?;
        let count = number.parse::<u32>().ok().filter(|count| (1..=Step::MAX_ATTEMPTS).contains(count));
        if count.is_none() {
            let what = format!("{number} is not a whole number from 1 to {}", Step::MAX_ATTEMPTS);
            self.reader.fault(&span, &table.path(key), what);
        }
        count
    }

    /// `http`, `queue` or `saga`.
    fn act(&self, table: &mut Fields<'_, '_, '_>) -> Option<Act> {
        let (http, queue, saga) = (table.take("http"), table.take("queue"), table.take("saga"));
        match (http, queue, saga) {
            (Some(node), None, None) => {
                let mut fields = Table::of(self.reader, table.path("http"), node)?;
                let act = self.http(&mut fields);
                fields.end();
                act.map(|act| Act::Http(Arc::new(act)))
            }
            (None, Some(node), None) => {
                let mut fields = Table::of(self.reader, table.path("queue"), node)?;
                let act = self.queue(&mut fields);
                fields.end();
                act.map(|act| Act::Queue(Arc::new(act)))
            }
            (None, None, Some(node)) => {
                let mut fields = Table::of(self.reader, table.path("saga"), node)?;
                let act = self.saga(&mut fields);
                fields.end();
                act.map(|act| Act::Saga(Arc::new(act)))
            }
            (None, None, None) => {
                let what = "one of `http`, `queue` and `saga` says what is done";
                self.reader.fault(&table.span, &table.field, what);
                None
            }
            (first, queue, saga) => {
                let (known, key) = if first.is_some() {
                    ("http", if queue.is_some() { "queue" } else { "saga" })
                } else {
                    ("queue", "saga")
                };
                let node = if key == "queue" { queue } else { saga }?;
                let what = format!("`{known}` stands here already: a step does one thing");
                self.reader.fault(&node.span, &table.path(key), what);
                None
            }
        }
    }

    fn saga(&self, table: &mut Fields<'_, '_, '_>) -> Option<SagaAct> {
        let field = table.path("name");
        let saga = table.required_text("name").and_then(|(name, span)| self.name(&field, name, &span));
        let version = table.number_if_there("version").and_then(|(number, span)| {
            let version = number.parse::<u32>().ok().filter(|version| *version > 0);
            if version.is_none() {
                self.reader.fault(&span, &table.path("version"), "a version is a whole number from 1");
            }
            version
        });
        Some(SagaAct { version, input: self.program(table, "input"), saga: saga? })
    }

    fn http(&self, table: &mut Fields<'_, '_, '_>) -> Option<HttpAct> {
        let method = table.choice("method", &METHODS).unwrap_or("POST");
        let field = table.path("url");
        let url = table.required_text("url").and_then(|(text, span)| {
            let url = self.template(&field, text, &span)?;
            let rest = ["http://", "https://"].iter().find_map(|scheme| url.beginning().strip_prefix(scheme));
            if rest.is_none_or(|rest| rest.split('/').next().is_none_or(str::is_empty) || !rest.contains('/')) {
                let what = "an address begins with `http://` or `https://`, a host and `/`, none of them in braces";
                self.reader.fault(&span, &field, what);
            }
            Some(url)
        });
        let headers = self.headers(table);
        let body = self.program(table, "body");
        let policy = table.text("policy").and_then(|(name, span)| self.name(&table.path("policy"), name, &span));
        Some(HttpAct { method, url: url?, headers, body, policy })
    }

    fn headers(&self, table: &mut Fields<'_, '_, '_>) -> Vec<(Arc<str>, Template)> {
        const OURS: [&str; 4] = ["idempotency-key", "content-length", "host", "transfer-encoding"];
        let Some(node) = table.take("headers") else { return Vec::new() };
        let Some(mut all) = Table::of(self.reader, table.path("headers"), node) else { return Vec::new() };
        let mut headers = Vec::new();
        for entry in all.rest() {
            let field = all.path(&entry.key);
            let is_token = |name: &str| {
                let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
                !name.is_empty() && name.len() <= 128 && name.bytes().all(fits)
            };
            if !is_token(&entry.key) || OURS.contains(&entry.key.to_ascii_lowercase().as_str()) {
                self.reader.fault(&entry.key_span, &field, "this is no name of a header, or one that quorate sets");
                continue;
            }
            let Value::Text(text) = &entry.node.value else {
                let what = format!("a text stands here, not {}", entry.node.value.kind());
                self.reader.fault(&entry.node.span, &field, what);
                continue;
            };
            headers
                .extend(self.template(&field, text, &entry.node.span).map(|value| (entry.key.as_str().into(), value)));
        }
        headers
    }

    fn queue(&self, table: &mut Fields<'_, '_, '_>) -> Option<QueueAct> {
        let field = table.path("name");
        let queue = table.required_text("name").and_then(|(name, span)| self.name(&field, name, &span));
        let kind = table.required_text("type").map(|(kind, span)| {
            if kind.is_empty() {
                self.reader.fault(&span, &table.path("type"), "a message's type says something");
            }
            Arc::from(kind)
        });
        let (data, group) = (self.program(table, "data"), self.program(table, "group"));
        Some(QueueAct { queue: queue?, kind: kind?, data, group })
    }
}
