//! Scenarios of the log: appends, conditions, subscriptions, keys.

pub(crate) mod appends;
pub(crate) mod broken;
pub(crate) mod followers;
pub(crate) mod import;
pub(crate) mod keys;
pub(crate) mod retention;
pub(crate) mod stamps;
pub(crate) mod workers;
