//! Who vouches for those that are called over TLS.

use quorate_resilience::client::rustls::RootCertStore;

/// Whom this machine trusts.
pub(crate) fn roots_of_this_machine() -> RootCertStore {
    let found = rustls_native_certs::load_native_certs();
    for cause in &found.errors {
        tracing::warn!(%cause, "a certificate that this machine trusts could not be read");
    }
    let mut roots = RootCertStore::empty();
    let (taken, passed_over) = roots.add_parsable_certificates(found.certs);
    tracing::debug!(taken, passed_over, "read whom this machine trusts");
    roots
}
