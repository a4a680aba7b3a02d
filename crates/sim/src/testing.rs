//! Simulated tests: one seed after another, each in a process of its own.
//!
//! A process can hold what outlives a world (statics, thread-locals, the engine's own randomness), so a seed is only the same world
//! again when it has a process to itself. The test therefore runs its own executable once per seed.

use std::{
    env, fs,
    io::{self, Read},
    path::PathBuf,
    process::{self, Command, Output, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::Duration,
};

use crate::{Outcome, Settings, Sim, executor::lock};

/// Names the one seed that this process runs.
const SEED: &str = "QUORATE_SIM_SEED";
/// Has more or fewer seeds run than the test says.
const SEEDS: &str = "QUORATE_SIM_SEEDS";
/// What a line of a process begins with that tells the trace of its seed.
const TRACE: &str = "trace of this seed: ";

/// So many of a test's seeds are run a second time: a program that asks the operating system for the time, for randomness or for
/// the order of a hash map is not the same program then.
const TWICE: u64 = 3;

/// A world takes a fraction of a second, whatever time passes in it. What takes so much of real time has no end.
const LONGEST: Duration = Duration::from_secs(300);

/// The one seed that this process was started for, by [`first_failure`] or by hand.
pub fn own_seed() -> Option<u64> {
    number(SEED)
}

/// Runs `scenario` for `seeds` seeds, and panics with the first that fails, or that is not the same world when it is run again,
/// which is tried with the first three. What [`sim_test`](crate::sim_test) expands to.
///
/// `test` is the test's path as `module_path!` gives it. `QUORATE_SIM_SEED` in the environment has this process run that one
/// seed; `QUORATE_SIM_SEEDS` replaces the number of seeds. A seed whose process has not ended after five minutes is one that fails.
///
/// # Panics
/// When a seed fails, and when a seed is two worlds; the message ends with the command that runs it again.
pub fn run(test: &str, seeds: u64, scenario: fn(Sim) -> Outcome) {
    if let Some(seed) = own_seed() {
        let outcome = scenario(Sim::new(seed, Settings::default()));
        assert!(outcome.passed(), "seed {seed}: {}", sentences(&outcome));
        println!("\n{TRACE}{} after {} steps", outcome.trace, outcome.steps);
        return;
    }
    let name = test.split_once("::").map_or(test, |(_, name)| name);
    let seeds = seeds_or(seeds);
    let again = |seed: u64| format!("to run it again: {SEED}={seed} cargo test {name} -- --exact --nocapture");
    if let Some((seed, output)) = first_failure(name, seeds) {
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        panic!("seed {seed} of {seeds} failed\n{out}{err}\n{}", again(seed));
    }
    for seed in 0..seeds.min(TWICE) {
        let (first, second) = (in_a_process(name, seed, &[]), in_a_process(name, seed, &[]));
        let (first, second) = (trace(&first), trace(&second));
        assert!(first.is_some(), "seed {seed} passed without a word of its trace\n{}", again(seed));
        assert!(
            first == second,
            "seed {seed} is not the same world twice ({first:?}, then {second:?}): something in it is not taken from `Env`, such as \
             the time, randomness, or the order of a `HashMap`\n{}",
            again(seed)
        );
    }
}

/// What a process told of its seed's trace.
fn trace(output: &Output) -> Option<String> {
    let told = String::from_utf8_lossy(&output.stdout);
    told.lines().find_map(|line| line.strip_prefix(TRACE)).map(str::to_owned)
}

/// How many seeds a test runs that runs `usual` of them: more or fewer, if the environment says so.
pub fn seeds_or(usual: u64) -> u64 {
    number(SEEDS).unwrap_or(usual)
}

fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok()?.parse().ok()
}

fn sentences(outcome: &Outcome) -> String {
    outcome.violations.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// Runs the test called `test`, as `cargo test` names it, once for each of `seeds` seeds in processes of their own. Returns the
/// lowest seed that failed, of those that were run until one did, and what it printed.
pub fn first_failure(test: &str, seeds: u64) -> Option<(u64, Output)> {
    sweep(test, seeds, |_, _| {})
}

/// The same, and shows each seed that passed and what it printed, in no order.
pub fn sweep(test: &str, seeds: u64, passed: impl Fn(u64, &Output) + Sync) -> Option<(u64, Output)> {
    first_failing(seeds, |seed| {
        let output = in_a_process(test, seed, &[]);
        if output.status.success() {
            passed(seed, &output);
        }
        output
    })
}

fn first_failing(seeds: u64, run: impl Fn(u64) -> Output + Sync) -> Option<(u64, Output)> {
    let (next, failed) = (AtomicU64::new(0), Mutex::new(Vec::new()));
    let workers = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds || !lock(&failed).is_empty() {
                        return;
                    }
                    let output = run(seed);
                    if !output.status.success() {
                        lock(&failed).push((seed, output));
                    }
                }
            });
        }
    });
    lock(&failed).drain(..).min_by_key(|(seed, _)| *seed)
}

