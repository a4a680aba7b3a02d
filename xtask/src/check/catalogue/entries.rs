//! The catalogue as written.

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::tree::Tree;

/// All patterns.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Catalogue {
    #[serde(default, rename = "pattern")]
    pub(super) patterns: Vec<Pattern>,
}

/// One pattern: what it is, which surfaces it has, and where those are that its name doesn't tell.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Pattern {
    pub(super) name: String,
    pub(super) title: String,
    pub(super) family: String,
    pub(super) room: String,
    pub(super) promise: String,
    /// What stands beside a pattern of the catalogue, and is none of its own: the pattern's name.
    pub(super) beside: Option<String>,
    library: State,
    http: State,
    cli: State,
    console: State,
    page: State,
    example: State,
    guarantees: State,
    /// For `http`: a path of the API as the OpenAPI document writes it, `/v1/streams/{stream}/events`.
    pub(super) route: Option<String>,
    /// For `cli`: the command's words, `stream append`.
    pub(super) command: Option<String>,
    /// For `console`: the page's path.
    pub(super) view: Option<String>,
    /// For `example`: the program's file or folder, where it isn't `examples/<name>.rs`.
    pub(super) program: Option<String>,
    /// For `guarantees`: the tests behind the pattern's rows of the table.
    #[serde(default)]
    pub(super) proofs: Vec<String>,
}

/// A claim about a surface.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum State {
    Done,
    /// It is there and works, and does not keep all of the promise yet.
    Begun,
    Planned,
}

impl State {
    /// As the catalogue writes it.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Begun => "begun",
            Self::Planned => "planned",
        }
    }
}

/// Where a pattern shows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Surface {
    Library,
    Http,
    Cli,
    Console,
    Page,
    Example,
    Guarantees,
}

impl Catalogue {
    /// Reads the catalogue at `path`.
    ///
    /// # Errors
    /// When it is missing or isn't valid.
    pub(super) fn read(tree: &Tree, path: &str) -> Result<Self> {
        let text = tree.text(path).with_context(|| format!("there is no {path}"))?;
        toml::from_str(text).with_context(|| format!("{path} isn't valid"))
    }
}

impl Pattern {
    /// What the catalogue says of `surface`.
    pub(super) fn state(&self, surface: Surface) -> State {
        match surface {
            Surface::Library => self.library,
            Surface::Http => self.http,
            Surface::Cli => self.cli,
            Surface::Console => self.console,
            Surface::Page => self.page,
            Surface::Example => self.example,
            Surface::Guarantees => self.guarantees,
        }
    }

    /// Where the pattern's page stands.
    pub(super) fn page(&self) -> String {
        format!("docs/patterns/{}.md", self.name)
    }

    /// Where the pattern's example stands.
    pub(super) fn example(&self) -> String {
        let usual = || format!("examples/{}.rs", self.name.replace('-', "_"));
        self.program.clone().unwrap_or_else(usual)
    }
}

impl Surface {
    pub(super) const ALL: [Self; 7] =
        [Self::Library, Self::Http, Self::Cli, Self::Console, Self::Page, Self::Example, Self::Guarantees];

    /// How the catalogue calls it.
    pub(super) fn key(self) -> &'static str {
        match self {
            Self::Library => "library",
            Self::Http => "http",
            Self::Cli => "cli",
            Self::Console => "console",
            Self::Page => "page",
            Self::Example => "example",
            Self::Guarantees => "guarantees",
        }
    }
}
