//! `quorate patterns`: the catalogue, drawn from `catalogue.toml`, and patterns that run.

mod live;

use quorate_runtime::Env;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    exit::Failure,
    output::{Column, Format, Out, Table},
    pages::nothing,
};

pub(crate) use self::live::be_child;

const CATALOGUE: &str = include_str!("../../../catalogue.toml");

#[derive(Deserialize)]
struct Catalogue {
    pattern: Vec<Pattern>,
}

/// A pattern and what of it can be relied on today.
#[derive(Deserialize, Serialize)]
struct Pattern {
    name: String,
    title: String,
    family: String,
    promise: String,
    /// The pattern that this stands beside, where it is none of the catalogue's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    beside: Option<String>,
    library: State,
    http: State,
    cli: State,
    console: State,
    page: State,
    example: State,
    guarantees: State,
    room: String,
    route: Option<String>,
    command: Option<String>,
    view: Option<String>,
}

#[derive(Clone, Copy, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Done,
    /// It is there and works, and does not keep all of the promise yet.
    Begun,
    Planned,
}

/// Prints the whole catalogue, or the pattern called `name`, which also runs if it can.
pub(crate) async fn show(name: Option<&str>, env: &Env, format: Format) -> Result<(), Failure> {
    let patterns = catalogue();
    let mut out = Out::new();
    match name {
        None => list(&patterns, format, &mut out),
        Some(name) => {
            let missing =
                || nothing(format!("no pattern is called `{name}`")).advise("`quorate patterns` lists them all");
            let pattern = patterns.iter().find(|pattern| pattern.name == name).ok_or_else(missing)?;
            if !live::is_live(name) {
                return one(pattern, format, &mut out);
            }
            if format == Format::Table {
                one(pattern, format, &mut out)?;
            }
            live::run(name, env, format, &mut out).await
        }
    }
}

fn catalogue() -> Vec<Pattern> {
    let catalogue: Catalogue = toml::from_str(CATALOGUE)
        .unwrap_or_else(|wrong| unreachable!("the catalogue was checked when it was built in: {wrong}"));
    catalogue.pattern
}

fn list(patterns: &[Pattern], format: Format, out: &mut Out) -> Result<(), Failure> {
    if format == Format::Json {
        out.json(&json!({ "patterns": patterns }))?;
        return out.flush();
    }
    let mut table = Table::new(["FAMILY", "PATTERN", "WORKS IN", "PROMISE"].map(Column::Left));
    for pattern in patterns {
        table.row([&pattern.family, &pattern.name, &pattern.works_in(), &pattern.promise]);
    }
    table.print(out)
}

fn one(pattern: &Pattern, format: Format, out: &mut Out) -> Result<(), Failure> {
    if format == Format::Json {
        out.json(&json!(pattern))?;
        return out.flush();
    }
    out.line(&format!("{}: {}", pattern.title, pattern.promise))?;
    let mut table = Table::new(["SURFACE", "STATE", "WHERE"].map(Column::Left));
    for (surface, state, place) in pattern.surfaces() {
        let place = if state == State::Planned { "" } else { place };
        table.row([surface, state.word(), place]);
    }
    table.print(out)
}

impl Pattern {
    fn surfaces(&self) -> [(&'static str, State, &str); 7] {
        [
            ("library", self.library, &self.room),
            ("http", self.http, self.route.as_deref().unwrap_or_default()),
            ("cli", self.cli, self.command.as_deref().unwrap_or_default()),
            ("console", self.console, self.view.as_deref().unwrap_or_default()),
            ("page", self.page, ""),
            ("example", self.example, ""),
            ("guarantees", self.guarantees, ""),
        ]
    }

    fn works_in(&self) -> String {
        let done = self.surfaces().into_iter().take(4).filter(|(_, state, _)| *state == State::Done);
        let done: Vec<&str> = done.map(|(surface, _, _)| surface).collect();
        let begun = self.surfaces().iter().any(|(_, state, _)| *state == State::Begun);
        match done.is_empty() {
            true if begun => "begun".to_owned(),
            true => "planned".to_owned(),
            false => done.join(", "),
        }
    }
}

impl State {
    fn word(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Begun => "begun",
            Self::Planned => "planned",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::catalogue;

    #[test]
    fn the_catalogue_that_is_built_in_can_be_read() {
        let patterns = catalogue();
        assert!(patterns.iter().any(|pattern| pattern.name == "event-sourcing"));
        assert!(patterns.iter().all(|pattern| !pattern.promise.is_empty() && !pattern.room.is_empty()));
    }
}
