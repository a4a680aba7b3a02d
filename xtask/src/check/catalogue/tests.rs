use super::*;

/// An entry with everything planned, then `changes`: lines that replace those with the same key, or are added.
fn entry(name: &str, changes: &str) -> String {
    let mut lines = vec![
        format!("name = \"{name}\""),
        "title = \"A title\"".to_owned(),
        "family = \"data\"".to_owned(),
        format!("room = \"crates/data/src/{}\"", name.replace('-', "_")),
        "promise = \"a promise\"".to_owned(),
    ];
    lines.extend(Surface::ALL.iter().map(|surface| format!("{} = \"planned\"", surface.key())));
    for change in changes.lines() {
        let key = change.split(" = ").next().unwrap();
        lines.retain(|line| line.split(" = ").next() != Some(key));
        lines.push(change.to_owned());
    }
    format!("[[pattern]]\n{}\n", lines.join("\n"))
}

/// A catalogue of the right length whose first entry has `changes`.
fn catalogue(changes: &str) -> String {
    let others = (1..PATTERNS).map(|number| entry(&format!("other-{number}"), ""));
    std::iter::once(entry("outbox", changes)).chain(others).collect()
}

fn judge_beside<const N: usize>(changes: &str, files: [(&str, &str); N]) -> Vec<String> {
    let text = catalogue(changes);
    let tree = files.into_iter().chain([(PATH, text.as_str())]).collect();
    findings(&tree).unwrap().into_iter().map(|finding| finding.what).collect()
}

fn judge(changes: &str) -> Vec<String> {
    judge_beside(changes, [])
}

const NONE: [&str; 0] = [];

#[test]
fn a_catalogue_that_plans_everything_in_an_empty_tree_is_true() {
    assert_eq!(judge(""), NONE);
}

#[test]
fn each_surface_claimed_without_being_there_is_named_with_what_is_missing() {
    for (changes, complaint) in [
        (
            "library = \"done\"",
            "claims `library` done, but there is no crates/data/src/outbox/mod.rs in the repository",
        ),
        (
            "library = \"begun\"",
            "claims `library` begun, but there is no crates/data/src/outbox/mod.rs in the repository",
        ),
        ("page = \"done\"", "claims `page` done, but there is no docs/patterns/outbox.md in the repository"),
        ("example = \"done\"", "claims `example` done, but there is no examples/outbox.rs in the repository"),
        ("http = \"done\"", "claims `http` done without naming `route`"),
        ("cli = \"done\"", "claims `cli` done without naming `command`"),
        ("console = \"done\"", "claims `console` done without naming `view`"),
        ("guarantees = \"done\"", "claims `guarantees` done without naming `proofs`"),
        (
            "http = \"done\"\nroute = \"/v1/outbox\"",
            "claims `http` done, but there is no route `/v1/outbox` in crates/node/src",
        ),
        (
            "cli = \"done\"\ncommand = \"outbox list\"",
            "claims `cli` done, but there is no command `outbox list` in crates/cli/src",
        ),
        (
            "console = \"done\"\nview = \"/outbox\"",
            "claims `console` done, but there is no view `/outbox` in crates/node/src/console",
        ),
        (
            "guarantees = \"done\"\nproofs = [\"nothing_is_lost\"]",
            "claims `guarantees` done, but there is no test `nothing_is_lost` in crates",
        ),
    ] {
        assert_eq!(judge(changes), [format!("outbox: {complaint}")]);
    }
}

/// One surface with what makes it exist.
const EXISTING: [(&str, &str, &str, &str); 9] = [
    ("library", "", "crates/data/src/outbox/mod.rs", ""),
    ("page", "", "docs/patterns/outbox.md", ""),
    ("example", "", "examples/outbox.rs", ""),
    ("example", "program = \"examples/shop\"", "examples/shop/src/main.rs", ""),
    (
        "http",
        "route = \"/v1/outbox/{id}\"",
        "crates/node/src/http/a.rs",
        "fn r() { route(\"/v1/outbox/{id}\", get(x)) }",
    ),
    ("http", "route = \"/v1/outbox/{id}\"", "crates/node/src/http/a.rs", "#[path(path = \"/outbox/{id}\")] fn r() {}"),
    ("console", "view = \"/outbox\"", "crates/node/src/console/a.rs", "fn v() { html! { a href=\"/outbox\" {} } }"),
    ("cli", "command = \"out-box ls\"", "crates/cli/src/a.rs", COMMANDS),
    ("guarantees", "proofs = [\"kept\"]", "crates/data/tests/a.rs", "#[test] fn kept() {}"),
];

const COMMANDS: &str = "#[derive(Debug, clap::Subcommand)] enum Verb { OutBox(Args) }
    #[derive(Subcommand)] enum Inner { #[command(about = \"x\", name = \"ls\")] List }";

