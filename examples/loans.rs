//! A bank's loan applications: a real log of a quarter million events, and what each application was at any moment.
//!
//! ```text
//! cargo run --release -p quorate-examples --example loans [APPLICATION [TIME]]
//! cargo run --release -p quorate-examples --example loans application-173688 2011-10-08T12:00:00+02:00
//! ```
//!
//! Events are brought in as they are, then read through a decider: an application is submitted, looked into, offered
//! money, and ends approved, declined or cancelled. Run it twice: the second time every event is known, and nothing
//! doubles. Whatever the library folds is held against a plain scan of the file.
//!
//! The log is that of the BPI Challenge 2012 (van Dongen, doi:10.4121/uuid:3926db30-f712-4394-aebc-75976070e91f), one
//! CloudEvent per line, found through QUORATE_LOANS or at ../shared/data/loans.ndjson.gz. Without it a small sample of
//! our own making stands in.

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
    fmt,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::ExitCode,
};

use quorate::{
    Env,
    event::{NewEvent, Recorded, Timestamp},
    event_sourcing::{Aggregate, Aggregates, Decider, DomainEvent, EventType, Moment},
    name::Name,
    store::{AppendBatch, ExpectedVersion, ReadStream, Store, StreamAppend, sqlite},
    time::Wall,
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

macro_rules! steps {
    ($($name:literal)*) => { &[$(EventType { name: concat!("loan.", $name), version: 1 }),*] };
}

/// One step of the process. `A_` is the application's own state, `O_` an offer, `W_` somebody's work.
pub(crate) struct Step {
    /// Which of [`TYPES`](DomainEvent::TYPES).
    kind: usize,
    details: Details,
}

/// The data of an event.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Details {
    activity: String,
    lifecycle: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    amount_requested: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    registered: Option<String>,
}

impl DomainEvent for Step {
    const TYPES: &'static [EventType] = steps! {
        "A_SUBMITTED.complete" "A_PARTLYSUBMITTED.complete" "A_PREACCEPTED.complete" "A_ACCEPTED.complete"
        "A_FINALIZED.complete" "A_APPROVED.complete" "A_REGISTERED.complete" "A_ACTIVATED.complete"
        "A_DECLINED.complete" "A_CANCELLED.complete"
        "O_SELECTED.complete" "O_CREATED.complete" "O_SENT.complete" "O_SENT_BACK.complete" "O_ACCEPTED.complete"
        "O_CANCELLED.complete" "O_DECLINED.complete"
        "W_Afhandelen leads.schedule" "W_Afhandelen leads.start" "W_Afhandelen leads.complete"
        "W_Beoordelen fraude.schedule" "W_Beoordelen fraude.start" "W_Beoordelen fraude.complete"
        "W_Completeren aanvraag.schedule" "W_Completeren aanvraag.start" "W_Completeren aanvraag.complete"
        "W_Nabellen incomplete dossiers.schedule" "W_Nabellen incomplete dossiers.start"
        "W_Nabellen incomplete dossiers.complete"
        "W_Nabellen offertes.schedule" "W_Nabellen offertes.start" "W_Nabellen offertes.complete"
        "W_Valideren aanvraag.schedule" "W_Valideren aanvraag.start" "W_Valideren aanvraag.complete"
        "W_Wijzigen contractgegevens.schedule"
    };

    fn type_index(&self) -> usize {
        self.kind
    }

    fn encode(&self, data: &mut Vec<u8>) -> Result<(), serde_json::Error> {
        serde_json::to_writer(data, &self.details)
    }

    fn decode(kind: usize, data: &[u8]) -> Result<Self, serde_json::Error> {
        Ok(Self { kind, details: serde_json::from_slice(data)? })
    }
}

