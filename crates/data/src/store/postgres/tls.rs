//! Encrypted connections: who is trusted, and what is told where somebody is not.

use std::{
    fmt, io,
    path::Path,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use quorate_runtime::{BoxFuture, Env, disk::Disk, net::Io};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WantsClientCert,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::{self, CryptoProvider, WebPkiSupportedAlgorithms},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
    server::ParsedCertificate,
    time_provider::TimeProvider,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};
use tokio_rustls::TlsConnector;

use super::address::{Authorities, Encryption, Shown, Trust};

/// Encrypts one connection, with whoever is called so.
pub(super) struct Encrypting {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl Encrypting {
    /// Makes ready to speak with `host`. Files are read anew for each connection, so that what was renewed is used without a
    /// restart.
    ///
    /// # Errors
    /// In words, which of the files cannot be used, and why.
    pub(super) async fn with(env: &Env, encryption: &Encryption, host: &str, is_direct: bool) -> Result<Self, String> {
        let name = ServerName::try_from(host.to_owned()).map_err(|_| format!("`{host}` is no name for TLS"))?;
        let (clock, encryption) = (env.clone(), encryption.clone());
        let config = env.run_blocking(move || config(&clock, &encryption)).await;
        let mut config = config?;
        if is_direct {
            // The server tells by it that nothing was said before.
            config.alpn_protocols = vec![b"postgresql".to_vec()];
        }
        Ok(Self { config: Arc::new(config), name })
    }
}

impl TlsConnect<Wire> for Encrypting {
    type Stream = Wire;
    type Error = String;
    type Future = BoxFuture<'static, Result<Wire, String>>;

    fn connect(self, wire: Wire) -> Self::Future {
        Box::pin(async move {
            let host = self.name.to_str().into_owned();
            let encrypted = TlsConnector::from(self.config).connect(self.name, wire.io).await;
            let encrypted = encrypted.map_err(|failed| said(&failed, &host))?;
            let (_, session) = encrypted.get_ref();
            let shown = session.peer_certificates().and_then(|chain| chain.first());
            let end_point = shown.and_then(|shown| end_point(shown));
            Ok(Wire { io: Box::new(encrypted), end_point })
        })
    }
}

fn config(env: &Env, encryption: &Encryption) -> Result<ClientConfig, String> {
    let provider = Arc::new(crypto::ring::default_provider());
    let clock = Arc::new(WallClock(env.clone()));
    let versions = ClientConfig::builder_with_details(provider.clone(), clock).with_safe_default_protocol_versions();
    let Ok(versions) = versions else { unreachable!("ring knows the ciphers of both versions") };
    let disk = env.disk().as_ref();
    let trusting = match &encryption.trust {
        Trust::NamedBy(authorities) => versions.with_root_certificates(roots(disk, authorities)?),
        Trust::IssuedBy(authorities) => {
            let verifier = Unnamed::new(&provider, Some(roots(disk, authorities)?));
            versions.dangerous().with_custom_certificate_verifier(verifier)
        }
        Trust::Any => versions.dangerous().with_custom_certificate_verifier(Unnamed::new(&provider, None)),
    };
    show(disk, trusting, encryption.shown.as_ref())
}

/// Has `shown` shown to servers that ask.
fn show(
    disk: &dyn Disk,
    config: rustls::ConfigBuilder<ClientConfig, WantsClientCert>,
    shown: Option<&Shown>,
) -> Result<ClientConfig, String> {
    let Some(Shown { certificate, key }) = shown else { return Ok(config.with_no_client_auth()) };
    let chain = certificates(disk, "sslcert", certificate)?;
    let read = disk.read(key).map_err(|cause| unreadable("sslkey", key, &cause))?;
    let read = PrivateKeyDer::from_pem_slice(&read)
        .map_err(|_| format!("sslkey: there is no key in {} (PEM, without a passphrase)", key.display()))?;
    config.with_client_auth_cert(chain, read).map_err(|cause| {
        format!("sslcert and sslkey: {} and {} cannot be used together: {cause}", certificate.display(), key.display())
    })
}

fn roots(disk: &dyn Disk, authorities: &Authorities) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    match authorities {
        Authorities::InFile(file) => {
            for certificate in certificates(disk, "sslrootcert", file)? {
                let added = roots.add(certificate);
                added.map_err(|cause| {
                    format!("sslrootcert: a certificate in {} cannot be used: {cause}", file.display())
                })?;
            }
        }
        Authorities::OfThisMachine => {
            let found = rustls_native_certs::load_native_certs();
            for cause in &found.errors {
                tracing::warn!(%cause, "a certificate that this machine trusts could not be read");
            }
            roots.add_parsable_certificates(found.certs);
            if roots.is_empty() {
                return Err("this machine trusts nobody: name the authority's certificate with sslrootcert".to_owned());
            }
        }
    }
    Ok(roots)
}

fn certificates(disk: &dyn Disk, parameter: &str, file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = disk.read(file).map_err(|cause| unreadable(parameter, file, &cause))?;
    let found = CertificateDer::pem_slice_iter(&read).collect::<Result<Vec<_>, _>>();
    found
        .ok()
        .filter(|found| !found.is_empty())
        .ok_or_else(|| format!("{parameter}: {} holds no certificates that can be read (PEM)", file.display()))
}

