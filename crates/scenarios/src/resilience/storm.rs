//! An upstream dies and returns under load, behind three hops each of which could retry: what reaches it stays within what one
//! budget allows.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use quorate_runtime::Env;
use quorate_sim::{Sim, TrueTime, check::Verdict};

use super::hop::{self, ATTEMPTS, BUDGET, CAP, Guards, PORT};
use crate::{Report, rule};

/// Calls a second that users make, whatever becomes of them.
pub(super) const RATE: u64 = 25;
/// How long they do.
const LASTS: Duration = Duration::from_secs(20);
/// How long one of them waits.
pub(super) const PATIENCE: Duration = Duration::from_secs(4);
/// What a window of arrivals lasts in which retries are counted: what was decided a tenth of the budget's interval, the
/// longest wait and the way there before it falls into one interval of the budget.
const WINDOW: Duration = Duration::from_secs(8);

/// How the upstream is ill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Illness {
    /// It says so.
    Says,
    /// It takes requests and never answers.
    Hangs,
}

/// When it is ill, in nanoseconds of true time, and how.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outage {
    pub(super) from: u64,
    pub(super) until: u64,
    pub(super) illness: Illness,
}

/// A request as it reached the upstream.
#[derive(Clone, Debug)]
pub(super) struct Arrival {
    pub(super) at: u64,
    pub(super) call: String,
}

pub(super) type Arrivals = Arc<Mutex<Vec<Arrival>>>;

/// Runs the scenario.
pub(crate) fn run(sim: Sim) -> Report {
    // What fails here is the upstream, when the scenario says so; the network's faults have scenarios of their own.
    let mut sim = sim.without_faults();
    let outages = outages(&sim);
    let (arrivals, time) = (Arrivals::default(), sim.true_time());
    let (noted, of_upstream, clock) = (arrivals.clone(), outages.clone(), time.clone());
    let upstream =
        sim.server("upstream", move |env| be_upstream(env, of_upstream.clone(), noted.clone(), clock.clone()));
    let mut next = sim.address(upstream, PORT);
    for name in ["back", "middle", "edge"] {
        let to = next;
        let host = sim.server(name, move |env| hop::run(env, to, Guards::None));
        next = sim.address(host, PORT);
    }
    let answered = Arc::new(Mutex::new(BTreeMap::<u16, u64>::new()));
    let told = answered.clone();
    sim.client("users", move |env| be_users(env, next, told.clone()));
    let outcome = sim.run();
    let arrivals = arrivals.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let answered = answered.lock().unwrap_or_else(PoisonError::into_inner).clone();
    Report::judged(outcome, Vec::new(), 0, |_| judge(&arrivals, &answered))
}

/// One to three outages, the last of which ends before users leave.
fn outages(sim: &Sim) -> Vec<Outage> {
    let mut rng = sim.random("outages");
    let mut outages = Vec::new();
    let mut at = 2_000;
    for _ in 0..=rng.below(3) {
        let from = at + rng.below(4_000);
        let until = from + 2_000 + rng.below(8_000);
        let illness = if rng.below(3) == 0 { Illness::Hangs } else { Illness::Says };
        let nanos = |millis: u64| millis * 1_000_000;
        outages.push(Outage { from: nanos(from), until: nanos(until), illness });
        at = until + 1_000;
    }
    outages
}

/// Answers, unless it is ill; notes what arrives.
pub(super) async fn be_upstream(
    env: Env,
    outages: Vec<Outage>,
    arrivals: Arrivals,
    time: TrueTime,
) -> Result<(), String> {
    let (outages, of_env) = (Arc::new(outages), env.clone());
    hop::serve(env, move |request| {
        let (outages, env, at) = (outages.clone(), of_env.clone(), time.nanos());
        let call = request.uri().path().to_owned();
        arrivals.lock().unwrap_or_else(PoisonError::into_inner).push(Arrival { at, call });
        async move {
            match outages.iter().find(|outage| (outage.from..outage.until).contains(&at)).map(|outage| outage.illness) {
                None => {
                    env.sleep(Duration::from_millis(5)).await;
                    hop::status(StatusCode::OK)
                }
                Some(Illness::Says) => hop::status(StatusCode::SERVICE_UNAVAILABLE),
                Some(Illness::Hangs) => std::future::pending().await,
            }
        }
    })
    .await
}

/// Users call on time, whatever became of the call before.
async fn be_users(
    env: Env,
    edge: std::net::SocketAddr,
    answered: Arc<Mutex<BTreeMap<u16, u64>>>,
) -> Result<(), String> {
    env.sleep(Duration::from_millis(500)).await;
    let calls = RATE * LASTS.as_secs();
    for nth in 0..calls {
        let (of_call, answered) = (env.clone(), answered.clone());
        env.tasks().spawn("call", async move {
            let answer = of_call.timeout(PATIENCE, call(&of_call, edge, &format!("/{nth}"))).await;
            let status = answer.and_then(Result::ok).map_or(0, |(status, _)| status);
            *answered.lock().unwrap_or_else(PoisonError::into_inner).entry(status).or_default() += 1;
        });
        env.sleep(Duration::from_nanos(1_000_000_000 / RATE)).await;
    }
    env.sleep(PATIENCE).await;
    Ok(())
}

