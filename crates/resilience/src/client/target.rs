//! Who is called, read from a request's address and written on what is sent.

use http::{
    HeaderValue, Request, Uri, header,
    uri::{Authority, PathAndQuery},
};

use super::error::Error;

/// Who is called, and how.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) secure: bool,
    pub(super) authority: Authority,
    path: PathAndQuery,
    /// Who is asked for: most often who is called.
    host: HeaderValue,
}

impl Target {
    /// Who `request` names. `encrypts`: whether this client can.
    pub(super) fn of<B>(request: &Request<B>, encrypts: bool) -> Result<Self, Error> {
        let uri = request.uri();
        let wrong = |why| Error::Address { uri: uri.clone(), why };
        let secure = match uri.scheme_str() {
            Some("http") => false,
            Some("https") if encrypts => true,
            Some("https") => return Err(wrong("this client does not encrypt")),
            _ => return Err(wrong("it is not absolute, as in http://host/path")),
        };
        let authority = uri.authority().filter(|authority| !authority.host().is_empty());
        let authority = authority.ok_or_else(|| wrong("it names no host"))?.clone();
        if authority.as_str().contains('@') {
            return Err(wrong("it holds a user's name: that belongs into a header"));
        }
        let host =
            request.headers().get(header::HOST).cloned().map_or_else(|| HeaderValue::from_str(authority.as_str()), Ok);
        let host = host.map_err(|_| wrong("its authority cannot stand in a header"))?;
        let path = uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        Ok(Self { secure, authority, path, host })
    }

    /// What its connections are kept under.
    pub(super) fn key(&self) -> String {
        format!("{}{}", if self.secure { "https:" } else { "http:" }, self.authority)
    }

    /// Its host without what stands around an IPv6 address.
    pub(super) fn host(&self) -> &str {
        self.authority.host().trim_start_matches('[').trim_end_matches(']')
    }

    pub(super) fn port(&self) -> u16 {
        self.authority.port_u16().unwrap_or(if self.secure { 443 } else { 80 })
    }

    /// Writes on `request` who is asked for what: HTTP/1.1 has a field and a path for it, HTTP/2 the whole address.
    pub(super) fn write<B>(&self, request: &mut Request<B>, whole: bool) {
        if !whole {
            request.headers_mut().insert(header::HOST, self.host.clone());
            *request.uri_mut() = self.path.clone().into();
            return;
        }
        request.headers_mut().remove(header::HOST);
        let asked = Authority::try_from(self.host.as_bytes()).unwrap_or_else(|_| self.authority.clone());
        let scheme = if self.secure { "https" } else { "http" };
        let uri = Uri::builder().scheme(scheme).authority(asked).path_and_query(self.path.clone()).build();
        *request.uri_mut() = uri.unwrap_or_else(|_| unreachable!("each of its parts is one"));
    }
}
