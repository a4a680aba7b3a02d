//! Certificates made for one test, good ones and bad ones.

use std::sync::Arc;

use quorate_resilience::client::rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer},
};
use quorate_resilience::http::TlsFault;
use rcgen::{CertificateParams, KeyPair, date_time_ymd};

/// What a server shows.
pub(crate) struct Shown {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

impl Shown {
    /// A certificate for `name` that is good in the years from `years.0` to `years.1`.
    pub(crate) fn of(name: &str, years: (i32, i32)) -> Self {
        let mut asked = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (asked.not_before, asked.not_after) = (date_time_ymd(years.0, 1, 1), date_time_ymd(years.1, 1, 1));
        let key = KeyPair::generate().unwrap();
        let certificate = asked.self_signed(&key).unwrap();
        Self { certificate: certificate.der().clone(), key: PrivateKeyDer::try_from(key.serialize_der()).unwrap() }
    }

    /// A good one.
    pub(crate) fn good() -> Self {
        Self::of("localhost", (2000, 4000))
    }

    /// Whoever trusts this certificate.
    pub(crate) fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        roots
    }

    pub(crate) fn server(&self, protocols: &[&[u8]]) -> Arc<ServerConfig> {
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        let mut config = builder.with_single_cert(vec![self.certificate.clone()], self.key.clone_key()).unwrap();
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        Arc::new(config)
    }
}

pub(crate) fn trusting(roots: RootCertStore) -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    builder.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots).with_no_client_auth()
}

/// Bad ones, with what is bad, and whom the client trusts.
pub(crate) fn bad() -> Vec<(Shown, RootCertStore, TlsFault)> {
    let trusted = |shown: Shown, fault| {
        let roots = shown.roots();
        (shown, roots, fault)
    };
    vec![
        trusted(Shown::of("localhost", (2000, 2001)), TlsFault::Expired),
        trusted(Shown::of("localhost", (3000, 3001)), TlsFault::NotYetValid),
        trusted(Shown::of("elsewhere.test", (2000, 4000)), TlsFault::WrongName),
        (Shown::good(), Shown::good().roots(), TlsFault::Untrusted),
    ]
}
