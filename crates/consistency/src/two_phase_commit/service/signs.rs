//! Several coordinators under one name: each gives signs of life, and fences whoever gives none.
//!
//! What is here decides only *when* one is fenced. That a wrong guess harms nobody is the log's part: a decision is before the fence, or
//! never (ADR 36).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Weak, atomic::Ordering},
    time::Duration,
};

use quorate_data::store::{RoomTables, Row, SqlError, StoreError, TransactError, Value};
use quorate_foundations::time::Boot;
use quorate_runtime::Env;

use super::Shared;
use crate::two_phase_commit::{Config, TxnError, standing};

/// A row for each takeover that gives signs of life. One that is open in the log and has no row has given none yet.
pub(crate) const TABLES: RoomTables = RoomTables {
    room: "txn_signs",
    versions: &["CREATE TABLE quorate_txn_sign (
        coordinator TEXT NOT NULL, takeover BIGINT NOT NULL, beat BIGINT NOT NULL, silence_ms BIGINT NOT NULL,
        PRIMARY KEY (coordinator, takeover)
    )"],
};

/// Signs that one gives in the time after which it counts as gone.
const SIGNS: u32 = 5;
/// A round may take so long at least: one that hangs on a dead connection would give no more signs.
const ROUND: Duration = Duration::from_secs(1);

/// What was last heard of a takeover.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sign {
    /// How often it gave a sign of life.
    beat: i64,
    /// For how long it gives none at most, as it says itself.
    promise: Duration,
}

/// What was seen of the others, and since when it did not change, by the clock of whoever saw it.
#[derive(Debug, Default)]
struct Observed {
    seen: BTreeMap<u64, (Sign, Boot)>,
    looked: Boot,
}

impl Observed {
    /// Takes in what stands there now. Returns those that gave no sign for as long as `silence`, or as they promise, whichever is longer.
    ///
    /// One that is seen for the first time, or changed since, is given all of that time. So is everybody where nobody looked for long: what kept
    /// this process from it, a database that was down, say, kept others from giving signs.
    fn take(&mut self, now: Boot, found: BTreeMap<u64, Sign>, silence: Duration) -> Vec<u64> {
        if now.saturating_since(self.looked) > silence / 2 {
            self.seen.clear();
        }
        self.looked = now;
        let since = |(takeover, sign): (u64, Sign)| {
            let known = self.seen.get(&takeover).filter(|(known, _)| known.beat == sign.beat);
            (takeover, (sign, known.map_or(now, |(_, since)| *since)))
        };
        self.seen = found.into_iter().map(since).collect();
        let is_silent = |(sign, since): &(Sign, Boot)| now.saturating_since(*since) >= silence.max(sign.promise);
        self.seen.iter().filter(|(_, seen)| is_silent(seen)).map(|(takeover, _)| *takeover).collect()
    }
}

/// Gives signs and watches those of others, until the coordinator is gone or fenced.
pub(super) async fn run(shared: Weak<Shared>, env: Env, takeover: Duration) {
    let stop = env.tasks().stop().clone();
    let mut observed = Observed::default();
    loop {
        let Some(now) = shared.upgrade() else { return };
        let most = (takeover / 2).max(ROUND);
        // What a round that is given up had begun ends by itself.
        let round = env.timeout(most, now.round(&mut observed, takeover));
        match stop.run_until_cancelled(round).await {
            None => return,
            Some(Some(Ok(()))) => {}
            Some(Some(Err(cause))) => {
                tracing::warn!(%cause, "which coordinators are gone cannot be told; it is tried again");
            }
            Some(None) => {
                tracing::warn!(?most, "which coordinators are gone was not told in time; it is tried again");
            }
        }
        if now.is_fenced.load(Ordering::Relaxed) {
            return;
        }
        // Nobody is kept by the one who watches.
        drop(now);
        if stop.run_until_cancelled(env.sleep(takeover / SIGNS)).await.is_none() {
            return;
        }
    }
}

impl Shared {
    /// Gives a sign, and fences those that gave none for too long.
    async fn round(self: &Arc<Self>, observed: &mut Observed, silence: Duration) -> Result<(), TxnError> {
        self.give_sign(silence).await?;
        if self.is_replaced().await {
            return Ok(());
        }
        let rows = self.signs().await?;
        let holders = self.standing.holders();
        let others = holders.open().iter().filter(|takeover| **takeover != self.standing.takeover);
        let found = others.map(|takeover| (*takeover, rows.get(takeover).copied().unwrap_or_default())).collect();
        // The clock is read behind the rows: what they say is no newer than that.
        let mut gone: BTreeSet<u64> = rows.into_keys().filter(|takeover| holders.is_behind(*takeover)).collect();
        for takeover in observed.take(self.env.boot(), found, silence) {
            let of = (self.standing.id, takeover);
            if standing::fence(&self.store, &self.config.name, of, false).await? {
                self.env.reached("txn: a coordinator was fenced by another one");
                tracing::warn!(
                    takeover,
                    ?silence,
                    "a coordinator gave no sign of life and is fenced: what it left is ended"
                );
            }
            gone.insert(takeover);
        }
        for takeover in &gone {
            self.forget_sign(*takeover).await?;
        }
        if !gone.is_empty() {
            self.take_after().await;
        }
        Ok(())
    }

