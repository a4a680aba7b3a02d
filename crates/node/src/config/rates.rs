//! How often clients may ask, checked.

use std::num::{NonZeroU32, NonZeroUsize};

use http::HeaderName;
use quorate_resilience::rate_limit::Rate;

use super::{ConfigError, RateCount, RateSettings};

/// How often clients may ask. The default is as often as they like.
#[derive(Clone, Debug)]
pub struct RateConfig {
    /// What one client may.
    pub client: Option<Rate>,
    /// What one tenant may.
    pub tenant: Option<Rate>,
    /// The header that names the tenant.
    pub tenant_header: HeaderName,
    /// Clients, and tenants, that are remembered.
    pub max_keys: NonZeroUsize,
    /// Who counts.
    pub count: RateCount,
}

impl TryFrom<RateSettings> for RateConfig {
    type Error = ConfigError;

    fn try_from(settings: RateSettings) -> Result<Self, ConfigError> {
        let RateSettings {
            per,
            client_requests,
            client_burst,
            tenant_requests,
            tenant_burst,
            tenant_header,
            max_keys,
            count,
        } = settings;
        if per.is_zero() {
            return Err(ConfigError::Zero { key: "rates.per" });
        }
        let rate = |key, requests, burst| {
            let Some(requests) = NonZeroU32::new(requests) else { return Ok(None) };
            let rate = Rate::new(requests, per).with_burst(NonZeroU32::new(burst).unwrap_or(requests));
            rate.check().map(|()| Some(rate)).map_err(|cause| ConfigError::Rate { key, cause })
        };
        let key = "rates.tenant-header";
        let header = HeaderName::from_bytes(tenant_header.as_bytes());
        Ok(Self {
            client: rate("rates.client-requests", client_requests, client_burst)?,
            tenant: rate("rates.tenant-requests", tenant_requests, tenant_burst)?,
            tenant_header: header.map_err(|_| ConfigError::Header { key, value: tenant_header })?,
            max_keys: NonZeroUsize::new(max_keys).ok_or(ConfigError::Zero { key: "rates.max-keys" })?,
            count,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{ConfigError, RateConfig, RateSettings};

    #[test]
    fn rates_that_cannot_be_are_named() {
        assert!(RateConfig::try_from(RateSettings::default()).unwrap().client.is_none());
        let wrong = |settings: RateSettings| RateConfig::try_from(settings).unwrap_err();
        let fast = RateSettings { client_requests: 1_000, per: Duration::from_nanos(1), ..RateSettings::default() };
        assert!(matches!(wrong(fast), ConfigError::Rate { key: "rates.client-requests", .. }));
        let header = RateSettings { tenant_header: "a b".to_owned(), ..RateSettings::default() };
        assert_eq!(wrong(header).to_string(), "`rates.tenant-header` is `a b`, which is no name of a header");
        let none = RateSettings { max_keys: 0, ..RateSettings::default() };
        assert_eq!(wrong(none), ConfigError::Zero { key: "rates.max-keys" });
    }
}
