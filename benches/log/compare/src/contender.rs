//! Who is measured, and how a program is asked for a figure.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use crate::Effort;

/// What the peers were built from.
const LOCK: &str = include_str!("../../Cargo.lock");

/// The name of the limit that quorate's bench measures beside itself.
pub(crate) const LIMIT: &str = "bare file";
/// The name of the one that the others are compared with.
pub(crate) const QUORATE: &str = "quorate";

/// A program that is measured.
pub(crate) struct Contender {
    pub(crate) name: &'static str,
    /// With the versions of what it consists of.
    pub(crate) versions: String,
    program: PathBuf,
    /// What its command line begins with.
    leading: &'static [&'static str],
}

/// One measured value.
pub(crate) struct Value {
    pub(crate) contender: &'static str,
    pub(crate) figure: String,
    pub(crate) unit: String,
    pub(crate) value: f64,
}

/// What `quorate bench log --json` prints, and every runner.
#[derive(Deserialize)]
struct Answer {
    results: Vec<Figure>,
}

#[derive(Deserialize)]
struct Figure {
    name: String,
    unit: String,
    value: f64,
    /// What a bare file could do at the same time.
    limit: Option<f64>,
}

impl Contender {
    /// quorate, and the peers whose runners stand beside this program.
    pub(crate) fn all(quorate: &Path) -> Result<Vec<Self>> {
        let here = std::env::current_exe()?;
        let peer = |name, runner, packages: &[&str]| Self {
            name,
            versions: packages.iter().map(|package| version_of(package, LOCK)).collect::<Vec<_>>().join(", "),
            program: here.with_file_name(runner),
            leading: &[],
        };
        let ours = Self {
            name: QUORATE,
            versions: version(quorate)?,
            program: quorate.to_owned(),
            leading: &["bench", "log", "--json", "--rounds", "1"],
        };
        Ok(vec![
            ours,
            peer("cqrs-es", "peer-cqrs-es", &["cqrs-es", "sqlite-es", "libsqlite3-sys"]),
            peer("eventcore", "peer-eventcore", &["eventcore-types", "eventcore-sqlite", "libsqlite3-sys"]),
            peer("UmaDB", "peer-umadb", &["umadb-core"]),
        ])
    }

    /// Runs the program once for `group` and reads its answer.
    ///
    /// # Errors
    /// When it fails, or answers something else than what it was asked for.
    pub(crate) fn measure(&self, group: &str, effort: &Effort) -> Result<Vec<Value>> {
        let mut command = Command::new(&self.program);
        command.args(self.leading).args(["--only", group]);
        command.args(["--span", &format!("{}ms", effort.span.as_millis())]);
        command.args(["--events", &effort.events.to_string()]).arg("--folder").arg(&effort.folder);
        let asking = || format!("asking {} for {group}", self.name);
        let output = command.stdin(Stdio::null()).stderr(Stdio::piped()).output().with_context(asking)?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{}: {}: {}", asking(), output.status, said.trim());
        let answer: Answer =
            serde_json::from_str(answer_in(&String::from_utf8(output.stdout)?)).with_context(asking)?;
        let figures = answer.results.into_iter().filter(|figure| is_compared(&figure.name, group));
        let values: Vec<_> = figures.flat_map(|figure| self.values(figure)).collect();
        ensure!(!values.is_empty(), "{}: no figure in its answer", asking());
        Ok(values)
    }

    fn values(&self, Figure { name, unit, value, limit }: Figure) -> Vec<Value> {
        let of = |contender, value| Value { contender, figure: name.clone(), unit: unit.clone(), value };
        limit.map(|limit| of(LIMIT, limit)).into_iter().chain([of(self.name, value)]).collect()
    }
}

/// The answer in what a program printed, behind what a library may have said before.
fn answer_in(printed: &str) -> &str {
    let begin = if printed.starts_with('{') { Some(0) } else { printed.find("\n{").map(|end_of_line| end_of_line + 1) };
    &printed[begin.unwrap_or(printed.len())..]
}

/// Whether a figure was asked for by itself or by its group and a number; quorate's bench tells more than that.
fn is_compared(figure: &str, group: &str) -> bool {
    let rest = figure.strip_prefix(group);
    rest.is_some_and(|rest| rest.is_empty() || rest.strip_prefix('/').is_some_and(|rest| rest.parse::<u32>().is_ok()))
}

fn version(program: &Path) -> Result<String> {
    let asking = || format!("asking {} for its version", program.display());
    let output = Command::new(program).arg("--version").output().with_context(asking)?;
    ensure!(output.status.success(), "{}: {}", asking(), output.status);
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The package with the version that is locked.
fn version_of(package: &str, lock: &str) -> String {
    let name = format!("name = \"{package}\"");
    let mut lines = lock.lines().skip_while(|line| *line != name).skip(1);
    let version = lines.next().and_then(|line| line.strip_prefix("version = \"")?.strip_suffix('"'));
    version.map_or_else(|| package.to_owned(), |version| format!("{package} {version}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_beyond_those_asked_for_are_left_out() {
        assert!(is_compared("append/in-process/1", "append/in-process/1"));
        assert!(is_compared("load-100-append/16", "load-100-append"));
        assert!(!is_compared("load-100-append/cached/16", "load-100-append"));
        assert!(!is_compared("append/in-process/1/syncs-per-event", "append/in-process/1"));
        assert!(!is_compared("read/stream", "read/catch-up"));
    }

    #[test]
    fn what_a_library_prints_before_the_answer_is_passed_over() {
        assert_eq!(answer_in("opened file {x}\n{\"results\": []}\n"), "{\"results\": []}\n");
        assert_eq!(answer_in("{\n  \"results\": []\n}\n"), "{\n  \"results\": []\n}\n");
        assert_eq!(answer_in("no answer"), "");
    }

    #[test]
    fn versions_are_those_of_the_lock_file() {
        let lock =
            "[[package]]\nname = \"a\"\nversion = \"1.2.3\"\n\n[[package]]\nname = \"ab\"\nversion = \"4.0.0\"\n";
        assert_eq!(version_of("ab", lock), "ab 4.0.0");
        assert_eq!(version_of("cqrs-es", LOCK), "cqrs-es 0.5.0");
    }
}
