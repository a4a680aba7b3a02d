//! An upstream dies and returns under load, behind three hops with a bulkhead and a circuit each: while it is ill only probes reach it,
//! once it is well calls do again, and nobody keeps a place that nothing is done in.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use quorate_runtime::Env;
use quorate_sim::{Sim, TrueTime, check::Verdict};

use super::{
    hop::{self, AT_REST, Guards, IN_A_ROW, PLACES, PORT, REST, STANDING},
    storm::{Arrival, Arrivals, Illness, Outage, PATIENCE, RATE, be_upstream, call, over_budget},
};
use crate::{Report, rule};

/// How long users make calls.
const LASTS: Duration = Duration::from_secs(32);
/// How long after an outage everybody's circuit is closed again: one after the other, from the last hop to the first, each may have rested
/// once more since the one behind it was still open.
const SETTLED: Duration = Duration::from_secs(6);

/// A call of a user that is over.
#[derive(Clone, Copy, Debug)]
struct Done {
    /// When it was made, in nanoseconds of true time.
    at: u64,
    /// The status of its answer; 0 if there was none.
    status: u16,
}

#[derive(Default)]
struct Seen {
    calls: Vec<Done>,
    /// What hops said of themselves in the end.
    standings: Vec<(String, String)>,
}

type Notes = Arc<Mutex<Seen>>;

/// Runs the scenario.
pub(crate) fn run(sim: Sim) -> Report {
    // What fails here is the upstream, when the scenario says so; the network's faults have scenarios of their own.
    let mut sim = sim.without_faults();
    let outages = outages(&sim);
    let (arrivals, time) = (Arrivals::default(), sim.true_time());
    let (noted, of_upstream, clock) = (arrivals.clone(), outages.clone(), time.clone());
    let upstream =
        sim.server("upstream", move |env| be_upstream(env, of_upstream.clone(), noted.clone(), clock.clone()));
    let mut hops = vec![("upstream".to_owned(), sim.address(upstream, PORT))];
    for name in ["back", "middle", "edge"] {
        let to = hops[hops.len() - 1].1;
        let host = sim.server(name, move |env| hop::run(env, to, Guards::PlacesAndCircuit));
        hops.push((name.to_owned(), sim.address(host, PORT)));
    }
    let notes = Notes::default();
    let (told, of_users, guarded) = (notes.clone(), time, hops[1..].to_vec());
    sim.client("users", move |env| be_users(env, guarded.clone(), told.clone(), of_users.clone()));
    let outcome = sim.run();
    let arrivals = arrivals.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let seen = std::mem::take(&mut *notes.lock().unwrap_or_else(PoisonError::into_inner));
    Report::judged(outcome, Vec::new(), 0, |_| judge(&outages, &arrivals, &seen))
}

/// One or two outages, behind the last of which there is time to see that all is well.
fn outages(sim: &Sim) -> Vec<Outage> {
    let mut rng = sim.random("outages");
    let (mut outages, mut at) = (Vec::new(), 2_000);
    for _ in 0..=rng.below(2) {
        let from = at + rng.below(2_000);
        let until = from + 1_500 + rng.below(4_000);
        let illness = if rng.below(2) == 0 { Illness::Hangs } else { Illness::Says };
        let nanos = |millis: u64| millis * 1_000_000;
        outages.push(Outage { from: nanos(from), until: nanos(until), illness });
        at = until + 3_000;
    }
    outages
}

/// Users call on time, whatever became of the call before, and ask each hop in the end what it holds.
async fn be_users(env: Env, hops: Vec<(String, SocketAddr)>, notes: Notes, time: TrueTime) -> Result<(), String> {
    env.sleep(Duration::from_millis(500)).await;
    let Some((_, edge)) = hops.last().cloned() else { return Ok(()) };
    for nth in 0..RATE * LASTS.as_secs() {
        let (of_call, notes, at) = (env.clone(), notes.clone(), time.nanos());
        env.tasks().spawn("call", async move {
            let answer = of_call.timeout(PATIENCE, call(&of_call, edge, &format!("/{nth}"))).await;
            let status = answer.and_then(Result::ok).map_or(0, |(status, _)| status);
            notes.lock().unwrap_or_else(PoisonError::into_inner).calls.push(Done { at, status });
        });
        env.sleep(Duration::from_nanos(1_000_000_000 / RATE)).await;
    }
    env.sleep(2 * PATIENCE).await;
    for (name, at) in hops {
        let (_, standing) =
            call(&env, at, STANDING).await.map_err(|cause| format!("{name} does not answer: {cause}"))?;
        notes.lock().unwrap_or_else(PoisonError::into_inner).standings.push((name, standing));
    }
    Ok(())
}

