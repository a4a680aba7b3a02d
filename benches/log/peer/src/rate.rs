//! Producers that wait for each answer, and how often they are answered.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Result;

/// How often `work` is done per second by `callers` at once, each one after the other: the counting of
/// `quorate bench log`.
pub(crate) async fn rate<F, W>(callers: usize, span: Duration, work: F) -> Result<f64>
where
    F: Fn(usize, u64) -> W + Clone + Send + 'static,
    W: Future<Output = Result<()>> + Send,
{
    let (count, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let begun = Instant::now();
    let call = |caller| {
        let (work, count, stop) = (work.clone(), count.clone(), stop.clone());
        tokio::spawn(async move {
            let mut n = 0;
            while !stop.load(Ordering::Relaxed) {
                work(caller, n).await?;
                n += 1;
                count.fetch_add(1, Ordering::Relaxed);
            }
            Ok::<_, anyhow::Error>(())
        })
    };
    let tasks: Vec<_> = (0..callers).map(call).collect();
    tokio::time::sleep(span).await;
    let rate = count.load(Ordering::Relaxed) as f64 / begun.elapsed().as_secs_f64();
    stop.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await??;
    }
    Ok(rate)
}
