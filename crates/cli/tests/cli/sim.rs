//! `quorate sim`: worlds by name and seed.

use std::fs;

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{Ended, run};

fn sim(folder: &TempDir, arguments: &[&str]) -> Ended {
    run(folder.path(), &[&["sim"], arguments].concat())
}

#[test]
fn a_list_names_every_scenario_for_programs() {
    let folder = TempDir::new().unwrap();
    let list = sim(&folder, &["list", "--output", "json"]).ok().json();
    let names: Vec<&str> = list.as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    let known: Vec<&str> = quorate_scenarios::all().iter().map(|scenario| scenario.name).collect();
    assert_eq!(names, known);
}

#[test]
fn one_seed_has_a_verdict_and_a_trace_that_is_the_same_each_time() {
    let folder = TempDir::new().unwrap();
    let once = || sim(&folder, &["run", "keys", "--seed", "5", "--output", "json"]).ok().json();
    let (first, second) = (once(), once());
    assert_eq!(first["verdict"], "passed");
    assert_eq!(first["trace"].as_str().map(str::len), Some(32));
    assert_eq!(first, second);
    let other = sim(&folder, &["run", "keys", "--seed", "6", "--output", "json"]).ok().json();
    assert_ne!(first["trace"], other["trace"]);
}

#[test]
fn a_world_of_so_many_seconds_is_worked_in_for_as_long() {
    let folder = TempDir::new().unwrap();
    let millis = |told: &Value| told["simulatedMillis"].as_u64().unwrap();
    let long = sim(&folder, &["run", "keys", "--seed", "5", "--time", "60s", "--output", "json"]).ok().json();
    assert!((60_000..200_000).contains(&millis(&long)), "{long}");
    let again = sim(&folder, &["replay", "keys", "--seed", "5", "--time", "60s", "--output", "json"]).ok().json();
    assert_eq!(long["trace"], again["trace"]);
    let both = sim(&folder, &["run", "keys", "--seeds", "2", "--time", "20s", "--output", "json"]).ok().json();
    assert_eq!((&both["verdict"], &both["passed"]), (&"passed".into(), &2.into()));
    assert!(millis(&both) >= 40_000, "{both}");
    let wrong = sim(&folder, &["run", "keys", "--seed", "5", "--time", "0s"]).failed(2);
    assert!(wrong.contains("`--time`"), "{wrong}");
}

#[test]
fn a_disk_that_lies_is_said_to_be_out_of_contract() {
    let folder = TempDir::new().unwrap();
    let arguments = ["run", "keys", "--seed", "5", "--out-of-contract", "lying-sync", "--output", "json"];
    let told = sim(&folder, &arguments).ok().json();
    assert!(told["injected"]["disk: sync lied"].as_u64().unwrap() > 0, "{told}");
    sim(&folder, &["run", "keys", "--seed", "5", "--out-of-contract", "lying-clock"]).failed(2);
}

#[test]
fn a_report_has_the_claims_and_the_timeline() {
    let folder = TempDir::new().unwrap();
    sim(&folder, &["report", "appends", "--seed", "1", "--out", "page.html"]).ok();
    let page = fs::read_to_string(folder.path().join("page.html")).unwrap();
    assert!(page.contains("every stream is linearizable"), "{page}");
    assert!(page.contains(">client-0</text>") && page.contains("class=\"bar ok\""), "{page}");
}

#[test]
fn a_scenario_that_is_not_there_is_not_found() {
    let folder = TempDir::new().unwrap();
    let told = sim(&folder, &["run", "nothing", "--seed", "1"]).failed(3);
    assert!(told.contains("quorate sim list"), "{told}");
}

