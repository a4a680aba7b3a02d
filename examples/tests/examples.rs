//! The examples do what they say, on the sample that comes with them.
#![expect(clippy::unwrap_used, reason = "helpers of tests, too, fail by panicking")]

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use quorate::{
    Env,
    event::{Timestamp, Version},
    event_sourcing::{Aggregates, Moment},
    sim::{Settings, Sim, testing},
    store::{Store, sqlite},
    time::Wall,
};

#[path = "../bank.rs"]
mod bank;
#[path = "../bulkhead.rs"]
mod bulkhead;
#[path = "../bus.rs"]
mod bus;
#[path = "../choreography.rs"]
mod choreography;
#[path = "../fallback.rs"]
mod fallback;
#[path = "../hedge.rs"]
mod hedge;
#[path = "../ledger.rs"]
mod ledger;
#[path = "../library.rs"]
mod library;
#[path = "../loans.rs"]
#[expect(dead_code, reason = "the program's own printing is not tested")]
mod loans;
#[path = "../prices.rs"]
mod prices;
mod processes;
#[path = "../rate_limit.rs"]
mod rate_limit;
#[path = "../saga.rs"]
mod saga;
#[path = "../shop.rs"]
mod shop;
#[path = "../storm.rs"]
mod storm;
#[path = "../timeout.rs"]
mod timeout;

#[path = "../lost_update.rs"]
#[expect(dead_code, reason = "the program's own search starts the program again, and this is a test")]
mod lost_update;

use loans::{Imported, LoanApplication, Phase};

const EVENTS: usize = 300;
const APPLICATIONS: usize = 20;

fn sample() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(loans::SAMPLE)
}

async fn open(folder: &Path) -> Store {
    sqlite::open(&Env::real(), sqlite::Config::at(folder.join("loans.db"))).await.unwrap()
}

fn at(text: &str) -> Wall {
    text.parse::<Timestamp>().unwrap().instant()
}

#[test]
fn a_bulkhead_answers_whom_it_can_and_tells_the_others_at_once() {
    bulkhead::main().unwrap();
}

#[test]
fn a_fallback_serves_what_is_old_and_says_so_while_the_outage_is_counted() {
    fallback::main().unwrap();
}

#[test]
fn a_hedge_shortens_the_slowest_calls_for_a_few_copies() {
    hedge::main().unwrap();
}

#[test]
fn a_rate_limit_holds_the_greedy_client_and_spares_the_modest_one() {
    rate_limit::main().unwrap();
}

#[test]
fn three_services_deal_with_each_order_once_over_the_embedded_bus() {
    shop::run(std::iter::empty()).unwrap();
    for wrong in [&["--bus", "http://127.0.0.1:1", "ordres"][..], &["--folder", "here"], &["orders"]] {
        assert!(shop::run(wrong.iter().map(|word| (*word).to_owned())).is_err(), "{wrong:?}");
    }
}

#[test]
fn a_storm_of_retries_is_calmed_by_a_stack() {
    storm::main().unwrap();
}

#[test]
fn prices_are_asked_and_each_outcome_says_whether_it_was_done() {
    prices::main().unwrap();
}

#[test]
fn a_deadline_is_spent_hop_by_hop_and_ends_the_work() {
    timeout::main().unwrap();
}

#[test]
fn an_order_is_made_up_for_in_both_styles_and_what_does_not_happen_is_told() {
    choreography::main().unwrap();
}

#[test]
fn an_order_ends_whatever_its_bank_does() {
    saga::main().unwrap();
}

#[test]
fn the_order_that_anybody_can_declare_is_a_saga() {
    use quorate::{document::Format, saga::declared::Document};
    let document = Document::read(include_str!("../sagas/order.yaml"), Format::Yaml).unwrap();
    assert_eq!(document.steps(), ["reserve", "charge", "send", "tell"]);
    let paid = Document::read(include_str!("../sagas/order-with-payment.yaml"), Format::Yaml).unwrap();
    let payment = Document::read(include_str!("../sagas/payment.yaml"), Format::Yaml).unwrap();
    assert_eq!((paid.steps(), payment.steps()), (vec!["reserve", "pay", "send"], vec!["hold", "take"]));
}

