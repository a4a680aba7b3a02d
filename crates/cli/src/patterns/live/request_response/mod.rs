//! Charges that callers ask for, with nobody there, a responder that is killed, one that is too slow and a node that is told to stop: who asks
//! hears what became of it, and nothing is done twice.

mod caller;
mod charge;
mod judge;
mod responder;
mod till;

use std::{sync::Arc, time::Duration};

use futures_util::future::try_join_all;
use quorate_foundations::time::Mono;
use quorate_runtime::Env;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

pub(super) use self::responder::Responder;
use self::{
    caller::{Callers, LONG},
    charge::{Charge, Course, KIND},
    judge::Judge,
    responder::WINDOW,
    till::{Books, STOPPED, Till},
};
use super::{
    child::Role,
    node::{self, Node},
    show::{Shown, Span, Timeline, millis},
};
use crate::{
    client::{Call, JSON, Target},
    demo::{folder::Folder, process::Process},
    exit::Failure,
};

const RESPONDERS: usize = 2;
const CALLERS: u32 = 4;
/// How long nothing goes wrong before, between and behind.
const QUIET: Duration = Duration::from_millis(300);
/// How long the caller waits whose responder is too slow.
const SHORT: Duration = Duration::from_secs(2);
/// How many are answered by the other responder before the one that was killed comes back.
const MEANWHILE: usize = 20;
/// Requests that are worked on when the node is told to stop, as many as there are places; and those that wait for a place.
const HELD: usize = RESPONDERS * WINDOW;
const WAITING: usize = 3;
/// Charges of which there is one each.
const EARLY: &str = "early";
const SLOW: &str = "slow";
const STRUCK: &str = "struck";

/// What was done, and when.
struct Seen {
    begun: Mono,
    killed: Mono,
    back: Mono,
    /// How many were answered while a responder was gone.
    meanwhile: usize,
    /// Answers that nobody waited for any more, as the node counts them.
    late: Option<u64>,
    told_to_stop: Mono,
    ended: Mono,
    /// Whether the node ended by itself.
    has_ended: bool,
}

pub(super) async fn run(env: &Env) -> Result<Shown, Failure> {
    let folder = Folder::passing(env)?;
    let till = Arc::new(Till::new(env));
    let stage = Stage { env: env.clone(), till: till.clone(), address: till.clone().serve(env).await? };
    let mut node = Node::start(env, &folder.path).await?;
    let contract = json!({ "time-limit": "2m", "idempotent": false }).to_string();
    node.call(&Call::post(Target::path(&["v1", "request-types", KIND]), JSON, contract).put()).await?;
    let callers = Callers::of(env, &node.url())?;

    let begun = env.mono();
    callers.ask(Charge::new(EARLY, Course::Plain), LONG).await?;
    let mut responders = Vec::new();
    for number in 0..RESPONDERS {
        responders.push(stage.responder(&node, number).await?);
    }
    let stop = CancellationToken::new();
    let told = async {
        let told = stage.strike(&node, &callers, &mut responders).await;
        stop.cancel();
        told
    };
    let going_on = try_join_all((0..CALLERS).map(|number| callers.go_on(number, &stop)));
    let (told, went_on) = tokio::join!(told, going_on);
    let (killed, back, meanwhile) = told?;
    went_on?;
    let late = node.metric("quorate_request_late_answers").await;
    let told_to_stop = stage.stop(&node, &callers).await?;
    let has_ended = node::until(env, async || node.has_ended()).await;
    let seen = Seen { begun, killed, back, meanwhile, late, told_to_stop, ended: env.mono(), has_ended };
    let judge = Judge { seen: &seen, ended: callers.ended(), books: till.books() };
    for responder in &mut responders {
        responder.kill().await;
    }

    let mut shown = chart(&seen);
    judge.count(&mut shown);
    judge.figures(&mut shown);
    judge.claims(&mut shown);
    shown.timelines.extend([judge.struck(), judge.slow()].into_iter().flatten());
    Ok(shown)
}

/// Where it is played.
struct Stage {
    env: Env,
    till: Arc<Till>,
    address: String,
}

