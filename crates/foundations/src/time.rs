//! Three clocks, three types, so that they cannot be confused.
//!
//! | type | counts | survives a suspend | may jump | use it for |
//! |---|---|---|---|---|
//! | [`Wall`] | since 1970-01-01T00:00:00Z | yes | **yes** | what people read; never for ordering or expiry |
//! | [`Mono`] | since the process began | no | no | timeouts, latencies, windows |
//! | [`Boot`] | since the machine booted | yes | no | leases: a suspended holder must find its lease expired |
//!
//! The types only carry readings; the clocks themselves live in `quorate-runtime`.

use std::{
    ops::{Add, Sub},
    time::Duration,
};

/// A reading of the wall clock, in nanoseconds since the Unix epoch (years 1678 to 2262).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Wall(i64);

impl Wall {
    /// Reading from nanoseconds since the Unix epoch.
    pub const fn from_unix_nanos(nanos: i64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the Unix epoch.
    pub const fn unix_nanos(self) -> i64 {
        self.0
    }

    /// How much later this reading is than `earlier`; zero if the clock went backwards between them.
    pub fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0).max(0).unsigned_abs())
    }
}

impl Add<Duration> for Wall {
    type Output = Self;
    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(span.as_nanos()).unwrap_or(i64::MAX)))
    }
}

impl Sub<Duration> for Wall {
    type Output = Self;
    fn sub(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(span.as_nanos()).unwrap_or(i64::MAX)))
    }
}

macro_rules! steady {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u64);

        impl $name {
            /// Where this clock starts.
            pub const ZERO: Self = Self(0);

            /// Reading from nanoseconds since the clock's start.
            #[inline]
            pub const fn from_nanos(nanos: u64) -> Self {
                Self(nanos)
            }

            /// Nanoseconds since the clock's start.
            #[inline]
            pub const fn as_nanos(self) -> u64 {
                self.0
            }

            /// How much later this reading is than `earlier`; zero if it is not later.
            #[inline]
            pub const fn saturating_since(self, earlier: Self) -> Duration {
                Duration::from_nanos(self.0.saturating_sub(earlier.0))
            }
        }

        impl Add<Duration> for $name {
            type Output = Self;
            #[inline]
            fn add(self, span: Duration) -> Self {
                Self(self.0.saturating_add(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)))
            }
        }
    };
}

steady! {
    /// A reading of the monotonic clock: nanoseconds since the process (or the simulated world) began.
    Mono
}

steady! {
    /// A reading of the boot-time clock: monotonic, and it goes on counting while the machine is suspended.
    Boot
}
