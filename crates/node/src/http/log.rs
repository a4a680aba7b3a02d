//! Reading the whole log, and following it.

use std::fmt::Write as _;

use axum::extract::{Request, State};
use http::{HeaderMap, Uri};
use quorate_data::{
    event::Position,
    store::{Query, QueryItem, ReadLog},
};

use super::{
    Shared,
    found::Found,
    page, percent,
    problem::Problem,
    reply,
    request::{self, Params},
    sse,
};
use crate::verbs::Source;

type Reply = Result<axum::response::Response, Problem>;

/// `GET /v1/events`
pub(super) async fn read(State(node): State<Shared>, request: Request) -> Reply {
    let (uri, headers) = (request.uri(), request.headers());
    let params = Params::of(uri, &["after", "limit", "type", "tag", "category", "at", "recordedat"])?;
    let after = Position::new(params.number("after")?.unwrap_or(0));
    let (limit, query, moment) = (params.limit(&node)?, query(&params)?, params.moment()?);
    request::reach_token(&node, headers).await?;
    node.streams.reached(after)?;
    if query.is_everything() && moment.is_any() {
        everything(&node, uri, headers, after, limit).await
    } else {
        let found = Found::new(&node, limit, moment);
        matching(&node, uri, headers, ReadLog { query, after, limit }, found).await
    }
}

/// `GET /v1/events/subscribe`
pub(super) async fn subscribe(State(node): State<Shared>, request: Request) -> Reply {
    let params = Params::of(request.uri(), &["after", "type", "tag", "category"])?;
    let query = query(&params)?;
    let after = sse::resume(&node, &params, request.headers())?.unwrap_or_default();
    request::reach_token(&node, request.headers()).await?;
    sse::follow(&node, Source::Log { query, after }).await
}

/// Any of the types, any of the categories, all of the tags.
fn query(params: &Params<'_>) -> Result<Query, Problem> {
    let words = |name| params.all(name).map(str::to_owned).collect::<Vec<_>>();
    let item = QueryItem { types: words("type"), tags: words("tag"), categories: words("category") };
    let named = !(item.types.is_empty() && item.tags.is_empty() && item.categories.is_empty());
    let query = Query::of(named.then_some(item));
    query.check()?;
    Ok(query)
}

/// A page without a filter: positions are dense, so its end is known before it is read.
async fn everything(node: &Shared, uri: &Uri, headers: &HeaderMap, after: Position, limit: usize) -> Reply {
    let read = ReadLog { query: Query::EVERYTHING, after, limit: limit.min(page::STEP) };
    let since = page::Since::now(&node.streams, true);
    let first = node.streams.log(read).await?;
    let last = Position::new(after.get().saturating_add(limit as u64)).min(first.head).max(after);
    let rest = page::Rest::of_log(&first, last);
    let events = page::Events::of(first.events, rest);
    answer(node, uri, headers, since, events, Ends { scanned: last, head: first.head })
}

/// A filtered page.
async fn matching(node: &Shared, uri: &Uri, headers: &HeaderMap, mut read: ReadLog, mut found: Found) -> Reply {
    let since = page::Since::now(&node.streams, true);
    loop {
        read.limit = found.step();
        let page = node.streams.log(read.clone()).await?;
        let left = found.take(node, page.events)?;
        let scanned = left.first().map_or(page.scanned, |next| Position::new(next.position().get() - 1));
        let ends = Ends { scanned, head: page.head };
        let moved = scanned > read.after;
        read.after = scanned;
        if ends.scanned >= ends.head || !moved || found.is_enough(node) {
            return answer(node, uri, headers, since, found.split(), ends);
        }
    }
}

/// Where a page ended, and where the log does.
struct Ends {
    scanned: Position,
    head: Position,
}

fn answer(
    node: &Shared,
    uri: &Uri,
    headers: &HeaderMap,
    since: page::Since,
    events: page::Events,
    ends: Ends,
) -> Reply {
    let members = format!(",\"scanned\":\"{}\",\"head\":\"{}\"", ends.scanned, ends.head);
    let mut response = page::reply(node, page::Form::of(headers), since, events, &members)?;
    reply::token(response.headers_mut(), &node.streams.token(ends.head));
    if ends.scanned < ends.head {
        reply::next(response.headers_mut(), &next(uri, "after", ends.scanned.get()));
    }
    Ok(response)
}

/// The address of `uri` with the parameter `name` set to `value`, which may stand there as it is.
pub(super) fn next(uri: &Uri, name: &str, value: impl std::fmt::Display) -> String {
    let mut address = uri.path().to_owned();
    let others = uri.query().unwrap_or_default().split('&').filter(|part| !part.is_empty());
    let others = others.filter(|part| part.split('=').next() != Some(name));
    let mut mark = '?';
    for part in others {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        address.push(mark);
        // Written anew: whatever the client sent, a header holds only what may stand there.
        percent::encode(&percent::decode_query(name).unwrap_or_default(), &mut address);
        address.push('=');
        percent::encode(&percent::decode_query(value).unwrap_or_default(), &mut address);
        mark = '&';
    }
    let _ = write!(address, "{mark}{name}={value}");
    address
}

#[cfg(test)]
mod tests {
    use super::next;

    #[test]
    fn the_next_page_keeps_every_other_parameter() {
        let uri = "/v1/events?after=5&limit=2&type=a%26b&type=c+d&tag=x:1".parse().unwrap();
        assert_eq!(next(&uri, "after", 7), "/v1/events?limit=2&type=a%26b&type=c%20d&tag=x%3A1&after=7");
        assert_eq!(next(&"/v1/events".parse().unwrap(), "after", 7), "/v1/events?after=7");
    }
}
