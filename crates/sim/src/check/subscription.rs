//! Did every subscriber see every event once, in order, across all its connections?

use serde::{Deserialize, Serialize};

use super::{
    api::LoggedEvent,
    log::Index,
    verdict::{Gathering, Kind, Verdict, Violation},
};

/// What one subscriber received.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscription {
    /// What people call it.
    pub subscriber: String,
    /// Its stream; `None` for the log.
    pub stream: Option<String>,
    /// The position behind which it began.
    pub after: u64,
    /// Its connections, one after the other.
    pub connections: Vec<Connection>,
    /// Whether it had all the time it needed in the end: then it must have seen everything.
    pub caught_up: bool,
}

/// One connection of a subscriber.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// The position behind which it asked to go on (`Last-Event-ID`); `None` on the first.
    pub resumed_after: Option<u64>,
    /// What came, in the order in which it came.
    pub received: Vec<LoggedEvent>,
}

/// Every connection received the events behind its start, each once and in order, without a gap, and every subscriber
/// that caught up saw the last one.
///
/// What a subscriber asks for a second time, by going on from before its last event, it may receive a second time.
pub fn exactly_once(subscriptions: &[Subscription], log: &[LoggedEvent]) -> Verdict {
    let mut gathering = Gathering::on("every subscriber sees every event once and in order");
    let index = Index::of(log);
    for subscription in subscriptions {
        let scope = index.scope(subscription.stream.as_deref());
        let mut seen = subscription.after;
        for (number, connection) in (1..).zip(&subscription.connections) {
            gathering.examined(connection.received.len());
            let start = connection.resumed_after.unwrap_or(subscription.after);
            let follows = Following { subscription, connection: number, scope: &scope };
            if let Some(violation) = follows.skipped(seen, start).or_else(|| follows.broken(start, connection)) {
                gathering.found(violation);
                break;
            }
            seen = seen.max(connection.received.last().map_or(start, |event| event.position));
        }
        let left = scope.iter().find(|logged| logged.position > seen);
        if let (true, Some(left)) = (subscription.caught_up, left) {
            let sentence =
                format!("{} saw everything up to position {seen}, but never {left}", subscription.subscriber);
            gathering.found(Violation::new(Kind::Lost, sentence).at(&subscription.subscriber, left.position));
        }
    }
    gathering.verdict()
}

struct Following<'s> {
    subscription: &'s Subscription,
    connection: u64,
    scope: &'s [&'s LoggedEvent],
}

impl Following<'_> {
    /// An event between what was seen and where the connection begins.
    fn skipped(&self, seen: u64, start: u64) -> Option<Violation> {
        let between = |logged: &&&LoggedEvent| logged.position > seen && logged.position <= start;
        let skipped = self.scope.iter().find(between)?;
        Some(self.violation(Kind::Gap, skipped.position, &format!("went on after {start} and so skipped {skipped}")))
    }

    /// The first event that is not the next one of the log.
    fn broken(&self, start: u64, connection: &Connection) -> Option<Violation> {
        let begin = self.scope.partition_point(|logged| logged.position <= start);
        let mut due = self.scope[begin..].iter();
        let mut last = start;
        for event in &connection.received {
            match due.next() {
                Some(next) if *next == event => last = event.position,
                next => return Some(self.told(last, event, next.copied())),
            }
        }
        None
    }

    fn told(&self, last: u64, event: &LoggedEvent, due: Option<&LoggedEvent>) -> Violation {
        let (kind, what) = match due {
            _ if event.position <= last => (Kind::Doubled, format!("received {event} after position {last}")),
            Some(due) if due.position == event.position => {
                (Kind::Disagreement, format!("received {event} where the log has {due}"))
            }
            Some(due) => (Kind::Gap, format!("received {event} where {due} was due")),
            None => (Kind::Uncalled, format!("received {event}, which is not in the log")),
        };
        self.violation(kind, event.position, &what)
    }

    fn violation(&self, kind: Kind, position: u64, what: &str) -> Violation {
        let name = &self.subscription.subscriber;
        Violation::new(kind, format!("{name}, connection {}, {what}", self.connection)).at(name, position)
    }
}
