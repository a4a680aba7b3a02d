//! Telling whoever waits at a terminal that work goes on.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use quorate_runtime::Env;

/// How often the picture moves.
const BEAT: Duration = Duration::from_millis(100);
/// Work that is done sooner is not worth a word.
const SOON: Duration = Duration::from_millis(300);

/// Does `work`, and shows what it is and for how long it has gone on. On a terminal, on standard error; where that is no
/// terminal, nothing is written. What was shown is wiped when the work ends, however it ends.
pub(crate) async fn working<T>(env: &Env, what: &str, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    if let Some(done) = env.timeout(SOON, work.as_mut()).await {
        return done;
    }
    let spinner = Spinner::new(what);
    let began = env.mono();
    loop {
        if let Some(done) = env.timeout(BEAT, work.as_mut()).await {
            return done;
        }
        spinner.show(env.mono().saturating_since(began) + SOON);
    }
}

struct Spinner(ProgressBar, String);

impl Spinner {
    fn new(what: &str) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("{spinner} {msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
        Self(bar, what.to_owned())
    }

    fn show(&self, span: Duration) {
        self.0.set_message(format!("{}, {} s", self.1, span.as_secs()));
        self.0.tick();
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
