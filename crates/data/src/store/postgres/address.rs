//! Addresses: which servers, as whom, and how what is said to them is encrypted.

use std::{collections::BTreeMap, path::PathBuf};

use tokio_postgres::{
    Config,
    config::{Host, SslMode},
};

use crate::{schema::percent_decoded, store::OpenError};

/// Where a server listens whose address says nothing else.
const PORT: u16 = 5432;

/// The parameters that say how a connection is encrypted.
const OF_TLS: [&str; 4] = ["sslmode", "sslrootcert", "sslcert", "sslkey"];

/// Servers, and how they are spoken to. Its `Debug` form hides the password.
#[derive(Clone, Debug)]
pub(super) struct Server {
    pub(super) config: Config,
    pub(super) encryption: Encryption,
}

impl Server {
    /// The port of the `n`-th host, counted from 0.
    pub(super) fn port(&self, n: usize) -> u16 {
        let ports = self.config.get_ports();
        ports.get(n).or(ports.first()).copied().unwrap_or(PORT)
    }
}

/// How connections are encrypted, as libpq says it. Nothing of it holds for Unix sockets, as there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Encryption {
    /// Never; if the server does; or not without.
    pub(super) mode: SslMode,
    pub(super) trust: Trust,
    pub(super) shown: Option<Shown>,
}

/// Which certificates of servers are good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trust {
    /// Each: whoever can put himself between the two can read along.
    Any,
    /// Those that one of these issued, for whomever.
    IssuedBy(Authorities),
    /// Those that one of these issued for the host of the address.
    NamedBy(Authorities),
}

/// Who vouches for servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Authorities {
    /// Whose certificates are in this file, as PEM.
    InFile(PathBuf),
    /// Whom this machine trusts.
    OfThisMachine,
}

/// What is shown to servers that ask who this is: files of PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shown {
    /// The certificate, and behind it those that lead to its authority.
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
}

/// Reads an address.
pub(super) fn server(address: &str) -> Result<Server, OpenError> {
    read(address).map_err(|what| OpenError::Address { what })
}

fn read(address: &str) -> Result<Server, String> {
    if !["postgres://", "postgresql://"].iter().any(|scheme| address.starts_with(scheme)) {
        return Err("it begins with postgres://".to_owned());
    }
    // Where an address is parted is not said twice: what one reader takes for a password another shows as a host.
    if address.matches('@').count() > 1 {
        return Err("an @ in a user's name, a password or a parameter is written %40".to_owned());
    }
    let (address, of_tls) = part(address)?;
    let encryption = encryption(&of_tls)?;
    let parsed = address.parse::<Config>();
    let mut config = parsed.map_err(|_| "it is postgres://user:password@host:port/database".to_owned())?;
    if config.get_hosts().iter().all(|host| matches!(host, Host::Tcp(name) if name.is_empty())) {
        return Err("it names a host, or the folder of a Unix socket (?host=/var/run/postgresql)".to_owned());
    }
    if config.get_user().is_none() {
        return Err("it names a user".to_owned());
    }
    if config.get_application_name().is_none() {
        config.application_name("quorate");
    }
    Ok(Server { config, encryption })
}

/// Parts an address from what it says of encryption, which the client library knows half of.
fn part(address: &str) -> Result<(String, BTreeMap<&'static str, String>), String> {
    // A password may hold what begins the parameters.
    let host = address.find('@').unwrap_or(0);
    let Some(at) = address[host..].find('?') else { return Ok((address.to_owned(), BTreeMap::new())) };
    let (before, parameters) = address.split_at(host + at);
    let (mut others, mut of_tls) = (Vec::new(), BTreeMap::new());
    for parameter in parameters[1..].split('&') {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let name = percent_decoded(name);
        let Some(known) = OF_TLS.into_iter().find(|known| name.as_deref() == Some(known)) else {
            others.push(parameter);
            continue;
        };
        let value = percent_decoded(value).filter(|value| !value.is_empty());
        let value = value.ok_or_else(|| format!("{known} says nothing that can be read"))?;
        if of_tls.insert(known, value).is_some() {
            return Err(format!("{known} stands there twice"));
        }
    }
    Ok((format!("{before}?{}", others.join("&")), of_tls))
}

