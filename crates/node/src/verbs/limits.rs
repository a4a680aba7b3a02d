//! Rate limits by name: those of this node's own clients, and those of policies.

use quorate_data::store::{SqlError, TransactError};
use quorate_foundations::name::Name;
use quorate_resilience::{
    policy::Registry,
    rate_limit::{Rate, Standing, Unavailable},
};

use crate::rates::{RateStanding, Rates};

/// The verbs on rate limits. Cheap to clone.
#[derive(Clone)]
pub struct Limits {
    rates: Rates,
    policies: Registry,
}

/// A rate limit and how it stands.
#[derive(Clone, Debug)]
pub enum Limited {
    /// Of those who ask this node.
    Clients(RateStanding),
    /// Of the calls to a dependency, by its policy.
    Calls {
        /// The dependency.
        name: Name,
        /// The rate.
        rate: Rate,
        /// What is left of it; `None` where the store counts.
        left: Option<Standing>,
        /// How many calls were decided without the store's count; `None` where it doesn't count.
        uncounted: Option<u64>,
        /// Calls that were refused.
        refused: u64,
    },
}

/// Why a limit wasn't reset.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LimitError {
    /// There is none.
    #[error("no rate limit is called `{name}`")]
    NotFound {
        /// The name.
        name: Name,
    },
    /// The store counts, and couldn't forget.
    #[error("what was taken could not be forgotten")]
    Store(#[source] TransactError<SqlError>),
    /// The same, of a rate of calls.
    #[error("what was taken could not be forgotten")]
    Count(#[source] Unavailable),
}

impl Limits {
    pub(crate) const fn new(rates: Rates, policies: Registry) -> Self {
        Self { rates, policies }
    }

    /// At most `limit` rate limits behind `after`, in order of their names.
    pub fn list(&self, after: Option<&Name>, limit: usize) -> Vec<Limited> {
        let own = self.rates.limits().iter().map(|limit| Limited::Clients(limit.standing()));
        let calls = self.policies.standings().into_iter().filter_map(|standing| {
            let (rate, left, uncounted) = (standing.policy.rate_limit?, standing.limit, standing.uncounted);
            let refused = standing.outcomes.iter().find(|(word, _)| *word == "rejected_limit");
            let refused = refused.map_or(0, |(_, count)| *count);
            Some(Limited::Calls { name: standing.dependency, rate, left, uncounted, refused })
        });
        let mut all: Vec<Limited> = own.chain(calls).collect();
        all.sort_by(|a, b| a.name().cmp(b.name()));
        all.retain(|one| after.is_none_or(|after| one.name() > after));
        all.truncate(limit);
        all
    }

    /// How a limit stands.
    ///
    /// # Errors
    /// [`LimitError::NotFound`].
    pub fn describe(&self, name: &Name) -> Result<Limited, LimitError> {
        let found = self.list(None, usize::MAX).into_iter().find(|one| one.name() == name);
        found.ok_or_else(|| LimitError::NotFound { name: name.clone() })
    }

    /// Forgets what was taken from a limit, by everybody. Returns how it stands.
    ///
    /// # Errors
    /// [`LimitError`].
    pub async fn reset(&self, name: &Name) -> Result<Limited, LimitError> {
        match self.rates.limits().iter().find(|limit| limit.name == *name) {
            Some(limit) => self.rates.reset(limit).await.map_err(LimitError::Store)?,
            None => _ = self.policies.reset_limit(name).await.map_err(LimitError::Count)?,
        }
        self.describe(name)
    }
}

impl Limited {
    /// What it is called.
    pub fn name(&self) -> &Name {
        match self {
            Self::Clients(standing) => &standing.name,
            Self::Calls { name, .. } => name,
        }
    }
}
