//! What is wrong with settings.

use std::{net::SocketAddr, time::Duration};

/// Why settings make no configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The address is open to others, and nobody said so.
    #[error("`listen` is {listen}, which other machines reach without a password: set `allow-remote` if that is meant")]
    Exposed {
        /// The address.
        listen: SocketAddr,
    },
    /// Two settings contradict each other.
    #[error("`{small}` is {small_is}, which is less than `{large}`, {large_is}")]
    Disagree {
        /// The setting that is too small.
        small: &'static str,
        /// Its value.
        small_is: String,
        /// The setting it must reach.
        large: &'static str,
        /// Its value.
        large_is: String,
    },
    /// A rate cannot be.
    #[error("`{key}` cannot be")]
    Rate {
        /// The setting.
        key: &'static str,
        /// Why.
        #[source]
        cause: quorate_resilience::rate_limit::ConfigError,
    },
    /// A header cannot be called so.
    #[error("`{key}` is `{value}`, which is no name of a header")]
    Header {
        /// The setting.
        key: &'static str,
        /// Its value.
        value: String,
    },
    /// A host cannot be called so.
    #[error(
        "`allowed-hosts` names `{value}`, which is no host: a name or an address alone, as `log.example` or `::1`, without \
         scheme, port and brackets"
    )]
    Host {
        /// Its value.
        value: String,
    },
    /// The address of the store is none.
    #[error("`store.address` cannot be used: {what}")]
    Address {
        /// What is wrong with it; not the address, which may hold a password.
        what: String,
    },
    /// A relay cannot be.
    #[error("the relay `{name}` cannot be: {what}")]
    Relay {
        /// Its name.
        name: String,
        /// What is wrong with it.
        what: String,
    },
    /// An inbox cannot be.
    #[error("the inbox `{name}` cannot be: {what}")]
    Inbox {
        /// Its name.
        name: String,
        /// What is wrong with it.
        what: String,
    },
    /// A participant cannot be.
    #[error("the participant `{name}` cannot be: {what}")]
    Participant {
        /// Its name.
        name: String,
        /// What is wrong with it.
        what: String,
    },
    /// A span is out of its range.
    #[error("`{key}` is {value:?}, and has to be {least:?} to {most:?}")]
    OutOfRange {
        /// The setting.
        key: &'static str,
        /// Its value.
        value: Duration,
        /// The least it may be.
        least: Duration,
        /// The most it may be.
        most: Duration,
    },
    /// A value that must not be zero is.
    #[error("`{key}` cannot be zero")]
    Zero {
        /// The setting.
        key: &'static str,
    },
}
