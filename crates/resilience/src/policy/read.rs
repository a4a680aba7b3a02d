//! Documents to policies: strictly, and everything that is wrong at once.

use std::{
    cell::RefCell,
    num::{NonZeroU32, NonZeroUsize},
    sync::Arc,
    time::Duration,
};

use quorate_foundations::{
    document::{Fault, Faults, Format, Node, Reader, parse_all},
    name::Name,
};

use super::{Document, Ownership, Policy, Traffic, fields::Fields};
use crate::{
    bulkhead::{self, Adaptive, Limit, Queue, Shares},
    circuit_breaker::{self, Per, Split, Window},
    hedge::{self, After},
    rate_limit::{OnUnavailable, Rate},
    retry::{self, Backoff, BudgetConfig, Jitter},
    timeout,
};

/// What the kind of a document has to be.
const KIND: &str = "ResiliencePolicy";

impl Document {
    /// Every policy that `text` holds, in order. Documents of other kinds, such as a cluster's routes in the same file, are
    /// left out.
    ///
    /// # Errors
    /// [`Faults`]: everything that is wrong, with line, column and field; also that there is no policy at all.
    pub fn read_all(text: &str, format: Format) -> Result<Vec<Self>, Faults> {
        let nodes = parse_all(text, format)?;
        let (reader, shared) = (Reader::new(text), Arc::from(text));
        let documents: Vec<Self> = nodes.iter().filter_map(|node| document(&reader, node, &shared)).collect();
        if documents.is_empty() && reader.count() == 0 {
            return Err(Fault::at(text, 0, "kind", format!("there is no {KIND} in it")).into());
        }
        let mut names: Vec<&Name> = Vec::new();
        for document in &documents {
            if names.contains(&&document.policy.name) {
                let what = format!("a policy called `{}` stands further up already", document.policy.name);
                let at = document.place("metadata.name");
                reader.fault(&(at..at), "metadata.name", what);
            }
            names.push(&document.policy.name);
        }
        reader.finish().map_or(Ok(documents), Err)
    }
}

fn document(reader: &Reader<'_>, node: &Node, text: &Arc<str>) -> Option<Document> {
    let places = RefCell::default();
    let mut root = Fields::of(reader, "", node, &places)?;
    let (kind, _) = root.required_text("kind")?;
    if kind != KIND {
        return None;
    }
    root.text("apiVersion");
    let name = root.inner("metadata", |metadata| {
        let (name, span) = metadata.required_text("name")?;
        metadata.text("namespace");
        named(metadata, "name", name, &span)
    });
    let policy = root.inner("spec", |spec| Some(policy(spec)));
    let (Some(name), Some(policy)) = (name, policy) else {
        let missing =
            ["metadata", "spec"].into_iter().filter(|key| !places.borrow().iter().any(|(known, _)| known == key));
        missing.for_each(|key| root.fault(key, &node.span, "this is missing"));
        root.end();
        return None;
    };
    root.end();
    Some(Document { policy: Policy { name, ..policy }, text: text.clone(), places: places.into_inner() })
}

fn named(fields: &Fields<'_, '_, '_>, key: &str, text: &str, span: &std::ops::Range<usize>) -> Option<Name> {
    Name::new(text).inspect_err(|wrong| fields.fault(key, span, wrong.to_string())).ok()
}

/// Everything but the name, which stands elsewhere.
fn policy(spec: &mut Fields<'_, '_, '_>) -> Policy {
    let from = spec.text("from").and_then(|(from, span)| named(spec, "from", from, &span));
    let targets = targets(spec);
    let timeouts = spec.inner("timeouts", |times| Some(timeouts(times)));
    let none = timeout::Config { total: None, attempt: None, idle: None, refuse_hopeless: true };
    let ownership = [("carried", Ownership::Carried), ("ignored", Ownership::Ignored)];
    let retry = spec.inner("retry", |fields| {
        let ownership = fields.choice("ownership", &ownership).unwrap_or_default();
        Some((retry(fields), ownership))
    });
    let circuit = spec.inner("breaker", breaker);
    let limit = spec.inner("rateLimit", rate_limit);
    let budget = spec.inner("retryBudget", |fields| Some(budget(fields))).unwrap_or_default();
    Policy {
        name: Name::new("policy").unwrap_or_else(|_| unreachable!("this is a name")),
        from,
        targets,
        timeouts: timeouts.unwrap_or(none),
        ownership: retry.map(|(_, ownership)| ownership).unwrap_or_default(),
        retry: retry.map(|(retry, _)| (retry, budget)),
        circuits: circuit.as_ref().and_then(|(_, split)| *split),
        breaker: circuit.map(|(config, _)| config),
        rate_limit: limit.map(|(rate, _)| rate),
        counted: limit.and_then(|(_, counted)| counted),
        concurrency: spec.inner("concurrency", concurrency),
        hedge: spec.inner("hedge", hedge),
        traffic: spec
            .inner("traffic", |fields| {
                let requests_per_second = fields.part("requestsPerSecond", 1e9);
                let max_amplification = fields.count("maxAmplification").map(NonZeroU32::get);
                Some(Traffic { requests_per_second, max_amplification })
            })
            .unwrap_or_default(),
    }
}

