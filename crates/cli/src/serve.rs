//! `quorate serve`: one node, until it is told to stop.

use quorate_data::{
    materialized_view::ViewError,
    store::{OpenError, StoreError},
};
use quorate_node::{ServeError, Server};
use quorate_runtime::Env;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::{
    configuration::Configuration,
    exit::{Exit, Failure, chain},
    output::{Out, note},
};

/// Runs a node until SIGTERM or SIGINT, lets requests in progress end, and returns. A second signal ends it at once.
pub(crate) async fn run(env: &Env, configuration: &Configuration) -> Result<(), Failure> {
    let config = configuration.load(env).await?;
    log_to_stderr()?;
    // Before the address is told: whoever reads it may send a signal at once.
    let stopping = stop_on_signals(env)?;
    let place = match &config.database {
        Some(database) => format!("its store in the database {}", database.address),
        None => format!("its data in {}", config.data.display()),
    };
    let server = Server::bind(config, env.clone()).await.map_err(|error| failed(&error))?;
    let mut out = Out::new();
    // A script that asked for port 0 reads the real one here.
    out.line(&format!("http://{}", server.local_addr()))?;
    out.flush()?;
    note(&format!("quorate is listening, with {place}; Ctrl-C or SIGTERM stops it"));
    server.run().await.map_err(|error| failed(&error))?;
    env.tasks().stop().cancel();
    drop(stopping);
    env.tasks().shut_down().await;
    note("stopped");
    Ok(())
}

fn log_to_stderr() -> Result<(), Failure> {
    let directives = std::env::var("QUORATE_LOG").unwrap_or_else(|_| "warn".to_owned());
    let filter = EnvFilter::try_new(&directives).map_err(|wrong| {
        Failure::new(Exit::Usage, format!("QUORATE_LOG cannot be `{directives}`: {}", chain(&wrong)))
    })?;
    let colours = crate::output::is_colourful(&std::io::stderr());
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(colours).with_env_filter(filter).init();
    Ok(())
}

/// Holds the watch over signals until it is dropped.
struct Stopping(#[expect(dead_code, reason = "dropping it ends the watch")] tokio::sync::oneshot::Sender<()>);

fn stop_on_signals(env: &Env) -> Result<Stopping, Failure> {
    let watch = |kind| signal(kind).map_err(|cause| Failure::io("signals cannot be watched", &cause));
    let (mut terminate, mut interrupt) = (watch(SignalKind::terminate())?, watch(SignalKind::interrupt())?);
    let (held, dropped) = tokio::sync::oneshot::channel::<()>();
    let of_task = env.clone();
    env.tasks().spawn("signals", async move {
        let mut dropped = dropped;
        for turn in 0.. {
            tokio::select! {
                _ = &mut dropped => return,
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if turn > 0 {
                note("stopped without draining; nothing acknowledged is lost");
                std::process::exit(130);
            }
            note("stopping: requests in progress may end; once more stops at once");
            of_task.tasks().stop().cancel();
        }
    });
    Ok(Stopping(held))
}

fn failed(error: &ServeError) -> Failure {
    let exit = match error {
        ServeError::Listen { .. }
        | ServeError::Open(OpenError::Locked { .. } | OpenError::Store(StoreError::Unreachable { .. })) => {
            Exit::Unavailable
        }
        ServeError::Open(OpenError::Address { .. }) => Exit::Usage,
        ServeError::Views(ViewError::Store(StoreError::Unsupported { .. })) => Exit::Refused,
        ServeError::Open(OpenError::Corrupt { .. }) => Exit::Damaged,
        ServeError::Open(
            OpenError::Newer { .. }
            | OpenError::Older { .. }
            | OpenError::Foreign { .. }
            | OpenError::Unrestored { .. }
            | OpenError::Moved { .. }
            | OpenError::Arriving { .. }
            | OpenError::Lost { .. }
            | OpenError::KeysOfAnotherStore { .. }
            | OpenError::Unsuitable { .. }
            | OpenError::NetworkFilesystem { .. },
        ) => Exit::Refused,
        ServeError::Open(OpenError::KeysMissing { .. }) => Exit::NotFound,
        ServeError::Folder { .. } | ServeError::Open(OpenError::Io { .. } | OpenError::NoRoom { .. }) => Exit::Io,
        _ => Exit::Failed,
    };
    let failure = Failure::of(exit, error);
    match error {
        ServeError::Open(OpenError::Store(StoreError::Unreachable { .. })) => {
            failure.advise("see whether the database runs and `store.address` names it, and start again")
        }
        ServeError::Views(ViewError::Store(StoreError::Unsupported { .. })) => {
            failure.advise("leave `views.folder` empty, or use the embedded store")
        }
        ServeError::Listen { .. } => failure.advise("stop what listens there, or choose another address with --listen"),
        ServeError::Open(OpenError::KeysMissing { path }) => failure.advise(format!(
            "put the file back, or a copy that `quorate store backup-keys` made, as {}; if none is left, \
             `quorate store give-up-keys` has everything encrypted count as erased",
            path.display()
        )),
        ServeError::Open(OpenError::KeysOfAnotherStore { path, .. }) => failure.advise(format!(
            "move {} to the store it belongs to, and put this store's keys, or a copy that `quorate store backup-keys` \
             made, in its place",
            path.display()
        )),
        _ => failure,
    }
}
