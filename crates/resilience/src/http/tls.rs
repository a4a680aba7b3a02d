//! Faults of TLS, told apart: each is somebody's to repair, and none passes by trying again.

use std::error::Error;

use rustls::{AlertDescription, CertificateError};

use super::transport::find;

/// Why there is no trusted connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum TlsFault {
    /// The certificate was good until some time ago: it has to be renewed, or one of the two clocks is wrong.
    #[error("its certificate has expired")]
    Expired,
    /// The certificate is not good yet: most likely one of the two clocks is wrong.
    #[error("its certificate is not valid yet")]
    NotYetValid,
    /// The certificate is for others: the address leads to somebody else, or is called by another name than it has.
    #[error("its certificate is for another name")]
    WrongName,
    /// Nobody who is trusted vouches for the certificate, or it was revoked.
    #[error("nobody who is trusted vouches for its certificate")]
    Untrusted,
    /// There was no agreement on how to encrypt, or the other one refuses us: versions, ciphers, protocols, our own certificate;
    /// or it doesn't speak TLS at all.
    #[error("it and we could not agree on an encrypted connection")]
    Handshake,
}

/// The fault of TLS that `error` is, or is caused by; `None` for all others, a connection that was cut among them.
pub fn tls_fault(error: &(dyn Error + 'static)) -> Option<TlsFault> {
    use rustls::Error as Tls;
    match find::<Tls>(error)? {
        Tls::InvalidCertificate(why) => Some(of_certificate(why)),
        Tls::AlertReceived(alert) => refuses_us(*alert).then_some(TlsFault::Handshake),
        Tls::NoCertificatesPresented | Tls::UnsupportedNameType | Tls::InvalidCertRevocationList(_) => {
            Some(TlsFault::Untrusted)
        }
        Tls::PeerIncompatible(_)
        | Tls::PeerMisbehaved(_)
        | Tls::InvalidMessage(_)
        | Tls::InappropriateMessage { .. }
        | Tls::InappropriateHandshakeMessage { .. }
        | Tls::NoApplicationProtocol => Some(TlsFault::Handshake),
        _ => None,
    }
}

fn of_certificate(why: &CertificateError) -> TlsFault {
    match why {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => TlsFault::Expired,
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => TlsFault::NotYetValid,
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => TlsFault::WrongName,
        _ => TlsFault::Untrusted,
    }
}

/// Whether an alert says that the other one doesn't want to speak with us, rather than that something broke.
fn refuses_us(alert: AlertDescription) -> bool {
    use AlertDescription as A;
    matches!(
        alert,
        A::HandshakeFailure
            | A::NoCertificate
            | A::BadCertificate
            | A::UnsupportedCertificate
            | A::CertificateRevoked
            | A::CertificateExpired
            | A::CertificateUnknown
            | A::CertificateRequired
            | A::UnknownCA
            | A::AccessDenied
            | A::IllegalParameter
            | A::DecodeError
            | A::DecryptError
            | A::ProtocolVersion
            | A::InsufficientSecurity
            | A::InappropriateFallback
            | A::MissingExtension
            | A::UnsupportedExtension
            | A::UnrecognisedName
            | A::NoApplicationProtocol
    )
}
