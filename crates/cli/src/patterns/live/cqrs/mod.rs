//! Commands with their keys at one place, questions at another, with the node killed before it could answer and a view that lags.

mod customer;
mod desk;

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use quorate_foundations::time::Mono;
use quorate_runtime::Env;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

pub(super) use self::desk::serve;
use self::{
    customer::{Customer, Said, Way},
    desk::{Command, TooLittle},
};
use super::{
    child::Role,
    node::{self, Node, fresh, position},
    show::{Shown, millis},
};
use crate::{
    client::{Call, JSON},
    demo::{folder::Folder, proxy::Line},
    exit::Failure,
};

const VIEW: &str = include_str!("balances.toml");
/// The desk among what the process of the node serves.
const DESK: usize = 1;
const CUSTOMERS: u32 = 8;
/// How long the view stands still, and how long nothing happens before and after, and between.
const QUIET: Duration = Duration::from_millis(500);
/// How often it is asked how far the view is.
const LOOK: Duration = Duration::from_millis(20);
/// A purse of which a story is told.
const PURSE: &str = "ada";

pub(super) async fn run(env: &Env) -> Result<Shown, Failure> {
    let folder = Folder::passing(env)?;
    let mut node = Node::start_as(env, Role::Desk(PathBuf::from(&folder.path))).await?;
    node.call(&Call::post("/v1/views/balances/document", "application/toml", VIEW).put()).await?;
    node::until(env, async || node.call(&rows()).await.is_ok()).await;

    let (begun, url, desk, stop) = (env.mono(), node.url(), node.url_of(DESK), CancellationToken::new());
    let told = async {
        let told = tell(env, &mut node).await;
        stop.cancel();
        told
    };
    let customers = (0..CUSTOMERS).map(|number| Customer::come(env, &desk, number, &stop));
    let (story, customers, lag) =
        futures_util::join!(told, futures_util::future::join_all(customers), lag(env, &url, &stop));
    let (story, lag) = (story?, lag?);
    let customers = customers.into_iter().collect::<Result<Vec<_>, _>>()?;
    // Each waits for the view to show what was last said to it, and for nobody else.
    let mut shown_all = true;
    for customer in &customers {
        let read = fresh(row(&customer.purse), &customer.token)?;
        let expected = (Some(customer.cents), Some(customer.moves));
        shown_all &= node::until(env, async || node.call(&read).await.is_ok_and(|told| held(&told) == expected)).await;
    }
    let moves = moves(&node.events().await?);

    let mut shown = chart(begun, &story, &customers, &lag);
    claim_commands(&mut shown, &story, &customers, shown_all, &moves);
    claim_rulings(&mut shown, &story);
    claim_reads(&mut shown, &story);
    Ok(shown)
}

/// What was done, and what was said.
struct Story {
    killed: Mono,
    back: Mono,
    /// Whether a command was written down whose answer could not come.
    struck: bool,
    /// More was taken than there is; then enough put in; then the first command again, and the same with another key.
    rulings: [Said; 4],
    /// Whether the key of a command was refused for another one.
    key_refused: bool,
    /// The view stood still in this time.
    still: [Mono; 2],
    /// What a read with the token of a write was told then: how far the view is.
    behind: Option<u64>,
    /// And one without.
    stale: Value,
    /// What it was told once the view went on, and how soon.
    read: Value,
    waited: Duration,
}