    /// Looks at once after what fenced ones left, and has participants refuse what comes late of them.
    async fn take_after(self: &Arc<Self>) {
        self.is_replaced().await;
        for (name, participant) in self.all() {
            let (shared, below) = (self.clone(), self.below(&name));
            let stop = self.env.tasks().stop().clone();
            self.env.tasks().spawn("txn/forget", async move {
                // What is not refused is found by a sweep.
                let _told = stop.run_until_cancelled(shared.call(participant.forget(&below))).await;
            });
        }
        self.sweep.notify_one();
    }

    async fn give_sign(&self, silence: Duration) -> Result<(), TxnError> {
        let sql = "INSERT INTO quorate_txn_sign (coordinator, takeover, beat, silence_ms) VALUES ($1, $2, 1, $3)
            ON CONFLICT (coordinator, takeover) DO UPDATE
            SET beat = quorate_txn_sign.beat + 1, silence_ms = excluded.silence_ms";
        let (id, takeover) = (self.standing.id.to_string(), self.standing.takeover.cast_signed());
        let millis = i64::try_from(silence.as_millis()).unwrap_or(i64::MAX);
        self.write(move || (sql, vec![id.clone().into(), takeover.into(), millis.into()])).await
    }

    async fn forget_sign(&self, takeover: u64) -> Result<(), TxnError> {
        let sql = "DELETE FROM quorate_txn_sign WHERE coordinator = $1 AND takeover = $2";
        let id = self.standing.id.to_string();
        self.write(move || (sql, vec![id.clone().into(), takeover.cast_signed().into()])).await
    }

    async fn write(
        &self,
        statement: impl Fn() -> (&'static str, Vec<Value>) + Send + Sync + 'static,
    ) -> Result<(), TxnError> {
        let written = self.store.transact(move |tx| {
            let (sql, params) = statement();
            Box::pin(async move { tx.room_execute(sql, &params).await })
        });
        match written.await {
            Ok(_) => Ok(()),
            Err(TransactError::Store(cause)) => Err(TxnError::Store(cause)),
            Err(TransactError::Aborted(cause)) => Err(cause.into()),
            Err(other) => Err(SqlError::Failed { what: other.to_string() }.into()),
        }
    }

    async fn signs(&self) -> Result<BTreeMap<u64, Sign>, TxnError> {
        let sql = "SELECT takeover, beat, silence_ms FROM quorate_txn_sign WHERE coordinator = $1";
        let rows = self.store.room_query(sql, vec![self.standing.id.to_string().into()]).await?;
        let sign = |row: &Row| {
            let number = |n: usize| row.at(n).as_i64();
            let takeover = number(0).and_then(|takeover| u64::try_from(takeover).ok())?;
            let millis = number(2).and_then(|millis| u64::try_from(millis).ok()).unwrap_or_default();
            // Nobody may promise less often than can be configured.
            let promise = Duration::from_millis(millis).min(*Config::TAKEOVER.end());
            Some((takeover, Sign { beat: number(1)?, promise }))
        };
        let corrupt = || {
            let (place, what) = ("a row of quorate_txn_sign".to_owned(), "it says of nobody what it should".to_owned());
            TxnError::Store(StoreError::Corrupt { place, what })
        };
        rows.iter().map(|row| sign(row).ok_or_else(corrupt)).collect()
    }

    /// Says that this coordinator decides nothing any more, so that others end at once what it left.
    pub(super) async fn leave(&self) {
        self.is_fenced.store(true, Ordering::Relaxed);
        let left = async {
            standing::fence(&self.store, &self.config.name, (self.standing.id, self.standing.takeover), true).await?;
            self.forget_sign(self.standing.takeover).await
        };
        match self.env.timeout(self.config.decision_patience, left).await {
            Some(Ok(())) => {}
            Some(Err(cause)) => tracing::warn!(%cause, "a coordinator ends without a word: others wait for its signs"),
            None => tracing::warn!("a coordinator ends without a word in time: others wait for its signs"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SILENCE: Duration = Duration::from_secs(10);

    fn at(seconds: u64) -> Boot {
        Boot::default() + Duration::from_secs(seconds)
    }

    fn of(beats: [i64; 2]) -> BTreeMap<u64, Sign> {
        let signs = beats.map(|beat| Sign { beat, promise: SILENCE });
        [(1, signs[0]), (2, signs[1])].into()
    }

    #[test]
    fn whoever_gave_no_sign_for_the_whole_time_is_gone_and_nobody_else() {
        let mut observed = Observed::default();
        for second in (100..110).step_by(2) {
            assert_eq!(observed.take(at(second), of([7, second.cast_signed()]), SILENCE), [0; 0], "{second}");
        }
        assert_eq!(observed.take(at(110), of([7, 110]), SILENCE), [1]);
    }

    #[test]
    fn time_in_which_nobody_looked_counts_against_nobody() {
        let mut observed = Observed::default();
        observed.take(at(100), of([7, 7]), SILENCE);
        assert_eq!(observed.take(at(200), of([7, 7]), SILENCE), [0; 0]);
    }

    #[test]
    fn whoever_promises_less_often_is_given_the_longer_time() {
        let mut observed = Observed::default();
        let patient = Sign { beat: 1, promise: 2 * SILENCE };
        for second in (100..120).step_by(2) {
            assert_eq!(observed.take(at(second), [(1, patient)].into(), SILENCE), [0; 0], "{second}");
        }
        assert_eq!(observed.take(at(120), [(1, patient)].into(), SILENCE), [1]);
    }
}
