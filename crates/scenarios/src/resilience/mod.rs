//! Calls through several hops, and what becomes of an upstream that falters under them.

mod hop;
pub(crate) mod outage;
pub(crate) mod storm;