async fn tell(env: &Env, node: &mut Node) -> Result<Story, Failure> {
    env.sleep(QUIET).await;
    // From here on commands arrive and no answer does: what is written down is known to nobody when the node dies.
    node.line_of(DESK, Line::Mute);
    let before = head(node).await;
    let struck = node::until(env, async || head(node).await > before).await && before.is_some();
    let killed = env.mono();
    node.kill_and_start().await?;
    node.line_of(DESK, Line::Open);
    let back = env.mono();

    let mut way = Way::to(env, &node.url_of(DESK))?;
    way.send(PURSE, Command::Add(30), "ada-1").await?;
    let rulings = [
        way.send(PURSE, Command::Take(100), "ada-2").await?,
        way.send(PURSE, Command::Add(100), "ada-3").await?,
        way.send(PURSE, Command::Take(100), "ada-2").await?,
        way.send(PURSE, Command::Take(100), "ada-4").await?,
    ];
    let other = way.send(PURSE, Command::Add(1), "ada-4").await;
    let key_refused = matches!(other, Err(Failure::Problem(problem)) if problem.status == http::StatusCode::CONFLICT);
    let known = fresh(row(PURSE), &rulings[3].token)?;
    node::until(env, async || node.call(&known).await.is_ok()).await;

    env.sleep(QUIET).await;
    act(node, "pause").await?;
    let paused = env.mono();
    let written = way.send(PURSE, Command::Add(7), "ada-5").await?;
    let read = row(PURSE).header(crate::client::TOKEN, &written.token)?;
    let behind = match node.call(&read).await {
        Err(Failure::Problem(problem)) if problem.slug == "view-behind" => {
            problem.text("applied").and_then(|applied| applied.parse().ok())
        }
        Ok(_) => None,
        Err(failed) => return Err(failed),
    };
    env.sleep(QUIET).await;
    let stale = node.call(&row(PURSE)).await?;
    act(node, "resume").await?;
    let resumed = env.mono();
    let (waiting, mut told) = (fresh(row(PURSE), &written.token)?, Value::Null);
    node::until(env, async || {
        told = node.call(&waiting).await.unwrap_or_default();
        !told.is_null()
    })
    .await;
    let waited = env.mono().saturating_since(resumed);
    env.sleep(QUIET).await;
    Ok(Story {
        killed,
        back,
        struck,
        rulings,
        key_refused,
        still: [paused, resumed],
        behind,
        stale,
        read: told,
        waited,
    })
}

/// How many events the view lacks, as a reader without a token is told, until `stop`.
async fn lag(env: &Env, url: &str, stop: &CancellationToken) -> Result<Vec<(Mono, u64)>, Failure> {
    let (mut seen, mut connection) = (Vec::new(), node::client(env, url)?.connection());
    while !stop.is_cancelled() {
        if let Ok(Ok(reply)) = connection.call(&rows()).await {
            let told: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
            seen.extend(told["lag-events"].as_u64().map(|lag| (env.mono(), lag)));
        }
        env.sleep(LOOK).await;
    }
    Ok(seen)
}

fn rows() -> Call {
    Call::get("/v1/views/balances/tables/purse/rows?limit=1")
}

/// A purse's row, as the view has it.
fn row(purse: &str) -> Call {
    Call::get(format!("/v1/views/balances/tables/purse/rows/purse-{purse}"))
}

/// What is in a purse, and how often something was moved.
fn held(told: &Value) -> (Option<i64>, Option<i64>) {
    (told["row"]["cents"].as_i64(), told["row"]["moves"].as_i64())
}

async fn act(node: &Node, what: &str) -> Result<Value, Failure> {
    node.call(&Call::post(format!("/v1/views/balances/{what}"), JSON, "{}")).await
}

/// Where the log ends; nothing where the node does not say.
async fn head(node: &Node) -> Option<u64> {
    position(&node.call(&Call::get("/v1/events?limit=1")).await.ok()?["head"])
}

/// How many events each purse has in the log, and what they leave in it.
fn moves(events: &[Value]) -> BTreeMap<String, (i64, i64)> {
    let mut moves = BTreeMap::<String, (i64, i64)>::new();
    for event in events {
        let purse = event["stream"].as_str().and_then(|stream| stream.strip_prefix("purse-")).unwrap_or_default();
        let cents = event["data"]["cents"].as_i64().unwrap_or_default();
        let moved = moves.entry(purse.to_owned()).or_default();
        let change = if event["type"] == "purse.added" { cents } else { -cents };
        *moved = (moved.0 + change, moved.1 + 1);
    }
    moves
}

