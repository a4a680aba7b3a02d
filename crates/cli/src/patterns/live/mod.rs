//! Patterns, live, with a chart of what happened and what was proved by it: those of resilience make real calls over real sockets
//! to upstreams of this machine that fail on purpose; others run nodes and workers as processes of their own, which are killed.

mod appended;
mod bulkhead;
mod child;
mod circuit_breaker;
mod cqrs;
mod event_driven_architecture;
mod fallback;
mod hedge;
mod materialized_view;
mod message_queue;
mod moment;
mod node;
mod rate_limit;
mod request_response;
mod retry;
mod saga;
mod show;
mod stage;
mod timeout;
mod two_phase_commit;
mod upstream;

use quorate_runtime::Env;

pub(crate) use self::child::run as be_child;
use self::show::Shown;
use crate::{
    exit::Failure,
    output::{Format, Out},
};

/// The patterns that can be run.
const LIVE: [&str; 14] = [
    "circuit-breaker",
    "bulkhead",
    "retry",
    "timeout",
    "rate-limit",
    "fallback",
    "hedge",
    "message-queue",
    "event-driven-architecture",
    "request-response",
    "saga",
    "two-phase-commit",
    "materialized-view",
    "cqrs",
];

/// Whether a pattern can be run.
pub(super) fn is_live(name: &str) -> bool {
    LIVE.contains(&name)
}

/// Runs a pattern and prints what happened. It takes a few seconds.
///
/// # Errors
/// Something that has to hold did not.
pub(super) async fn run(name: &str, env: &Env, format: Format, out: &mut Out) -> Result<(), Failure> {
    let env = env.scope("patterns");
    let shown: Shown = match name {
        "circuit-breaker" => circuit_breaker::run(&env).await?,
        "bulkhead" => bulkhead::run(&env).await?,
        "retry" => retry::run(&env).await?,
        "timeout" => timeout::run(&env).await?,
        "rate-limit" => rate_limit::run(&env).await?,
        "fallback" => fallback::run(&env).await?,
        "hedge" => hedge::run(&env).await?,
        "event-driven-architecture" => event_driven_architecture::run(&env).await?,
        "request-response" => request_response::run(&env).await?,
        "saga" => saga::run(&env).await?,
        "two-phase-commit" => two_phase_commit::run(&env).await?,
        "cqrs" => cqrs::run(&env).await?,
        "materialized-view" => materialized_view::run(&env).await?,
        _ => message_queue::run(&env).await?,
    };
    shown.print(out, format)
}
