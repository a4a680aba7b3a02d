//! One world at a time: a process has one set of disks, one clock of SQLite's and one source of its randomness.

use std::{
    sync::{Condvar, Mutex, PoisonError},
    thread::{self, ThreadId},
};

static HOLDER: Mutex<Option<ThreadId>> = Mutex::new(None);
static ENDED: Condvar = Condvar::new();

/// The right to be this process's world, until it is dropped.
pub(super) struct Turn(());

impl Turn {
    /// Waits until the world of another thread has ended: the threads of a test runner take turns.
    ///
    /// # Panics
    /// When the world that would have to end first is one of this very thread.
    pub(super) fn wait() -> Self {
        let me = thread::current().id();
        let mut holder = HOLDER.lock().unwrap_or_else(PoisonError::into_inner);
        let is_mine = *holder == Some(me);
        if !is_mine {
            while holder.is_some() {
                holder = ENDED.wait(holder).unwrap_or_else(PoisonError::into_inner);
            }
            *holder = Some(me);
        }
        drop(holder);
        assert!(!is_mine, "this thread already has a world: run or drop it before another one begins");
        Self(())
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *HOLDER.lock().unwrap_or_else(PoisonError::into_inner) = None;
        ENDED.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn threads_take_turns() {
        let inside = AtomicU64::new(0);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let turn = Turn::wait();
                        let others = inside.fetch_add(1, Ordering::SeqCst);
                        thread::yield_now();
                        inside.fetch_sub(1, Ordering::SeqCst);
                        drop(turn);
                        assert_eq!(others, 0, "two worlds at a time");
                    }
                });
            }
        });
    }

    #[test]
    fn a_second_world_of_a_thread_is_refused_and_a_later_one_is_not() {
        let turn = Turn::wait();
        assert!(std::panic::catch_unwind(Turn::wait).is_err());
        drop(turn);
        drop(Turn::wait());
    }
}
