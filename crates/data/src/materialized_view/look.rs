//! Looks at how far a view is, shared by all who wait for it.
//!
//! Hundreds may wait for one view, and each of its steps wakes them all. Each of them would read the same rows, and the view would
//! get no further for it.

use std::{
    future::Future,
    sync::atomic::{AtomicU64, Ordering},
};

use tokio::sync::Mutex;

use super::{BuildRow, ViewError, rows::ShardRow};
use crate::event::Position;

/// The build that readers have, its shards, and how far it is.
type Seen = Result<(BuildRow, Vec<ShardRow>, Position), ViewError>;

/// What was seen last of a view, for those who wait for it.
#[derive(Default)]
pub(super) struct Look {
    asked: AtomicU64,
    last: Mutex<Option<(Asked, Seen)>>,
}

/// A moment in which somebody wanted to know.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Asked(u64);

impl Look {
    /// From now on only what is looked for later counts.
    pub(super) fn ask(&self) -> Asked {
        // Ordering: whoever looks reads the count before the rows, and so sees at least what whoever asked had seen.
        Asked(self.asked.fetch_add(1, Ordering::SeqCst) + 1)
    }

    /// What somebody saw behind `asked`; if nobody has looked since, what `looking` sees now.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the look to whoever is next.
    pub(super) async fn share(&self, asked: Asked, looking: impl Future<Output = Seen>) -> Seen {
        let mut last = self.last.lock().await;
        if let Some((covers, seen)) = &*last
            && *covers >= asked
        {
            return seen.clone();
        }
        let covers = Asked(self.asked.load(Ordering::SeqCst));
        let seen = looking.await;
        *last = Some((covers, seen.clone()));
        seen
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, future::poll_fn, task::Poll};

    use futures_util::future::join_all;

    use super::*;
    use crate::materialized_view::ViewName;

    #[tokio::test]
    async fn whoever_waits_for_a_look_shares_it_and_whoever_asks_behind_it_has_another() {
        let (look, looks) = (Look::default(), Cell::new(0));
        let view: ViewName = "v".parse().unwrap();
        let looking = || async {
            looks.set(looks.get() + 1);
            let mut is_first = true;
            poll_fn(|context| {
                context.waker().wake_by_ref();
                if std::mem::take(&mut is_first) { Poll::Pending } else { Poll::Ready(()) }
            })
            .await;
            Err(ViewError::NotFound { view: view.clone() })
        };
        // The first looks when it alone has asked, the second for all others.
        join_all((0..100).map(|_| async { look.share(look.ask(), looking()).await })).await;
        assert_eq!(looks.get(), 2);
        let early = look.ask();
        assert!(look.share(look.ask(), looking()).await.is_err());
        assert!(look.share(early, looking()).await.is_err());
        assert_eq!(looks.get(), 3, "who asked earlier has what was seen since");
    }
}
