//! This program as another process: told in one line what to be, says in one line where it is, and ends with whoever started it.

use std::{process::Stdio, time::Duration};

use quorate_runtime::Env;
use rustix::process::Pid;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Stdin},
    process::{Child, ChildStdin, Command},
};

use crate::{
    exit::{Exit, Failure},
    output::Out,
};

/// How long a process may take until it says where it is.
pub(crate) const STARTING: Duration = Duration::from_secs(60);

/// A process. It is killed when this is dropped.
pub(crate) struct Process {
    child: Child,
    /// The child ends when this is dropped.
    _input: ChildStdin,
}

impl Process {
    /// Starts this program with `arguments`, tells it its `settings`, and waits until it says where it is.
    ///
    /// # Errors
    /// It cannot be started, ended, or said nothing within [`STARTING`]; it is gone then.
    pub(crate) async fn start<P: DeserializeOwned>(
        env: &Env,
        name: &str,
        arguments: &[&str],
        settings: &(impl Serialize + Sync),
    ) -> Result<(Self, P), Failure> {
        let failed = |what: String| Failure::new(Exit::Failed, format!("{name}: {what}"));
        let own = std::env::current_exe().map_err(|cause| Failure::io("this program's own file", &cause))?;
        let mut command = Command::new(own);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        // Whoever stops the first process with Ctrl-C stops that one; the others end when it has.
        command.process_group(0);
        let mut child = command.spawn().map_err(|cause| failed(format!("cannot be started: {cause}")))?;
        let (Some(mut input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(failed("has no input or output".to_owned()));
        };
        let settings = serde_json::to_string(settings).map_err(|cause| failed(cause.to_string()))? + "\n";
        input.write_all(settings.as_bytes()).await.map_err(|cause| failed(format!("ended at once: {cause}")))?;
        let mut line = String::new();
        let mut output = BufReader::new(output);
        let told = env.timeout(STARTING, output.read_line(&mut line)).await;
        let told = told.ok_or_else(|| failed(format!("did not say where it is within {STARTING:?}")))?;
        told.map_err(|cause| failed(cause.to_string()))?;
        let place = serde_json::from_str(&line).map_err(|_| failed("ended before it said where it is".to_owned()))?;
        Ok((Self { child, _input: input }, place))
    }

    /// Kills it, as `kill -9` does, and waits until it is gone.
    pub(crate) async fn kill(&mut self) {
        // One that has ended by itself is gone as well.
        let _gone = self.child.kill().await;
    }

    /// Its number, while it runs.
    pub(crate) fn id(&self) -> Option<Pid> {
        self.child.id().and_then(|id| Pid::from_raw(id.cast_signed()))
    }

    /// Whether it ended, by itself or killed.
    pub(crate) fn has_ended(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(Some(_)))
    }
}

/// Whoever started this process.
pub(crate) struct Parent(BufReader<Stdin>);

/// Begins to be a process that `parent` started: what it was told.
pub(crate) async fn begin<S: DeserializeOwned>(parent: &str) -> Result<(S, Parent), Failure> {
    // Also one that stands still ends with whoever started it.
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .map_err(|cause| Failure::new(Exit::Failed, cause.to_string()))?;
    let mut input = BufReader::new(tokio::io::stdin());
    let mut line = String::new();
    input.read_line(&mut line).await.map_err(|cause| Failure::io("standard input", &cause))?;
    let settings = serde_json::from_str(&line)
        .map_err(|wrong| Failure::new(Exit::Usage, format!("this process is started by `{parent}`: {wrong}")))?;
    Ok((settings, Parent(input)))
}

impl Parent {
    /// Says where this process is.
    #[expect(clippy::unused_self, reason = "whoever has no parent has nobody to tell")]
    pub(crate) fn tell(&self, place: &Value) -> Result<(), Failure> {
        let mut out = Out::new();
        out.line(&place.to_string())?;
        out.flush()
    }

    /// Waits until nobody is left who would want this process.
    pub(crate) async fn gone(mut self) {
        let _ended = self.0.read_to_end(&mut Vec::new()).await;
    }
}
