//! Scenarios of the log: appends, conditions, subscriptions, keys.

pub(crate) mod appends;
