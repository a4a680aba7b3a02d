//! The physical limit: what a bare file could do.
//!
//! Producers hand 350-byte records to one thread, which writes whatever has gathered with one call, syncs, and answers:
//! group commit with nothing around it. It has no index, no names, no checks; a log cannot be faster on this disk.

use std::{
    fs,
    io::{self, Write as _},
    path::Path,
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use super::slow_disk;

/// Bytes of one record.
const RECORD: usize = 350;

type Waiting = Vec<(Vec<u8>, oneshot::Sender<()>)>;

#[derive(Default)]
struct Segment {
    waiting: Mutex<(Waiting, bool)>,
    arrived: Condvar,
}

/// Records per second that `producers` get acknowledged durable, each waiting for its answer before the next.
pub(super) async fn appends(path: &Path, producers: usize, span: Duration) -> io::Result<f64> {
    let segment = Arc::new(Segment::default());
    let (file, writer) = (fs::File::create(path)?, segment.clone());
    let thread = thread::spawn(move || writer.write(file));
    let (count, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let begun = Instant::now();
    let tasks: Vec<_> =
        (0..producers).map(|_| tokio::spawn(produce(segment.clone(), count.clone(), stop.clone()))).collect();
    tokio::time::sleep(span).await;
    let rate = count.load(Ordering::Relaxed) as f64 / begun.elapsed().as_secs_f64();
    stop.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.map_err(io::Error::other)?;
    }
    segment.lock().1 = true;
    segment.arrived.notify_all();
    thread.join().map_err(|_| io::Error::other("the segment's writer panicked"))??;
    fs::remove_file(path)?;
    Ok(rate)
}

async fn produce(segment: Arc<Segment>, count: Arc<AtomicU64>, stop: Arc<AtomicBool>) {
    while !stop.load(Ordering::Relaxed) {
        let (reply, answer) = oneshot::channel();
        segment.lock().0.push((vec![7; RECORD], reply));
        segment.arrived.notify_one();
        if answer.await.is_err() {
            return;
        }
        count.fetch_add(1, Ordering::Relaxed);
    }
}

impl Segment {
    fn lock(&self) -> std::sync::MutexGuard<'_, (Waiting, bool)> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, mut file: fs::File) -> io::Result<()> {
        let mut bytes = Vec::new();
        while let Some(records) = self.take() {
            bytes.clear();
            records.iter().for_each(|(record, _)| bytes.extend_from_slice(record));
            file.write_all(&bytes)?;
            slow_disk::delay();
            file.sync_data()?;
            for (_, reply) in records {
                let _ = reply.send(());
            }
        }
        Ok(())
    }

    fn take(&self) -> Option<Waiting> {
        let mut waiting = self.lock();
        while waiting.0.is_empty() {
            if waiting.1 {
                return None;
            }
            waiting = self.arrived.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        Some(std::mem::take(&mut waiting.0))
    }
}

/// Microseconds of one 4 KiB write with a sync, the median of `count`.
pub(super) fn sync_latency(path: &Path, count: usize) -> io::Result<f64> {
    let mut file = fs::File::create(path)?;
    let mut micros = Vec::with_capacity(count);
    for _ in 0..count {
        let begun = Instant::now();
        file.write_all(&[7; 4096])?;
        file.sync_data()?;
        micros.push(begun.elapsed().as_secs_f64() * 1e6);
    }
    fs::remove_file(path)?;
    micros.sort_unstable_by(f64::total_cmp);
    Ok(micros[count / 2])
}

/// Megabytes per second of sequential writing, synced once at the end.
pub(super) fn sequential_write(path: &Path, megabytes: usize) -> io::Result<f64> {
    let mut file = fs::File::create(path)?;
    let chunk = vec![7; 1 << 20];
    let begun = Instant::now();
    for _ in 0..megabytes {
        file.write_all(&chunk)?;
    }
    file.sync_data()?;
    let rate = megabytes as f64 / begun.elapsed().as_secs_f64();
    fs::remove_file(path)?;
    Ok(rate)
}
