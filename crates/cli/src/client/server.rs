//! Where the node is.

use std::{fmt, str::FromStr};

use http::Uri;

/// The address of a node: `http://host:port`, optionally with a path in front of its routes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Server {
    host: String,
    port: u16,
    prefix: String,
}

impl Server {
    /// Where a node listens unless it was told otherwise.
    pub(crate) const DEFAULT: &str = "http://127.0.0.1:7400";

    /// Host and port to dial, as `host:port`.
    pub(crate) fn dial(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// The `Host` header.
    pub(crate) fn authority(&self) -> String {
        if self.port == 80 { self.host.clone() } else { self.dial() }
    }

    /// What stands before every route; empty in most places.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority(), self.prefix)
    }
}

impl FromStr for Server {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let with_scheme = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let uri: Uri = with_scheme.parse().map_err(|wrong| format!("not a URL: {wrong}"))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => return Err("TLS is not spoken: dial a proxy on this machine over http".to_owned()),
            _ => return Err("only http:// is understood".to_owned()),
        }
        if uri.query().is_some() {
            return Err("a server's URL has no query".to_owned());
        }
        let authority = uri.authority().ok_or("the host is missing")?;
        if authority.as_str().contains('@') {
            return Err("user and password are not understood in a server's URL".to_owned());
        }
        let port = authority.port_u16().unwrap_or(80);
        let prefix = uri.path().trim_end_matches('/').to_owned();
        Ok(Self { host: authority.host().to_owned(), port, prefix })
    }
}

#[cfg(test)]
mod tests {
    use super::Server;

    #[test]
    fn an_address_may_leave_out_its_scheme_and_port() {
        let server: Server = "node.example".parse().unwrap();
        assert_eq!((server.dial().as_str(), server.to_string().as_str()), ("node.example:80", "http://node.example"));
        let server: Server = "127.0.0.1:7400".parse().unwrap();
        assert_eq!(server.to_string(), "http://127.0.0.1:7400");
    }

    #[test]
    fn an_address_may_lie_behind_a_path_or_be_ipv6() {
        let server: Server = "http://[::1]:9000/store/".parse().unwrap();
        assert_eq!((server.dial().as_str(), server.prefix()), ("[::1]:9000", "/store"));
    }

    #[test]
    fn what_cannot_be_dialled_is_refused_with_the_reason() {
        for (text, why) in [
            ("https://node", "TLS is not spoken"),
            ("ftp://node", "only http://"),
            ("http://a@b", "user and password"),
            ("http://node?x=1", "no query"),
            ("http://", "not a URL"),
        ] {
            let wrong = text.parse::<Server>().unwrap_err();
            assert!(wrong.contains(why), "{text}: {wrong}");
        }
    }
}
