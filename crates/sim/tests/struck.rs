//! Faults of the network that struck somebody are told from those that nobody noticed.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{collections::BTreeMap, time::Duration};

use quorate_runtime::fault::{Fault, FaultPlan, NetworkFault, Planned};
use quorate_sim::{Settings, Sim, Swarm};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Faults carried out while a client dials a server after `idle`, sends it ten bytes, one each 100 ms, and is sent each of them back.
fn injected(fault: NetworkFault, idle: Duration) -> BTreeMap<String, u64> {
    let plan = FaultPlan::new(vec![Planned { at_nanos: 500_000_000, fault: Fault::Network(fault) }]);
    let mut sim = Sim::new(1, Settings { swarm: Some(Swarm::calm()), plan: Some(plan), ..Settings::default() });
    let server = sim.server("server", |env| async move {
        let listener = env.net().listen("0.0.0.0:7".parse().unwrap()).await.map_err(|e| e.to_string())?;
        if let Ok((mut io, _)) = listener.accept().await {
            let mut byte = [0];
            while io.read_exact(&mut byte).await.is_ok() && io.write_all(&byte).await.is_ok() {}
        }
        env.tasks().stop().cancelled().await;
        Ok(())
    });
    let to = sim.address(server, 7);
    sim.client("client", move |env| async move {
        env.sleep(idle).await;
        let mut io = env.net().connect(to).await.map_err(|e| e.to_string())?;
        for _ in 0..10 {
            env.sleep(Duration::from_millis(100)).await;
            let mut byte = [1];
            if io.write_all(&byte).await.is_err() || io.read_exact(&mut byte).await.is_err() {
                break;
            }
        }
        drop(io);
        env.sleep(Duration::from_secs(3)).await;
        Ok(())
    });
    let outcome = sim.run();
    assert!(outcome.passed(), "{:?}", outcome.violations);
    outcome.injected
}

/// Under what a fault is planned, and under what it strikes.
fn strikes(planned: &str, struck: &str, fault: &NetworkFault, noticed: Duration, missed: Duration) {
    let [noticed, missed] = [noticed, missed].map(|idle| injected(fault.clone(), idle));
    assert_eq!((noticed.get(planned), missed.get(planned)), (Some(&1), Some(&1)), "{noticed:?} {missed:?}");
    assert!(noticed.get(struck).is_some_and(|times| *times > 0), "{noticed:?}");
    assert_eq!(missed.get(struck), None, "{missed:?}");
}

#[test]
fn faults_of_the_network_that_nobody_runs_into_strike_nobody() {
    let (server, span) = ("server".to_owned(), Duration::from_millis(300));
    let (before, within, behind) = (Duration::from_millis(60), Duration::from_millis(600), Duration::from_secs(1));
    let deaf = NetworkFault::LoseConnects { host: server.clone(), span };
    strikes("network: connects lost", "network: a connect was not answered", &deaf, within, behind);
    let reset = NetworkFault::Reset { host: server.clone() };
    strikes("network: reset", "network: a connection was broken", &reset, before, behind);
    let cut = NetworkFault::Partition { group: vec![server], span };
    strikes("network: partition", "network: bytes were held back", &cut, before, behind);
}
