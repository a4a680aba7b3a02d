//! A view that is made anew beside the one that readers have, with its node killed in the middle, and an event that cannot be applied.

mod shop;
mod watch;

use std::time::Duration;

use quorate_foundations::time::Mono;
use quorate_runtime::Env;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use self::{
    shop::{CUSTOMERS, FOREIGN, HISTORY, Log, ODD, WORTH, customer},
    watch::{Answer, Reader, question},
};
use super::{
    appended::{Appended, Pace},
    node::{self, Node, fresh, position},
    show::{Shown, millis},
};
use crate::{
    client::{Call, JSON},
    demo::folder::Folder,
    exit::Failure,
};

const FIRST: &str = include_str!("first.toml");
const SECOND: &str = include_str!("second.toml");
/// Orders of the history that are appended at once.
const BATCH: u64 = 250;
/// How much of the log has been gone through when the node is killed, in percent.
const MIDDLE: u64 = 30;
/// How long nothing is done to the view, before and after.
const QUIET: Duration = Duration::from_millis(500);
/// How many orders come at once, and how long customers rest between two appends.
const AT_ONCE: u64 = 3;
const PAUSE: Duration = Duration::from_millis(15);
const TOML: &str = "application/toml";

/// What was done, and what came of it.
struct Story {
    /// Whether trying them again changed nothing as long as nothing was mended.
    still_poison: bool,
    /// How much of the log the second version had gone through.
    progress: Vec<(Mono, u64)>,
    killed: Mono,
    back: Mono,
    /// Its checkpoint and the log's end before the kill, and its checkpoint when the node was back.
    checkpoints: [Option<u64>; 3],
    /// Whether readers were not given it while events of it were parked.
    held_back: bool,
    /// Events that were applied at last, to the first and to the second version.
    replayed: [u64; 2],
    switched: Mono,
    /// Where readers were given it.
    position: Option<u64>,
    second: u64,
}

pub(super) async fn run(env: &Env) -> Result<Shown, Failure> {
    let folder = Folder::passing(env)?;
    let mut node = Node::start(env, &folder.path).await?;
    node.call(&Call::post("/v1/views/customers/document", TOML, FIRST).put()).await?;
    let mut token = node.call(&shop::own_rate()).await?["token"].clone();
    for from in (0..HISTORY).step_by(BATCH as usize) {
        token = node.call(&shop::orders(from..HISTORY.min(from + BATCH))).await?["token"].clone();
    }
    let caught_up = fresh(question(), token.as_str().unwrap_or_default())?;
    node::until(env, async || node.call(&caught_up).await.is_ok()).await;

    let parked = node.call(&Call::get("/v1/views/customers/parked?limit=1000")).await?;

    let (begun, url, stop) = (env.mono(), node.url(), CancellationToken::new());
    let told = async {
        let told = tell(env, &mut node).await;
        stop.cancel();
        told
    };
    let pace = Pace { first: HISTORY, at_once: AT_ONCE, pause: PAUSE };
    let (story, ordered, one, other) = futures_util::join!(
        told,
        Appended::go_on(env, &url, (pace, shop::orders), &stop),
        Reader::ask(env, &url, &stop),
        Reader::ask(env, &url, &stop)
    );
    let (story, ordered, readers) = (story?, ordered?, [one?, other?]);
    let last = fresh(question(), &ordered.token)?;
    node::until(env, async || node.call(&last).await.is_ok()).await;
    let (end, log) = (node.call(&last).await?, Log::read(&node).await?);
    let audit = act(&node, "audit", &json!({ "build": story.second })).await?;

    let mut shown = chart(begun, &story, &ordered, &readers);
    let parked = parked["parked"].as_array().map_or(&[][..], Vec::as_slice);
    figures(&mut shown, (&story, parked), &ordered, &readers, &log);
    let all = ordered.all.unwrap_or_default();
    shown.claim(
        format!("each of {all} orders is in the log once, those of a lost answer included"),
        ordered.all.is_some() && log.holds_once(all),
    );
    claim_parked(&mut shown, &story, parked);
    let [before, head, after] = story.checkpoints;
    shown.claim(
        "the node was killed in the middle of the rebuild, which went on from its checkpoint",
        before.is_some_and(|before| before > 0 && Some(before) < head && after >= Some(before)),
    );
    claim_answers(&mut shown, &story, &readers, &log);
    let rows = end["rows"].as_array().and_then(|rows| rows.iter().map(shop::Row::read).collect::<Option<_>>());
    shown.claim(
        "in the end the view is the fold of the log, row by row, and its audit misses no event",
        end["version"] == 2
            && end["parked"] == 0
            && position(&end["logposition"]) == Some(log.head)
            && rows == Some(log.fold().at(log.head, 0, 2))
            && audit["whole"] == true,
    );
    Ok(shown)
}