fn targets(spec: &mut Fields<'_, '_, '_>) -> Vec<Name> {
    let places = RefCell::default();
    let Some(list) = spec.list("targetRefs") else { return Vec::new() };
    let target = |(n, node): (usize, &Node)| spec.target(n, node, &places);
    list.iter().enumerate().filter_map(target).collect()
}

impl<'r> Fields<'r, '_, '_> {
    fn target(&self, n: usize, node: &Node, places: &RefCell<Vec<(String, std::ops::Range<usize>)>>) -> Option<Name> {
        let mut fields = Fields::of(self.reader(), format!("spec.targetRefs[{n}]"), node, places)?;
        ["group", "kind", "namespace"].into_iter().for_each(|key| _ = fields.text(key));
        let name = fields.required_text("name");
        let name = name.and_then(|(name, span)| named(&fields, "name", name, &span));
        fields.end();
        name
    }
}

fn timeouts(fields: &mut Fields<'_, '_, '_>) -> timeout::Config {
    let (total, attempt, idle) = (fields.span("request"), fields.span("backendRequest"), fields.span("idle"));
    let config = timeout::Config { total, attempt, idle, refuse_hopeless: true };
    for (key, span) in [("request", total), ("backendRequest", attempt), ("idle", idle)] {
        if span == Some(Duration::ZERO) {
            fields.wrong(format!("`{key}` must be longer than zero; leave it out for no limit"));
        }
    }
    config
}

fn retry(fields: &mut Fields<'_, '_, '_>) -> retry::Config {
    let usual = retry::Config::default();
    let further = fields.number("attempts");
    let attempts = further.map_or(usual.attempts, |further| NonZeroU32::MIN.saturating_add(further));
    let words = [
        ("none", Jitter::None),
        ("equal", Jitter::Equal),
        ("full", Jitter::Full),
        ("decorrelated", Jitter::Decorrelated),
    ];
    let backoff = Backoff {
        base: fields.span("backoff").unwrap_or(usual.backoff.base),
        cap: fields.span("maxBackoff").unwrap_or(usual.backoff.cap),
        jitter: fields.choice("jitter", &words).unwrap_or_default(),
    };
    let longest_retry_after = fields.span("maxRetryAfter").unwrap_or(usual.longest_retry_after);
    retry::Config { attempts, backoff, longest_retry_after }
}

fn budget(fields: &mut Fields<'_, '_, '_>) -> BudgetConfig {
    let usual = BudgetConfig::default();
    let percent = fields.number("percent").unwrap_or(usual.percent);
    if percent > 100 {
        fields.wrong(format!("`percent` is {percent}; more retries than calls are no budget"));
    }
    let interval = fields.span("interval").unwrap_or(usual.interval);
    if interval < Duration::from_millis(100) {
        fields.wrong("`interval` must be at least 100ms");
    }
    let floor = fields.inner("minRetryRate", |rate| {
        let (count, interval) = (rate.number("count")?, rate.span("interval").unwrap_or(Duration::from_secs(1)));
        if interval.is_zero() {
            rate.wrong("`interval` must be longer than zero");
            return None;
        }
        let per_second = f64::from(count) / interval.as_secs_f64();
        if (per_second - per_second.round()).abs() > 1e-6 {
            rate.wrong(format!("it is {per_second} a second, and kept in whole retries a second"));
            return None;
        }
        Some(per_second.round() as u32)
    });
    BudgetConfig { percent, interval, floor_per_second: floor.unwrap_or(usual.floor_per_second) }
}

