//! Patterns of resilience, live: real calls over real sockets to upstreams of this machine that fail on purpose, with a chart of
//! what happened and what was proved by it.

mod bulkhead;
mod circuit_breaker;
mod fallback;
mod hedge;
mod rate_limit;
mod retry;
mod show;
mod stage;
mod timeout;
mod upstream;

use quorate_runtime::Env;

use self::show::Shown;
use crate::{
    exit::Failure,
    output::{Format, Out},
};

/// The patterns that can be run.
const LIVE: [&str; 7] = ["circuit-breaker", "bulkhead", "retry", "timeout", "rate-limit", "fallback", "hedge"];

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
        _ => hedge::run(&env).await?,
    };
    shown.print(out, format)
}