/// One call, on a connection of its own: the status of its answer, and its body.
pub(super) async fn call(
    env: &Env,
    edge: std::net::SocketAddr,
    path: &str,
) -> Result<(u16, String), Box<dyn std::error::Error + Send + Sync>> {
    let io = env.net().connect(edge).await?;
    let (mut sender, driver) = http1::handshake(TokioIo::new(io)).await?;
    env.tasks().spawn("connection", async move { _ = driver.await });
    let request = Request::get(path).header("host", "edge").body(Full::<Bytes>::default())?;
    let answer = sender.send_request(request).await?;
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await?.to_bytes();
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}

fn judge(arrivals: &[Arrival], answered: &BTreeMap<u16, u64>) -> Vec<Verdict> {
    let mut seen = BTreeMap::<&str, u32>::new();
    let (mut retries, mut too_often) = (Vec::new(), Vec::new());
    for arrival in arrivals {
        let times = seen.entry(&arrival.call).or_default();
        *times += 1;
        if *times > 1 {
            retries.push(arrival.at);
        }
        if *times == ATTEMPTS + 1 {
            too_often.push(format!("call {} reached the upstream more than {ATTEMPTS} times", arrival.call));
        }
    }
    let told: u64 = answered.values().sum();
    let none = answered.get(&200).copied().unwrap_or(0) == 0;
    vec![
        rule::verdict("one hop retries", seen.len(), too_often),
        rule::verdict("retries stay within the budget", retries.len(), over_budget(&retries)),
        rule::verdict(
            "calls succeed while all is well",
            usize::try_from(told).unwrap_or(usize::MAX),
            none.then(|| format!("what users were told: {answered:?}")),
        ),
    ]
}

/// In any interval of the budget there were at most so many calls, and one more tenth of it for clocks that differ.
fn allowed() -> u64 {
    let calls = RATE * (BUDGET.interval.as_secs() + 1);
    u64::from(BUDGET.floor_per_second) * BUDGET.interval.as_secs() + calls * u64::from(BUDGET.percent) / 100
}

/// What is wrong with when retries came, in order.
pub(super) fn over_budget(retries: &[u64]) -> Option<String> {
    let (allowed, window) = (allowed(), u64::try_from((WINDOW - CAP).as_nanos()).unwrap_or(u64::MAX));
    let mut first = 0;
    retries.iter().enumerate().find_map(|(nth, at)| {
        while at.saturating_sub(retries[first]) > window {
            first += 1;
        }
        let within = (nth - first + 1) as u64;
        let over = within > allowed;
        over.then(|| {
            format!("{within} retries reached the upstream within {WINDOW:?}, and the budget allows {allowed}")
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrivals(calls: impl IntoIterator<Item = (u64, u64)>) -> Vec<Arrival> {
        let arrival = |(millis, call): (u64, u64)| Arrival { at: millis * 1_000_000, call: format!("/{call}") };
        calls.into_iter().map(arrival).collect()
    }

    fn rules(arrivals: &[Arrival], answered: &[(u16, u64)]) -> Vec<String> {
        rule::names(&judge(arrivals, &answered.iter().copied().collect()))
    }

    #[test]
    fn a_call_reaches_the_upstream_as_often_as_one_hop_tries() {
        let often = |times: u32| arrivals((0..u64::from(times)).map(|n| (n * 10_000, 1)));
        assert_eq!(rules(&often(ATTEMPTS), &[(200, 1)]), [""; 0]);
        assert_eq!(rules(&often(ATTEMPTS + 1), &[(200, 1)]), ["one hop retries"]);
    }

    #[test]
    fn retries_of_one_window_are_no_more_than_the_budget_allows() {
        let firsts = |count: u64| (0..count).map(|call| (0, call));
        let at_once = |count: u64| arrivals(firsts(count).chain((0..count).map(|call| (100, call))));
        assert_eq!(rules(&at_once(allowed()), &[(200, 1)]), [""; 0]);
        assert_eq!(rules(&at_once(allowed() + 1), &[(200, 1)]), ["retries stay within the budget"]);
        let apart =
            |count: u64| arrivals(firsts(count).chain((0..count).map(|call| (call / allowed() * 60_000, call))));
        assert_eq!(rules(&apart(allowed() + 1), &[(200, 1)]), [""; 0], "they came in two windows");
    }

    #[test]
    fn somebody_is_answered() {
        assert_eq!(rules(&[], &[(503, 9)]), ["calls succeed while all is well"]);
    }
}