fn breaker(fields: &mut Fields<'_, '_, '_>) -> Option<(circuit_breaker::Config, Option<Split>)> {
    let split = split(fields);
    let mut config = circuit_breaker::Config { failure_rate: None, ..circuit_breaker::Config::default() };
    config.consecutive = fields.count("consecutive");
    let rate =
        fields.inner("successRate", |rate| Some((rate.part("below", 1.0), window(rate), rate.count("minRequests"))));
    if let Some((below, window, minimum)) = rate {
        // A document says below which part of successes a circuit opens, the circuit at which part of failures: just above
        // the complement, so that exactly as many successes as are wanted are enough.
        config.failure_rate = Some((1.0 - below.unwrap_or(0.5) + 1e-9).min(1.0));
        config.window = window.unwrap_or(config.window);
        config.minimum_calls = minimum.unwrap_or(config.minimum_calls);
    }
    if let Some((above, longer)) =
        fields.inner("slowCallRate", |rate| Some((rate.part("above", 1.0), rate.span("longerThan"))))
    {
        config.slow_rate = Some(above.unwrap_or(0.5));
        config.slow_after = longer.unwrap_or(config.slow_after);
    }
    if let Some((min, max, jitter)) =
        fields.inner("open", |open| Some((open.span("min"), open.span("max"), open.part("jitter", 1.0))))
    {
        config.open.min = min.unwrap_or(config.open.min);
        config.open.max = max.unwrap_or(config.open.max.max(config.open.min));
        config.open.jitter = jitter.unwrap_or(config.open.jitter);
    }
    config.probes = fields.count("probes").unwrap_or(config.probes);
    config.probe_timeout = fields.span("probeTimeout").unwrap_or(config.probe_timeout);
    let usual = config.counts;
    let counts = fields.inner("counts", |counts| {
        Some(circuit_breaker::Counts {
            throttled: counts.boolean("throttled").unwrap_or(usual.throttled),
            attempt_timeout: counts.boolean("attemptTimeout").unwrap_or(usual.attempt_timeout),
            total_timeout: counts.boolean("totalTimeout").unwrap_or(usual.total_timeout),
        })
    });
    config.counts = counts.unwrap_or(usual);
    if let Err(wrong) = config.check() {
        fields.wrong(in_words_of_documents(&wrong));
        return None;
    }
    Some((config, split))
}

/// What has a circuit of its own.
fn split(fields: &mut Fields<'_, '_, '_>) -> Option<Split> {
    let words = [
        ("dependency", None),
        ("endpoint", Some(Per::Endpoint)),
        ("operation", Some(Per::Operation)),
        ("endpointAndOperation", Some(Per::EndpointAndOperation)),
    ];
    let (per, most) = (fields.choice("per", &words).flatten(), fields.count("most"));
    let most = most.map(|most| NonZeroUsize::try_from(most).unwrap_or(NonZeroUsize::MAX));
    match (per, most) {
        (None, Some(_)) => {
            fields.wrong("`most` is of circuits that are told apart: say `per`, or leave it out");
            None
        }
        (_, Some(most)) if most > Split::LIMIT => {
            fields.wrong(format!("`most` is {most}; there may be {} circuits of one dependency", Split::LIMIT));
            None
        }
        (per, most) => per.map(|per| Split { per, most: most.unwrap_or(Split::MOST) }),
    }
}

fn window(rate: &mut Fields<'_, '_, '_>) -> Option<Window> {
    let (time, calls) = (rate.span("window"), rate.count("calls"));
    if time.is_some() && calls.is_some() {
        rate.wrong("`window` and `calls` both say what the rate is taken over: one of them is too much");
    }
    time.map(Window::Time).or(calls.map(Window::Calls))
}

/// What a breaker says of its configuration, in the names that a document has for it.
fn in_words_of_documents(wrong: &circuit_breaker::ConfigError) -> String {
    use circuit_breaker::ConfigError as Wrong;
    match wrong {
        Wrong::Nothing => "nothing opens this circuit: set `consecutive`, `successRate` or `slowCallRate`".to_owned(),
        Wrong::Unreachable { minimum, window } => format!(
            "`successRate.minRequests` is {minimum}, more than the {window} of `successRate.calls`: the rate would never say anything"
        ),
        Wrong::Window(span) => format!("`successRate.window` is {span:?}; it must be at least 10ms"),
        Wrong::Zero("probe_timeout") => "`probeTimeout` must be longer than zero".to_owned(),
        Wrong::Zero("slow_after") => "`slowCallRate.longerThan` must be longer than zero".to_owned(),
        other => other.to_string(),
    }
}

