//! Who may talk to a node that asks nobody for a password.
//!
//! A page on the web can make a browser send requests to `127.0.0.1`, and can give its own name that address (DNS
//! rebinding). A browser says in `Host` and `Origin` where it believes to be, so both are held against the names that
//! are ours.

use http::{
    HeaderMap, Request, Uri, Version,
    header::{HOST, ORIGIN},
};

use super::problem::{Code, Problem};
use crate::config::Config;

/// The names under which a node lets itself be addressed.
pub(crate) struct Guard {
    /// Whether only this machine reaches the node.
    local: bool,
    allowed: Vec<String>,
}

impl Guard {
    pub(crate) fn new(config: &Config) -> Self {
        Self { local: config.is_local(), allowed: config.allowed_hosts.clone() }
    }

    /// Lets a request pass, or says why not.
    pub(crate) fn check<B>(&self, request: &Request<B>) -> Result<(), Problem> {
        let host = authority(request.uri(), request.headers())?;
        if host.is_none() && request.version() >= Version::HTTP_11 {
            return Err(Problem::new(Code::InvalidParameter, "the header `host` is missing").with("header", "host"));
        }
        if let Some(host) = host.filter(|host| !self.knows(hostname(host))) {
            let detail = format!(
                "`{}` is not a name of this node; see the setting `allowed-hosts`",
                super::request::short(host)
            );
            return Err(Problem::new(Code::ForeignRequest, detail));
        }
        match request.headers().get(ORIGIN) {
            None => Ok(()),
            Some(origin) => self.check_origin(origin.as_bytes(), host),
        }
    }

    fn check_origin(&self, origin: &[u8], host: Option<&str>) -> Result<(), Problem> {
        let text = std::str::from_utf8(origin).unwrap_or_default();
        let origin = text.split_once("://").map(|(_, authority)| authority);
        let own = origin.is_some_and(|origin| host.is_some_and(|host| host.eq_ignore_ascii_case(origin)));
        if own || origin.is_some_and(|origin| self.allows(hostname(origin))) {
            return Ok(());
        }
        let detail = format!(
            "a page of `{}` may not use this node; see the setting `allowed-hosts`",
            super::request::short(text)
        );
        Err(Problem::new(Code::ForeignRequest, detail))
    }

    fn knows(&self, host: &str) -> bool {
        is_loopback(host) || self.allows(host) || (!self.local && self.allowed.is_empty())
    }

    fn allows(&self, host: &str) -> bool {
        self.allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(host))
    }
}

/// Whom the request addresses: the target's authority (HTTP/2, or a request to a proxy), else `Host`.
fn authority<'r>(uri: &'r Uri, headers: &'r HeaderMap) -> Result<Option<&'r str>, Problem> {
    if let Some(authority) = uri.authority() {
        return Ok(Some(authority.as_str()));
    }
    super::request::header(headers, &HOST)
}

/// A host without its port.
fn hostname(authority: &str) -> &str {
    if let Some(rest) = authority.strip_prefix('[') {
        return rest.split(']').next().unwrap_or_default();
    }
    authority.rsplit_once(':').map_or(authority, |(host, _)| host)
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::Guard;
    use http::Request;

    fn passes(guard: &Guard, host: &str, origin: Option<&str>) -> bool {
        let mut request = Request::get("/").header("host", host);
        if let Some(origin) = origin {
            request = request.header("origin", origin);
        }
        guard.check(&request.body(()).unwrap()).is_ok()
    }

    #[test]
    fn a_local_node_answers_to_local_names_only() {
        let guard = Guard { local: true, allowed: vec!["log.example".into()] };
        for host in ["localhost", "LOCALHOST:7400", "127.0.0.1:1", "127.9.9.9", "[::1]:7400", "log.example:80"] {
            assert!(passes(&guard, host, None), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:7400",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "",
            "[::2]",
            "10.0.0.1",
            "a@127.0.0.1",
        ] {
            assert!(!passes(&guard, host, None), "{host}");
        }
    }

    #[test]
    fn a_page_of_another_origin_is_refused_also_under_a_local_name() {
        let guard = Guard { local: true, allowed: vec!["log.example".into()] };
        assert!(passes(&guard, "localhost:7400", Some("http://localhost:7400")));
        assert!(passes(&guard, "localhost:7400", Some("https://log.example")));
        for origin in ["http://localhost:3000", "http://evil.example", "null", "", "http://", "file://"] {
            assert!(!passes(&guard, "localhost:7400", Some(origin)), "{origin}");
        }
    }

    #[test]
    fn a_node_that_is_open_to_others_answers_to_any_name_unless_told_which() {
        let open = Guard { local: false, allowed: Vec::new() };
        assert!(passes(&open, "anything.example", None));
        assert!(!passes(&open, "anything.example", Some("http://evil.example")));
        let named = Guard { local: false, allowed: vec!["log.example".into()] };
        assert!(passes(&named, "log.example", None) && !passes(&named, "evil.example", None));
    }
}
