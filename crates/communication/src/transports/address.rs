//! Addresses of brokers, and connecting to what they name.

use std::{fmt, str::FromStr, sync::Arc};

use quorate_runtime::Env;

use super::{Embedded, Transport, TransportError};

/// Where messages travel: `embedded`, `http://host:7400` (a node of quorate), `nats://host:4222`, or `amqp://user:password@host:5672/vhost`;
/// `https://`, `tls://` and `amqps://` with TLS.
///
/// Shown without a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    kind: Kind,
    text: Arc<str>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Embedded,
    Served,
    Nats,
    RabbitMq,
}

/// A text that is no address of a transport.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{shown}` is no address of a transport: write `embedded`, `http://host:7400`, `nats://host:4222` or `amqp://user:password@host:5672/%2f`"
)]
pub struct AddressError {
    shown: String,
}

impl Address {
    /// The longest one, in bytes.
    pub const MAX_BYTES: usize = 1_024;

    /// Whether it names a user, and no password.
    pub fn lacks_password(&self) -> bool {
        self.user().is_some_and(|user| !user.is_empty() && !user.contains(':'))
    }

    /// The same with the password of the user that it names.
    ///
    /// # Errors
    /// [`AddressError`] where it names no user, or has a password.
    pub fn with_password(&self, password: &str) -> Result<Self, AddressError> {
        let with = |user: &str| {
            let (scheme, rest) = self.text.split_once("://")?;
            Some(format!("{scheme}://{user}:{}{}", in_address(password), rest.strip_prefix(user)?))
        };
        let user = self.user().filter(|_| self.lacks_password());
        let text = user.and_then(with).ok_or_else(|| AddressError { shown: self.to_string() })?;
        text.parse()
    }

    /// What stands before the host.
    fn user(&self) -> Option<&str> {
        let (_, rest) = self.text.split_once("://")?;
        let authority = rest.split(['/', '?']).next().unwrap_or(rest);
        authority.rsplit_once('@').map(|(user, _)| user)
    }

    /// Whether it names the embedded transport.
    pub fn is_embedded(&self) -> bool {
        self.kind == Kind::Embedded
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let kind = match text.split_once("://") {
            None if text == "embedded" => Some(Kind::Embedded),
            Some(("http" | "https", rest)) if names_a_host_alone(rest) => Some(Kind::Served),
            Some(("nats" | "tls", rest)) if !rest.is_empty() => Some(Kind::Nats),
            Some(("amqp" | "amqps", rest)) if !rest.is_empty() => Some(Kind::RabbitMq),
            _ => None,
        };
        let fits = text.len() <= Self::MAX_BYTES && !text.chars().any(|c| c.is_control() || c.is_whitespace());
        let kind =
            kind.filter(|_| fits).ok_or_else(|| AddressError { shown: shown(text).chars().take(128).collect() })?;
        Ok(Self { kind, text: text.into() })
    }
}

/// Whether `rest` is a host and its port: a node has its routes at its root, and knows no users.
fn names_a_host_alone(rest: &str) -> bool {
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let names_a_port = |at: &http::uri::Authority| match at.port_u16() {
        Some(port) => port > 0 && !at.host().is_empty(),
        None => at.host().len() == rest.len(),
    };
    !rest.contains(['/', '?', '#', '@']) && rest.parse::<http::uri::Authority>().is_ok_and(|at| names_a_port(&at))
}

/// `text` as it may stand in a part of an address (RFC 3986, 2.3).
pub(super) fn in_address(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// `text` without what stands between a user's name and the host; without anything before the host where it names no scheme.
fn shown(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else {
        return text.rsplit_once('@').map_or_else(|| text.to_owned(), |(_, host)| format!("…@{host}"));
    };
    let Some((user, host)) = rest.rsplit_once('@') else { return text.to_owned() };
    let user = user.split_once(':').map_or("", |(user, _)| user);
    format!("{scheme}://{user}:…@{host}")
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(&self.text))
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&shown(&self.text), f)
    }
}

/// The transport at `address`. The embedded one is `embedded`, where there is one.
///
/// Nothing is sent yet: a broker that is away is found by whoever publishes or receives, and waited for.
///
/// # Errors
/// [`TransportError::Invalid`] for an address that cannot be used here: this quorate was built without that broker, say.
pub fn connect(
    env: &Env,
    address: &Address,
    embedded: Option<&Embedded>,
) -> Result<Arc<dyn Transport>, TransportError> {
    let _ = env;
    match address.kind {
        Kind::Embedded => match embedded {
            Some(embedded) => Ok(Arc::new(embedded.clone())),
            None => Err(TransportError::Invalid { what: "there is no embedded transport here".to_owned() }),
        },
        #[cfg(feature = "served")]
        Kind::Served => Ok(Arc::new(super::served::Served::new(env, &address.text))),
        #[cfg(feature = "nats")]
        Kind::Nats => Ok(Arc::new(super::nats::Nats::new(env, &address.text))),
        #[cfg(feature = "rabbitmq")]
        Kind::RabbitMq => Ok(Arc::new(super::rabbitmq::RabbitMq::new(env, &address.text))),
        #[cfg(not(feature = "served"))]
        Kind::Served => Err(TransportError::Invalid { what: "this quorate was built without `served`".to_owned() }),
        #[cfg(not(feature = "nats"))]
        Kind::Nats => Err(TransportError::Invalid { what: "this quorate was built without NATS".to_owned() }),
        #[cfg(not(feature = "rabbitmq"))]
        Kind::RabbitMq => Err(TransportError::Invalid { what: "this quorate was built without RabbitMQ".to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::Address;

    #[test]
    fn a_password_is_put_into_an_address_that_names_a_user_alone() {
        let with = |address: &str| address.parse::<Address>().unwrap().with_password("s@c:r/t %☂");
        let address = with("amqp://shop@localhost:5672/%2f?x=a@b").unwrap();
        assert_eq!(&*address.text, "amqp://shop:s%40c%3Ar%2Ft%20%25%E2%98%82@localhost:5672/%2f?x=a@b");
        assert!(!address.lacks_password() && !address.to_string().contains("s%40c"));
        for wrong in
            ["embedded", "nats://localhost", "nats://@localhost", "nats://a:b@localhost", "nats://localhost/x@y"]
        {
            assert!(with(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_address_is_checked_and_its_password_is_not_shown() {
        let address: Address = "amqp://shop:secret@localhost:5672/%2f".parse().unwrap();
        assert_eq!(address.to_string(), "amqp://shop:…@localhost:5672/%2f");
        assert!(!format!("{address:?}").contains("secret"));
        assert!("embedded".parse::<Address>().unwrap().is_embedded());
        for node in ["http://127.0.0.1:7400", "https://bus.example/", "http://[::1]:7400"] {
            assert_eq!(node.parse::<Address>().unwrap().to_string(), node);
        }
        for wrong in [
            "",
            "nats://",
            "http://",
            "http://a/b",
            "https://a?b",
            "http://a:x",
            "http://:7400",
            "http://a:0",
            "kafka://a",
            "nats",
            "amqp://a b",
            "http://a:secret@b",
            "shop:secret@mq",
            "secret@mq",
        ] {
            let said = wrong.parse::<Address>().unwrap_err().to_string();
            assert!(said.contains("nats://host:4222") && !said.contains("secret"), "{said}");
        }
    }
}
