//! How often a client may ask: 429 with a time to come back, and on every reply what is left
//! (draft-ietf-httpapi-ratelimit-headers-10).

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue};
use quorate_foundations::name::Name;
use quorate_resilience::rate_limit::{
    Standing,
    headers::{RATELIMIT, RATELIMIT_POLICY, policy, standing},
    network,
};

use super::{
    RETRY,
    problem::{Code, Problem},
    request,
};
use crate::rates::{Limit, Rates, Refused, Whose};

/// The longest name of a tenant, in bytes.
const MAX_TENANT: usize = 256;

/// What a reply says of the limits that its request passed.
#[derive(Default)]
pub(super) struct Told(Vec<(String, Option<String>)>);

impl Told {
    fn of(&mut self, limit: &Limit, left: Option<&Standing>) {
        let name = limit.name.as_str();
        self.0.push((policy(name, &limit.rate, None), left.map(|left| standing(name, left, None))));
    }

    /// Writes it on a reply.
    pub(super) fn stamp(&self, headers: &mut HeaderMap) {
        let policies: Vec<&str> = self.0.iter().map(|(policy, _)| policy.as_str()).collect();
        let standings: Vec<&str> = self.0.iter().filter_map(|(_, standing)| standing.as_deref()).collect();
        for (field, members) in [(RATELIMIT_POLICY, policies), (RATELIMIT, standings)] {
            if let (false, Ok(value)) = (members.is_empty(), HeaderValue::try_from(members.join(", "))) {
                headers.insert(HeaderName::from_static(field), value);
            }
        }
    }
}

/// Takes a request of `peer` from every limit that is about it.
///
/// # Cancel safety
/// What was taken stays taken.
pub(super) async fn admit(rates: &Rates, peer: IpAddr, headers: &HeaderMap, told: &mut Told) -> Result<(), Problem> {
    for limit in rates.limits() {
        let Some(key) = key(&limit.whose, peer, headers)? else { continue };
        match rates.take(limit, &key).await {
            Ok(left) => told.of(limit, left.as_ref()),
            Err(refused) => {
                if let Refused::Spent { left, .. } = &refused {
                    told.of(limit, Some(left));
                }
                return Err(problem(limit, refused));
            }
        }
    }
    Ok(())
}

/// Whom a limit counts the request for; nobody, if it isn't about it.
fn key(whose: &Whose, peer: IpAddr, headers: &HeaderMap) -> Result<Option<Name>, Problem> {
    let text = match whose {
        Whose::Client => network(peer).to_string(),
        Whose::Tenant(header) => match request::header(headers, header)? {
            None => return Ok(None),
            Some(tenant) if tenant.len() > MAX_TENANT => {
                let detail = format!("the header `{header}` names a tenant in at most {MAX_TENANT} bytes");
                return Err(Problem::new(Code::InvalidParameter, detail).with("header", header.as_str()));
            }
            Some(tenant) => tenant.to_owned(),
        },
    };
    Name::new(&*text).map(Some).map_err(|cause| Problem::of(Code::InvalidParameter, &cause))
}

fn problem(limit: &Limit, refused: Refused) -> Problem {
    let name = limit.name.as_str();
    let who = match limit.whose {
        Whose::Client => "this client",
        Whose::Tenant(_) => "this tenant",
    };
    let (quota, window) = (limit.rate.quota, limit.rate.window);
    match refused {
        Refused::Spent { after, .. } => {
            let detail = format!("{who} may make {quota} requests in {window:?}, and has made them");
            let problem = Problem::new(Code::RateLimited, detail).with("limit", name);
            after.into_iter().fold(problem, Problem::after)
        }
        Refused::Unavailable => {
            let detail = "how often this client has asked can't be told, and it was decided to refuse meanwhile";
            Problem::new(Code::LimitUnavailable, detail).with("limit", name).after(RETRY)
        }
    }
}