fn concurrency(fields: &mut Fields<'_, '_, '_>) -> Option<bulkhead::Config> {
    let adaptive = fields.choice("mode", &[("fixed", false), ("adaptive", true)]).unwrap_or(false);
    let (min, max) = (fields.count("min"), fields.count("max"));
    let queue = fields.inner("queue", |queue| {
        let (length, max_wait) = (queue.number("length"), queue.span("maxWait"));
        Some(Queue { length: length.unwrap_or(0), max_wait: max_wait.unwrap_or(Duration::from_millis(100)) })
    });
    let usual = bulkhead::Config::default();
    let Some(max) = max else {
        fields.wrong("`max` says how many at once, and is missing");
        return None;
    };
    if min.is_some() && !adaptive {
        fields.wrong("`min` is of an adaptive limit: say `mode: adaptive`, or leave it out");
    }
    let limit = if adaptive {
        let min = min.unwrap_or(NonZeroU32::MIN);
        let initial = NonZeroU32::new(max.get() / 4).unwrap_or(NonZeroU32::MIN).max(min).min(max);
        Limit::Adaptive(Adaptive { min, initial, max, ..Adaptive::default() })
    } else {
        Limit::Fixed(max)
    };
    let tenant_share = fields.part("tenantShare", 1.0);
    let shares = fields.inner("shares", |shares| {
        let normal = shares.part("normal", 1.0).unwrap_or(usual.shares.normal);
        // Calls that matter less never have more.
        Some(Shares { background: shares.part("background", 1.0).unwrap_or(normal), normal })
    });
    let (queue, shares) = (queue.unwrap_or(usual.queue), shares.unwrap_or(usual.shares));
    let config = bulkhead::Config { limit, queue, shares, tenant_share };
    config.check().inspect_err(|wrong| fields.wrong(wrong.to_string())).ok()?;
    Some(config)
}

fn hedge(fields: &mut Fields<'_, '_, '_>) -> Option<hedge::Config> {
    let (after, part, at_least) = (fields.span("after"), fields.part("percentile", 1.0), fields.span("atLeast"));
    let extra = fields.count("extra").unwrap_or(NonZeroU32::MIN);
    let after = match (after, part) {
        (Some(span), None) => After::Fixed(span),
        (None, Some(part)) => After::Percentile { part, at_least: at_least.unwrap_or(Duration::from_millis(10)) },
        _ => {
            fields.wrong("either `after` or `percentile` says when an answer is late");
            return None;
        }
    };
    let config = hedge::Config { after, extra };
    config.check().inspect_err(|wrong| fields.wrong(wrong.to_string())).ok()?;
    Some(config)
}

fn rate_limit(fields: &mut Fields<'_, '_, '_>) -> Option<(Rate, Option<OnUnavailable>)> {
    let by_store = fields.choice("count", &[("process", false), ("store", true)]).unwrap_or(false);
    let modes = [("allow", Fail::Allow), ("deny", Fail::Deny), ("local", Fail::Local)];
    let mode = fields.choice("onStoreUnavailable", &modes);
    let (requests, per, burst) = (fields.count("requests"), fields.span("per"), fields.count("burst"));
    let Some(requests) = requests else {
        fields.wrong("`requests` says how many, and is missing");
        return None;
    };
    let rate = Rate::new(requests, per.unwrap_or(Duration::from_secs(1)));
    let rate = burst.map_or(rate, |burst| rate.with_burst(burst));
    if rate.window.is_zero() {
        fields.wrong("`per` must be longer than zero");
        return None;
    }
    rate.check().inspect_err(|wrong| fields.wrong(wrong.to_string())).ok()?;
    match (by_store, mode) {
        (true, None) => {
            fields.wrong(
                "`onStoreUnavailable` says what holds while the store cannot count, and has no default: `allow`, `deny` or `local`",
            );
            None
        }
        (false, Some(_)) => {
            fields
                .wrong("`onStoreUnavailable` is of a rate that the store counts: say `count: store`, or leave it out");
            None
        }
        (_, mode) => Some((rate, mode.map(|mode| mode.of(rate)))),
    }
}

/// What holds while the store cannot count.
#[derive(Clone, Copy)]
enum Fail {
    Allow,
    Deny,
    Local,
}

impl Fail {
    const fn of(self, rate: Rate) -> OnUnavailable {
        match self {
            Self::Allow => OnUnavailable::Allow,
            Self::Deny => OnUnavailable::Deny,
            Self::Local => OnUnavailable::Local(rate),
        }
    }
}
