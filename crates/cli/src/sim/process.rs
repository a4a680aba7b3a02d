//! A seed in a process of its own, which somebody watches: code that runs and never waits keeps its world from noticing anything.

use std::{
    process::{Output, Stdio},
    time::Duration,
};

use quorate_runtime::Env;
use serde_json::{Value, json};
use tokio::process::Command;

use super::World;
use crate::exit::Failure;

/// A world takes a fraction of a second, and a longer one far less than the time that passes in it. What takes so much more has no
/// end.
const LONGEST: Duration = Duration::from_secs(300);

/// What became of a process.
pub(super) enum Ended {
    /// It ended, and printed this.
    Alone(Output),
    /// It was killed, because it would not have ended.
    Hung(Value),
}

/// Runs `command`, in which one seed is what `world` says.
pub(super) async fn run(env: &Env, command: &mut Command, world: &World) -> Result<Ended, Failure> {
    let longest = LONGEST.saturating_add(world.time.unwrap_or_default());
    output_within(env, command, longest).await
}

async fn output_within(env: &Env, command: &mut Command, longest: Duration) -> Result<Ended, Failure> {
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
    match env.timeout(longest, output).await {
        Some(Ok(output)) => Ok(Ended::Alone(output)),
        Some(Err(cause)) => Err(Failure::io("a process for a seed", &cause)),
        None => {
            let why = format!("it had not ended after {} s: something in it runs and never waits", longest.as_secs());
            Ok(Ended::Hung(json!({ "verdict": "hung", "stderr": why })))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_process_that_has_no_end_is_told_from_one_that_ends() {
        let (env, mut command) = (Env::real(), Command::new("sleep"));
        let ended = output_within(&env, command.arg("600"), Duration::from_millis(100)).await.unwrap();
        let Ended::Hung(told) = ended else { panic!("it slept for ten minutes") };
        assert_eq!(told["verdict"], "hung");
        assert!(told["stderr"].as_str().unwrap().contains("never waits"), "{told}");
        let mut command = Command::new("sleep");
        let ended = output_within(&env, command.arg("0"), Duration::from_secs(300)).await.unwrap();
        assert!(matches!(ended, Ended::Alone(output) if output.status.success()));
    }
}
