//! How long calls take: percentiles of the last while, told by whoever calls and asked by whoever decides.
//!
//! Calls are counted in buckets whose borders grow with the time, eight to each doubling, so that a percentile is at most a
//! sixteenth off. Two halves of a window take turns: what is older than the window is forgotten, and up to half of it more.

use std::{fmt, time::Duration};

use quorate_foundations::time::Mono;

use super::sync::{AtomicU32, AtomicU64, BUCKETS, Ordering};

/// How long the calls of the last while took. Share it by reference or by `Arc`: telling and asking take no lock.
///
/// What is told in the very moment in which a half begins may be forgotten with the half before; percentiles don't mind.
///
/// # Example
/// ```
/// use quorate_foundations::time::Mono;
/// use quorate_resilience::latency::Latency;
/// use std::time::Duration;
///
/// let latency = Latency::default();
/// for millis in 1..=100 {
///     latency.record(Mono::ZERO, Duration::from_millis(millis));
/// }
/// let median = latency.median(Mono::ZERO).unwrap();
/// assert!((Duration::from_millis(46)..Duration::from_millis(55)).contains(&median), "{median:?}");
/// assert_eq!(latency.median(Mono::ZERO + Duration::from_secs(60)), None, "nothing is known of today");
/// ```
pub struct Latency {
    half_nanos: u64,
    /// The number of the half that is being filled.
    half: AtomicU64,
    halves: [Half; 2],
    median: Known,
}

struct Half(Box<[AtomicU32]>);

/// A percentile that was computed lately.
struct Known {
    /// Nothing known is the largest.
    nanos: AtomicU64,
    /// Until when it is good enough; zero if it never was computed.
    until: AtomicU64,
}

/// Below so many calls nothing is said.
const FEWEST: u64 = 20;
/// Each doubling of the time has so many buckets, as a power of two.
const FINE: u32 = 3;
/// What is quicker than two to this power, in nanoseconds, is in the first bucket.
const QUICK: u32 = 10;

impl Latency {
    /// Of the last `window`, and up to half of it more. At least a millisecond.
    pub fn new(window: Duration) -> Self {
        let nanos = u64::try_from(window.as_nanos()).unwrap_or(u64::MAX).max(1_000_000);
        Self {
            half_nanos: nanos / 2,
            half: AtomicU64::new(0),
            halves: [Half::new(), Half::new()],
            median: Known { nanos: AtomicU64::new(u64::MAX), until: AtomicU64::new(0) },
        }
    }

    /// Tells that a call that ended at `now` took `took`. Which calls are told is the caller's choice: those that failed
    /// quickly say little about those that succeed.
    #[inline]
    pub fn record(&self, now: Mono, took: Duration) {
        let half = self.turn(now);
        self.halves[(half % 2) as usize].0[bucket(took)].fetch_add(1, Ordering::Relaxed);
    }

    /// How long half of the calls take at most; computed at most a hundred times per window. `None` while too few calls are
    /// known, which also ends what a wrong median could do: if nothing is called because of it, it is soon forgotten.
    #[inline]
    pub fn median(&self, now: Mono) -> Option<Duration> {
        if now.as_nanos() >= self.median.until.load(Ordering::Relaxed) {
            self.compute_median(now);
        }
        let nanos = self.median.nanos.load(Ordering::Relaxed);
        (nanos != u64::MAX).then(|| Duration::from_nanos(nanos))
    }

    #[cold]
    fn compute_median(&self, now: Mono) {
        let nanos = self.quantile(now, 0.5).map_or(u64::MAX, |span| span.as_nanos() as u64);
        self.median.nanos.store(nanos, Ordering::Relaxed);
        self.median.until.store(now.as_nanos().saturating_add(self.half_nanos / 50), Ordering::Relaxed);
    }

    /// How long the part `q` of the calls takes at most: 0.95 says what only one in twenty exceeds. `None` while fewer than
    /// twenty calls are known. Looks through all buckets: a third of a microsecond.
    pub fn quantile(&self, now: Mono, q: f64) -> Option<Duration> {
        self.turn(now);
        let counts: [u64; BUCKETS] = std::array::from_fn(|bucket| {
            self.halves.iter().map(|half| u64::from(half.0[bucket].load(Ordering::Relaxed))).sum()
        });
        let all: u64 = counts.iter().sum();
        if all < FEWEST {
            return None;
        }
        let wanted = ((all as f64 * q.clamp(0.0, 1.0)).ceil() as u64).max(1);
        let mut seen = 0;
        let reached = counts.iter().position(|count| {
            seen += count;
            seen >= wanted
        });
        Some(middle(reached.unwrap_or(BUCKETS - 1)))
    }

    /// Begins another half if it is time, and says which is being filled.
    fn turn(&self, now: Mono) -> u64 {
        let half = now.as_nanos() / self.half_nanos;
        let current = self.half.load(Ordering::Relaxed);
        if half <= current {
            return current;
        }
        // Whoever moves the number empties what had been filled two halves ago.
        if self.half.compare_exchange(current, half, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            self.halves[(half % 2) as usize].clear();
            if half - current > 1 {
                self.halves[(half % 2) as usize ^ 1].clear();
            }
        }
        half
    }
}

impl Default for Latency {
    /// Of the last 30 seconds.
    fn default() -> Self {
        Self::new(Duration::from_secs(30))
    }
}

impl Half {
    fn new() -> Self {
        Self((0..BUCKETS).map(|_| AtomicU32::new(0)).collect())
    }

    fn clear(&self) {
        // Exchanged rather than stored: it takes its place in the order of what others add, which loom checks.
        for bucket in &self.0 {
            bucket.swap(0, Ordering::Relaxed);
        }
    }
}

/// In which bucket a time is.
fn bucket(took: Duration) -> usize {
    let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
    let power = nanos.max(1).ilog2();
    if power < QUICK {
        return 0;
    }
    let within = (nanos >> (power - FINE)) as usize & ((1 << FINE) - 1);
    (1 + ((power - QUICK) as usize) * (1 << FINE) + within).min(BUCKETS - 1)
}

/// The middle of a bucket.
fn middle(bucket: usize) -> Duration {
    let Some(above) = bucket.checked_sub(1) else { return Duration::from_nanos(1 << (QUICK - 1)) };
    let (power, within) = (QUICK + (above >> FINE) as u32, (above & ((1 << FINE) - 1)) as u64);
    let (width, from) = (1_u64 << (power - FINE), 1_u64 << power);
    Duration::from_nanos(from + within * width + width / 2)
}

impl fmt::Debug for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Latency").field("half_nanos", &self.half_nanos).finish_non_exhaustive()
    }
}
