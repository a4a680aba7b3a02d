//! How it looks while it runs: at a terminal a picture that moves, elsewhere a line for each fault.

use std::{io::IsTerminal as _, sync::Arc, time::Duration};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use quorate_runtime::Env;
use tokio::sync::Mutex;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{desk::Desk, plan::SERVICES, tally::Tally};
use crate::output::note;

/// How often the picture changes.
const BEAT: Duration = Duration::from_millis(150);
/// How many faults it shows.
const FAULTS: usize = 5;

/// The picture: wiped when this is dropped.
pub(super) struct Picture {
    _until_dropped: DropGuard,
    bar: ProgressBar,
}

impl Drop for Picture {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// Begins to draw.
pub(super) fn start(env: &Env, desk: &Arc<Mutex<Desk>>, tally: &Arc<Tally>, span: Duration) -> Picture {
    let moving = std::io::stderr().is_terminal();
    let bar = if moving {
        ProgressBar::with_draw_target(Some(span.as_millis() as u64), ProgressDrawTarget::stderr())
    } else {
        ProgressBar::hidden()
    };
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {msg}") {
        bar.set_style(style);
    }
    let end = CancellationToken::new();
    let (shown, over, desk, tally, clock) = (bar.clone(), end.clone(), desk.clone(), tally.clone(), env.clone());
    env.tasks().spawn("demo-picture", async move {
        let (mut told, mut conditions) = (0, vec!["up"; SERVICES.len()]);
        while !over.is_cancelled() {
            // While a process is started its conditions are as they were.
            if let Ok(desk) = desk.try_lock() {
                conditions = desk.members.iter().map(super::desk::Member::condition).collect();
            }
            if moving {
                let ran = clock.mono().saturating_since(tally.begun);
                shown.set_position(ran.min(span).as_millis() as u64);
                shown.set_message(text(&tally, &conditions, ran));
                shown.tick();
            } else {
                let faults = tally.last_faults(usize::MAX);
                faults[told..].iter().for_each(|fault| note(fault));
                told = faults.len();
            }
            clock.sleep(BEAT).await;
        }
    });
    Picture { _until_dropped: end.drop_guard(), bar }
}

fn text(tally: &Tally, conditions: &[&str], ran: Duration) -> String {
    let (placed, answered) = tally.orders();
    let orders = tally.standing("orders");
    let number = |name: &str| orders[name].as_i64().unwrap_or(0);
    let mut lines = vec![
        format!("{} s, {placed} orders", ran.as_secs()),
        String::new(),
        format!(
            "  {answered:>6} taken   {:>6} under way   {:>6} completed   {:>6} cancelled",
            number("open"),
            number("completed"),
            number("cancelled")
        ),
        String::new(),
    ];
    let members = SERVICES.iter().zip(conditions);
    lines.extend(members.map(|(name, condition)| {
        let mark = if *condition == "up" { '●' } else { '○' };
        format!("  {mark} {name:<14} {condition}")
    }));
    lines.push(String::new());
    lines.extend(tally.last_faults(FAULTS).iter().map(|fault| format!("  {fault}")));
    let violations = tally.violations();
    lines.extend(violations.iter().take(FAULTS).map(|what| format!("  VIOLATED: {what}")));
    lines.join("\n")
}
