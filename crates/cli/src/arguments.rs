//! What can be asked for, and who does it.

use std::{path::PathBuf, time::Duration};

use clap::{Args, CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;
use quorate_runtime::Env;

use crate::{
    archive, bench, breaker,
    client::{Client, Guard, Server},
    configuration::Configuration,
    demo, doctor, erasure, event_type,
    exit::{self, Exit, Failure},
    guarantees, inbox, limit, log, moving,
    output::Format,
    patterns, policy, process, queue, relay, request, saga, schema, serve, sim, store, stream, subscription, txn, view,
    webhook,
};

/// An event log, and the patterns of distributed systems built on it: one node, and every verb of it.
#[derive(Parser, Debug)]
#[command(name = "quorate", version, after_help = exit::HELP, max_term_width = 100, propagate_version = true)]
pub(crate) struct Arguments {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

/// What every command understands.
#[derive(Args, Debug)]
struct Common {
    /// Where the node is
    #[arg(long, global = true, env = "QUORATE_SERVER", default_value = Server::DEFAULT, value_name = "URL")]
    server: Server,
    /// How to print
    #[arg(long, global = true, value_enum, value_name = "HOW", default_value_t)]
    output: Format,
    /// How long one request may take, with all its attempts
    #[arg(long, global = true, value_name = "SPAN", default_value = "30s", value_parser = crate::span)]
    deadline: Duration,
    /// How long one attempt of a request may take; as long as --deadline unless told otherwise
    #[arg(long, global = true, value_name = "SPAN", value_parser = crate::span)]
    attempt_timeout: Option<Duration>,
    /// How often a request is sent again that the node could not take, or that failed and may be repeated: reads, appends, and
    /// requests with a key
    #[arg(long, global = true, value_name = "N", default_value_t = 2)]
    retries: u32,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Run a node: HTTP on 127.0.0.1:7400, everything durable under ./quorate-data
    ///
    /// Prints its address on standard output as soon as it listens, which tells a script the port when it asked for
    /// port 0. SIGTERM and Ctrl-C let requests in progress end; a second one stops at once.
    Serve {
        #[command(flatten)]
        configuration: Configuration,
    },
    /// Append to streams, read them, bring them in and out
    #[command(subcommand)]
    Stream(stream::Command),
    /// Read and follow the log of all streams
    #[command(subcommand)]
    Log(log::Command),
    /// Durable subscriptions: create them, pull events, settle them
    #[command(subcommand)]
    Subscription(subscription::Command),
    /// Message queues: declare them, send and receive messages, settle them, replay dead letters
    #[command(subcommand)]
    Queue(queue::Command),
    /// Requests: declare their types, ask, and answer by a command
    #[command(subcommand)]
    Request(request::Command),
    /// Relays: what of the log is published to brokers; how they stand, pause and resume them, replay what is parked
    #[command(subcommand)]
    Relay(relay::Command),
    /// Inboxes: which messages of brokers come in; how they stand, replay and discard what is parked
    #[command(subcommand)]
    Inbox(inbox::Command),
    /// Webhooks: declare them, test them, rotate secrets, see attempts, replay what is parked
    #[command(subcommand)]
    Webhook(webhook::Command),
    /// Materialized views: how they stand, rebuild, pause, switch, what is parked
    #[command(subcommand)]
    View(view::Command),
    /// Data subjects: erase one, say who is erased, export the ledger
    #[command(subcommand)]
    Erasure(erasure::Command),
    /// Event types: who sends them, by which schemas, who takes them; as AsyncAPI for programs
    #[command(subcommand)]
    EventType(event_type::Command),
    /// Schemas of event types: register them, try them, show them
    #[command(subcommand)]
    Schema(schema::Command),
    /// Check, back up and restore the store
    #[command(subcommand)]
    Store(store::Command),
    /// Move a store from a data directory to PostgreSQL, or back, with its positions, checkpoints, keys and queues
    ///
    /// Events go over as they are, and what rooms keep of them; what the other side cannot hold is named before anything is
    /// begun. Whenever it ends early, or is killed, the same command goes on. Nodes over PostgreSQL may run until the store is left:
    /// then their writes are refused, and told where it went. A data directory's node is stopped first.
    Move(Box<moving::Options>),
    /// Look for what ails the PostgreSQL that holds the store, and say what to do; nothing is changed
    ///
    /// Settings that endanger what was acknowledged, transactions that hold something up (also prepared ones, in any database
    /// of the server), events without a position, bloat, foreign objects in the store's schema, clocks apart, a standby. It
    /// needs no node, and works on a server that a node refuses. Exits with 7 if there is something to mend.
    Doctor(Box<doctor::Options>),
    /// Check and read archives: files that events were moved to
    #[command(subcommand)]
    Archive(archive::Command),
    /// Circuit breakers of a node: how they stand, opening and closing them
    #[command(subcommand)]
    Breaker(breaker::Command),
    /// Rate limits of a node's clients and of its calls: how they stand, and resetting them
    #[command(subcommand)]
    Limit(limit::Command),
    /// Resilience policies: check documents of them, bring them into force, see how calls stand
    #[command(subcommand)]
    Policy(policy::Command),
    /// Sagas: check and declare them, start them, see how they stand, decide about those that are stuck
    #[command(subcommand)]
    Saga(saga::Command),
    /// Choreographed processes: declare them, see what is overdue or stopped in them, draw what led to what
    #[command(subcommand)]
    Process(process::Command),
    /// Transactions of two-phase commit: what is in doubt, what became of one, ending one by hand
    #[command(subcommand)]
    Txn(txn::Command),
    /// Settings
    #[command(subcommand)]
    Config(ConfigCommand),
    /// What holds, per operation and backend, and the test behind each row
    Guarantees,
    /// Measure this machine: each figure beside its physical limit
    #[command(subcommand)]
    Bench(bench::Command),
    /// Run an application of five services under load, kill and cut off its processes, and judge what comes of it
    ///
    /// An order desk: orders, inventory, payments, shipping and notifications, each a process with a store of its own. Half of the
    /// orders are brought about by a saga, half by events. While customers order, processes are killed and suspended, connections
    /// are slow or lead nowhere, and the payment provider fails. In the end no order may be half done, and no piece, cent or mail
    /// lost or doubled. Exits with 6 if one is.
    Demo(demo::Options),
    /// Run the product in a simulated world, from one seed
    #[command(subcommand)]
    Sim(sim::Command),
    /// The catalogue of patterns; with a name, what there is of one
    ///
    /// Those of resilience run: calls are made for a few seconds to upstreams of this machine that fail on purpose, and what
    /// happened is drawn. So do `message-queue`, `materialized-view`, `cqrs`, `saga` and `two-phase-commit`: nodes, workers, services and
    /// banks as processes, some of which are killed. Exits with 1 if something did not hold.
    Patterns {
        /// The pattern's name, as `saga`
        name: Option<String>,
        /// Be one of a pattern's processes; only the pattern itself says so
        #[arg(long, hide = true, conflicts_with = "name")]
        child: bool,
    },
    /// Print the completions of a shell, to be sourced by it
    Completions {
        /// Which shell
        shell: Shell,
    },
    /// Print the manual page in roff, or write one per command
    Man {
        /// The folder to write them to
        #[arg(long, value_name = "FOLDER")]
        out: Option<PathBuf>,
    },
}

#[derive(Subcommand, Debug)]
enum ConfigCommand {
    /// Every setting with its value, and where that came from
    Show {
        #[command(flatten)]
        configuration: Configuration,
    },
}

/// Refuses times in which no request can be answered, or that say nothing.
fn check_times(deadline: Duration, attempt: Option<Duration>) -> Result<(), Failure> {
    let wrong = if deadline.is_zero() {
        "`--deadline` leaves no time: say how long a request may take, as 30s".to_owned()
    } else if attempt.is_some_and(|attempt| attempt.is_zero()) {
        "`--attempt-timeout` leaves no time: say how long one attempt may take, as 5s, or leave it out".to_owned()
    } else if attempt.is_some_and(|attempt| attempt >= deadline) {
        format!("`--attempt-timeout` has to be shorter than `--deadline`, which is {deadline:?}: or leave it out")
    } else {
        return Ok(());
    };
    Err(Failure::new(Exit::Usage, wrong))
}

impl Arguments {
    /// Does what was asked.
    pub(crate) async fn run(self) -> Result<(), Failure> {
        let env = Env::real();
        let Common { server, output, deadline, attempt_timeout, retries } = self.common;
        check_times(deadline, attempt_timeout)?;
        let client = Client::new(&env, server, deadline).guarded_by(Guard::new(&env, retries, attempt_timeout));
        match self.command {
            Command::Serve { configuration } => serve::run(&env, &configuration).await,
            Command::Stream(command) => command.run(&client, output).await,
            Command::Log(command) => command.run(&client, output).await,
            Command::Subscription(command) => command.run(&client, output).await,
            Command::Queue(command) => command.run(&client, output).await,
            Command::Request(command) => command.run(&client, output).await,
            Command::Relay(command) => command.run(&client, output).await,
            Command::Inbox(command) => command.run(&client, output).await,
            Command::Webhook(command) => command.run(&client, output).await,
            Command::View(command) => command.run(&client, output).await,
            Command::Erasure(command) => command.run(&client, output).await,
            Command::EventType(command) => command.run(&client, output).await,
            Command::Schema(command) => command.run(&client, output).await,
            Command::Store(command) => command.run(&client, output).await,
            Command::Move(options) => moving::run(&env, &options, output).await,
            Command::Doctor(options) => doctor::run(&env, &options, output).await,
            Command::Archive(command) => command.run(&env, output).await,
            Command::Breaker(command) => command.run(&client, output).await,
            Command::Limit(command) => command.run(&client, output).await,
            Command::Policy(command) => command.run(&client, output).await,
            Command::Saga(command) => command.run(&client, output).await,
            Command::Process(command) => command.run(&client, output).await,
            Command::Txn(command) => command.run(&client, output).await,
            Command::Config(ConfigCommand::Show { configuration }) => configuration.show(&env, output).await,
            Command::Guarantees => guarantees::show(output),
            Command::Bench(command) => command.run(&env, output).await,
            Command::Demo(options) => options.run(&env, output).await,
            Command::Sim(command) => command.run(&env, output).await,
            Command::Patterns { child: true, .. } => patterns::be_child(&env).await,
            Command::Patterns { name, .. } => patterns::show(name.as_deref(), &env, output).await,
            Command::Completions { shell } => completions(shell),
            Command::Man { out } => man(&env, out).await,
        }
    }
}

fn completions(shell: Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "quorate", &mut script);
    print(&script)
}

async fn man(env: &Env, out: Option<PathBuf>) -> Result<(), Failure> {
    let Some(folder) = out else {
        let mut page = Vec::new();
        let rendered = clap_mangen::Man::new(Arguments::command()).render(&mut page);
        rendered.map_err(|cause| Failure::io("the manual page", &cause))?;
        return print(&page);
    };
    let disk = env.disk().clone();
    let written = env.run_blocking(move || {
        disk.create_dir_all(&folder)?;
        clap_mangen::generate_to(Arguments::command(), &folder)
    });
    written.await.map_err(|cause| Failure::io("the manual pages", &cause))
}

fn print(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = crate::output::Out::new();
    out.write(bytes)?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::Arguments;

    #[test]
    fn the_arguments_are_without_contradiction() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_command_and_flag_is_explained() {
        let mut waiting = vec![Arguments::command()];
        while let Some(command) = waiting.pop() {
            assert!(command.get_about().is_some(), "`{}` says what it does", command.get_name());
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "`{} {}`", command.get_name(), argument.get_id());
            }
            waiting.extend(command.get_subcommands().cloned());
        }
    }
}