/// What is done to the view while customers order and readers ask.
async fn tell(env: &Env, node: &mut Node) -> Result<Story, Failure> {
    let key = customer(ODD);
    let first = stand(node, 1).await.map_or(0, |stand| stand.build);
    let replay = |build: u64| json!({ "key": key, "build": build });
    let still_poison = is_refused(act(node, "replay", &replay(first)).await, "view-still-poison")?;
    env.sleep(QUIET).await;

    node.call(&Call::post("/v1/views/customers/document", TOML, SECOND).put()).await?;
    let (mut progress, mut seen) = (vec![(env.mono(), 0)], None);
    node::until(env, async || {
        seen = stand(node, 2).await.or(seen);
        progress.extend(seen.map(|seen| (env.mono(), seen.percent())));
        seen.is_some_and(|seen| seen.percent() >= MIDDLE)
    })
    .await;
    let killed = env.mono();
    node.kill_and_start().await?;
    let back = env.mono();
    let after = stand(node, 2).await;
    progress.extend(after.map(|after| (back, after.percent())));

    // The mend: somebody tells the rate. What waited for it is applied, in order, to what readers have first.
    let told = node.call(&shop::rate(FOREIGN, WORTH)).await?;
    let knows_it = fresh(question(), told["token"].as_str().unwrap_or_default())?;
    node::until(env, async || node.call(&knows_it).await.is_ok()).await;
    let of_first = act(node, "replay", &replay(first)).await?["events"].as_u64();

    let second = seen.map_or(0, |seen| seen.build);
    let (switch, mut held_back) = (json!({ "build": second }), None);
    node::until(env, async || {
        progress.extend(stand(node, 2).await.map(|stand| (env.mono(), stand.percent())));
        held_back = match act(node, "switch", &switch).await {
            Ok(_) => Some(false),
            Err(Failure::Problem(problem)) if problem.slug == "view-incomplete" => Some(true),
            Err(_) => None,
        };
        held_back.is_some()
    })
    .await;
    let of_second = act(node, "replay", &replay(second)).await?["events"].as_u64();
    let mut at = None;
    node::until(env, async || {
        // Readers have an event more than it now and then: a moment later it has that one, too.
        at = act(node, "switch", &switch).await.ok().and_then(|told| position(&told["logposition"]));
        at.is_some()
    })
    .await;
    let switched = env.mono();
    env.sleep(QUIET).await;
    progress.extend([switched, env.mono()].map(|moment| (moment, 100)));
    Ok(Story {
        still_poison,
        progress,
        killed,
        back,
        checkpoints: [
            seen.map(|seen| seen.checkpoint),
            seen.map(|seen| seen.head),
            after.map(|after| after.checkpoint),
        ],
        held_back: held_back == Some(true),
        replayed: [of_first, of_second].map(Option::unwrap_or_default),
        switched,
        position: at,
        second,
    })
}

/// How a build stands.
#[derive(Clone, Copy)]
struct Stand {
    build: u64,
    checkpoint: u64,
    head: u64,
}

impl Stand {
    fn percent(self) -> u64 {
        self.checkpoint * 100 / self.head.max(1)
    }
}

/// How the build of a version stands; nothing where the node does not say.
async fn stand(node: &Node, version: u64) -> Option<Stand> {
    let told = node.call(&Call::get("/v1/views/customers")).await.ok()?;
    let build = told["builds"].as_array()?.iter().find(|build| build["version"] == version)?;
    let checkpoint = position(&build["shards"][0]["checkpoint"])?;
    Some(Stand { build: build["build"].as_u64()?, checkpoint, head: position(&told["head"])? })
}

async fn act(node: &Node, what: &str, body: &Value) -> Result<Value, Failure> {
    node.call(&Call::post(format!("/v1/views/customers/{what}"), JSON, body.to_string())).await
}

fn is_refused(ended: Result<Value, Failure>, slug: &str) -> Result<bool, Failure> {
    match ended {
        Ok(_) => Ok(false),
        Err(Failure::Problem(problem)) => Ok(problem.slug == slug),
        Err(failed) => Err(failed),
    }
}