fn encryption(said: &BTreeMap<&'static str, String>) -> Result<Encryption, String> {
    let file = |name: &str| said.get(name).map(PathBuf::from);
    let authorities = said.get("sslrootcert").map(|file| match file.as_str() {
        "system" => Authorities::OfThisMachine,
        file => Authorities::InFile(file.into()),
    });
    let shown = match (file("sslcert"), file("sslkey")) {
        (Some(certificate), Some(key)) => Some(Shown { certificate, key }),
        (None, None) => None,
        _ => return Err("sslcert and sslkey belong together: the certificate's file, and its key's".to_owned()),
    };
    // As libpq: whoever names the machine's authorities and no mode means the one mode that they are good for.
    let usual = if authorities == Some(Authorities::OfThisMachine) { "verify-full" } else { "prefer" };
    let (mode, trust) = match (said.get("sslmode").map_or(usual, String::as_str), authorities) {
        ("disable", _) => (SslMode::Disable, Trust::Any),
        ("prefer", None) => (SslMode::Prefer, Trust::Any),
        ("prefer", Some(_)) => {
            let what = "sslmode=prefer holds no certificate against sslrootcert: say sslmode=verify-full";
            return Err(what.to_owned());
        }
        ("require", None) => (SslMode::Require, Trust::Any),
        ("require" | "verify-ca", Some(Authorities::OfThisMachine)) => {
            let what = "anybody can have a certificate of those whom this machine trusts: with sslrootcert=system say \
                        sslmode=verify-full";
            return Err(what.to_owned());
        }
        // As libpq: who names an authority wants it to be asked.
        ("require" | "verify-ca", Some(authorities)) => (SslMode::Require, Trust::IssuedBy(authorities)),
        ("verify-ca", None) => {
            let what =
                "sslmode=verify-ca needs the file of the authority's certificate (sslrootcert=/etc/ssl/db-ca.pem)";
            return Err(what.to_owned());
        }
        ("verify-full", authorities) => {
            (SslMode::Require, Trust::NamedBy(authorities.unwrap_or(Authorities::OfThisMachine)))
        }
        _ => return Err("sslmode is disable, prefer, require, verify-ca or verify-full".to_owned()),
    };
    Ok(Encryption { mode, trust, shown })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encryption_of(parameters: &str) -> Encryption {
        server(&format!("postgres://u@h/db?{parameters}")).unwrap().encryption
    }

    #[test]
    fn an_address_that_asks_for_more_than_there_is_is_refused() {
        assert!(server("postgres://u:p@localhost:5432/db").is_ok());
        assert!(server("postgresql://u@[::1]/db?application_name=mine").is_ok());
        for (wrong, why) in [
            ("", "begins with"),
            ("mysql://u@h/db", "begins with"),
            ("host=localhost user=u", "begins with"),
            ("postgres://u:se@cret@h/db", "%40"),
            ("postgres://u@h/db?password=se@cret", "%40"),
            ("postgres:///db", "a host"),
            ("postgres://u@/db", "a host"),
            ("postgres://localhost/db", "a user"),
            ("postgres://u@h:port/db", "postgres://user"),
            ("postgres://u@h/db?sslmode=allow", "sslmode is"),
            ("postgres://u@h/db?sslmode", "sslmode says nothing"),
            ("postgres://u@h/db?sslmode=disable&sslmode=require", "twice"),
            ("postgres://u@h/db?sslmode=verify-ca", "sslrootcert="),
            ("postgres://u@h/db?sslmode=verify-ca&sslrootcert=system", "verify-full"),
            ("postgres://u@h/db?sslrootcert=/ca.pem", "verify-full"),
            ("postgres://u@h/db?sslmode=require&sslcert=/me.pem", "belong together"),
            ("postgres://u@h/db?sslpassword=x", "postgres://user"),
        ] {
            let Err(OpenError::Address { what }) = server(wrong) else { panic!("{wrong} is none") };
            assert!(what.contains(why), "{wrong}: {what}");
        }
    }

    #[test]
    fn modes_of_tls_are_those_of_libpq() {
        let file = || Authorities::InFile("/a b/ca.pem".into());
        for (said, mode, trust) in [
            ("", SslMode::Prefer, Trust::Any),
            ("sslmode=prefer", SslMode::Prefer, Trust::Any),
            ("sslmode=disable", SslMode::Disable, Trust::Any),
            ("sslmode=require", SslMode::Require, Trust::Any),
            ("%73slmode=require", SslMode::Require, Trust::Any),
            ("sslmode=require&sslrootcert=/a%20b/ca.pem", SslMode::Require, Trust::IssuedBy(file())),
            ("sslmode=verify-ca&sslrootcert=/a%20b/ca.pem", SslMode::Require, Trust::IssuedBy(file())),
            ("sslrootcert=%2Fa%20b/ca.pem&sslmode=verify-full", SslMode::Require, Trust::NamedBy(file())),
            ("sslmode=verify-full", SslMode::Require, Trust::NamedBy(Authorities::OfThisMachine)),
            ("sslrootcert=system", SslMode::Require, Trust::NamedBy(Authorities::OfThisMachine)),
        ] {
            assert_eq!(encryption_of(said), Encryption { mode, trust, shown: None }, "{said}");
        }
        let shown = encryption_of("sslcert=/me.pem&application_name=mine&sslkey=/me.key").shown;
        assert_eq!(shown, Some(Shown { certificate: "/me.pem".into(), key: "/me.key".into() }));
    }

    #[test]
    fn the_folder_of_a_unix_socket_is_a_host() {
        for (address, port) in [
            ("postgres://u@%2Fvar%2Frun%2Fpostgresql/db", 5432),
            ("postgres://u@%2Fvar%2Frun%2Fpostgresql:5433/db", 5433),
            ("postgres://u@/db?host=/var/run/postgresql", 5432),
            ("postgres://u:p%3F@/db?host=/var/run/postgresql&port=5433&sslmode=require", 5433),
        ] {
            let server = server(address).unwrap();
            assert_eq!(server.config.get_hosts(), [Host::Unix("/var/run/postgresql".into())], "{address}");
            assert_eq!(server.port(0), port, "{address}");
            let shown = super::super::Address(server).to_string();
            assert_eq!(shown, format!("/var/run/postgresql:{port}/db"));
        }
    }

    #[test]
    fn what_is_shown_of_an_address_is_without_its_password() {
        let config = super::super::Config::at("postgres://u:secret@h/db").unwrap();
        assert!(!format!("{config:?}").contains("secret"));
        assert_eq!(config.address.to_string(), "h:5432/db");
        let address = "postgres://u:secret@one:1,two:2".parse::<super::super::Address>().unwrap();
        assert_eq!(address.to_string(), "one:1,two:2/u");
    }
}
