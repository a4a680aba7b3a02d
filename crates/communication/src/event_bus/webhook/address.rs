//! Which addresses endpoints may have: a caller that others tell whom to call must not be talked into calling its own neighbours.
//!
//! The rule stands in the network that the client dials through. What is judged is the address of the socket, at the moment
//! when it is dialled: a name that leads to another address every time it is asked leads nowhere either.
//!
//! Source: OWASP, "Server Side Request Forgery Prevention Cheat Sheet"; the IANA registries of special-purpose addresses.

use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use quorate_runtime::{
    BoxFuture, Env,
    net::{Io, Listener, Net},
};

/// Which addresses may be called although they are not public. Cheap to clone.
///
/// # Example
/// ```
/// use quorate_communication::event_bus::webhook::Allowed;
/// let mut neighbours = Allowed::public();
/// assert!(neighbours.check("203.0.113.9".parse()?).is_err(), "an address for examples");
/// neighbours = Allowed::also(|address| address.is_loopback());
/// assert!(neighbours.check("127.0.0.1".parse()?).is_ok());
/// assert!(neighbours.check("169.254.169.254".parse()?).is_err());
/// # Ok::<_, std::net::AddrParseError>(())
/// ```
#[derive(Clone)]
pub struct Allowed(Arc<dyn Fn(IpAddr) -> bool + Send + Sync>);

/// An address that may not be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{address} is {kind}, which is called only where the configuration names it")]
pub struct Forbidden {
    /// The address.
    pub address: IpAddr,
    /// What is special about it.
    pub kind: &'static str,
}

impl Allowed {
    /// Public addresses alone.
    pub fn public() -> Self {
        Self::also(|_| false)
    }

    /// Public addresses, and those of which `exempt` says so.
    pub fn also(exempt: impl Fn(IpAddr) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(exempt))
    }

    /// Whether `address` may be called.
    ///
    /// # Errors
    /// [`Forbidden`] says what is special about it.
    pub fn check(&self, address: IpAddr) -> Result<(), Forbidden> {
        let address = address.to_canonical();
        match special(address) {
            Some(kind) if !self.0(address) => Err(Forbidden { address, kind }),
            _ => Ok(()),
        }
    }

    /// `env` with a network that dials no forbidden address, and does not listen.
    pub(super) fn guard(&self, env: &Env) -> Env {
        let mut parts = env.clone().into_parts();
        parts.net = Arc::new(Guarded { net: parts.net, allowed: self.clone() });
        Env::from_parts(parts)
    }
}

impl fmt::Debug for Allowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Allowed").finish_non_exhaustive()
    }
}

struct Guarded {
    net: Arc<dyn Net>,
    allowed: Allowed,
}

impl Net for Guarded {
    fn listen(&self, _: SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn Listener>>> {
        Box::pin(async { Err(io::Error::new(io::ErrorKind::Unsupported, "who only calls listens nowhere")) })
    }

    fn connect(&self, to: SocketAddr) -> BoxFuture<'static, io::Result<Box<dyn Io>>> {
        match self.allowed.check(to.ip()) {
            Ok(()) => self.net.connect(to),
            Err(forbidden) => Box::pin(async move { Err(io::Error::new(io::ErrorKind::PermissionDenied, forbidden)) }),
        }
    }

    fn resolve(&self, host: &str, port: u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        self.net.resolve(host, port)
    }
}

/// What is special about an address; `None` for one that anybody may be at.
fn special(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => special_v4(address),
        IpAddr::V6(address) => special_v6(address),
    }
}