impl Step {
    /// The customer changes their mind.
    fn cancelled() -> Self {
        let name = "loan.A_CANCELLED.complete";
        let kind = Self::TYPES.iter().position(|known| known.name == name).unwrap_or_else(|| unreachable!("{name}"));
        let (activity, lifecycle) = ("A_CANCELLED".into(), "COMPLETE".into());
        Self {
            kind,
            details: Details { activity, lifecycle, resource: None, amount_requested: None, registered: None },
        }
    }
}

/// Where an application stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Nobody has asked for anything yet.
    #[default]
    Unheard,
    Open,
    Approved,
    Declined,
    Cancelled,
}

/// An application as the fold of its events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Application {
    pub(crate) phase: Phase,
    /// Euros asked for.
    pub(crate) amount: Option<u64>,
    /// Offers made so far.
    pub(crate) offers: u32,
    /// What somebody is working on.
    pub(crate) working: BTreeSet<String>,
}

pub(crate) enum Command {
    Withdraw,
}

#[derive(Debug)]
pub(crate) enum Rejection {
    NeverSubmitted,
    Over(Phase),
}

pub(crate) struct LoanApplication;

impl Decider for LoanApplication {
    type Command = Command;
    type Event = Step;
    type State = Application;
    type Rejection = Rejection;

    fn decide(&self, application: &Application, command: &Command) -> Result<Vec<Step>, Rejection> {
        match (command, application.phase) {
            (Command::Withdraw, Phase::Open) => Ok(vec![Step::cancelled()]),
            (_, Phase::Unheard) => Err(Rejection::NeverSubmitted),
            (_, over) => Err(Rejection::Over(over)),
        }
    }

    fn evolve(mut application: Application, step: &Step) -> Application {
        let Details { activity, lifecycle, amount_requested, .. } = &step.details;
        match (activity.as_str(), lifecycle.as_str()) {
            ("A_SUBMITTED", _) => {
                (application.phase, application.amount) = (Phase::Open, *amount_requested);
            }
            ("A_APPROVED", _) => application.phase = Phase::Approved,
            ("A_DECLINED", _) => application.phase = Phase::Declined,
            ("A_CANCELLED", _) => application.phase = Phase::Cancelled,
            ("O_CREATED", _) => application.offers += 1,
            (item, "START") if item.starts_with("W_") => _ = application.working.insert(item.to_owned()),
            (item, "COMPLETE") if item.starts_with("W_") => _ = application.working.remove(item),
            _ => {}
        }
        application
    }
}

impl Aggregate for LoanApplication {
    const CATEGORY: &'static str = "application";
}

/// A line of the file.
#[derive(Deserialize)]
struct Line {
    id: String,
    source: String,
    #[serde(rename = "type")]
    kind: String,
    subject: String,
    time: String,
    data: Box<RawValue>,
}

impl Line {
    fn event(&self) -> Outcome<NewEvent> {
        let mut event = NewEvent::new(&*self.id, &*self.source, &*self.kind).json(self.data.get().as_bytes().to_vec());
        event.subject = Some(self.subject.as_str().into());
        event.time = Some(self.time.parse()?);
        Ok(event)
    }
}

fn lines(env: &Env, path: &Path) -> Outcome<impl Iterator<Item = Outcome<Line>> + use<>> {
    let file = env.disk().open(path).map_err(|cause| format!("{}: {cause}", path.display()))?;
    let packed = path.extension().is_some_and(|extension| extension == "gz");
    let text: Box<dyn Read> = if packed { Box::new(flate2::read::MultiGzDecoder::new(file)) } else { Box::new(file) };
    Ok(BufReader::new(text).lines().map(|line| Ok(serde_json::from_str(&line?)?)))
}

/// Events that came with one sync of the disk.
const BATCH: usize = 1_000;

/// What an import did.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Imported {
    pub(crate) new: usize,
    pub(crate) known: usize,
}

