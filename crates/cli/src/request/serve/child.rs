//! One run of the command.

use std::{io, process::Stdio};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    process::{Child, Command},
};

use super::Asked;

/// The longest answer, in bytes.
const MAX_ANSWER: usize = 1 << 20;

/// How much is told of what a command wrote to standard error, and of what else was wrong.
pub(super) const MAX_DETAIL: usize = 1_024;

/// What became of a run.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Did {
    /// It wrote this, and exited with 0.
    Answered(Vec<u8>),
    /// It says no.
    Failed {
        /// What kind of no, for programs.
        code: String,
        /// Why, for people.
        detail: String,
    },
    /// It was killed, and nobody knows what it had done.
    Vanished,
}

/// A process and what it started. Dropped while it runs, all of that is killed.
struct Group {
    child: Child,
    leader: Option<Pid>,
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.leader {
            // It may have ended by itself at this moment.
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}

fn start(command: &[String], asked: &Asked) -> io::Result<Group> {
    let (program, arguments) = command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let mut command = Command::new(program);
    command.args(arguments).env("REQUEST", &asked.request);
    for (name, value) in [("REQUEST_TIMEOUT", &asked.timeout), ("REQUEST_CONTENT_TYPE", &asked.content_type)] {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.process_group(0).kill_on_drop(true).spawn()?;
    let leader = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    Ok(Group { child, leader })
}

/// Runs `command` on what is asked.
///
/// # Cancel safety
/// Dropping the future kills the command, and what it started.
pub(super) async fn run(command: &[String], asked: &Asked) -> Did {
    let failed = |code: &str, detail: String| Did::Failed { code: code.to_owned(), detail };
    let mut group = match start(command, asked) {
        Ok(group) => group,
        Err(cause) => return failed("not-started", format!("the command cannot be started: {cause}")),
    };
    let (stdin, stdout, stderr) = (group.child.stdin.take(), group.child.stdout.take(), group.child.stderr.take());
    let body = asked.bytes();
    let feeding = async move {
        if let Some(mut stdin) = stdin {
            // A command may end before it has read everything.
            let _ = stdin.write_all(&body).await;
        }
    };
    let ((), written, complained) = tokio::join!(feeding, beginning(stdout), end(stderr));
    // A part of an answer is none.
    let Ok(written) = written else { return Did::Vanished };
    let ended = group.child.wait().await;
    group.leader = None;
    match ended.ok().and_then(|status| status.code()) {
        None => Did::Vanished,
        Some(0) if written.len() > MAX_ANSWER => {
            failed("answer-too-long", format!("the answer has more than {MAX_ANSWER} bytes; the request was done"))
        }
        Some(0) => Did::Answered(written),
        Some(code) => failed(&format!("exit-{code}"), complained),
    }
}

/// What is read from `source`, but not much more than an answer may have: the rest is read and thrown away, so that whoever writes it comes to its end.
async fn beginning(source: Option<impl AsyncRead + Unpin>) -> io::Result<Vec<u8>> {
    let mut read = Vec::new();
    if let Some(mut source) = source {
        (&mut source).take(MAX_ANSWER as u64 + 1).read_to_end(&mut read).await?;
        tokio::io::copy(&mut source, &mut tokio::io::sink()).await?;
    }
    Ok(read)
}

/// The end of what is read from `source`.
async fn end(source: Option<impl AsyncRead + Unpin>) -> String {
    let mut read = Vec::new();
    if let Some(mut source) = source {
        while matches!(source.read_buf(&mut read).await, Ok(1..)) {
            let surplus = read.len().saturating_sub(MAX_DETAIL);
            read.drain(..surplus);
        }
    }
    let text = String::from_utf8_lossy(&read);
    let text = text.trim();
    // A character that was cut, or was none, may have become longer.
    text[text.ceil_char_boundary(text.len().saturating_sub(MAX_DETAIL))..].to_owned()
}