impl Stage {
    /// Starts a responder, and waits until the node knows it.
    async fn responder(&self, node: &Node, number: usize) -> Result<Process, Failure> {
        let before = standing(node, "responders").await.unwrap_or_default();
        let role = Role::Responder(Responder { number, node: node.url(), till: self.address.clone() });
        let (process, ()) = node::start(&self.env, "a responder", &role).await?;
        node::until(&self.env, async || standing(node, "responders").await > Some(before)).await;
        Ok(process)
    }

    /// Has one request outlast its caller's patience, and kills a responder that has made a charge and not answered yet. Says when that was,
    /// when it was back, and how many were answered meanwhile.
    async fn strike(
        &self,
        node: &Node,
        callers: &Callers,
        responders: &mut [Process],
    ) -> Result<(Mono, Mono, usize), Failure> {
        self.env.sleep(QUIET).await;
        callers.ask(Charge::new(SLOW, Course::Slow), SHORT).await?;
        // Its answer comes when nobody waits for it.
        node::until(&self.env, async || self.till.books().noted(SLOW, "late").is_some()).await;
        let killing = async {
            node::until(&self.env, async || self.till.books().times(STRUCK) > 0).await;
            let number = self.till.books().find(STRUCK).map_or(0, |made| made.responder);
            let (killed, before) = (self.env.mono(), callers.answered());
            if let Some(process) = responders.get_mut(number) {
                process.kill().await;
            }
            self.till.let_go();
            node::until(&self.env, async || standing(node, "responders").await < Some(RESPONDERS as u64)).await;
            node::until(&self.env, async || callers.answered() >= before + MEANWHILE).await;
            let meanwhile = callers.answered() - before;
            if let Some(process) = responders.get_mut(number) {
                *process = self.responder(node, number).await?;
            }
            Ok::<_, Failure>((killed, self.env.mono(), meanwhile))
        };
        let (struck, killed) = tokio::join!(callers.ask(Charge::new(STRUCK, Course::Struck), LONG), killing);
        struck?;
        self.env.sleep(QUIET).await;
        killed
    }

    /// Tells the node to stop when all places are taken and more requests wait for one. Says when that was.
    async fn stop(&self, node: &Node, callers: &Callers) -> Result<Mono, Failure> {
        let many = |many: usize, what: &'static str, course| {
            try_join_all((0..many).map(move |nth| callers.ask(Charge::new(format!("{what}-{nth}"), course), LONG)))
        };
        let waiting = async {
            node::until(&self.env, async || self.till.books().of(Course::Held) == HELD).await;
            let waited = many(WAITING, "waiting", Course::Plain).await;
            // Told that it is stopping, or not at all: what is worked on can end.
            self.till.release();
            waited
        };
        let telling = async {
            node::until(&self.env, async || standing(node, "waiting").await == Some(WAITING as u64)).await;
            node.tell_to_stop();
            self.env.mono()
        };
        let (held, waited, told) = tokio::join!(many(HELD, "held", Course::Held), waiting, telling);
        held.and(waited).map(|_| told)
    }
}

/// How many responders there are, or how many requests wait or run; nothing where the node does not say.
async fn standing(node: &Node, what: &str) -> Option<u64> {
    let told: Value = node.call(&Call::get(Target::path(&["v1", "request-types", KIND]))).await.ok()?;
    told[what].as_u64()
}

fn chart(seen: &Seen) -> Shown {
    let scene = format!(
        "{CALLERS} callers ask for charges, each of which is made at a till by one of {RESPONDERS} responders, processes that the node hands \
         requests to. At first nobody is there; later one responder is too slow for its caller, one is killed when a charge is made and not \
         answered, and in the end the node is told to stop while {HELD} requests are worked on and {WAITING} wait. Nobody asks twice."
    );
    let mark = Some("a responder was killed and is not back yet, or the node was told to stop");
    let mut shown = Shown { scene, mark, ..Shown::default() };
    shown.unwell(seen.begun, seen.killed, seen.back);
    shown.unwell(seen.begun, seen.told_to_stop, seen.ended);
    shown
}