/// How many calls may reach the upstream in an outage: as many as the circuit wants to have seen failing, those that are under way
/// then, and one for each time that it rested.
fn allowed(outage: &Outage) -> u64 {
    let rests = (outage.until - outage.from) / REST.as_nanos() as u64;
    u64::from(IN_A_ROW + PLACES) + rests + 2
}

fn judge(outages: &[Outage], arrivals: &[Arrival], seen: &Seen) -> Vec<Verdict> {
    let in_outage = |outage: &Outage| {
        arrivals.iter().filter(|arrival| (outage.from..outage.until).contains(&arrival.at)).count() as u64
    };
    let floods = outages.iter().filter(|outage| in_outage(outage) > allowed(outage)).map(|outage| {
        let (found, allowed) = (in_outage(outage), allowed(outage));
        format!("{found} calls reached the upstream while it was ill, and circuits let {allowed} through: {outage:?}")
    });
    let well = outages.last().map_or(0, |outage| outage.until) + SETTLED.as_nanos() as u64;
    let (before, after) = (outages.first().map_or(0, |outage| outage.from), well);
    let healthy: Vec<&Done> =
        seen.calls.iter().filter(|call| call.at >= after || call.at + PATIENCE.as_nanos() as u64 <= before).collect();
    let unwell = healthy.iter().filter(|call| call.status != 200);
    let unwell = unwell.map(|call| format!("a call at {} ns was answered {}, and all was well", call.at, call.status));
    let lost = seen.standings.iter().filter(|(_, standing)| standing != AT_REST);
    let lost = lost.map(|(name, standing)| format!("{name} holds something that nobody does: {standing}"));
    let (mut calls, mut retries) = (BTreeSet::new(), Vec::new());
    for arrival in arrivals {
        if !calls.insert(&arrival.call) {
            retries.push(arrival.at);
        }
    }
    vec![
        rule::verdict("an open circuit lets only probes through", outages.len(), floods),
        rule::verdict("calls succeed again once all is well", healthy.len(), unwell),
        rule::verdict("no place is kept that nothing is done in", seen.standings.len(), lost),
        rule::verdict("retries stay within the budget", retries.len(), over_budget(&retries)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const OUTAGE: Outage = Outage { from: 10 * SECOND, until: 14 * SECOND, illness: Illness::Says };

    fn rules(arrivals: u64, calls: &[(u64, u16)], standing: &str) -> Vec<String> {
        let arrivals: Vec<Arrival> =
            (0..arrivals).map(|nth| Arrival { at: 11 * SECOND, call: format!("/{nth}") }).collect();
        let calls = calls.iter().map(|(at, status)| Done { at: at * SECOND, status: *status }).collect();
        let seen = Seen { calls, standings: vec![("edge".to_owned(), standing.to_owned())] };
        rule::names(&judge(&[OUTAGE], &arrivals, &seen))
    }

    #[test]
    fn an_upstream_that_is_ill_is_left_alone_but_for_probes() {
        assert_eq!(allowed(&OUTAGE), 21);
        assert_eq!(rules(21, &[(1, 200)], AT_REST), [""; 0]);
        assert_eq!(rules(22, &[(1, 200)], AT_REST), ["an open circuit lets only probes through"]);
    }

    #[test]
    fn calls_may_fail_while_it_is_ill_and_until_circuits_have_closed() {
        assert_eq!(rules(0, &[(1, 200), (9, 0), (13, 503), (19, 503), (20, 200)], AT_REST), [""; 0]);
        assert_eq!(rules(0, &[(20, 503)], AT_REST), ["calls succeed again once all is well"]);
        assert_eq!(rules(0, &[(1, 0)], AT_REST), ["calls succeed again once all is well"]);
    }

    #[test]
    fn a_place_that_is_kept_or_a_circuit_that_stays_open_is_told() {
        for standing in ["1 under way, 0 waiting, closed", "0 under way, 0 waiting, half open"] {
            assert_eq!(rules(0, &[(1, 200)], standing), ["no place is kept that nothing is done in"]);
        }
    }
}