fn special_v4(address: Ipv4Addr) -> Option<&'static str> {
    const TABLE: [(Ipv4Addr, u32, &str); 15] = [
        (Ipv4Addr::new(0, 0, 0, 0), 8, "an address of this host"),
        (Ipv4Addr::new(10, 0, 0, 0), 8, "a private address"),
        (Ipv4Addr::new(100, 64, 0, 0), 10, "an address of a provider's network"),
        (Ipv4Addr::new(127, 0, 0, 0), 8, "a loopback address"),
        (Ipv4Addr::new(169, 254, 0, 0), 16, "a link-local address"),
        (Ipv4Addr::new(168, 63, 129, 16), 32, "the address of a cloud's own agent"),
        (Ipv4Addr::new(172, 16, 0, 0), 12, "a private address"),
        (Ipv4Addr::new(192, 0, 0, 0), 24, "an address of a protocol"),
        (Ipv4Addr::new(192, 0, 2, 0), 24, "an address for examples"),
        (Ipv4Addr::new(192, 168, 0, 0), 16, "a private address"),
        (Ipv4Addr::new(198, 18, 0, 0), 15, "an address for measurements"),
        (Ipv4Addr::new(198, 51, 100, 0), 24, "an address for examples"),
        (Ipv4Addr::new(203, 0, 113, 0), 24, "an address for examples"),
        (Ipv4Addr::new(224, 0, 0, 0), 4, "a multicast address"),
        (Ipv4Addr::new(240, 0, 0, 0), 4, "a reserved address"),
    ];
    let alike = |first: Ipv4Addr, bits| (first.to_bits() ^ address.to_bits()).leading_zeros() >= bits;
    TABLE.into_iter().find(|(first, bits, _)| alike(*first, *bits)).map(|(.., kind)| kind)
}

fn special_v6(address: Ipv6Addr) -> Option<&'static str> {
    let [a, b, c, d, e, f, g, h] = address.segments();
    let v4 = |high: u16, low: u16| Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low));
    match [a, b, c, d, e, f] {
        _ if address.is_unspecified() => Some("an address of this host"),
        _ if address.is_loopback() => Some("a loopback address"),
        // Ways to write, or to reach, an address of IPv4: what counts is that one.
        [0, 0, 0, 0, 0, 0 | 0xffff] | [0, 0, 0, 0, 0xffff, 0] | [0x64, 0xff9b, 0, 0, 0, 0] => special_v4(v4(g, h)),
        [0x2002, ..] => special_v4(v4(b, c)),
        [0x64, 0xff9b, 1, ..] => Some("a private address behind a translator"),
        [0x2001, 0, ..] => Some("an address inside a tunnel"),
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => Some("an address for examples"),
        [0x2001, 2, 0, ..] => Some("an address for measurements"),
        [0x100, 0, 0, 0, ..] => Some("an address that leads nowhere"),
        [0x5f00, ..] => Some("an address of a protocol"),
        [0xfc00..=0xfdff, ..] => Some("a private address"),
        [0xfe80..=0xfeff, ..] => Some("a link-local address"),
        [0xff00..=0xffff, ..] => Some("a multicast address"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{Allowed, special};

    #[test]
    fn addresses_that_are_not_public_are_refused_however_they_are_written() {
        let refused = [
            "0.0.0.0",
            "10.0.0.1",
            "100.64.0.1",
            "127.0.0.1",
            "127.8.8.8",
            "168.63.129.16",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.168.1.1",
            "198.19.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::127.0.0.1",
            "::ffff:0:10.0.0.1",
            "64:ff9b::169.254.169.254",
            "64:ff9b:1::1",
            "2002:7f00:1::",
            "2001:0:1::1",
            "fc00::1",
            "fdff::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "2001:db8::1",
        ];
        for text in refused {
            assert!(Allowed::public().check(text.parse().unwrap()).is_err(), "{text}");
        }
        let public = [
            "1.1.1.1",
            "172.32.0.1",
            "172.15.0.1",
            "100.128.0.1",
            "9.9.9.9",
            "2606:4700::1",
            "2002:101:101::",
            "::ffff:1.1.1.1",
        ];
        for text in public {
            assert_eq!(special(text.parse().unwrap()), None, "{text}");
            assert!(Allowed::public().check(text.parse().unwrap()).is_ok(), "{text}");
        }
    }

    #[test]
    fn an_address_that_is_allowed_is_allowed_in_every_form() {
        let allowed = Allowed::also(|address| address == std::net::IpAddr::from([10, 0, 0, 7]));
        assert!(allowed.check("10.0.0.7".parse().unwrap()).is_ok());
        assert!(allowed.check("::ffff:10.0.0.7".parse().unwrap()).is_ok());
        assert!(allowed.check("10.0.0.8".parse().unwrap()).is_err());
    }
}
