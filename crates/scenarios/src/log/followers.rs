//! Clients append while others follow the log by server-sent events, and come back with `Last-Event-ID` whenever the stream breaks.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use quorate_sim::check::{
    Verdict,
    api::{Append, Expected},
};

use super::appends;
use crate::{
    cast::Cast,
    client::Call,
    hand::{self, Hand, Pace},
    notes::{Action, Note, Seen},
    rule,
};

const WRITERS: usize = 3;
const FOLLOWERS: usize = 2;
const ROUNDS: usize = 25;
/// So many appends of each writer are the last ones.
const LAST: usize = 3;
/// How long a follower waits for a frame before it looks around.
const TURN: Duration = Duration::from_secs(1);
/// After so long without anything going wrong or being written, in nanoseconds, everything has been told.
const QUIET: u64 = 2_000_000_000;
/// Silence after which it comes back on another connection; longer than the node's heartbeat.
const SILENCE: Duration = Duration::from_secs(40);

/// Who takes part.
pub(crate) fn cast() -> Cast {
    beside((0..WRITERS).fold(Cast::new(), |cast, n| cast.hand(&format!("writer-{n}"), write)))
}

/// Followers beside those who write.
pub(crate) fn beside(writers: Cast) -> Cast {
    let all = (0..FOLLOWERS).fold(writers, |cast, n| cast.follower(&format!("follower-{n}"), follow));
    all.judged_by(judge)
}

async fn write(mut hand: Hand) {
    let mut round = 0;
    while hand.goes_on(round, ROUNDS) {
        let stream = format!("order-{}", hand.below(2));
        appends::append(&mut hand, &stream, round).await;
        hand.rest().await;
        round += 1;
    }
    // All at once, and nothing behind them: whoever does not hear of the last one hears of it never.
    hand.healed().await;
    for n in 0..LAST {
        let (stream, event) =
            (format!("order-{}", hand.below(2)), appends::sent(&format!("{}-last-{n}", hand.name), None));
        appends::send(&mut hand, Append::to(&stream, Expected::Any, vec![event])).await;
    }
}

/// Follows the log until it has been told of everything that there is once nobody writes any more, and of nothing new after that.
async fn follow(hand: Hand) -> Result<(), String> {
    let mut follower = Follower { hand, last: 0, quiet_since: None, end: None, heard: false };
    while !follower.is_done() {
        let call = Call::get("/v1/events/subscribe").header("last-event-id", &follower.last.to_string());
        match follower.hand.another().open(&call).await {
            Ok((status, body)) if status.is_success() => {
                let (name, after) = (&follower.hand.name, follower.last);
                let connected = Action::Connected { subscription: name.clone(), after };
                follower.hand.notes.add(name, follower.hand.notes.now(), connected);
                follower.listen(body).await;
            }
            Ok((status, _)) if status.is_client_error() => {
                return Err(format!("following from {} was refused: {status}", follower.last));
            }
            _ => follower.hand.rest().await,
        }
    }
    Ok(())
}

struct Follower {
    hand: Hand,
    /// The position of the last event that was told.
    last: u64,
    /// When nobody wrote any more and nothing went wrong any more, as far as this follower noticed.
    quiet_since: Option<u64>,
    /// How long the log is, once nobody writes any more.
    end: Option<u64>,
    /// Whether it heard that nothing is new, rightly or not: there is nothing more to wait for.
    heard: bool,
}

impl Follower {
    fn is_done(&self) -> bool {
        self.heard || (!self.hand.pace.stays && self.end.is_some_and(|end| self.last >= end))
    }

    /// Looks whether it has become quiet, and how long the log is then.
    async fn look(&mut self) {
        if !self.hand.busy.is_over() || !self.hand.is_healed() {
            return;
        }
        self.quiet_since.get_or_insert(self.hand.notes.now());
        if self.end.is_none() {
            self.end = self.hand.read_log().await;
        }
    }

    /// Reads frames until the stream breaks, or there is nothing more to wait for.
    async fn listen(&mut self, mut body: Incoming) {
        let (mut buffer, mut silent) = (Vec::new(), Duration::ZERO);
        while !self.is_done() && silent < SILENCE {
            let frame = self.hand.env.timeout(TURN, body.frame()).await;
            self.look().await;
            match frame {
                None => silent += TURN,
                Some(Some(Ok(frame))) => {
                    silent = Duration::ZERO;
                    buffer.extend_from_slice(&frame.into_data().unwrap_or_else(|_| Bytes::new()));
                    self.take(&mut buffer);
                }
                Some(_) => return,
            }
        }
    }

    /// Takes whole frames out of `buffer`.
    fn take(&mut self, buffer: &mut Vec<u8>) {
        while let Some(at) = buffer.windows(2).position(|pair| pair == b"\n\n") {
            let text: Vec<u8> = buffer.drain(..at + 2).collect();
            let text = String::from_utf8_lossy(&text).into_owned();
            if let Some(event) = event_of(&text) {
                self.last = event.position;
                let what = Action::Told { subscription: self.hand.name.clone(), event };
                self.hand.notes.add(&self.hand.name, self.hand.notes.now(), what);
            } else if text.starts_with(':') {
                self.heartbeat();
            }
        }
    }

    /// A node that says in a quiet world that nothing is new has told everything.
    fn heartbeat(&mut self) {
        let Some(end) = self.end else { return };
        if self.quiet_since.is_some_and(|since| self.hand.notes.now() > since + QUIET) {
            let (name, after) = (&self.hand.name, self.last);
            let what = Action::HeardNothingNew { subscription: name.clone(), after, end };
            self.hand.notes.add(name, self.hand.notes.now(), what);
            self.heard = true;
        }
    }
}

/// Whoever hears in a quiet world that nothing is new has been told of everything.
fn judge(notes: &[Note], _: Pace) -> Vec<Verdict> {
    let heard = notes.iter().filter_map(|note| match &note.what {
        Action::HeardNothingNew { subscription, after, end } => Some((subscription, *after, *end)),
        _ => None,
    });
    let missed = heard.clone().filter(|(_, after, end)| after < end).map(|(who, after, end)| {
        format!("{who} heard that nothing is new after position {after}, while the log ends at {end}")
    });
    vec![rule::verdict("a heartbeat says that everything was told", heard.clone().count(), missed)]
}

/// The event that a frame carries; `None` for heartbeats and signals.
fn event_of(frame: &str) -> Option<Seen> {
    let signal = frame.lines().any(|line| line.starts_with("event:"));
    let data = frame.lines().find_map(|line| line.strip_prefix("data:")).filter(|_| !signal)?;
    serde_json::from_str(data.trim()).ok().map(|value| hand::event(&value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_hears_that_nothing_is_new_has_heard_of_everything() {
        let heard = |after| {
            let what = Action::HeardNothingNew { subscription: "ada".into(), after, end: 7 };
            judge(&[Note { client: "ada".into(), invoked: 1, completed: 1, what }], Pace::SIMULATED)
        };
        assert_eq!((rule::names(&heard(7)), heard(7)[0].examined()), (vec![], Some(1)));
        assert_eq!(rule::names(&heard(6)), ["a heartbeat says that everything was told"]);
    }
}