/// Brings every line in, each into the stream that its subject names. Events that are known stay as they are: cut off
/// anywhere and run again, nothing is lost or doubled, because the same lines always come in the same batches.
pub(crate) async fn import(store: &Store, input: &Path) -> Outcome<Imported> {
    let mut imported = Imported::default();
    let mut lines = lines(store.env(), input)?.peekable();
    while lines.peek().is_some() {
        let mut streams: BTreeMap<String, Vec<NewEvent>> = BTreeMap::new();
        let mut count = 0;
        for line in lines.by_ref().take(BATCH) {
            let line = line?;
            streams.entry(line.subject.clone()).or_default().push(line.event()?);
            count += 1;
        }
        let parts = streams.into_iter().map(|(stream, events)| {
            Ok(StreamAppend { stream: stream.parse()?, expected: ExpectedVersion::Any, events })
        });
        let batch = AppendBatch { streams: parts.collect::<Outcome<_>>()?, conditions: Vec::new() };
        let appended = store.append(batch).await?;
        *(if appended.repeated { &mut imported.known } else { &mut imported.new }) += count;
    }
    Ok(imported)
}

/// Every application at `at`, read off the file without the library: the same rules, told another way.
pub(crate) fn scan(env: &Env, input: &Path, at: Wall) -> Outcome<BTreeMap<String, Application>> {
    let mut lives: BTreeMap<String, Vec<Line>> = BTreeMap::new();
    for line in lines(env, input)? {
        let line = line?;
        if line.time.parse::<Timestamp>()?.instant() <= at {
            lives.entry(line.subject.clone()).or_default().push(line);
        }
    }
    Ok(lives.into_iter().map(|(subject, life)| (subject, described(&life))).collect())
}

fn described(life: &[Line]) -> Application {
    let last = |kind: &str| life.iter().rposition(|line| line.kind == kind);
    let ends = [
        ("loan.A_APPROVED.complete", Phase::Approved),
        ("loan.A_DECLINED.complete", Phase::Declined),
        ("loan.A_CANCELLED.complete", Phase::Cancelled),
        ("loan.A_SUBMITTED.complete", Phase::Open),
    ];
    let phase = ends.into_iter().find(|(kind, _)| last(kind).is_some()).map_or(Phase::Unheard, |(_, phase)| phase);
    let amount = life.iter().find_map(|line| serde_json::from_str::<Details>(line.data.get()).ok()?.amount_requested);
    let offers = life.iter().filter(|line| line.kind == "loan.O_CREATED.complete").count() as u32;
    let begun = life.iter().filter_map(|line| line.kind.strip_suffix(".start"));
    let unfinished = begun.filter(|item| last(&format!("{item}.start")) > last(&format!("{item}.complete")));
    let working = unfinished.filter_map(|item| item.strip_prefix("loan.")).map(str::to_owned).collect();
    Application { phase, amount, offers, working }
}

/// What the library made of all applications, after it was held against the scan.
pub(crate) struct Compared {
    pub(crate) applications: usize,
    pub(crate) phases: BTreeMap<Phase, usize>,
}

/// Folds every application at `at` and compares it with the scan of the file.
pub(crate) async fn compare(
    loans: &Aggregates<LoanApplication>,
    scanned: &BTreeMap<String, Application>,
    at: Wall,
) -> Outcome<Compared> {
    let mut phases = BTreeMap::new();
    for (subject, expected) in scanned {
        let folded = loans.at(number(subject), Moment::Time(at)).await?.state;
        if *folded != *expected {
            return Err(format!("{subject}: the library folds {folded:?}, the file says {expected:?}").into());
        }
        *phases.entry(folded.phase).or_default() += 1;
    }
    Ok(Compared { applications: scanned.len(), phases })
}

/// `173688` of `application-173688`.
fn number(subject: &str) -> &str {
    subject.split_once('-').map_or(subject, |(_, number)| number)
}

/// The events of one application, oldest first.
async fn life(store: &Store, stream: &str) -> Outcome<Vec<Recorded>> {
    let page = store.read_stream(ReadStream::forward(stream.parse::<Name>()?, 10_000)).await?;
    if page.events.is_empty() {
        return Err(format!("there is no {stream}").into());
    }
    Ok(page.events)
}

