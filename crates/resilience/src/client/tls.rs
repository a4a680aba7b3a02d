//! How the client encrypts, and whom it trusts.

use std::{fmt, io, sync::Arc, time::Duration};

use quorate_runtime::{Env, net::Io};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{ServerName, UnixTime},
    time_provider::TimeProvider,
};
use tokio_rustls::TlsConnector;

use super::Versions;

/// How a client encrypts, and whom it trusts. Cheap to clone.
///
/// Certificates are held against the wall clock of the environment.
#[derive(Clone)]
pub struct Tls {
    config: Arc<ClientConfig>,
}

impl Tls {
    /// TLS 1.2 and 1.3 on `ring`, trusting who one of `roots` vouches for, and showing no certificate itself.
    pub fn trusting(env: &Env, roots: RootCertStore) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let clock = Arc::new(WallClock(env.clone()));
        let versions = ClientConfig::builder_with_details(provider, clock).with_safe_default_protocol_versions();
        let Ok(versions) = versions else { unreachable!("ring knows the ciphers of both versions") };
        Self { config: Arc::new(versions.with_root_certificates(roots).with_no_client_auth()) }
    }

    /// As `config` says, but for the protocols it offers: those are the client's.
    pub fn of(config: Arc<ClientConfig>) -> Self {
        Self { config }
    }

    /// The same, offering what a client speaks.
    pub(super) fn offering(mut self, versions: Versions) -> Self {
        let offered: &[&[u8]] = match versions {
            Versions::One => &[b"http/1.1"],
            Versions::Either => &[b"h2", b"http/1.1"],
            Versions::Two => &[b"h2"],
        };
        Arc::make_mut(&mut self.config).alpn_protocols = offered.iter().map(|name| name.to_vec()).collect();
        self
    }

    /// Encrypts `io`, with whoever is called `host`. Returns whether both chose HTTP/2.
    pub(super) async fn encrypt(&self, host: &str, io: Box<dyn Io>) -> io::Result<(Box<dyn Io>, bool)> {
        let name = ServerName::try_from(host.to_owned());
        let name = name.map_err(|wrong| io::Error::new(io::ErrorKind::InvalidInput, wrong))?;
        let stream = TlsConnector::from(self.config.clone()).connect(name, io).await?;
        let two = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        Ok((Box::new(stream), two))
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

struct WallClock(Env);

impl TimeProvider for WallClock {
    fn current_time(&self) -> Option<UnixTime> {
        let nanos = u64::try_from(self.0.wall().unix_nanos()).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_nanos(nanos)))
    }
}

impl fmt::Debug for WallClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("WallClock").finish()
    }
}
