//! Settings: file, environment, flags, and where each value came from.

use crate::harness::{command, ended, file, run};
use serde_json::Value;

fn setting<'s>(shown: &'s Value, key: &str) -> (&'s Value, &'s str) {
    let settings = shown["settings"].as_array().unwrap();
    let entry = settings.iter().find(|entry| entry["key"] == key).unwrap_or_else(|| panic!("{key} in {shown}"));
    (&entry["value"], entry["source"].as_str().unwrap())
}

#[test]
fn flags_win_over_the_environment_over_the_file_over_defaults() {
    let folder = tempfile::tempdir().unwrap();
    file(folder.path(), "quorate.toml", "data = 'from-file'\nlisten = '127.0.0.1:1'\n[http]\nmax-page = 500");
    let mut show = command(folder.path(), &["config", "show", "--output", "json", "--listen", "127.0.0.1:3"]);
    show.env("QUORATE_LISTEN", "127.0.0.1:2").env("QUORATE_HTTP_MAX_PAGE", "600");
    let shown = ended(show.spawn().unwrap()).ok().json();
    assert_eq!(setting(&shown, "listen"), (&"127.0.0.1:3".into(), "flag --listen"));
    assert_eq!(setting(&shown, "http.max-page"), (&600.into(), "environment QUORATE_HTTP_MAX_PAGE"));
    assert_eq!(setting(&shown, "data"), (&"from-file".into(), "file quorate.toml"));
    assert_eq!(setting(&shown, "http.default-page"), (&100.into(), "default"));
}

#[test]
fn every_setting_has_a_flag_of_its_own_name() {
    let folder = tempfile::tempdir().unwrap();
    let shown = run(folder.path(), &["config", "show", "--output", "json"]).ok().json();
    let help = run(folder.path(), &["serve", "--help"]).ok().stdout;
    // Relays and inboxes are tables, which stand in a file alone.
    let is_table = |entry: &&Value| entry["key"] == "relay" || entry["key"] == "inbox";
    for entry in shown["settings"].as_array().unwrap().iter().filter(|entry| !is_table(entry)) {
        let flag = format!("--{} ", entry["key"].as_str().unwrap());
        assert!(help.contains(&flag) || help.contains(&flag.replace(' ', "[=<")), "{flag} in {help}");
    }
    let flags =
        ["config", "show", "--allow-remote", "--http.heartbeat", "3s", "--allowed-hosts", "a.example,b.example"];
    let shown = run(folder.path(), &flags).ok();
    assert!(shown.stdout.contains("flag --http.heartbeat"), "{shown:?}");
    assert!(shown.rows().iter().any(|row| row[..2] == ["allow-remote", "true"]), "{shown:?}");
}

#[test]
fn a_default_follows_what_is_set() {
    let folder = tempfile::tempdir().unwrap();
    let flags = ["config", "show", "--output", "json", "--http.max-requests", "50", "--http.max-page", "3"];
    let shown = run(folder.path(), &flags).ok().json();
    assert_eq!(setting(&shown, "http.max-streams"), (&50.into(), "follows http.max-requests"));
    assert_eq!(setting(&shown, "http.max-peer-requests"), (&25.into(), "follows http.max-requests"));
    assert_eq!(setting(&shown, "http.default-page"), (&3.into(), "follows http.max-page"));
}

#[test]
fn limits_that_cannot_be_set_are_shown_too() {
    let folder = tempfile::tempdir().unwrap();
    let shown = run(folder.path(), &["config", "show", "--output", "json"]).ok().json();
    let limits = shown["limits"].as_array().unwrap();
    let some = [
        ("store.conditions", 100),
        ("store.candidates-per-page", 20_000),
        ("event.tags", 32),
        ("views.rules", 100),
        ("schemas.patterns", 64),
    ];
    for (name, value) in some {
        assert!(limits.iter().any(|limit| limit["limit"] == name && limit["value"] == value), "{name} in {limits:?}");
    }
    let shown = run(folder.path(), &["config", "show"]).ok();
    let rows = shown.rows();
    assert!(rows.iter().any(|row| row[..] == ["store.conditions", "100", "fixed"]), "{rows:?}");
}

#[test]
fn what_cannot_be_used_is_refused_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    for (text, told) in [
        ("lisen = '127.0.0.1:1'", "there is no setting `lisen` (file quorate.toml): `listen`?"),
        ("[http]\nmax-body = 'lots'", "`http.max-body` cannot be"),
        ("listen = ", "quorate.toml is no TOML"),
        ("listen = '0.0.0.0:7400'", "set `allow-remote` if that is meant"),
        ("[http]\nmax-page = 3\ndefault-page = 4", "`http.max-page` is 3, which is less than `http.default-page`, 4"),
    ] {
        file(folder.path(), "quorate.toml", text);
        for verb in [&["serve"][..], &["config", "show"]] {
            let said = run(folder.path(), verb).failed(2);
            assert!(said.contains(told), "{text}: {said}");
        }
    }
    run(folder.path(), &["config", "show", "--config", "missing.toml"]).failed(74);
}
