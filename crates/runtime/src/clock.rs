//! Clocks and waiting.

use std::time::Duration;

use quorate_foundations::time::{Boot, Mono, Wall};

use crate::BoxFuture;

/// Reads the three clocks and waits on the monotonic one.
pub trait Clocks: Send + Sync {
    /// The wall clock.
    fn wall(&self) -> Wall;
    /// The monotonic clock.
    fn mono(&self) -> Mono;
    /// The boot-time clock.
    fn boot(&self) -> Boot;
    /// Completes once the monotonic clock reads at least `due`.
    fn sleep_until(&self, due: Mono) -> BoxFuture<'static, ()>;
}

/// The machine's clocks. [`Mono`] counts from the creation of this value.
pub(crate) struct RealClocks {
    start: tokio::time::Instant,
}

impl RealClocks {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the monotonic clock")]
    pub(crate) fn new() -> Self {
        Self { start: tokio::time::Instant::now() }
    }
}

impl Clocks for RealClocks {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
    fn wall(&self) -> Wall {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Wall::from_unix_nanos(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
    }

    #[expect(clippy::disallowed_methods, reason = "the one place that reads the monotonic clock")]
    fn mono(&self) -> Mono {
        Mono::ZERO + tokio::time::Instant::now().duration_since(self.start)
    }

    fn boot(&self) -> Boot {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
        let nanos = u32::try_from(now.tv_nsec).unwrap_or(0);
        Boot::ZERO + Duration::new(seconds, nanos)
    }

    #[expect(clippy::disallowed_methods, reason = "the one place that waits")]
    fn sleep_until(&self, due: Mono) -> BoxFuture<'static, ()> {
        let due = self.start + Duration::from_nanos(due.as_nanos());
        Box::pin(tokio::time::sleep_until(due))
    }
}
