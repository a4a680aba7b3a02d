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

/// For how much longer a fault lasts that has met nobody yet, and how often it is looked at.
const LONGER: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(20);

/// Faults, and what they strike.
pub(super) struct Faults<'d> {
    pub(super) env: &'d Env,
    pub(super) desk: &'d Mutex<Desk>,
    pub(super) provider: &'d Provider,
    pub(super) tally: &'d Tally,
}

impl Faults<'_> {
    /// Carries out `faults`, each at its time; every one is mended before this returns. One that changed nothing for anybody does not
    /// count.
    ///
    /// # Errors
    /// When a service that was killed or suspended does not come back: then the rest of them is left out.
    pub(super) async fn carry_out(&self, faults: &[Fault]) -> Result<(), String> {
        for fault in faults {
            self.env.sleep_until(self.tally.begun + fault.at).await;
            let at = self.env.mono().saturating_since(self.tally.begun).as_secs_f64();
            let whom = if fault.kind == Kind::Flaky { "payment provider" } else { SERVICES[fault.service] };
            let text = format!("{at:5.1} s  {:<9}  {whom}, for {} ms", fault.kind.word(), fault.span.as_millis());
            self.tally.tell(text);
            if self.strike(fault).await? {
                self.tally.struck(fault.kind);
            }
        }
        Ok(())
    }

    /// Whether it met anybody; an error where what was struck does not come back.
    async fn strike(&self, fault: &Fault) -> Result<bool, String> {
        let member = fault.service;
        // The desk is not held while the fault lasts: others look at it.
        Ok(match fault.kind {
            Kind::Kill => {
                {
                    let mut desk = self.desk.lock().await;
                    if desk.members[member].has_died() {
                        self.tally.violated(format!("{}: its process ended by itself", SERVICES[member]));
                    }
                    desk.members[member].kill().await;
                }
                self.env.sleep(fault.span).await;
                let started = self.desk.lock().await.members[member].start(self.env).await;
                started.map_err(|cause| format!("it did not come back: {cause}"))?;
                true
            }
            Kind::Pause => {
                let stood = self.desk.lock().await.members[member].pause(true);
                self.env.sleep(fault.span).await;
                let goes_on = self.desk.lock().await.members[member].pause(false);
                if !goes_on {
                    return Err(format!("{}: it cannot be woken", SERVICES[member]));
                }
                stood
            }
            Kind::Slow => self.line(member, Line::Slow, fault.span).await,
            Kind::Partition => self.line(member, if fault.mute { Line::Mute } else { Line::Cut }, fault.span).await,
            Kind::Flaky => {
                let before = self.provider.failed();
                self.provider.fail(true);
                let met = self.until_met(fault.span, async || self.provider.failed() > before).await;
                self.provider.fail(false);
                met
            }
        })
    }

    async fn line(&self, member: usize, line: Line, span: Duration) -> bool {
        let spoilt = async || self.desk.lock().await.members[member].spoilt();
        let before = spoilt().await;
        self.desk.lock().await.members[member].line(line);
        let met = self.until_met(span, async || spoilt().await > before).await;
        self.desk.lock().await.members[member].line(Line::Open);
        met
    }

    /// Waits for `span`, and for a while longer where nobody was met by then. Says whether somebody was.
    async fn until_met(&self, span: Duration, met: impl AsyncFn() -> bool) -> bool {
        self.env.sleep(span).await;
        let until = self.env.mono() + LONGER;
        while !met().await {
            if self.env.mono() >= until {
                return false;
            }
            self.env.sleep(LOOK).await;
        }
        true
    }
}