#[test]
fn the_bank_runs_to_its_end() {
    bank::main().unwrap();
}

#[test]
fn the_ledger_runs_to_its_end() {
    ledger::main().unwrap();
}

#[test]
fn the_library_runs_to_its_end() {
    library::main().unwrap();
}

#[test]
fn the_bus_runs_to_its_end() {
    bus::main().unwrap();
}

#[test]
fn the_simulator_finds_the_seed_that_loses_an_update() {
    let test = "the_simulator_finds_the_seed_that_loses_an_update";
    if let Some(seed) = testing::own_seed() {
        let outcome = lost_update::world(Sim::new(seed, Settings::default()));
        outcome.violations.iter().for_each(|violation| println!("VIOLATED {violation}"));
        std::process::exit(i32::from(!outcome.passed()));
    }
    let (seed, output) = testing::first_failure(test, 200).expect("an update that is lost at some seed");
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(told.contains("two were told"), "seed {seed} fails for another reason: {told}");
}

#[test]
fn an_example_of_a_simulated_service_is_short() {
    let lines = include_str!("../lost_update.rs").lines().count();
    assert!(lines < 60, "{lines} lines are too many to be read at once");
}

#[tokio::test]
async fn an_import_that_is_repeated_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    assert_eq!(loans::import(&store, &sample()).await.unwrap(), Imported { new: EVENTS, known: 0 });
    assert_eq!(loans::import(&store, &sample()).await.unwrap(), Imported { new: 0, known: EVENTS });
    assert_eq!(store.head().get(), EVENTS as u64);
    assert!(store.verify(std::sync::Arc::new(|_, _| {})).await.unwrap().is_sound());
}

#[tokio::test]
async fn every_application_is_at_every_moment_what_the_file_says() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    loans::import(&store, &sample()).await.unwrap();
    let loans_of = Aggregates::of(LoanApplication).open(&store).await.unwrap();
    let mut phases = BTreeMap::new();
    for day in 1..=28 {
        let moment = at(&format!("2024-02-{day:02}T12:00:00+01:00"));
        let scanned = loans::scan(store.env(), &sample(), moment).unwrap();
        let compared = loans::compare(&loans_of, &scanned, moment).await.unwrap();
        assert_eq!(compared.applications, scanned.len());
        phases = compared.phases;
    }
    assert_eq!(phases.values().sum::<usize>(), APPLICATIONS);
    for phase in [Phase::Open, Phase::Approved, Phase::Declined, Phase::Cancelled] {
        assert!(phases[&phase] > 0, "{phases:?}");
    }
}

#[tokio::test]
async fn a_difference_between_log_and_file_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    loans::import(&store, &sample()).await.unwrap();
    let loans_of = Aggregates::of(LoanApplication).open(&store).await.unwrap();
    let end = at("2024-03-31T00:00:00Z");
    let mut scanned = loans::scan(store.env(), &sample(), end).unwrap();
    scanned.values_mut().next().unwrap().offers += 1;
    assert!(loans::compare(&loans_of, &scanned, end).await.is_err());
}

#[tokio::test]
async fn before_its_first_event_an_application_is_unheard_of() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path()).await;
    loans::import(&store, &sample()).await.unwrap();
    let loans_of = Aggregates::of(LoanApplication).open(&store).await.unwrap();
    let before = loans_of.at("900001", Moment::Time(at("2024-01-01T00:00:00Z"))).await.unwrap();
    assert_eq!((before.state.phase, before.state.amount), (Phase::Unheard, None));
    let first = loans_of.at("900001", Moment::Version(Version::new(1))).await.unwrap();
    assert_eq!(first.state.phase, Phase::Open);
    assert!(first.state.amount.is_some());
}