fn chart(begun: Mono, story: &Story, customers: &[Customer], lag: &[(Mono, u64)]) -> Shown {
    let scene = format!(
        "{CUSTOMERS} customers send commands to a desk, each with a key, and questions go to a view. The node is killed when it has written commands down and no answer has left it; later the view stands still for a while."
    );
    let mark = "answers were lost and the node was killed, or the view stood still";
    let mut shown = Shown { scene, mark: Some(mark), ..Shown::default() };
    let all = |moments: fn(&Customer) -> &Vec<Mono>| customers.iter().flat_map(moments).copied();
    shown.count("COMMANDS ANSWERED", begun, all(|customer| &customer.answered));
    shown.count("OUTCOME UNKNOWN", begun, all(|customer| &customer.unknown));
    shown.level("EVENTS THAT THE VIEW LACKS", begun, lag.iter().copied());
    shown.unwell(begun, story.killed, story.back);
    let [paused, resumed] = story.still;
    shown.unwell(begun, paused, resumed);
    shown
}

/// What is said of commands whose answer was lost.
fn claim_commands(
    shown: &mut Shown,
    story: &Story,
    customers: &[Customer],
    shown_all: bool,
    moves: &BTreeMap<String, (i64, i64)>,
) {
    let sum = |of: fn(&Customer) -> usize| customers.iter().map(of).sum::<usize>();
    let (sent, rejected) = (sum(|customer| customer.answered.len()), sum(|customer| customer.rejected));
    let (unknown, repeated) = (sum(|customer| customer.unknown.len()), sum(|customer| customer.repeated));
    shown.figure("commands", format!("{sent}, of which {rejected} were rejected by the rule"));
    shown.figure("times that the outcome was unknown, and the command was sent again with its key", unknown);
    shown.figure("of these had been carried out, or rejected, before the kill", repeated);
    shown.claim(
        "the node was killed when commands were written down that nobody had been told of; sent again, they were answered as the first time",
        story.struck && repeated > 0 && unknown >= repeated,
    );
    let in_log = |customer: &Customer| moves.get(&customer.purse) == Some(&(customer.cents, customer.moves));
    shown.claim(
        format!("each of {sent} commands took effect once, however often it was sent: purse by purse, the log and the view hold what was answered"),
        sent > 0 && shown_all && customers.iter().all(in_log),
    );
    shown.claim(
        "a rejection was one by the rule, and never a failure in disguise: each answer is what the purse's own rule says",
        rejected > 0 && sum(|customer| customer.wrong) == 0,
    );
}

/// What is said of a rejection.
fn claim_rulings(shown: &mut Shown, story: &Story) {
    let [first, added, again, anew] = &story.rulings;
    let no = Err(TooLittle { missing: 70 });
    shown.claim(
        "a rejection says by how much it missed, and is the answer to its key: it stays when the rule would allow the command, which another key shows",
        (first.ruling, first.repeated) == (no, false)
            && (again.ruling, again.repeated) == (no, true)
            && again.token == first.token
            && added.ruling.is_ok()
            && (anew.ruling, anew.repeated) == (Ok(()), false),
    );
    shown.claim("the key of one command is refused for another", story.key_refused);
}

/// What is said of reads of a view that lags.
fn claim_reads(shown: &mut Shown, story: &Story) {
    let lacks = story.stale["lag-events"].as_u64().unwrap_or_default();
    shown.figure("events that a read without a token lacked, and said so", lacks);
    shown.figure("from the view's going on until the read with the token was answered", millis(story.waited));
    // 30 + 100 - 100, and not the 7 that came when the view stood still.
    let old = (Some(30), Some(3));
    shown.claim(
        "while the view stood still, a read with the token of a write was refused and told how far the view is, and one without was given what there was, and by how much it lags",
        story.behind.is_some() && story.behind == position(&story.stale["logposition"]) && held(&story.stale) == old && lacks > 0,
    );
    shown.claim(
        "once it went on, the read with the token showed the write",
        held(&story.read) == (Some(37), Some(4)) && position(&story.read["logposition"]) > story.behind,
    );
}
