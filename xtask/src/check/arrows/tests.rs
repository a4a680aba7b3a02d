use super::*;

fn manifest(name: &str, dependencies: &str) -> String {
    format!("[package]\nname = \"{}\"\n{dependencies}", package_of(name))
}

fn judge(name: &str, dependencies: &str) -> Vec<String> {
    judge_with(name, dependencies, "")
}

fn judge_with(name: &str, dependencies: &str, exceptions: &str) -> Vec<String> {
    let path = format!("crates/{name}/Cargo.toml");
    let text = manifest(name, dependencies);
    let tree = Tree::from([(path.as_str(), text.as_str()), ("xtask/exceptions.toml", exceptions)]);
    findings(&tree).unwrap().into_iter().map(|finding| finding.what).collect()
}

const NONE: [&str; 0] = [];

#[test]
fn an_arrow_that_points_up_is_named() {
    let faults = judge("data", "[dependencies]\nquorate-node.workspace = true");
    assert_eq!(faults, ["data may not use quorate-node; it may use foundations, runtime"]);
}

#[test]
fn an_arrow_that_points_sideways_is_named() {
    assert_eq!(judge("data", "[dependencies]\nquorate-resilience.workspace = true").len(), 1);
    assert_eq!(judge("scenarios", "[dependencies]\nquorate-cli.workspace = true").len(), 1);
    assert_eq!(judge("cli", "[dependencies]\nquorate-scenarios.workspace = true").len(), 0);
}

#[test]
fn foundations_use_nothing_of_ours() {
    let faults = judge("foundations", "[dependencies]\nquorate-runtime.workspace = true");
    assert_eq!(faults, ["foundations may not use quorate-runtime; it may use nothing of ours"]);
}

#[test]
fn arrows_that_point_down_are_allowed() {
    assert_eq!(judge("consistency", "[dependencies]\nquorate-data.workspace = true\nserde = \"1\""), NONE);
    assert_eq!(judge("node", "[dependencies]\nquorate.workspace = true\nquorate-legacy.workspace = true"), NONE);
    assert_eq!(judge("sim", "[dependencies]\nquorate-sim-macros.workspace = true"), NONE);
}

#[test]
fn the_simulator_sees_only_foundations_and_runtime() {
    assert_eq!(judge("sim", "[dependencies]\nquorate-data.workspace = true").len(), 1);
}

#[test]
fn an_arrow_hidden_behind_a_rename_or_a_target_is_seen() {
    assert_eq!(judge("data", "[dependencies]\nx = { package = \"quorate-cli\", path = \"../cli\" }").len(), 1);
    assert_eq!(judge("data", "[target.'cfg(unix)'.dependencies]\nquorate-cli.workspace = true").len(), 1);
    assert_eq!(judge("data", "[build-dependencies]\nquorate-cli.workspace = true").len(), 1);
}

#[test]
fn a_crate_outside_the_table_is_an_error() {
    assert_eq!(judge("utils", ""), ["the crate `utils` is not in the table of arrows"]);
}

#[test]
fn a_dependency_of_ours_that_nobody_knows_is_an_error() {
    assert_eq!(judge("node", "[dependencies]\nquorate-utils.workspace = true").len(), 1);
}

#[test]
fn a_package_is_named_after_its_folder() {
    let tree = Tree::from([("crates/data/Cargo.toml", "[package]\nname = \"quorate-store\"")]);
    let faults = findings(&tree).unwrap();
    assert_eq!(faults[0].what, "the package is called `quorate-store`; in crates/data it must be `quorate-data`");
}

#[test]
fn tests_may_look_sideways_only_where_the_reason_is_written_down() {
    let sideways = "[dev-dependencies]\nquorate-sim.workspace = true";
    assert_eq!(judge("data", sideways).len(), 1);
    let written = "[[dev-dependency]]\ncrate = \"data\"\non = \"quorate-sim\"\nreason = \"the store runs on its disk\"";
    assert_eq!(judge_with("data", sideways, written), NONE);
    assert_eq!(judge_with("data", "", written).len(), 1, "an exception that nothing needs");
}

#[test]
fn an_exception_for_tests_does_not_excuse_the_crate_itself() {
    let written = "[[dev-dependency]]\ncrate = \"data\"\non = \"quorate-sim\"\nreason = \"the store runs on its disk\"";
    assert_eq!(judge_with("data", "[dependencies]\nquorate-sim.workspace = true", written).len(), 2);
}

#[test]
fn xtask_uses_nothing_of_the_product() {
    let tree = Tree::from([("xtask/Cargo.toml", "[package]\nname = \"xtask\"\n[dependencies]\nquorate = \"1\"")]);
    assert_eq!(findings(&tree).unwrap().len(), 1);
}

#[test]
fn the_table_itself_has_no_arrow_that_points_up() {
    for (index, (name, _)) in TABLE.iter().enumerate() {
        for used in allowed(name).unwrap() {
            assert!(TABLE[..index].iter().any(|(lower, _)| *lower == used), "{name} uses {used}");
        }
    }
}
