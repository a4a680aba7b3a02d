//! What a seed says: which orders come, and what goes wrong when.

use std::time::Duration;

use quorate_runtime::random::{Random, Rng};

/// The services, each a process with a store of its own.
pub(super) const SERVICES: [&str; 5] = ["orders", "inventory", "payments", "shipping", "notifications"];

/// What is sold.
pub(super) const ITEMS: [&str; 4] = ["lamp", "chair", "table", "rug"];
/// How many there are of what is scarce, and of everything else.
const SCARCE: i64 = 60;
const PLENTY: i64 = 1_000_000;

/// How many there are of an item at first: of the last one, too few for everybody who wants it.
pub(super) fn stock(item: &str) -> i64 {
    if item == ITEMS[ITEMS.len() - 1] { SCARCE } else { PLENTY }
}
/// How many customers there are, and what each has, in cents.
pub(super) const CUSTOMERS: u64 = 40;
/// The first of them have little, so that some cannot pay.
pub(super) const POOR: u64 = 4;
pub(super) const RICHES: i64 = 100_000_000;
pub(super) const PENNIES: i64 = 20_000;

/// How much a customer has at first, in cents.
pub(super) fn purse(customer: u64) -> i64 {
    if customer < POOR { PENNIES } else { RICHES }
}

/// An order.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Order {
    pub(super) id: String,
    pub(super) customer: String,
    pub(super) item: String,
    pub(super) quantity: i64,
    pub(super) cents: i64,
    /// Nobody delivers to some places.
    pub(super) place: String,
    /// Where mails go; some addresses are wrong.
    pub(super) mail: String,
    pub(super) style: Style,
}

/// How an order is brought about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Style {
    /// A saga calls one service after the other.
    Orchestrated,
    /// Each service hears of what the one before it did.
    Choreographed,
}

impl Style {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Orchestrated => "orchestrated",
            Self::Choreographed => "choreographed",
        }
    }
}

/// Where nobody delivers.
pub(super) const ISLAND: &str = "island";

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// A service's process is killed, as by `kill -9`.
    Kill,
    /// It stands still, as a suspended machine does.
    Pause,
    /// What goes to it takes long.
    Slow,
    /// Nothing reaches it, or its answers reach nobody.
    Partition,
    /// The payment provider fails, or does not answer.
    Flaky,
}

impl Kind {
    pub(super) const ALL: [Self; 5] = [Self::Kill, Self::Pause, Self::Slow, Self::Partition, Self::Flaky];

    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Pause => "pause",
            Self::Slow => "slow",
            Self::Partition => "partition",
            Self::Flaky => "flaky",
        }
    }
}

/// A fault that is planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    /// When, from the beginning.
    pub(super) at: Duration,
    pub(super) kind: Kind,
    /// Which of [`SERVICES`]; a flaky provider belongs to nobody.
    pub(super) service: usize,
    /// For how long, at least.
    pub(super) span: Duration,
    /// Of a partition: whether requests still arrive, and answers alone are lost.
    pub(super) mute: bool,
}

/// Everything that a seed decides. What processes and the network make of it in time is theirs.
pub(super) struct Plan {
    orders: Rng,
    placed: u64,
    pub(super) faults: Vec<Fault>,
}

impl Plan {
    /// The plan of `seed` for a run of `duration`: every kind of fault at least once, the more the longer it lasts, and none in
    /// its last fifth. Where the service `mute` is named, partitions are its own, and lose its answers alone.
    pub(super) fn of(seed: u64, duration: Duration, mute: Option<&str>) -> Self {
        let mut root = [0; 32];
        root[..8].copy_from_slice(&seed.to_le_bytes());
        let random = Random::from_seed(root);
        Self {
            orders: random.stream("orders"),
            placed: 0,
            faults: faults(&mut random.stream("faults"), duration, mute),
        }
    }

    /// The next order.
    pub(super) fn order(&mut self) -> Order {
        let dice = &mut self.orders;
        self.placed += 1;
        let n = self.placed;
        let customer = dice.below(CUSTOMERS);
        let item = ITEMS[dice.below(ITEMS.len() as u64) as usize];
        let quantity = 1 + dice.below(3).cast_signed();
        let cents = quantity * (500 + dice.below(4_500).cast_signed());
        let place = if dice.below(12) == 0 { ISLAND } else { "mainland" };
        let at = if dice.below(40) == 0 { " at " } else { "@" };
        let style = if n.is_multiple_of(2) { Style::Orchestrated } else { Style::Choreographed };
        Order {
            id: format!("o{n}"),
            customer: format!("c{customer}"),
            item: item.to_owned(),
            quantity,
            cents,
            place: place.to_owned(),
            mail: format!("c{customer}{at}example.com"),
            style,
        }
    }
}

/// How far apart faults are, at most.
const APART: Duration = Duration::from_millis(1_800);
/// How long one lasts, at most.
const LONGEST: Duration = Duration::from_millis(1_500);

fn faults(dice: &mut Rng, duration: Duration, mute: Option<&str>) -> Vec<Fault> {
    let span = duration.mul_f64(0.7);
    let count = Kind::ALL.len().max((span.as_secs_f64() / APART.as_secs_f64()) as usize);
    let slot = span / count as u32;
    // Each kind comes once in every five.
    let mut kinds = Vec::new();
    while kinds.len() < count {
        let mut round = Kind::ALL;
        for n in (1..round.len()).rev() {
            round.swap(n, dice.below(n as u64 + 1) as usize);
        }
        kinds.extend(round);
    }
    let begin = duration.mul_f64(0.1);
    let mute = mute.and_then(|name| SERVICES.iter().position(|service| *service == name));
    (0..count)
        .map(|n| {
            let kind = kinds[n];
            let fault = Fault {
                at: begin + slot * n as u32 + slot.mul_f64(dice.unit() * 0.3),
                kind,
                service: dice.below(SERVICES.len() as u64) as usize,
                span: LONGEST.min(slot.mul_f64(0.7)).mul_f64(0.4 + 0.6 * dice.unit()),
                // Of ten faults two cut somebody off, one in each way.
                mute: (n / Kind::ALL.len()).is_multiple_of(2),
            };
            match mute {
                Some(service) if kind == Kind::Partition => Fault { service, mute: true, ..fault },
                _ => fault,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, time::Duration};

    use super::{Kind, Plan};

    #[test]
    fn a_seed_says_the_same_every_time_and_another_one_something_else() {
        let duration = Duration::from_secs(30);
        let told = |seed| {
            let mut plan = Plan::of(seed, duration, None);
            (plan.faults.clone(), (0..50).map(|_| plan.order()).collect::<Vec<_>>())
        };
        assert_eq!(told(7), told(7));
        assert_ne!(told(7), told(8));
    }

    #[test]
    fn every_kind_of_fault_is_planned_whatever_the_seed_and_all_is_well_at_the_end() {
        for seed in 0..200 {
            for seconds in [3, 30, 600] {
                let duration = Duration::from_secs(seconds);
                let faults = Plan::of(seed, duration, None).faults;
                let kinds: BTreeSet<Kind> = faults.iter().map(|fault| fault.kind).collect();
                assert_eq!(kinds.len(), Kind::ALL.len(), "{seed}");
                assert!(faults.is_sorted_by_key(|fault| fault.at), "{seed}");
                assert!(faults.windows(2).all(|two| two[0].at + two[0].span <= two[1].at), "one at a time: {seed}");
                assert!(faults.iter().all(|fault| fault.at + fault.span < duration), "{seed}");
            }
        }
    }
}
