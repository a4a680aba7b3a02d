//! Does a read that was sent with a token see what the token stands for?
//!
//! A token is what a reply leaves with its client: *whoever shows this sees at least as much*. It stands for a beginning of
//! the log, up to the newest event that its reply told of, on whichever replica the next read lands.
//!
//! Source: D. Terry et al., "Session Guarantees for Weakly Consistent Replicated Data" (1994): read your writes, and
//! monotonic reads.

use std::collections::BTreeMap;

use super::{
    api::{Call, History, LoggedEvent, Read, Reply},
    history::OpId,
    log::{Index, reads},
    verdict::{Gathering, Kind, Verdict, Violation},
};

/// Every read with a token returned all that its page covers of what any reply with that token had told of.
pub fn honoured(history: &History, log: &[LoggedEvent]) -> Verdict {
    let mut gathering = Gathering::on("a read with a token sees what the token stands for");
    let index = Index::of(log);
    let floors = floors(history, &index);
    for (operation, read, events) in reads(history) {
        let Some((floor, by)) = read.token.as_ref().and_then(|token| floors.get(token.as_str())) else { continue };
        gathering.examined(1);
        let missing = owed(&index, read, events, *floor).find(|owed| !holds(read, events, owed));
        if let Some(missing) = missing {
            let sentence = format!("{} read with the token of {by} and did not see {missing}", operation.id);
            let violation = Violation::new(Kind::TokenIgnored, sentence).at(&missing.stream, missing.position);
            gathering.found(violation.by([*by, operation.id]));
        }
    }
    gathering.verdict()
}

/// For every token the newest position that a reply with it told of, and which reply.
fn floors<'h>(history: &'h History, index: &Index<'_>) -> BTreeMap<&'h str, (u64, OpId)> {
    let mut floors: BTreeMap<&str, (u64, OpId)> = BTreeMap::new();
    for operation in history.operations() {
        let Some((reply, _)) = operation.outcome.answer() else { continue };
        let (Reply::Appended { token: Some(token), .. } | Reply::Events { token: Some(token), .. }) = reply else {
            continue;
        };
        let told = match (&operation.op, reply) {
            (Call::Append(append), _) => {
                let logged = append.events().filter_map(|(stream, event)| index.find(stream, &event.id));
                logged.map(|logged| logged.position).max()
            }
            (_, Reply::Events { events, .. }) => events.iter().map(|event| event.position).max(),
            _ => None,
        };
        let floor = floors.entry(token).or_insert((0, operation.id));
        if let Some(told) = told.filter(|told| *told > floor.0) {
            *floor = (told, operation.id);
        }
    }
    floors
}

/// What the read should have returned up to position `floor`, as far as its page goes.
fn owed<'l>(
    index: &Index<'l>,
    read: &Read,
    events: &[LoggedEvent],
    floor: u64,
) -> impl Iterator<Item = &'l LoggedEvent> {
    let is_full = events.len() as u64 >= read.limit;
    let end = events.last().filter(|_| is_full).map_or(u64::MAX, |last| read.place_of(last));
    let range = move |place: u64, after: u64| place > after && place <= end;
    let (is_stream, after) = (read.stream.is_some(), read.after);
    let place = move |logged: &LoggedEvent| if is_stream { logged.version } else { logged.position };
    let scope = index.scope(read.stream.as_deref()).into_iter();
    scope.filter(move |logged| logged.position <= floor && range(place(logged), after))
}

fn holds(read: &Read, events: &[LoggedEvent], owed: &LoggedEvent) -> bool {
    events.binary_search_by_key(&read.place_of(owed), |event| read.place_of(event)).is_ok()
}
