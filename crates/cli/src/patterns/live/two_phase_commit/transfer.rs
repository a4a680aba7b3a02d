//! Transfers: what each asks of the two banks, and what has to become of it.

use std::sync::Arc;

use quorate_consistency::two_phase_commit::{SqlWork, Statement, Transaction};
use quorate_data::{event::NewEvent, store::ExpectedVersion};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::failed;
use crate::exit::Failure;

/// The banks.
pub(super) const BANKS: [&str; 2] = ["left", "right"];
/// Whoever has an account at both of them, and how much is on each at first.
pub(super) const OWNERS: [&str; 4] = ["ada", "bob", "cyd", "dan"];
pub(super) const BEGINS_WITH: i64 = 1_000;
/// How many transfers each of them orders, one after the other.
pub(super) const EACH: u32 = 12;

/// Money of one owner, from one bank to the other.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Transfer {
    pub(super) id: String,
    pub(super) owner: String,
    /// Which of [`BANKS`] it comes from.
    pub(super) from: usize,
    pub(super) cents: i64,
}

impl Transfer {
    /// The `nth` of the `owner`th: there and back by turns.
    pub(super) fn of(owner: usize, nth: u32) -> Self {
        let name = OWNERS[owner];
        let from = usize::from(!nth.is_multiple_of(2));
        let cents = if is_too_much(nth) { 1_000_000 } else { 10 + i64::from(nth) };
        Self { id: format!("{name}-{nth}"), owner: name.to_owned(), from, cents }
    }

    /// The stream that its decision is told in.
    pub(super) fn stream(&self) -> String {
        format!("transfer-{}", self.id)
    }

    /// What is asked of both banks. Whatever is decided twice under its id, the log refuses.
    pub(super) fn transaction(&self) -> Result<Transaction, Failure> {
        let statement = |sql: &str| Statement::of(sql).with(self.cents).with(&*self.owner).changing(1);
        let owner: Arc<str> = self.owner.as_str().into();
        let takes = SqlWork::default()
            .claiming(owner.clone())
            .prepare(statement("UPDATE account SET free = free - $1 WHERE owner = $2 AND free >= $1"))
            .commit(statement("UPDATE account SET total = total - $1 WHERE owner = $2"))
            .abort(statement("UPDATE account SET free = free + $1 WHERE owner = $2"));
        let gives = SqlWork::default()
            .claiming(owner)
            .prepare(Statement::of("UPDATE account SET total = total WHERE owner = $1").with(&*self.owner).changing(1))
            .commit(statement("UPDATE account SET total = total + $1, free = free + $1 WHERE owner = $2"));
        let data = json!({ "owner": self.owner, "cents": self.cents, "from": BANKS[self.from] });
        let moved = NewEvent::new(&*self.id, "/patterns/two-phase-commit", "money.moved").json(data.to_string());
        let (from, to) = (BANKS[self.from], BANKS[1 - self.from]);
        Ok(Transaction::new()
            .with(from.parse().map_err(failed)?, takes.work().map_err(failed)?)
            .with(to.parse().map_err(failed)?, gives.work().map_err(failed)?)
            .append(self.stream().parse().map_err(failed)?, ExpectedVersion::NoStream, vec![moved]))
    }
}

/// Whether that is more than anybody has.
pub(super) fn is_too_much(nth: u32) -> bool {
    nth % 4 == 3
}

/// What is on the `owner`th's account at a bank in the end.
pub(super) fn ends_with(owner: usize, bank: usize) -> i64 {
    let moved = (0..EACH).filter(|nth| !is_too_much(*nth)).map(|nth| Transfer::of(owner, nth));
    moved.fold(BEGINS_WITH, |sum, one| if one.from == bank { sum - one.cents } else { sum + one.cents })
}