fn chart(begun: Mono, story: &Story, ordered: &Appended, readers: &[Reader]) -> Shown {
    let scene = format!(
        "A view of {CUSTOMERS} customers is made anew, as another version, from a log of {HISTORY} orders, while more of them come and two readers ask. The node is killed in the middle of that; one order is in a currency whose rate nobody has told yet."
    );
    let mut shown = Shown { scene, mark: Some("the node was killed, and is not back yet"), ..Shown::default() };
    let of = |version| {
        let answers = readers.iter().flat_map(|reader| &reader.answers);
        answers.filter(move |answer| answer.version == version).map(|answer| answer.at)
    };
    shown.count("ORDERS", begun, ordered.at.iter().copied());
    shown.level("% REBUILT", begun, story.progress.iter().copied());
    shown.count("ANSWERS, VERSION 1", begun, of(1));
    shown.count("ANSWERS, VERSION 2", begun, of(2));
    shown.unwell(begun, story.killed, story.back);
    shown
}

fn figures(shown: &mut Shown, (story, parked): (&Story, &[Value]), ordered: &Appended, readers: &[Reader], log: &Log) {
    let reason = parked.first().and_then(|parked| parked["reason"].as_str());
    shown.figure("why the odd order could not be applied", reason.unwrap_or_default());
    let [of_first, of_second] = story.replayed;
    shown.figure(
        "events that waited for the rate, and were applied to both versions",
        format!("{of_first}, {of_second}"),
    );
    let [before, _, after] = story.checkpoints.map(Option::unwrap_or_default);
    shown.figure("checkpoint of the rebuild before the kill, and after it", format!("{before}, {after}"));
    let span = story.switched.saturating_since(story.progress.first().map_or(story.switched, |(at, _)| *at));
    shown.figure("from the beginning of the rebuild until readers had it", millis(span));
    shown.figure("the log in the end", format!("{} events", log.head));
    shown.figure("appends that were sent again, as they were", ordered.again);
    let unanswered: usize = readers.iter().map(|reader| reader.unanswered).sum();
    shown.figure("questions that the node did not answer while it was gone", unanswered);
}

/// What is said of the event that could not be applied.
fn claim_parked(shown: &mut Shown, story: &Story, parked: &[Value]) {
    let waits = |event: &Value| event["key"] == customer(ODD);
    let reason = parked.first().and_then(|parked| parked["reason"].as_str());
    let behind = (HISTORY - ODD).div_ceil(CUSTOMERS);
    shown.claim(
        format!("the odd order was parked with its reason, and held back the {} behind it of its customer and nobody else's", behind - 1),
        parked.len() as u64 == behind && parked.iter().all(waits) && reason.is_some_and(|why| !why.is_empty()),
    );
    shown.claim(
        "trying it again changed nothing until the rate was told; then it and those behind it were applied",
        story.still_poison && story.replayed.iter().all(|events| *events >= behind),
    );
    shown.claim("readers were not given the second version while events of it were parked", story.held_back);
}

/// What is said of what readers saw.
fn claim_answers(shown: &mut Shown, story: &Story, readers: &[Reader; 2], log: &Log) {
    let mut answers: Vec<&Answer> = readers.iter().flat_map(|reader| &reader.answers).collect();
    answers.sort_by_key(|answer| answer.position);
    let mut fold = log.fold();
    let is_exact = |answer: &&Answer| fold.at(answer.position, answer.parked, answer.version) == answer.rows;
    let exact = answers.iter().copied().filter(is_exact).count();
    let readable = readers.iter().all(|reader| reader.strange == 0);
    shown.claim(
        format!("each of {} answers is the fold of the log up to its position, without what was parked: nobody saw a view half built", answers.len()),
        exact == answers.len() && readable && !answers.is_empty(),
    );
    shown.claim("no reader was shown less than before", readers.iter().all(Reader::saw_no_less));
    let (first, second): (Vec<&Answer>, Vec<&Answer>) = answers.iter().partition(|answer| answer.version == 1);
    let at = story.position.unwrap_or_default();
    let kept = first.iter().all(|answer| answer.position <= at) && second.iter().all(|answer| answer.position >= at);
    shown.claim(
        format!("readers were given the second version at position {at}: no answer of the first is behind it, none of the second before"),
        story.position.is_some() && kept && !first.is_empty() && !second.is_empty(),
    );
}