fn unreadable(parameter: &str, file: &Path, cause: &io::Error) -> String {
    format!("{parameter}: {} cannot be read: {cause}", file.display())
}

/// Why there is no encrypted connection with `host`.
fn said(failed: &io::Error, host: &str) -> String {
    let fault = failed.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match fault {
        Some(rustls::Error::InvalidCertificate(why)) => of_certificate(why, host),
        Some(rustls::Error::AlertReceived(alert)) => format!("the server broke off ({alert:?})"),
        Some(other) => other.to_string(),
        None => failed.to_string(),
    }
}

fn of_certificate(why: &CertificateError, host: &str) -> String {
    match why {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "the server's certificate has expired, by this machine's clock".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the server's certificate is not valid yet, by this machine's clock".to_owned()
        }
        CertificateError::NotValidForNameContext { presented, .. } if !presented.is_empty() => {
            format!("the server's certificate is not for `{host}` but for {}", presented.join(", "))
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!("the server's certificate is not for `{host}`: names count where they are its subjectAltName")
        }
        CertificateError::UnknownIssuer => {
            "the server's certificate was issued by nobody who is trusted: sslrootcert names the file of its authority"
                .to_owned()
        }
        // What PostgreSQL's manual has one make, at first.
        other if format!("{other:?}").contains("CaUsedAsEndEntity") => {
            "the server's certificate is that of an authority: have the authority issue one for the server".to_owned()
        }
        other => format!("the server's certificate cannot be used: {other}"),
    }
}

/// Trusts certificates for whomever they are: those that one of `roots` issued, or, without roots, each. Whoever shows one has its key
/// in any case.
#[derive(Debug)]
struct Unnamed {
    roots: Option<RootCertStore>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Unnamed {
    fn new(provider: &CryptoProvider, roots: Option<RootCertStore>) -> Arc<Self> {
        Arc::new(Self { roots, algorithms: provider.signature_verification_algorithms })
    }
}

impl ServerCertVerifier for Unnamed {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if let Some(roots) = &self.roots {
            let shown = ParsedCertificate::try_from(shown)?;
            verify_server_cert_signed_by_trust_anchor(&shown, roots, between, now, self.algorithms.all)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        crypto::verify_tls12_signature(message, shown, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        shown: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        crypto::verify_tls13_signature(message, shown, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Certificates are held against the wall clock of the environment.
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

/// A connection, encrypted or not.
pub(super) struct Wire {
    io: Box<dyn Io>,
    /// The hash of the certificate that the server showed.
    end_point: Option<Vec<u8>>,
}

impl From<Box<dyn Io>> for Wire {
    fn from(io: Box<dyn Io>) -> Self {
        Self { io, end_point: None }
    }
}

impl TlsStream for Wire {
    /// What a password is proved beside, so that nobody between the two can pass the proof on (SCRAM-SHA-256-PLUS).
    fn channel_binding(&self) -> ChannelBinding {
        self.end_point.clone().map_or_else(ChannelBinding::none, ChannelBinding::tls_server_end_point)
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

const SEQUENCE: u8 = 0x30;
const OBJECT_IDENTIFIER: u8 = 0x06;

/// The hash of a certificate by the hash that it was signed with, SHA-256 for those that are weaker (RFC 5929, section 4.1); none where
/// that is not one hash.
fn end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    use ring::digest::{SHA256, SHA384, SHA512, digest};
    const RSA: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x01";
    const ECDSA: &[u8] = b"\x2a\x86\x48\xce\x3d\x04\x03";
    let (parts, _) = element(certificate, SEQUENCE)?;
    let (_, behind) = element(parts, SEQUENCE)?;
    let (algorithm, _) = element(behind, SEQUENCE)?;
    let (algorithm, _) = element(algorithm, OBJECT_IDENTIFIER)?;
    let hash = match (algorithm.strip_prefix(RSA), algorithm.strip_prefix(ECDSA)) {
        (Some([4 | 5 | 11]), _) | (_, Some([2])) => &SHA256,
        (Some([12]), _) | (_, Some([3])) => &SHA384,
        (Some([13]), _) | (_, Some([4])) => &SHA512,
        _ => return None,
    };
    Some(digest(hash, certificate).as_ref().to_vec())
}

/// What is in the first element of some DER if it has this tag, and what is behind it.
fn element(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&[found, length], behind) = bytes.split_first_chunk::<2>()?;
    if found != tag {
        return None;
    }
    let (length, behind) = match length {
        0..=0x7f => (usize::from(length), behind),
        0x81..=0x84 => {
            let (digits, behind) = behind.split_at_checked(usize::from(length & 0x7f))?;
            (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), behind)
        }
        _ => return None,
    };
    behind.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_that_is_cut_short_or_is_none_binds_nothing() {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(vec!["db.test".to_owned()]).unwrap().self_signed(&key).unwrap();
        let der = certificate.der().as_ref();
        assert_eq!(end_point(der).unwrap(), ring::digest::digest(&ring::digest::SHA256, der).as_ref());
        for length in 0..der.len() {
            assert_eq!(end_point(&der[..length]), None);
        }
        for strange in [&b"\x30\x80"[..], b"\x30\x84\xff\xff\xff\xff", b"\x30\x85\x01\x01\x01\x01\x01", b"\x06\x00"] {
            assert_eq!(end_point(strange), None);
        }
    }
}
