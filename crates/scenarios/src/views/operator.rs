//! What an operator does to the views, and how everything comes to rest.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use quorate_data::{
    event::{Position, Recorded},
    materialized_view::{Build, BuildDescription, Standing, Switch, View, ViewError, ViewName},
    store::{Query, ReadLog, StoreError},
};

use super::Service;
use crate::notes::{Action, Seen};

const VIEWS: [&str; 5] = ["tally", "rare", "spread", "inline", "declared"];
/// Versions of the one that is declared.
const VERSIONS: u32 = 4;

pub(super) fn named(name: &str) -> Result<ViewName, ViewError> {
    ViewName::new(name).map_err(|cause| ViewError::Invalid { what: cause.to_string() })
}

/// How far readers of a view are, and how many events its rows hold.
pub(super) async fn total(view: &View) -> Result<(u64, i64), ViewError> {
    let reading = view.query("SELECT coalesce(sum(n), 0) FROM {tally}", Vec::new()).await?;
    let events = reading.rows.first().and_then(|row| row.at(0).as_i64()).unwrap_or_default();
    Ok((reading.position.get(), events))
}

impl Service {
    /// Now and then does something that an operator, or a partition, might.
    pub(super) async fn operate(&mut self) {
        let which = VIEWS[usize::try_from(self.rng.below(VIEWS.len() as u64)).unwrap_or_default()];
        // What fails, fails: the disk may be broken, or the moment wrong.
        let _done = match self.rng.below(40) {
            0 => self.take_over().await,
            1 | 2 => self.rebuild(which).await.map(drop),
            3 => self.pause_for_a_while(which).await,
            4 => self.replay_all(which).await,
            5 => self.drop_old(which).await,
            6 => {
                self.cured.fetch_xor(true, Ordering::Relaxed);
                Ok(())
            }
            7 => {
                self.leave().await;
                Ok(())
            }
            8 => self.declare_next().await,
            _ => Ok(()),
        };
    }

    /// Declares the next version, which is built beside what readers have.
    async fn declare_next(&mut self) -> Result<(), ViewError> {
        let Some(views) = self.views().cloned() else { return Ok(()) };
        let last = views.declared_versions(&named("declared")?).await?.last().copied().unwrap_or_default();
        if last < VERSIONS {
            views.declare(super::code::document(last + 1)?).await?;
        }
        Ok(())
    }

    /// One of the owners leaves, whichever it is; not the last one.
    async fn leave(&mut self) {
        let count = self.owners.len();
        if count > 1 {
            let which = usize::try_from(self.rng.below(count as u64)).unwrap_or_default();
            self.owners.remove(which).shut_down().await;
        }
    }

    async fn rebuild(&self, name: &str) -> Result<Build, ViewError> {
        let views = self.views().ok_or_else(|| ViewError::Invalid { what: "nobody owns it".to_owned() })?;
        views.rebuild(&named(name)?, Switch::WhenCaughtUp).await
    }

    async fn builds(&self, name: &str) -> Result<Vec<BuildDescription>, ViewError> {
        Ok(self.view(name).await?.describe().await?.builds)
    }

    async fn pause_for_a_while(&mut self, name: &str) -> Result<(), ViewError> {
        let Some(build) = self.builds(name).await?.pop() else { return Ok(()) };
        let Some(views) = self.views().cloned() else { return Ok(()) };
        views.pause(&named(name)?, build.build).await?;
        self.append().await;
        self.env.sleep(Duration::from_millis(self.rng.below(300))).await;
        views.resume(&named(name)?, build.build).await
    }

    /// Replays whatever is parked, of all builds.
    async fn replay_all(&mut self, name: &str) -> Result<(), ViewError> {
        let Some(views) = self.views().cloned() else { return Ok(()) };
        let view = named(name)?;
        for build in self.builds(name).await? {
            for parked in views.parked(&view, build.build, Position::ZERO, 100).await? {
                match views.replay(&view, build.build, &parked.key).await {
                    Ok(_) | Err(ViewError::StillPoison { .. }) => {}
                    Err(failed) => return Err(failed),
                }
            }
        }
        Ok(())
    }

    async fn drop_old(&mut self, name: &str) -> Result<(), ViewError> {
        let builds = self.builds(name).await?;
        let Some(live) = builds.iter().find(|build| build.live).map(|build| build.build) else { return Ok(()) };
        let Some(views) = self.views().cloned() else { return Ok(()) };
        for build in builds.iter().filter(|build| build.build < live) {
            views.drop_build(&named(name)?, build.build).await?;
        }
        Ok(())
    }