#[test]
fn each_surface_claimed_and_there_is_true() {
    for (surface, change, path, text) in EXISTING {
        let changes = format!("{surface} = \"done\"\n{change}");
        assert_eq!(judge_beside(changes.trim_end(), [(path, text)]), NONE, "{surface} by {path}");
    }
}

#[test]
fn each_surface_that_is_there_but_planned_must_be_claimed() {
    for (surface, change, path, text) in EXISTING {
        let faults = judge_beside(change, [(path, text)]);
        assert_eq!(faults.len(), 1, "{surface} by {path}: {faults:?}");
        assert!(faults[0].starts_with(&format!("outbox: says `{surface}` is planned")), "{faults:?}");
        assert!(faults[0].ends_with("claim it"), "{faults:?}");
    }
}

#[test]
fn a_route_in_a_comment_a_test_or_another_crate_is_no_evidence() {
    let claim = "http = \"done\"\nroute = \"/v1/outbox\"";
    for (path, text) in [
        ("crates/node/src/http/a.rs", "// \"/v1/outbox\"\n/// \"/v1/outbox\"\nfn f() {}"),
        ("crates/node/src/http/a.rs", "#[doc = \"/v1/outbox\"] fn f() {}"),
        ("crates/node/src/http/a.rs", "#[cfg(test)] mod tests { const R: &str = \"/v1/outbox\"; }"),
        ("crates/data/src/a.rs", "const R: &str = \"/v1/outbox\";"),
    ] {
        assert_eq!(judge_beside(claim, [(path, text)]).len(), 1, "{text}");
    }
}

#[test]
fn an_enum_that_is_no_subcommand_gives_no_command() {
    let claim = "cli = \"done\"\ncommand = \"table\"";
    let faults = judge_beside(claim, [("crates/cli/src/a.rs", "#[derive(ValueEnum)] enum Output { Table, Json }")]);
    assert_eq!(faults.len(), 1);
}

#[test]
fn an_entry_is_judged_by_itself() {
    for (change, complaint) in [
        ("name = \"Out_Box\"", "Out_Box: its name isn't kebab-case"),
        ("name = \"out--box\"", "out--box: its name isn't kebab-case"),
        ("title = \" \"", "outbox: it has no title of one line"),
        ("promise = \"a\\nb\"", "outbox: it has no promise of one line"),
        ("room = \"crates/legacy/src/outbox\"", "outbox: its room isn't a folder below `crates/<family>/src/`"),
        ("room = \"crates/data/src/\"", "outbox: its room isn't a folder below `crates/<family>/src/`"),
        ("name = \"other-1\"", "the name `other-1` stands twice"),
        ("room = \"crates/data/src/other_1\"", "the room `crates/data/src/other_1` stands twice"),
    ] {
        assert_eq!(judge(change), [complaint]);
    }
    assert_eq!(judge("family = \"storage\"").len(), 2, "an unknown family, and a room elsewhere");
}

#[test]
fn the_number_of_patterns_is_fixed() {
    let tree = Tree::from([(PATH, entry("outbox", "").as_str())]);
    assert_eq!(findings(&tree).unwrap()[0].what, "there are 38 patterns; the catalogue lists 1");
}

#[test]
fn what_stands_beside_a_pattern_of_its_family_is_not_counted() {
    let told = |beside: &str| {
        let text = catalogue("") + &entry("relay", &format!("beside = \"{beside}\""));
        findings(&Tree::from([(PATH, text.as_str())]))
            .unwrap()
            .into_iter()
            .map(|finding| finding.what)
            .collect::<Vec<_>>()
    };
    assert_eq!(told("outbox"), [""; 0]);
    assert_eq!(told("nothing"), ["relay: stands beside `nothing`, which is no pattern of its family"]);
    assert_eq!(told("relay"), ["relay: stands beside `relay`, which is no pattern of its family"]);
}

#[test]
fn a_missing_surface_an_unknown_key_and_an_unknown_state_are_errors() {
    for text in [
        catalogue("").replacen("http = \"planned\"\n", "", 1),
        catalogue("htpp = \"planned\""),
        catalogue("http = \"nearly\""),
    ] {
        assert!(findings(&Tree::from([(PATH, text.as_str())])).is_err());
    }
    assert!(findings(&Tree::from([])).is_err(), "no catalogue at all");
}

#[test]
fn a_page_of_no_pattern_is_named() {
    let faults = judge_beside("", [("docs/patterns/inbox.md", ""), ("docs/patterns/README.md", "")]);
    assert_eq!(faults, ["docs/patterns/inbox.md belongs to no pattern"]);
}
