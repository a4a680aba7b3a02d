//! A child process that plays a part, and what it says.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, channel},
    time::{Duration, Instant},
};

/// How long what has to happen may take on a slow machine that has other things to do.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);

/// What a child is told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Orders<'a> {
    /// The test that the child runs, in which it finds its part.
    pub(crate) test: &'a str,
    /// What it is to do.
    pub(crate) part: &'a str,
    pub(crate) store: &'a Path,
    pub(crate) broker: &'a str,
    /// In which round.
    pub(crate) round: u64,
    /// The boundary at which it ends itself; empty for none.
    pub(crate) die_at: &'a str,
}

/// The variables in which a child finds its orders.
pub(crate) mod variable {
    pub(crate) const STORE: &str = "QUORATE_TEST_STORE";
    pub(crate) const ROUND: &str = "QUORATE_TEST_ROUND";
    pub(crate) const BROKER: &str = "QUORATE_TEST_BROKER";
    pub(crate) const PART: &str = "QUORATE_TEST_PART";
    pub(crate) const DIE_AT: &str = "QUORATE_TEST_DIE_AT";
}

/// Says something to the parent, past whatever captures output.
pub(crate) fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "\nsaid {line}");
    let _ = out.flush();
}

/// A child at work. Ended with this.
pub(crate) struct Part {
    name: String,
    child: Child,
    lines: Receiver<String>,
    heard: Vec<String>,
    has_ended: bool,
}

impl Part {
    pub(crate) fn start(orders: Orders<'_>) -> Self {
        let Orders { test, part, store, broker, round, die_at } = orders;
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args([test, "--exact", "--nocapture", "--test-threads=1"])
            .env(variable::STORE, store)
            .env(variable::ROUND, round.to_string())
            .envs([(variable::BROKER, broker), (variable::PART, part), (variable::DIE_AT, die_at)])
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit());
        let mut child = command.spawn().unwrap();
        let (out, (tell, lines)) = (BufReader::new(child.stdout.take().unwrap()), channel());
        // It ends with the child's output, or when nobody listens any more.
        std::thread::spawn(move || {
            let said =
                out.lines().map_while(Result::ok).filter_map(|line| Some(line.strip_prefix("said ")?.to_owned()));
            for line in said {
                if tell.send(line).is_err() {
                    return;
                }
            }
        });
        let end = if die_at.is_empty() { String::new() } else { format!(", to end itself at `{die_at}`") };
        Self { name: format!("{part} of round {round}{end}"), child, lines, heard: Vec::new(), has_ended: false }
    }

    /// Hears what it says for at most `span`.
    fn hear(&mut self, span: Duration) {
        match self.lines.recv_timeout(span) {
            Ok(line) => self.heard.push(line),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => self.has_ended = true,
        }
    }

    /// Waits until what it has said is enough.
    pub(crate) fn wait_until(&mut self, what: &str, is_enough: impl Fn(&[String]) -> bool) {
        let until = Instant::now() + PATIENCE;
        while !is_enough(&self.heard) {
            assert!(
                !self.has_ended(),
                "{} has ended and was to go on until {what}; it said {:?}",
                self.name,
                self.last()
            );
            assert!(Instant::now() < until, "{} goes on without {what}; it said {:?}", self.name, self.last());
            self.hear(Duration::from_secs(1));
        }
    }

    /// Waits until it has ended itself.
    pub(crate) fn wait_for_its_end(&mut self) {
        let until = Instant::now() + PATIENCE;
        while !self.has_ended() {
            assert!(Instant::now() < until, "{} does not end; it said {:?}", self.name, self.last());
            self.hear(Duration::from_secs(1));
        }
        let status = self.child.wait().unwrap();
        let is_abort = std::os::unix::process::ExitStatusExt::signal(&status) == Some(6);
        assert!(is_abort, "{} ended otherwise ({status}); it said {:?}", self.name, self.last());
    }

    /// What it has said so far.
    pub(crate) fn heard(&mut self) -> &[String] {
        self.heard_all();
        &self.heard
    }

    /// Whether it says nothing more, since it has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.has_ended
    }

    fn heard_all(&mut self) {
        loop {
            match self.lines.try_recv() {
                Ok(line) => self.heard.push(line),
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Disconnected) => {
                    self.has_ended = true;
                    return;
                }
            }
        }
    }

    fn last(&self) -> Vec<&String> {
        self.heard.iter().rev().take(5).rev().collect()
    }

    /// Kills it, unless it has ended, and returns all that it said.
    pub(crate) fn kill(mut self) -> Vec<String> {
        let _gone = self.child.kill();
        self.child.wait().unwrap();
        self.heard.extend(self.lines.iter());
        std::mem::take(&mut self.heard)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}
