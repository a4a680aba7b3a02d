//! Views from the command line. What needs a view that is kept up to date is tried with declared ones.

use crate::harness::Node;

#[test]
fn a_script_tells_missing_and_unusable_views_apart() {
    let node = Node::start();
    let run = |args: &[&str]| node.run(&[&["view"], args].concat());
    assert_eq!(run(&["list"]).ok().rows(), Vec::<Vec<&str>>::new());
    for action in [
        &["show", "x"][..],
        &["rebuild", "x"],
        &["pause", "x"],
        &["resume", "x"],
        &["switch", "x"],
        &["drop", "x", "--build", "1"],
        &["parked", "x"],
        &["skipped", "x"],
        &["replay", "x", "--key", "k"],
        &["skip", "x", "7"],
        &["audit", "x"],
    ] {
        assert!(run(action).failed(3).contains("view-not-found"), "{action:?}");
    }
    run(&["drop", "x"]).failed(2);
    assert!(run(&["show", "No Name"]).failed(2).contains("invalid-name"));
}
