//! The plan's faults, carried out.

use std::time::Duration;

use quorate_runtime::Env;
use tokio::sync::Mutex;

use super::{
    desk::Desk,
    plan::{Fault, Kind, SERVICES},
    provider::Provider,
    proxy::Line,
    tally::Tally,
};
use crate::exit::Failure;

/// Carries out `faults`, each at its time; every one is mended before this returns.
pub(super) async fn carry_out(
    env: &Env,
    desk: &Mutex<Desk>,
    provider: &Provider,
    tally: &Tally,
    faults: &[Fault],
) -> Result<(), Failure> {
    for fault in faults {
        env.sleep_until(tally.begun + fault.at).await;
        let seconds = env.mono().saturating_since(tally.begun).as_secs_f64();
        let whom = if fault.kind == Kind::Flaky { "payment provider" } else { SERVICES[fault.service] };
        tally.fault(
            fault.kind,
            format!("{seconds:5.1} s  {:<9}  {whom}, for {} ms", fault.kind.word(), fault.span.as_millis()),
        );
        strike(env, desk, provider, fault).await?;
    }
    Ok(())
}

async fn strike(env: &Env, desk: &Mutex<Desk>, provider: &Provider, fault: &Fault) -> Result<(), Failure> {
    // The desk is not held while the fault lasts: others look at it.
    let line = |line: Line| async move { desk.lock().await.members[fault.service].line(line) };
    let wait = |span: Duration| env.sleep(span);
    match fault.kind {
        Kind::Kill => {
            desk.lock().await.members[fault.service].kill().await;
            wait(fault.span).await;
            desk.lock().await.members[fault.service].start(env).await?;
        }
        Kind::Pause => {
            desk.lock().await.members[fault.service].pause(true);
            wait(fault.span).await;
            desk.lock().await.members[fault.service].pause(false);
        }
        Kind::Slow | Kind::Partition => {
            line(if fault.kind == Kind::Slow { Line::Slow } else { Line::Cut }).await;
            wait(fault.span).await;
            line(Line::Open).await;
        }
        Kind::Flaky => {
            provider.fail(true);
            wait(fault.span).await;
            provider.fail(false);
        }
    }
    Ok(())
}
