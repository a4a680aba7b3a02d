//! Certificates made for one test, and the files they are in.
#![allow(clippy::disallowed_methods, reason = "this is the world outside of the store")]

use std::path::{Path, PathBuf};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};

/// Somebody who vouches for others.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its own certificate, as PEM.
    pub(crate) certificate: String,
    key: String,
}

/// A certificate and its key, as PEM.
pub(crate) struct Shown {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut asked = CertificateParams::default();
        asked.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        asked.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = pem("CERTIFICATE", asked.self_signed(&key).unwrap().der());
        let written = pem("PRIVATE KEY", &key.serialize_der());
        Self { issuer: Issuer::new(asked, key), certificate, key: written }
    }

    /// Its own certificate, as a server might show it.
    pub(crate) fn itself(&self) -> Shown {
        Shown { certificate: self.certificate.clone(), key: self.key.clone() }
    }

    /// A certificate for `name` that is good in the years from `years.0` to `years.1`.
    pub(crate) fn issue(&self, name: &str, years: (i32, i32)) -> Shown {
        let mut asked = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (asked.not_before, asked.not_after) = (date_time_ymd(years.0, 1, 1), date_time_ymd(years.1, 1, 1));
        let key = KeyPair::generate().unwrap();
        let certificate = pem("CERTIFICATE", asked.signed_by(&key, &self.issuer).unwrap().der());
        Shown { certificate, key: pem("PRIVATE KEY", &key.serialize_der()) }
    }
}

/// A file in `folder`.
pub(crate) fn file(folder: &Path, name: &str, text: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(der);
    let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}