#[test]
fn parts_of_a_world_can_be_left_out_and_keep_their_names() {
    let folder = TempDir::new().unwrap();
    let replay = |more: &[&str]| {
        sim(&folder, &[&["replay", "appends", "--seed", "5", "--output", "json"], more].concat()).ok().json()
    };
    let whole = replay(&[]);
    let less = replay(&["--without", "0,2", "--without-client", "client-1,client-2", "--rounds", "3"]);
    assert_eq!((&less["plan"], &less["clients"]), (&whole["plan"], &whole["clients"]));
    assert_eq!(less["without"], serde_json::json!([0, 2]));
    assert_eq!((&whole["verdict"], &less["verdict"]), (&"passed".into(), &"passed".into()));
    assert!(less["steps"].as_u64().unwrap() < whole["steps"].as_u64().unwrap() / 2, "{less}");
    let told = sim(&folder, &["replay", "appends", "--seed", "5", "--without", "0,2"]).ok();
    assert!(told.stdout.contains("fault 1 ") && !told.stdout.contains("fault 2 "), "{}", told.stdout);
}

#[test]
fn what_is_not_there_cannot_be_left_out() {
    let folder = TempDir::new().unwrap();
    let told = sim(&folder, &["replay", "appends", "--seed", "5", "--without", "999"]).failed(2);
    assert!(told.contains("`--without 999`"), "{told}");
    let told = sim(&folder, &["replay", "appends", "--seed", "5", "--without-client", "nobody"]).failed(2);
    assert!(told.contains("client-0"), "{told}");
}

#[test]
fn a_seed_that_passes_cannot_be_made_smaller() {
    let folder = TempDir::new().unwrap();
    let told = sim(&folder, &["shrink", "keys", "--seed", "5"]).failed(1);
    assert!(told.contains("does not fail"), "{told}");
}

#[test]
fn a_campaign_runs_as_many_seeds_as_it_must_however_little_time_it_has() {
    let folder = TempDir::new().unwrap();
    let arguments = ["run", "machines-hlc", "--for", "1ms", "--at-least", "600", "--output", "json"];
    let told = sim(&folder, &arguments).ok().json();
    assert!(told["passed"].as_u64().unwrap() >= 600, "{told}");
    assert_eq!(told["seldomDecided"], serde_json::json!([]));
    let told = sim(&folder, &["run", "keys", "--for", "1ms", "--at-least", "3", "--output", "json"]).ok().json();
    assert!(told["passed"].as_u64().unwrap() >= 3, "{told}");
    sim(&folder, &["run", "machines-hlc", "--at-least", "5"]).failed(2);
}

#[test]
fn a_campaign_tells_faults_by_kind_and_states_how_often_and_in_how_many_seeds() {
    let folder = TempDir::new().unwrap();
    let json = |more: &[&str]| sim(&folder, &[&["run", "keys", "--output", "json"], more].concat()).ok().json();
    let (both, seeds) = (json(&["--seeds", "2", "--first", "5"]), [json(&["--seed", "5"]), json(&["--seed", "6"])]);
    for key in ["injected", "reached"] {
        let kinds = both[key].as_object().unwrap();
        assert!(!kinds.is_empty(), "{both}");
        for (kind, count) in kinds {
            let of_seeds = seeds.iter().filter_map(|told| told[key][kind].as_u64());
            assert_eq!(count.as_u64(), Some(of_seeds.clone().sum()), "{key} {kind}");
            assert_eq!(both["inSeeds"][kind].as_u64(), Some(of_seeds.count() as u64), "{key} {kind}");
        }
    }
}

#[test]
fn a_campaign_without_a_seed_is_no_campaign() {
    let folder = TempDir::new().unwrap();
    sim(&folder, &["run", "keys", "--seeds", "0"]).failed(2);
    let last = u64::MAX.to_string();
    let told = sim(&folder, &["run", "keys", "--first", &last, "--seeds", "3"]).failed(2);
    assert!(told.contains("no seed was run"), "{told}");
    assert!(sim(&folder, &["run", "keys", "--for", "0s"]).failed(2).contains("no seed was run"));
}
