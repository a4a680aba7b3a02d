//! Coordinators of one name beside each other over one PostgreSQL, of which one stands still and goes on.

use std::{
    sync::{Arc, Mutex, mpsc},
    time::Duration,
};

use quorate_consistency::two_phase_commit::{Config, Coordinator, Ended, Participant, Receipt};
use quorate_data::store::Store;
use quorate_runtime::Env;

use super::{
    super::{open, place, run},
    banks::{BANKS, Hook, Point, balances, banks, name, participant, prepared, quick, struck, transfer, until},
};

const PATIENCE: Duration = Duration::from_secs(60);

async fn beside(store: &Store, participants: [Arc<dyn Participant>; 2]) -> Coordinator {
    let takeover = Some(Duration::from_millis(1_000));
    let coordinator = Coordinator::open(store, Config { takeover, ..quick() }).await.unwrap();
    for (bank, participant) in BANKS.iter().zip(participants) {
        coordinator.register(name(bank), participant).unwrap();
    }
    coordinator
}

/// A coordinator on a thread of its own, which stands still with everything that runs on it.
struct Frozen {
    at: mpsc::Receiver<&'static str>,
    go_on: mpsc::Sender<()>,
    told: mpsc::Receiver<(Receipt, bool)>,
    thread: std::thread::JoinHandle<()>,
}

/// Carries one transfer of 10 as far as `point` of the right bank.
fn freeze(place: String, addresses: [String; 2], point: Point) -> Frozen {
    let (reached, at) = mpsc::channel();
    let (go_on, released) = mpsc::channel();
    let (tell, told) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        let released = Mutex::new(released);
        let gate = reached.clone();
        let hook: Arc<Hook> = Arc::new(move |_| {
            gate.send("frozen").unwrap();
            // The thread stands still, and nothing that runs on it gives a sign.
            released.lock().unwrap().recv().unwrap();
            Box::pin(std::future::ready(()))
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let store = open(&place).await;
            let coordinator = beside(&store, struck(&addresses, 1, point, hook)).await;
            reached.send("opened").unwrap();
            let receipt = coordinator.run(transfer(10)).await.unwrap();
            until("it knows that it was fenced", async || coordinator.is_fenced()).await;
            until("it has ended", async || coordinator.counts().unfinished == 0).await;
            tell.send((receipt, coordinator.is_fenced())).unwrap();
            coordinator.close().await;
            store.close().await.unwrap();
        });
    });
    Frozen { at, go_on, told, thread }
}

#[test]
fn what_a_coordinator_that_stands_still_left_is_ended_by_another_and_it_decides_nothing_when_it_goes_on() {
    run(async {
        let Some(place) = place() else { return };
        for (point, is_decided) in [(Point::BehindPrepare, false), (Point::BeforeCommit, true)] {
            let addresses = banks(&super::server::address().unwrap()).await;
            let store = open(&place).await;
            let both = [0, 1].map(|n| Arc::new(participant(&Env::real(), &addresses[n])) as Arc<dyn Participant>);
            let coordinator = beside(&store, both).await;
            let frozen = freeze(place.clone(), addresses.clone(), point);
            for at in ["opened", "frozen"] {
                assert_eq!(frozen.at.recv_timeout(PATIENCE).unwrap(), at);
            }
            let settled = if is_decided { [90, 110] } else { [100, 100] };
            until("what it left has ended", async || {
                prepared(&addresses).await.is_empty() && balances(&addresses).await == settled
            })
            .await;
            until("another one is not kept from the money", async || {
                coordinator.run(transfer(5)).await.unwrap().ended == Ended::Committed
            })
            .await;
            frozen.go_on.send(()).unwrap();
            let (receipt, is_fenced) = tokio::task::block_in_place(|| frozen.told.recv_timeout(PATIENCE)).unwrap();
            assert!(is_fenced, "{point:?}");
            assert_eq!(receipt.gid.coordinator, coordinator.id(), "{point:?}");
            assert_eq!(receipt.ended == Ended::Committed, is_decided, "{point:?}: {receipt:?}");
            assert_eq!(coordinator.record(&receipt.gid).await.unwrap().is_decided, is_decided, "{point:?}");
            until("nothing is in doubt", async || prepared(&addresses).await.is_empty()).await;
            assert_eq!(balances(&addresses).await, [settled[0] - 5, settled[1] + 5], "{point:?}");
            assert!(!coordinator.is_fenced(), "{point:?}: whoever gives signs stays");
            tokio::task::block_in_place(|| frozen.thread.join()).unwrap();
            coordinator.close().await;
            store.close().await.unwrap();
        }
    });
}

#[test]
fn coordinators_beside_each_other_decide_in_turns_and_leave_each_others_transactions_alone() {
    run(async {
        let Some(place) = place() else { return };
        let addresses = banks(&super::server::address().unwrap()).await;
        let mut all = Vec::new();
        for _ in 0..2 {
            let store = open(&place).await;
            let both = [0, 1].map(|n| Arc::new(participant(&Env::real(), &addresses[n])) as Arc<dyn Participant>);
            all.push((beside(&store, both).await, store));
        }
        assert_eq!(all[0].0.id(), all[1].0.id());
        assert_ne!(all[0].0.takeover(), all[1].0.takeover());
        // For longer than one may be silent, each under the eyes of the other's sweeps.
        for n in 0..40 {
            let receipt = all[n % 2].0.run(transfer(1)).await.unwrap();
            assert_eq!(receipt.ended, Ended::Committed, "{n}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(all.iter().all(|(coordinator, _)| !coordinator.is_fenced()));
        until("nothing is in doubt", async || prepared(&addresses).await.is_empty()).await;
        assert_eq!(balances(&addresses).await, [60, 140]);
        // One that has it alone fences both.
        let store = open(&place).await;
        let alone = Coordinator::open(&store, quick()).await.unwrap();
        for (coordinator, _) in &all {
            until("it was fenced", async || coordinator.is_fenced()).await;
        }
        alone.close().await;
        for (coordinator, store) in all {
            coordinator.close().await;
            store.close().await.unwrap();
        }
        store.close().await.unwrap();
    });
}
