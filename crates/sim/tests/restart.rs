//! Servers that are told to stop while a world goes on, as a new version does it to them.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use quorate_runtime::fault::{Fault, FaultPlan, Planned, ProcessFault};
use quorate_sim::{Outcome, Settings, Sim, Swarm};

/// Half a second of work when it is told to stop.
const WORK: Duration = Duration::from_millis(500);

/// What becomes of a server that is told to stop after a second, to be down for two, and ends as `end` says; and when each of its
/// lives began, in milliseconds.
fn told_to_stop(end: Result<(), &'static str>) -> (Outcome, Vec<u64>) {
    let stop = Fault::Process(ProcessFault::Stop { host: "server".into(), down: Duration::from_secs(2) });
    let plan = FaultPlan::new(vec![Planned { at_nanos: 1_000_000_000, fault: stop }]);
    let mut sim = Sim::new(1, Settings { swarm: Some(Swarm::calm()), plan: Some(plan), ..Settings::default() });
    let (begun, time) = (Arc::new(Mutex::new(Vec::new())), sim.true_time());
    let lives = begun.clone();
    sim.server("server", move |env| {
        let (lives, time) = (lives.clone(), time.clone());
        async move {
            lives.lock().unwrap().push(time.nanos() / 1_000_000);
            env.tasks().stop().cancelled().await;
            env.sleep(WORK).await;
            end.map_err(str::to_owned)
        }
    });
    sim.client("clock", |env| async move {
        env.sleep(Duration::from_secs(5)).await;
        Ok(())
    });
    let outcome = sim.run();
    let begun = begun.lock().unwrap().clone();
    (outcome, begun)
}

#[test]
fn a_server_that_is_told_to_stop_does_its_work_first_and_begins_again_when_its_time_is_over() {
    let (outcome, begun) = told_to_stop(Ok(()));
    assert!(outcome.passed(), "{:?}", outcome.violations);
    let [first, second] = begun.as_slice() else { panic!("it had two lives: {begun:?}") };
    assert!(*first < 100 && (3_500..3_600).contains(second), "{begun:?}");
    assert_eq!(outcome.injected.get("process: told to stop"), Some(&1));
    assert_eq!(outcome.reached.get("a server ended in order and was started again"), Some(&1));
}

#[test]
fn a_server_that_is_told_to_stop_and_fails_with_a_sound_disk_is_a_violation() {
    let (outcome, _) = told_to_stop(Err("it could not be closed"));
    assert_eq!(outcome.violations.first().map(|found| found.rule.as_str()), Some("server"), "{:?}", outcome.violations);
}