    /// Cures what is poisonous, waits until all is done, and writes down what is there. All owners but one leave: whatever
    /// it was told by the others, it keeps everything up to date.
    pub(super) async fn come_to_rest(&mut self) -> Result<(), String> {
        self.cured.store(true, Ordering::Relaxed);
        while self.owners.len() > 1 {
            self.leave().await;
        }
        for name in VIEWS {
            self.resume_all(name).await.map_err(|failed| failed.to_string())?;
            while !self.is_done(name).await.unwrap_or_default() {
                self.replay_all(name).await.ok();
                self.env.sleep(Duration::from_millis(200)).await;
            }
        }
        self.rebuild_at_rest().await.map_err(|failed| failed.to_string())?;
        for name in VIEWS {
            self.read_view(name).await.map_err(|failed| failed.to_string())?;
        }
        self.verify().await;
        self.read_log().await.map_err(|failed| failed.to_string())
    }

    /// Has every byte of the store checked, the rows of views included.
    async fn verify(&self) {
        let invoked = self.notes.now();
        let wrong = match self.store.verify(Arc::new(|_, _| {})).await {
            Ok(verified) => verified.findings.iter().map(|one| format!("{}: {}", one.place, one.what)).collect(),
            Err(failed) => vec![failed.to_string()],
        };
        let what = Action::Verified((!wrong.is_empty()).then(|| wrong.join("; ")));
        self.notes.add("judge", invoked, what);
    }

    async fn resume_all(&mut self, name: &str) -> Result<(), ViewError> {
        let Some(views) = self.views().cloned() else { return Ok(()) };
        for build in self.builds(name).await? {
            views.resume(&named(name)?, build.build).await?;
        }
        Ok(())
    }

    /// Whether the view that readers have is whole and up to date, and every letter was sent.
    async fn is_done(&self, name: &str) -> Result<bool, ViewError> {
        let described = self.view(name).await?.describe().await?;
        let live = described.builds.iter().find(|build| build.live);
        let is_last = live.is_some_and(|live| described.builds.last().is_some_and(|last| last.build == live.build));
        let is_up_to_date = live.is_some_and(|live| {
            let is_at_rest = |standing: &Standing| matches!(standing, Standing::CaughtUp | Standing::Inline);
            live.position == described.head
                && live.shards.iter().all(|shard| shard.parked == 0 && is_at_rest(&shard.standing))
        });
        Ok(is_last && is_up_to_date && described.effects.0 == 0)
    }

    async fn letters(&self) -> usize {
        self.notes.count(|what| matches!(what, Action::Letter { .. }))
    }

    /// Rebuilds when nothing is written: not one letter may be sent for it.
    async fn rebuild_at_rest(&mut self) -> Result<(), ViewError> {
        let (before, invoked) = (self.letters().await, self.notes.now());
        self.make_room("tally").await?;
        self.rebuild("tally").await?;
        while !self.is_done("tally").await? {
            self.env.sleep(Duration::from_millis(200)).await;
        }
        // Long enough for a letter to leave, and for a quiet view to write its checkpoint.
        self.env.sleep(Duration::from_secs(3)).await;
        let what = Action::Rebuilt { before, after: self.letters().await };
        self.notes.add("operator", invoked, what);
        Ok(())
    }

    async fn make_room(&mut self, name: &str) -> Result<(), ViewError> {
        self.drop_old(name).await
    }

    async fn read_view(&self, name: &str) -> Result<(), ViewError> {
        let (view, invoked) = (self.view(name).await?, self.notes.now());
        let reading = view.query("SELECT stream, n, places FROM {tally} ORDER BY stream", Vec::new()).await?;
        let number = |row: &quorate_data::store::Row, n: usize| row.at(n).as_i64().unwrap_or_default();
        let rows = reading.rows.iter();
        let rows = rows.map(|row| (row.at(0).as_str().unwrap_or_default().to_owned(), number(row, 1), number(row, 2)));
        let rows = rows.collect();
        let described = view.describe().await?;
        let live = described.builds.iter().find(|build| build.live);
        let checkpoint = live.into_iter().flat_map(|live| &live.shards).map(|shard| shard.checkpoint.get()).min();
        let what = Action::ReadView {
            view: name.to_owned(),
            rows,
            whole: view.audit(reading.build).await?.is_whole(),
            unaccounted: described.builds.iter().map(BuildDescription::unaccounted).sum(),
            checkpoint: checkpoint.unwrap_or_default(),
            head: described.head.get(),
        };
        self.notes.add("judge", invoked, what);
        Ok(())
    }

    async fn read_log(&self) -> Result<(), StoreError> {
        let (invoked, mut after, mut events) = (self.notes.now(), Position::ZERO, Vec::new());
        loop {
            let page = self.store.read_log(ReadLog { query: Query::EVERYTHING, after, limit: 1_000 }).await?;
            events.extend(page.events.iter().map(seen));
            after = page.scanned;
            if after >= page.head {
                self.notes.add("judge", invoked, Action::WholeLog { events });
                return Ok(());
            }
        }
    }
}

fn seen(event: &Recorded) -> Seen {
    Seen {
        position: event.position().get(),
        stream: event.stream().to_owned(),
        version: event.version().get(),
        id: event.id().to_owned(),
        kind: event.kind().to_owned(),
        tags: Vec::new(),
        content: None,
    }
}
