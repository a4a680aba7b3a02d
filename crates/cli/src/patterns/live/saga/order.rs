//! The orders: what each asks for, and what has to become of it.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::shop::NOWHERE;

/// The orders, and where their second half begins.
pub(super) const ORDERS: u32 = 48;
pub(super) const HALF: u32 = 24;
/// The order between two of whose steps the node is killed.
pub(super) const STRUCK: u32 = 10;
/// One that no parcel can be sent for.
pub(super) const UNDONE: u32 = 34;

/// An order, as each service hears of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Order {
    pub(super) id: String,
    pub(super) customer: String,
    pub(super) cents: i64,
    pub(super) to: String,
}

/// What has to become of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Everything is done.
    Completed,
    /// The bank refuses: what came before is undone.
    TooDear,
    /// No parcel can be sent: the bank has to give back, too.
    NoAddress,
}

impl Fate {
    pub(super) fn of(nth: u32) -> Self {
        // A pivot that is refused behind a call without an answer waits for somebody to make sure: none is on its way when the
        // node is killed.
        match nth {
            _ if nth % 8 == 3 => Self::TooDear,
            HALF.. if nth % 4 == 2 => Self::NoAddress,
            _ => Self::Completed,
        }
    }

    /// How its saga ends.
    pub(super) fn status(self) -> &'static str {
        if self == Self::Completed { "completed" } else { "compensated" }
    }

    /// What takes effect, once each, in this order.
    pub(super) fn effects(self) -> &'static [&'static str] {
        match self {
            Self::Completed => &["/received", "/reservations", "/charges", "/parcels"],
            Self::TooDear => &["/received", "/reservations", "/releases", "/cancelled"],
            Self::NoAddress => &["/received", "/reservations", "/charges", "/refunds", "/releases", "/cancelled"],
        }
    }
}

impl Order {
    pub(super) fn of(nth: u32) -> Self {
        let fate = Fate::of(nth);
        let cents = if fate == Fate::TooDear { 1_000_000 } else { 1_000 + 37 * i64::from(nth) };
        let to = if fate == Fate::NoAddress { NOWHERE.to_owned() } else { format!("{nth} harbour road") };
        Self { id: id(nth), customer: format!("customer-{}", nth % 5), cents, to }
    }
}

/// An order's id, which is its saga's.
pub(super) fn id(nth: u32) -> String {
    format!("order-{nth}")
}

/// Those of all orders that come to this end.
pub(super) fn those(fate: Fate) -> impl Iterator<Item = u32> {
    let all: Range<u32> = 0..ORDERS;
    all.filter(move |nth| Fate::of(*nth) == fate)
}
