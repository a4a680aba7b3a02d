//! Telling whoever waits at a terminal that work goes on, and how far it is.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use quorate_runtime::Env;

/// How often the picture moves.
const BEAT: Duration = Duration::from_millis(100);
/// Work that is done sooner is not worth a word.
const SOON: Duration = Duration::from_millis(300);

/// How far work is: told by whoever does it, shown by [`working_towards`]. Until the whole is known, nothing is.
#[derive(Debug, Default)]
pub(crate) struct Reach {
    done: AtomicU64,
    whole: AtomicU64,
}

impl Reach {
    /// `done` of `whole` is done, whatever is counted.
    pub(crate) fn tell(&self, done: u64, whole: u64) {
        self.done.store(done, Ordering::Relaxed);
        self.whole.store(whole, Ordering::Relaxed);
    }

    /// What is done, and the whole where it is known.
    fn so_far(&self) -> (u64, Option<u64>) {
        (self.done.load(Ordering::Relaxed), Some(self.whole.load(Ordering::Relaxed)).filter(|whole| *whole > 0))
    }
}

/// Does `work`, and shows what it is and for how long it has gone on. On a terminal, on standard error; where that is no
/// terminal, nothing is written. What was shown is wiped when the work ends, however it ends.
pub(crate) async fn working<T>(env: &Env, what: &str, work: impl Future<Output = T>) -> T {
    working_towards(env, what, &Reach::default(), work).await
}

/// The same, and how far it is, once `reach` knows.
pub(crate) async fn working_towards<T>(env: &Env, what: &str, reach: &Reach, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    let began = env.mono();
    if let Some(done) = env.timeout(SOON, work.as_mut()).await {
        return done;
    }
    let picture = Picture::new(what);
    loop {
        picture.show(env.mono().saturating_since(began), reach);
        if let Some(done) = env.timeout(BEAT, work.as_mut()).await {
            return done;
        }
    }
}

struct Picture {
    bar: ProgressBar,
    what: String,
}

impl Picture {
    fn new(what: &str) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        bar.set_style(style("{spinner} {msg}"));
        Self { bar, what: what.to_owned() }
    }

    fn show(&self, span: Duration, reach: &Reach) {
        let (done, whole) = reach.so_far();
        if let Some(whole) = whole {
            if self.bar.length().is_none() {
                self.bar.set_style(style("{bar:24} {percent:>3} %  {msg}, {eta} left"));
            }
            self.bar.set_length(whole);
            self.bar.set_position(done.min(whole));
        }
        self.bar.set_message(format!("{}, {} s", self.what, span.as_secs()));
        self.bar.tick();
    }
}

/// A template that indicatif does not take leaves its own in place.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

impl Drop for Picture {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
