//! Runs a suite, shows what it prints as it prints it, and adds up its totals.

use std::{
    io::{self, BufRead, BufReader, IsTerminal, Read, Write},
    process::{Command, Stdio},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
    time::Instant,
};

use anyhow::{Context, Result, anyhow, ensure};

use super::totals::Totals;
use crate::command;

/// One cargo command that runs tests.
pub(super) struct Suite {
    pub(super) name: &'static str,
    pub(super) arguments: &'static [&'static str],
    /// Variables of the environment for it.
    pub(super) variables: &'static [(&'static str, &'static str)],
    /// What a line has that is printed to standard error once everything is built.
    pub(super) built: &'static str,
    /// Reads totals from a line that has some.
    pub(super) read: fn(&str) -> Option<Totals>,
}

impl Suite {
    /// Runs the suite to its end, and shows what it prints; says whether it succeeded, and what it counted. `builds` is dropped
    /// when it is built, or ends.
    ///
    /// # Errors
    /// When it could not be started, or succeeded without a line of totals: then nothing is known to have run.
    pub(super) fn run(&self, builds: Option<mpsc::Sender<()>>) -> Result<(bool, Totals)> {
        self.follow(command::cargo(self.arguments), builds, io::stdout(), io::stderr())
    }

    /// The same in the time that other suites leave over; what it prints goes to `printed`.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub(super) fn run_beside(&self, printed: &Printed) -> Result<(bool, Totals)> {
        self.follow(command::cargo_in_spare_time(self.arguments), None, printed.clone(), printed.clone())
    }

    fn follow(
        &self,
        cargo: Command,
        builds: Option<mpsc::Sender<()>>,
        out: impl Write,
        err: impl Write + Send + 'static,
    ) -> Result<(bool, Totals)> {
        let command = format!("cargo {}", self.arguments.join(" "));
        eprintln!("test: {}: {command}", self.name);
        let started = Instant::now();
        let (succeeded, totals) =
            self.watch(cargo, builds, out, err).with_context(|| format!("`{command}` could not be followed"))?;
        eprintln!("test: {} ended after {:.1} s", self.name, started.elapsed().as_secs_f64());
        ensure!(totals.is_some() || !succeeded, "`{command}` ended without totals");
        Ok((succeeded, totals.unwrap_or_default()))
    }

    fn watch(
        &self,
        mut cargo: Command,
        mut builds: Option<mpsc::Sender<()>>,
        to_out: impl Write,
        to_err: impl Write + Send + 'static,
    ) -> Result<(bool, Option<Totals>)> {
        cargo.envs(self.variables.iter().copied());
        if io::stderr().is_terminal() {
            cargo.env("CARGO_TERM_COLOR", "always");
        }
        let mut child = cargo.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let out = child.stdout.take().context("no standard output")?;
        let err = child.stderr.take().context("no standard error")?;
        let (read, built) = (self.read, self.built);
        let read_err = move |line: &str| {
            if line.contains(built) {
                drop(builds.take());
            }
            read(line)
        };
        let beside = thread::spawn(move || copy(err, to_err, read_err));
        let from_out = copy(out, to_out, read)?;
        let from_err = beside.join().map_err(|_| anyhow!("the reader of standard error panicked"))??;
        let succeeded = child.wait()?.success();
        Ok((succeeded, [from_out, from_err].into_iter().flatten().reduce(|one, other| one + other)))
    }
}

/// What a suite printed that nobody watches.
#[derive(Clone, Default)]
pub(super) struct Printed(Arc<Mutex<Vec<u8>>>);

impl Printed {
    /// Shows it.
    ///
    /// # Errors
    /// Where standard error is gone.
    pub(super) fn show(&self) -> io::Result<()> {
        io::stderr().write_all(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Write for Printed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Copies line by line, and adds up the totals that come by.
fn copy(
    from: impl Read,
    mut to: impl Write,
    mut read: impl FnMut(&str) -> Option<Totals>,
) -> io::Result<Option<Totals>> {
    let mut lines = BufReader::new(from);
    let mut line = Vec::new();
    let mut sum = None;
    while lines.read_until(b'\n', &mut line)? > 0 {
        to.write_all(&line)?;
        to.flush()?;
        if let Some(totals) = read(&String::from_utf8_lossy(&line)) {
            sum = Some(sum.unwrap_or_default() + totals);
        }
        line.clear();
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::{super::totals, *};

    #[test]
    fn output_passes_unchanged_while_totals_are_added_up() {
        let printed = "running\ntest result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out\n\
                       test result: ok. 3 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out\nno newline";
        let mut shown = Vec::new();
        let sum = copy(printed.as_bytes(), &mut shown, totals::of_libtest).unwrap();
        assert_eq!(shown, printed.as_bytes());
        assert_eq!(sum, Some(Totals { passed: 5, failed: 1, ..Totals::default() }));
    }

    #[test]
    fn output_without_totals_has_none_rather_than_zero() {
        assert_eq!(copy(&b"error: nothing compiled\n"[..], Vec::new(), totals::of_libtest).unwrap(), None);
    }
}