/// Prints the life of one application, and what it was at `at`.
async fn tell(loans: &Aggregates<LoanApplication>, stream: &str, at: Option<Timestamp>) -> Outcome<Wall> {
    let life = life(loans.store(), stream).await?;
    let at = at.map_or_else(|| life[life.len() / 2].happened_at(), |time| time.instant());
    for event in &life {
        let mark = if event.happened_at() <= at { "●" } else { "○" };
        let details: Details = serde_json::from_slice(event.data().unwrap_or_default())?;
        let who = details.resource.as_deref().unwrap_or("-");
        println!("{mark} {:>3}  {:<29}  {who:>6}  {}", event.version(), event.time_text().unwrap_or("?"), event.kind());
    }
    let then = loans.at(number(stream), Moment::Time(at)).await?.state;
    println!("\n{stream} at {}: {then}", Timestamp::from(at));
    match LoanApplication.decide(&then, &Command::Withdraw) {
        Ok(_) => println!("It could have been withdrawn then."),
        Err(Rejection::NeverSubmitted) => println!("It did not exist yet."),
        Err(Rejection::Over(phase)) => println!("It could not have been withdrawn any more: {phase:?}."),
    }
    Ok(at)
}

impl fmt::Display for Application {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { phase, amount, offers, working } = self;
        let working: Vec<&str> = working.iter().map(String::as_str).collect();
        let working =
            if working.is_empty() { "nobody at work".to_owned() } else { format!("at work: {}", working.join(", ")) };
        write!(f, "{phase:?}, {} euros asked for, offers: {offers}, {working}", amount.unwrap_or(0))
    }
}

/// The real log, or our sample, said loudly.
fn input(env: &Env) -> Outcome<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    if let Some(named) = std::env::var_os("QUORATE_LOANS") {
        return Ok(named.into());
    }
    let beside = here.join("../../shared/data/loans.ndjson.gz");
    if env.disk().exists(&beside)? {
        return Ok(beside);
    }
    eprintln!("NOTE: no loans at QUORATE_LOANS or ../shared/data: a SMALL SAMPLE of our own making stands in for them");
    Ok(here.join(SAMPLE))
}

/// A few invented applications in the shape of the real ones.
pub(crate) const SAMPLE: &str = "data/loans-sample.ndjson";

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("loans: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Outcome<()> {
    let env = Env::real();
    let input = input(&env)?;
    let mut arguments = std::env::args().skip(1);
    let asked = arguments.next();
    let at = arguments.next().map(|time| time.parse()).transpose()?;

    // A store for each input, kept between runs.
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/examples-data");
    env.disk().create_dir_all(&folder)?;
    let name = input.file_name().unwrap_or_default().to_string_lossy().replace(".ndjson", "").replace(".gz", "");
    let store = sqlite::open(&env, sqlite::Config::at(folder.join(format!("{name}.db")))).await?;
    let began = env.mono();
    let Imported { new, known } = import(&store, &input).await?;
    println!("{new} events imported, {known} known before, {:?}\n", env.mono().saturating_since(began));

    let loans = Aggregates::of(LoanApplication).open(&store).await?;
    let first = || Ok::<_, Box<dyn Error + Send + Sync>>(lines(&env, &input)?.next().ok_or("an empty file")??.subject);
    let stream = asked.map_or_else(first, |asked| Ok(format!("application-{}", number(&asked))))?;
    let at = tell(&loans, &stream, at).await?;
    for (when, at) in [("then", at), ("in the end", env.wall())] {
        let Compared { applications, phases } = compare(&loans, &scan(&env, &input, at)?, at).await?;
        println!("\n{applications} applications {when}, each as the file says:");
        phases.iter().for_each(|(phase, count)| println!("{count:>7}  {phase:?}"));
    }
    Ok(store.close().await?)
}
