//! How often clients and tenants may ask this node.
//!
//! A limit is a rate for each of those it is about, counted by this process or by the store; one is taken from it with each
//! request. What holds while the store doesn't answer was chosen with the limit.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use http::HeaderName;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::{
        counter::{ConstCounter, Counter},
        family::Family,
    },
};
use quorate_data::store::{SqlError, Store, TransactError};
use quorate_foundations::name::Name;
use quorate_resilience::{
    dice::Dice,
    rate_limit::{Keyed, OnUnavailable, Rate, Rejected, Shared, SharedConfig, SharedRejected, Standing},
};
use quorate_runtime::Env;

use crate::{
    config::{RateConfig, RateCount},
    quota::StoreQuota,
};

/// The limits of requests. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Rates(Arc<Inner>);

struct Inner {
    env: Env,
    limits: Vec<Limit>,
    dice: Mutex<Dice>,
}

/// One limit.
pub(crate) struct Limit {
    pub(crate) name: Name,
    pub(crate) whose: Whose,
    pub(crate) rate: Rate,
    count: Count,
    refused: Counter,
}

/// Whom a limit is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Whose {
    /// An address, or a /64 network of IPv6.
    Client,
    /// What this header names.
    Tenant(HeaderName),
}

enum Count {
    Own(Box<Keyed<Name>>),
    Shared(Shared, Box<StoreQuota>),
}

/// Why a request may not be made now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Its key has asked as often as it may.
    Spent {
        /// When to come back; not the same for all who are refused together.
        after: Option<Duration>,
        /// What is left, which is less than one.
        left: Standing,
    },
    /// The count can't be asked, and refuses meanwhile.
    Unavailable,
}

/// How a limit stands.
#[derive(Clone, Debug)]
pub struct RateStanding {
    /// Its name.
    pub name: Name,
    /// The rate of each.
    pub rate: Rate,
    /// Who counts.
    pub by_store: bool,
    /// Requests that were refused.
    pub refused: u64,
    /// How many it remembers; `None` where the store does.
    pub known: Option<usize>,
    /// How often somebody had to share since it remembers no more.
    pub crowded: u64,
    /// Requests that were decided without the store's count; `None` where it doesn't count.
    pub uncounted: Option<u64>,
}

impl Rates {
    /// The limits that `config` asks for; those that the store counts are counted in `store`.
    pub(crate) fn new(env: &Env, store: &Store, config: &RateConfig) -> Self {
        let unavailable = |rate| match config.count {
            RateCount::Process => None,
            RateCount::StoreOrAllow => Some(OnUnavailable::Allow),
            RateCount::StoreOrDeny => Some(OnUnavailable::Deny),
            RateCount::StoreOrProcess => Some(OnUnavailable::Local(rate)),
        };
        let wanted = [
            ("http/clients", Whose::Client, config.client),
            ("http/tenants", Whose::Tenant(config.tenant_header.clone()), config.tenant),
        ];
        let wanted: Vec<_> = wanted.into_iter().filter_map(|(name, whose, rate)| Some((name, whose, rate?))).collect();
        let refused = Family::<Vec<(&'static str, String)>, Counter>::default();
        env.metrics().register("quorate_http_rate_limited", "Requests that came too often", refused.clone());
        let limit = |(name, whose, rate): (&str, Whose, Rate)| {
            let name = Name::new(name).unwrap_or_else(|wrong| unreachable!("this is a name: {wrong}"));
            let count = match unavailable(rate) {
                Some(on_unavailable) => {
                    let quota = StoreQuota::of(store, name.clone(), config.max_keys);
                    let shared = SharedConfig::of(rate, on_unavailable, config.max_keys);
                    Shared::new(env, Arc::new(quota.clone()), shared)
                        .map(|shared| Count::Shared(shared, Box::new(quota)))
                }
                None => Keyed::new(rate, config.max_keys, env.random("rates").u64())
                    .map(|keyed| Count::Own(Box::new(keyed))),
            };
            let count =
                count.unwrap_or_else(|wrong| unreachable!("rates were checked with the configuration: {wrong}"));
            let refused = refused.get_or_create_owned(&vec![("limit", name.as_str().to_owned())]);
            Limit { name, whose, rate, count, refused }
        };
        let limits = wanted.into_iter().map(limit).collect();
        let dice = Mutex::new(Dice::from_rng(&mut env.random("rates")));
        let rates = Self(Arc::new(Inner { env: env.clone(), limits, dice }));
        env.metrics().register_collector(Box::new(Scrape(Arc::downgrade(&rates.0))));
        rates
    }

    /// The limits.
    pub(crate) fn limits(&self) -> &[Limit] {
        &self.0.limits
    }

    /// Takes one request of `key` from a limit. What is left then, where anybody counted.
    ///
    /// # Cancel safety
    /// What was taken stays taken.
    pub(crate) async fn take(&self, limit: &Limit, key: &Name) -> Result<Option<Standing>, Refused> {
        let taken = match &limit.count {
            Count::Own(keyed) => keyed
                .take(self.0.env.mono(), key, 1)
                .map(|taken| Some(taken.standing()))
                .map_err(|spent| self.spent(&spent)),
            Count::Shared(shared, _) => match shared.take_known(key, 1) {
                Some(known) => known.map_err(|spent| self.spent(&spent)),
                None => shared.take(key, 1).await.map_err(|refused| match refused {
                    SharedRejected::Limit(spent) => self.spent(&spent),
                    _ => Refused::Unavailable,
                }),
            }
            .map(|allowed| allowed.left),
        };
        taken.inspect_err(|_| _ = limit.refused.inc())
    }

    fn spent(&self, rejected: &Rejected) -> Refused {
        let mut dice = self.0.dice.lock().unwrap_or_else(PoisonError::into_inner);
        Refused::Spent { after: rejected.retry_after(&mut dice), left: rejected.standing }
    }

    /// Forgets what was taken from `limit`. Where the store counts, other processes refuse, and give what they have leased, for up
    /// to five seconds more.
    ///
    /// # Errors
    /// [`TransactError`]: the store counts, and couldn't forget.
    pub(crate) async fn reset(&self, limit: &Limit) -> Result<(), TransactError<SqlError>> {
        match &limit.count {
            Count::Own(keyed) => keyed.reset(),
            Count::Shared(shared, quota) => {
                quota.forget_all().await?;
                shared.forget();
            }
        }
        Ok(())
    }
}

/// Writes how many requests were decided without the store's count when metrics are asked for.
struct Scrape(Weak<Inner>);

impl fmt::Debug for Scrape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scrape").finish_non_exhaustive()
    }
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Some(inner) = self.0.upgrade() else { return Ok(()) };
        let (kind, help) =
            (ConstCounter::new(0_u64).metric_type(), "Requests that were decided without the store's count");
        let mut family = encoder.encode_descriptor("quorate_http_rate_uncounted", help, None, kind)?;
        for limit in &inner.limits {
            if let Some(count) = limit.standing().uncounted {
                ConstCounter::new(count).encode(family.encode_family(&[("limit", limit.name.as_str())])?)?;
            }
        }
        Ok(())
    }
}

impl Limit {
    /// How it stands.
    pub(crate) fn standing(&self) -> RateStanding {
        let (known, crowded, uncounted) = match &self.count {
            Count::Own(keyed) => (Some(keyed.known()), keyed.shared(), None),
            Count::Shared(shared, _) => (None, 0, Some(shared.uncounted())),
        };
        RateStanding {
            name: self.name.clone(),
            rate: self.rate,
            by_store: known.is_none(),
            refused: self.refused.get(),
            known,
            crowded,
            uncounted,
        }
    }
}