/// What a program does whose `main` looks for a seed that fails: runs itself once per seed, and returns the lowest seed that
/// failed of `seeds`, with what was violated in it. In the processes it starts it runs their one seed and does not return.
///
/// # Panics
/// When this executable cannot be run again.
pub fn search(seeds: u64, scenario: fn(Sim) -> Outcome) -> Option<(u64, String)> {
    if let Some(seed) = own_seed() {
        let outcome = scenario(Sim::new(seed, Settings::default()));
        println!("{}", sentences(&outcome));
        process::exit(i32::from(!outcome.passed()));
    }
    let found = first_failing(seeds, |seed| run_again(&[], seed, &[]));
    found.map(|(seed, output)| (seed, String::from_utf8_lossy(&output.stdout).trim().to_owned()))
}

/// Runs the test called `test` for one seed in a process of its own, with `variables` in its environment.
///
/// # Panics
/// When this executable cannot be run again.
pub fn in_a_process(test: &str, seed: u64, variables: &[(&str, &str)]) -> Output {
    run_again(&of_test(test), seed, variables)
}

/// The same as another user on another machine might run it: the executable in another folder under another name, another working
/// directory, and nothing of this environment. What a world must not depend on.
///
/// # Panics
/// When that cannot be arranged.
#[expect(clippy::disallowed_methods, reason = "a copy of the executable is put elsewhere, outside of any world")]
pub fn elsewhere(test: &str, seed: u64) -> Output {
    let own = this_executable();
    let folder = own.with_file_name(format!("elsewhere-{}-{test}-{seed}", process::id()));
    let (other, arranged) = (folder.join("another name"), "a copy of this program elsewhere");
    let arrange = || {
        fs::create_dir_all(&folder)?;
        fs::hard_link(&own, &other).or_else(|_| fs::copy(&own, &other).map(drop))
    };
    arrange().unwrap_or_else(|cause| panic!("{arranged}: {cause}"));
    let mut command = Command::new(&other);
    command.args(of_test(test)).current_dir(&folder).env_clear().env(SEED, seed.to_string());
    command
        .env("HOME", "/nonexistent")
        .env("TZ", "Asia/Kathmandu")
        .env("LC_ALL", "tr_TR.UTF-8")
        .env("MORE", "x".repeat(9_999));
    let output = output_within(&mut command, LONGEST);
    fs::remove_dir_all(&folder).unwrap_or_else(|cause| panic!("{arranged}: {cause}"));
    output.unwrap_or_else(|cause| panic!("{arranged}: {cause}"))
}

fn of_test(test: &str) -> [&str; 4] {
    [test, "--exact", "--nocapture", "--test-threads=1"]
}

fn this_executable() -> PathBuf {
    env::current_exe().unwrap_or_else(|cause| panic!("this program cannot find itself: {cause}"))
}

fn run_again(arguments: &[&str], seed: u64, variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(this_executable());
    command.args(arguments).env(SEED, seed.to_string()).envs(variables.iter().copied());
    let output = output_within(&mut command, LONGEST);
    output.unwrap_or_else(|cause| panic!("this program cannot run itself again: {cause}"))
}

/// Runs `command` to its end, or for `longest`: then it is killed, and what it printed ends with why. Code that runs and never waits
/// keeps its world from noticing anything, so somebody outside has to.
fn output_within(command: &mut Command, longest: Duration) -> io::Result<Output> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let (ended, end) = mpsc::channel::<()>();
    let also_ended = ended.clone();
    thread::scope(|scope| {
        // Nobody says anything: whoever has read to the end is gone.
        let out = scope.spawn(move || read(out, ended));
        let err = scope.spawn(move || read(err, also_ended));
        let hangs = end.recv_timeout(longest) == Err(RecvTimeoutError::Timeout);
        if hangs {
            child.kill()?;
        }
        let status = child.wait()?;
        let (mut stdout, stderr) = (out.join().unwrap_or_default(), err.join().unwrap_or_default());
        if hangs {
            let why = format!("\nit had not ended after {longest:?}: something in it runs and never waits\n");
            stdout.extend_from_slice(why.as_bytes());
        }
        Ok(Output { status, stdout, stderr })
    })
}

/// Everything that comes out of `pipe`; `_ended` is dropped when nothing does any more.
fn read(pipe: Option<impl Read>, _ended: mpsc::Sender<()>) -> Vec<u8> {
    let mut all = Vec::new();
    if let Some(mut pipe) = pipe {
        // What cannot be read any more ends it as well; what was read until then counts.
        let _ = pipe.read_to_end(&mut all);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_has_no_end_is_ended_and_says_so() {
        if own_seed().is_some() {
            loop {
                thread::park();
            }
        }
        let mut command = Command::new(this_executable());
        command.args(of_test("testing::tests::a_process_that_has_no_end_is_ended_and_says_so")).env(SEED, "7");
        let output = output_within(&mut command, Duration::from_millis(300)).unwrap();
        assert!(!output.status.success());
        let told = String::from_utf8_lossy(&output.stdout);
        assert!(told.contains("it had not ended after 300ms"), "{told}");
    }

    #[test]
    fn a_process_that_ends_has_said_everything() {
        if own_seed().is_some() {
            println!("{}", "x".repeat(1 << 20));
            return;
        }
        let output = in_a_process("testing::tests::a_process_that_ends_has_said_everything", 7, &[]);
        assert!(output.status.success() && output.stdout.len() > 1 << 20, "{}", output.stdout.len());
    }
}
