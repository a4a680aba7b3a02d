//! What must hold of a queue, judged from what producers, workers and those who look after dead letters were told.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use quorate_data::event::Timestamp;
use quorate_foundations::time::Mono;
use quorate_sim::check::{
    Verdict,
    lease::{self, Tenure},
};

use super::{MAX_ATTEMPTS, RARE, TICK};
use crate::{
    hand::Pace,
    notes::{Action, Handling, Note},
    rule,
};

/// Clocks may gain this many parts in a million, and hold leases accordingly shorter or longer.
const DRIFT_PPM: u64 = 2_500;

/// Against how many things that happened to a message a claim is held.
type Examined = fn(&Message<'_>) -> usize;

/// What is promised of each message by itself.
const OF_A_MESSAGE: [(&str, Examined); 5] = [
    ("handed out as sent", |message| message.handed.len()),
    ("no message is lost", |_| 1),
    // Whatever nobody is certain of may come again.
    ("done for good", |message| usize::from(message.gone_latest().is_some())),
    ("attempts are counted", |message| message.handed.len()),
    ("a lost lease settles nothing", |message| message.tried_late().count()),
];

pub(super) fn judge(notes: &[Note], pace: Pace) -> Vec<Verdict> {
    let known = Known::of(notes);
    let sent = known.messages.values().filter(|message| message.sent.is_some()).count();
    let mut broken: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (rule, what) in known.messages.iter().flat_map(|(id, message)| message.judge(id)) {
        broken.entry(rule).or_default().push(what);
    }
    let of_a_message = OF_A_MESSAGE.map(|(claim, examined)| {
        let examined = known.messages.values().map(examined).sum();
        rule::verdict(claim, examined, broken.remove(claim).unwrap_or_default())
    });
    let mut verdicts = vec![rule::verdict("a message is taken", sent, known.refused.clone())];
    verdicts.push(lease::one_holder(&known.tenures(pace.lease)));
    verdicts.extend(of_a_message);
    verdicts.extend([known.order(), known.singletons(), known.moments()]);
    verdicts
}

/// What happened to each message.
struct Known<'n> {
    messages: BTreeMap<&'n str, Message<'n>>,
    refused: Vec<String>,
}

/// What happened to a message.
#[derive(Default)]
struct Message<'n> {
    /// The note of its sending, its place in that batch, and its group.
    sent: Option<(&'n Note, usize, Option<&'n str>)>,
    handed: Vec<Handed<'n>>,
    /// What was tried with its leases.
    handled: Vec<Handled<'n>>,
    /// What was tried when it was a dead letter.
    buried: Vec<Buried<'n>>,
}

struct Handed<'n> {
    note: &'n Note,
    lease: &'n str,
    attempt: u64,
}

struct Handled<'n> {
    note: &'n Note,
    lease: &'n str,
    how: Handling,
    done: Option<bool>,
}

struct Buried<'n> {
    note: &'n Note,
    replayed: bool,
    done: Option<bool>,
}

impl<'n> Known<'n> {
    fn of(notes: &'n [Note]) -> Self {
        let mut messages: BTreeMap<&str, Message<'_>> = BTreeMap::new();
        let (mut of_lease, mut refused) = (BTreeMap::new(), Vec::new());
        for note in notes {
            match &note.what {
                Action::Sent { group, ids, refused: why } => {
                    for (place, id) in ids.iter().enumerate() {
                        messages.entry(id).or_default().sent = Some((note, place, group.as_deref()));
                    }
                    refused.extend(why.as_ref().map(|why| format!("{} was refused: {why}", ids.join(", "))));
                }
                Action::Delivered { lease, id, attempt, .. } => {
                    of_lease.insert(lease.as_str(), id.as_str());
                    messages.entry(id).or_default().handed.push(Handed { note, lease, attempt: *attempt });
                }
                Action::Buried { id, replayed, done } => {
                    let buried = Buried { note, replayed: *replayed, done: *done };
                    messages.entry(id).or_default().buried.push(buried);
                }
                _ => {}
            }
        }
        for note in notes {
            if let Action::Handled { lease, how, done } = &note.what
                && let Some(message) = of_lease.get(lease.as_str()).and_then(|id| messages.get_mut(id))
            {
                message.handled.push(Handled { note, lease, how: *how, done: *done });
            }
        }
        Self { messages, refused }
    }

    /// How long each hand-out was the only one, for certain: from when it was told, or extended, until its lease ran out or
    /// may have been settled.
    fn tenures(&self, lease: Duration) -> Vec<Tenure> {
        let ttl = u64::try_from(lease.as_nanos()).unwrap_or(u64::MAX);
        let least = ttl - ttl / 1_000_000 * DRIFT_PPM;
        let mut tenures = Vec::new();
        for (id, message) in &self.messages {
            for (fence, hand) in (1..).zip(&message.handed) {
                let of_it = || message.handled.iter().filter(|one| one.lease == hand.lease);
                let settled = of_it().filter(|one| one.how != Handling::Extend && one.done != Some(false));
                let ended = settled.map(|one| one.note.invoked).min().unwrap_or(u64::MAX);
                let extended = of_it().filter(|one| one.how == Handling::Extend && one.done == Some(true));
                for note in extended.map(|one| one.note).chain([hand.note]) {
                    tenures.push(Tenure {
                        resource: format!("message {id}"),
                        holder: hand.note.client.clone(),
                        fence,
                        from: Mono::from_nanos(note.completed),
                        // It began no sooner than it was asked for.
                        until: Mono::from_nanos((note.invoked + least).min(ended)),
                    });
                }
            }
        }
        tenures
    }

    /// Of a group, a message is handed out only once all that were sent before it are gone.
    fn order(&self) -> Verdict {
        let mut groups: BTreeMap<&str, Vec<(&str, &Message<'_>)>> = BTreeMap::new();
        for (id, message) in &self.messages {
            if let Some((_, _, Some(group))) = message.sent {
                groups.entry(group).or_default().push((id, message));
            }
        }
        let (mut found, mut examined) = (Vec::new(), 0);
        for (group, members) in groups {
            for (id, message) in &members {
                let Some(first) = message.handed.iter().map(|hand| hand.note.completed).min() else { continue };
                examined += 1;
                let blocked = members.iter().find(|(_, other)| {
                    other.is_before(message) && other.gone_earliest().is_none_or(|gone| gone >= first)
                });
                if let Some((other, _)) = blocked {
                    found.push(format!(
                        "{id} of group {group} was handed out although {other}, sent before it, was not done"
                    ));
                }
            }
        }
        rule::verdict("order of groups", examined, found)
    }
}

impl Known<'_> {
    /// Of the messages of one key none is handed out while another one waits or is worked on: one that was handed out before
    /// and is so again afterwards, without having been a dead letter, was there all the time.
    fn singletons(&self) -> Verdict {
        let all: Vec<_> = self.messages.iter().filter(|(id, _)| id.starts_with(TICK)).collect();
        let (mut examined, mut found) = (0, Vec::new());
        for (id, message) in &all {
            for hand in &message.handed {
                examined += 1;
                let beside = all.iter().filter(|(other, _)| other != id).find(|(_, other)| {
                    let before = other.handed.iter().filter(|one| one.note.completed < hand.note.invoked);
                    let mut behind = other.handed.iter().filter(|one| one.note.invoked > hand.note.completed);
                    let last = before.max_by_key(|one| one.note.completed);
                    last.is_some_and(|last| behind.any(|one| !other.replayed(last, one)))
                });
                if let Some((other, _)) = beside {
                    found.push(format!("{id} was handed out between two times at which {other} was"));
                }
            }
        }
        rule::verdict("one message of a key", examined, found)
    }

    /// A schedule that makes up for all it missed leaves no moment out: in the order of sending, which is that of their group,
    /// whatever lies between a moment and a later one was sent before. An earlier one follows where the clock was set back.
    fn moments(&self) -> Verdict {
        let (begin, seconds) = RARE;
        let second = |id: &str| {
            let moment: Timestamp = id.strip_prefix(begin)?.parse().ok()?;
            Some(moment.instant().unix_nanos() / 1_000_000_000)
        };
        let first = |message: &Message<'_>| message.handed.iter().map(|hand| hand.note.completed).min();
        let mut sent: Vec<(u64, i64)> =
            self.messages.iter().filter_map(|(id, message)| Some((first(message)?, second(id)?))).collect();
        sent.sort_unstable();
        let (mut seen, mut examined, mut found) = (BTreeSet::new(), 0, Vec::new());
        for two in sent.windows(2) {
            let (before, behind) = (two[0].1, two[1].1);
            seen.insert(before);
            examined += 1;
            let hole = (1..).map(|n| before + n * seconds).take_while(|at| *at < behind).find(|at| !seen.contains(at));
            if let Some(hole) = hole {
                found.push(format!("the moment {behind} was sent behind {before}, and {hole} was not"));
            }
        }
        rule::verdict("no moment is left out", examined, found)
    }
}

impl Message<'_> {
    /// Which rules are broken, and how.
    fn judge(&self, id: &str) -> Vec<(&'static str, String)> {
        let mut found = Vec::new();
        let mut tell = |rule: &'static str, what: String| found.push((rule, what));
        let scheduled = || {
            let rare = id.starts_with(RARE.0).then_some(RARE.0.strip_suffix('@'));
            rare.or_else(|| id.starts_with(TICK).then_some(None))
        };
        let Some(group) = self.sent.map(|(_, _, group)| group).or_else(scheduled) else {
            tell("handed out as sent", format!("{id} was handed out, and nobody sent it"));
            return found;
        };
        let other = self.handed.iter().find(|hand| group_of(hand.note) != group);
        if let Some(hand) = other {
            let told = group_of(hand.note);
            tell("handed out as sent", format!("{id} was sent to group {group:?} and came with group {told:?}"));
        }
        // In the end the queue was empty.
        if self.gone_earliest().is_none() {
            tell("no message is lost", format!("{id} was sent, and nobody acknowledged it or gave it up"));
        }
        if let Some(again) =
            self.gone_latest().and_then(|gone| self.handed.iter().find(|hand| hand.note.invoked > gone))
        {
            tell("done for good", format!("{id} was done, and later handed to {}", again.note.client));
        }
        for late in self.tried_late().filter(|late| late.done == Some(true)) {
            let what = format!("{} settled {id} although it had been handed out again", late.note.client);
            tell("a lost lease settles nothing", what);
        }
        let mut attempts = BTreeSet::new();
        for hand in &self.handed {
            let fresh = attempts.insert(hand.lease);
            if hand.attempt == 0 || hand.attempt > MAX_ATTEMPTS || !fresh {
                tell(
                    "attempts are counted",
                    format!("{id} was handed out as attempt {} of {MAX_ATTEMPTS}", hand.attempt),
                );
            }
            let later = self.handed.iter().filter(|later| later.note.invoked > hand.note.completed);
            if let Some(later) =
                later.filter(|later| later.attempt <= hand.attempt).find(|later| !self.replayed(hand, later))
            {
                let what = format!("attempt {} of {id} came after attempt {}", later.attempt, hand.attempt);
                tell("attempts are counted", what);
            }
        }
        found
    }

    /// What was tried with a lease once the message had been handed out again, and was answered.
    fn tried_late(&self) -> impl Iterator<Item = &Handled<'_>> {
        self.handled.iter().filter(|one| {
            let Some(held) = self.handed.iter().find(|hand| hand.lease == one.lease) else { return false };
            let meanwhile =
                |hand: &Handed<'_>| hand.note.invoked > held.note.completed && hand.note.completed < one.note.invoked;
            one.done.is_some() && self.handed.iter().any(meanwhile)
        })
    }

    /// Whether it may have been replayed between two hand-outs.
    fn replayed(&self, earlier: &Handed<'_>, later: &Handed<'_>) -> bool {
        let may = self.buried.iter().filter(|one| one.replayed && one.done != Some(false));
        may.filter(|one| one.note.invoked < later.note.completed)
            // What nobody heard of again may have been carried out much later.
            .any(|one| one.done.is_none() || one.note.completed > earlier.note.invoked)
    }

    /// Whether it was certainly sent before `other`.
    fn is_before(&self, other: &Self) -> bool {
        let (Some((sent, place, _)), Some((other, behind, _))) = (self.sent, other.sent) else { return false };
        sent.completed < other.invoked || (std::ptr::eq(sent, other) && place < behind)
    }

    /// The earliest moment at which it may have been gone from the queue; `None` if it certainly never was.
    fn gone_earliest(&self) -> Option<u64> {
        let done = self.handled.iter().filter(|one| one.how == Handling::Ack && one.done != Some(false));
        let given_up = self.buried.iter().filter(|one| !one.replayed && one.done != Some(false));
        done.map(|one| one.note.invoked).chain(given_up.map(|one| one.note.invoked)).min()
    }

    /// When it was certainly gone; `None` if nobody knows.
    fn gone_latest(&self) -> Option<u64> {
        let done = self.handled.iter().filter(|one| one.how == Handling::Ack && one.done == Some(true));
        let given_up = self.buried.iter().filter(|one| !one.replayed && one.done == Some(true));
        done.map(|one| one.note.completed).chain(given_up.map(|one| one.note.completed)).min()
    }
}

fn group_of(note: &Note) -> Option<&str> {
    if let Action::Delivered { group, .. } = &note.what { group.as_deref() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(client: &str, invoked: u64, completed: u64, what: Action) -> Note {
        Note { client: client.into(), invoked, completed, what }
    }

    fn sent(at: u64, ids: &[&str]) -> Note {
        let ids = ids.iter().map(|id| (*id).to_owned()).collect();
        note("p", at, at + 1, Action::Sent { group: Some("g".into()), ids, refused: None })
    }

    fn handed(at: u64, client: &str, id: &str, attempt: u64) -> Note {
        let lease = format!("{id}/{at}");
        note(client, at, at + 1, Action::Delivered { lease, id: id.into(), group: Some("g".into()), attempt })
    }

    fn handled(at: u64, lease: &str, how: Handling, done: Option<bool>) -> Note {
        note("w", at, at + 1, Action::Handled { lease: lease.into(), how, done })
    }

    fn buried(at: u64, id: &str, replayed: bool) -> Note {
        note("w", at, at + 1, Action::Buried { id: id.into(), replayed, done: Some(true) })
    }

    fn rules(notes: &[Note]) -> Vec<String> {
        let pace = Pace { lease: Duration::from_nanos(100), ..Pace::SIMULATED };
        rule::names(&judge(notes, pace))
    }

    #[test]
    fn what_was_sent_handed_out_and_done_in_order_is_right() {
        let notes = [
            sent(1, &["a", "b"]),
            handed(10, "w", "a", 1),
            handled(20, "a/10", Handling::Nack, Some(true)),
            handed(30, "v", "a", 2),
            handled(40, "a/30", Handling::Ack, None),
            handed(50, "w", "b", 1),
            handled(60, "b/50", Handling::Ack, Some(true)),
        ];
        assert_eq!(rules(&notes), [""; 0]);
    }

    #[test]
    fn a_message_that_nobody_did_is_lost() {
        let refused = handled(20, "a/10", Handling::Ack, Some(false));
        assert_eq!(rules(&[sent(1, &["a"]), handed(10, "w", "a", 1), refused]), ["no message is lost"]);
        assert_eq!(rules(&[sent(1, &["a"]), handed(10, "w", "a", 1), buried(20, "a", false)]), [""; 0]);
    }

    #[test]
    fn what_is_done_does_not_come_again() {
        let done = handled(20, "a/10", Handling::Ack, Some(true));
        let notes = [sent(1, &["a"]), handed(10, "w", "a", 1), done, handed(200, "v", "a", 2)];
        assert_eq!(rules(&notes), ["done for good"]);
    }

    #[test]
    fn a_lease_has_one_holder_until_it_ends_and_longer_if_it_was_extended() {
        let done = |lease| handled(500, lease, Handling::Ack, Some(true));
        let apart = [sent(1, &["a"]), handed(10, "w", "a", 1), handed(120, "v", "a", 2), done("a/120")];
        assert_eq!(rules(&apart), [""; 0]);
        let extended = [handled(50, "a/10", Handling::Extend, Some(true))];
        assert_eq!(rules(&[&apart[..], &extended].concat()), ["a lease has at most one live holder"]);
        let together = [sent(1, &["a"]), handed(10, "w", "a", 1), handed(50, "v", "a", 2), done("a/50")];
        assert_eq!(rules(&together), ["a lease has at most one live holder"]);
    }

    #[test]
    fn of_a_group_the_one_behind_waits_until_the_first_is_done() {
        let (done, also) =
            (handled(40, "b/10", Handling::Ack, Some(true)), handled(60, "a/50", Handling::Ack, Some(true)));
        let notes = [sent(1, &["a", "b"]), handed(10, "w", "b", 1), done, handed(50, "w", "a", 1), also];
        assert_eq!(rules(&notes), ["order of groups"]);
    }

    #[test]
    fn attempts_rise_until_a_replay_and_never_pass_the_limit() {
        let done = |lease: &str| handled(900, lease, Handling::Ack, Some(true));
        let again = [sent(1, &["a"]), handed(10, "w", "a", 2), handed(200, "v", "a", 2), done("a/200")];
        assert_eq!(rules(&again), ["attempts are counted"]);
        assert_eq!(rules(&[&again[..], &[buried(150, "a", true)]].concat()), [""; 0]);
        let many = [sent(1, &["a"]), handed(10, "w", "a", MAX_ATTEMPTS + 1), done("a/10")];
        assert_eq!(rules(&many), ["attempts are counted"]);
    }

    #[test]
    fn whoever_lost_its_lease_settles_nothing() {
        let late = handled(300, "a/10", Handling::Nack, Some(true));
        let done = handled(400, "a/200", Handling::Ack, Some(true));
        let notes = [sent(1, &["a"]), handed(10, "w", "a", 1), handed(200, "v", "a", 2), late, done];
        assert_eq!(rules(&notes), ["a lost lease settles nothing"]);
    }

    #[test]
    fn a_claim_is_held_against_what_could_have_broken_it() {
        let examined = |notes: &[Note]| {
            let verdicts = judge(notes, Pace { lease: Duration::from_nanos(100), ..Pace::SIMULATED });
            ["done for good", "a lost lease settles nothing", "no message is lost"]
                .map(|claim| verdicts.iter().find(|verdict| verdict.claim == claim).and_then(Verdict::examined))
        };
        let (first, again) = ([sent(1, &["a"]), handed(10, "w", "a", 1)], handed(200, "v", "a", 2));
        let late = |done| handled(300, "a/10", Handling::Nack, done);
        let done = |done| handled(400, "a/200", Handling::Ack, done);
        let with = |rest: &[Note]| examined(&[&first[..], rest].concat());
        assert_eq!(with(&[handled(20, "a/10", Handling::Ack, Some(true))]), [Some(1), Some(0), Some(1)]);
        assert_eq!(with(&[again.clone(), done(None)]), [Some(0), Some(0), Some(1)], "nobody knows whether it was done");
        assert_eq!(with(&[again.clone(), late(Some(false)), done(Some(true))]), [Some(1), Some(1), Some(1)]);
        assert_eq!(with(&[again, late(None), done(Some(true))]), [Some(1), Some(0), Some(1)], "no answer says nothing");
    }

    fn scheduled(at: u64, id: &str, attempt: u64) -> Note {
        let (lease, group) = (format!("{id}/{at}"), id.starts_with(RARE.0).then(|| "rare".to_owned()));
        note("w", at, at + 1, Action::Delivered { lease, id: id.into(), group, attempt })
    }

    #[test]
    fn of_one_key_one_message_is_there_at_a_time() {
        let (a, b) = ("tick@2026-01-01T00:00:05Z", "tick@2026-01-01T00:00:10Z");
        let done = |id: &str, at: u64| handled(at + 5, &format!("{id}/{at}"), Handling::Ack, Some(true));
        let apart = [scheduled(10, a, 1), done(a, 10), scheduled(200, b, 1), done(b, 200)];
        assert_eq!(rules(&apart), [""; 0]);
        let between = [scheduled(10, a, 1), scheduled(150, b, 1), done(b, 150), scheduled(300, a, 2), done(a, 300)];
        assert_eq!(rules(&between), ["one message of a key"]);
        assert_eq!(rules(&[&between[..], &[buried(200, a, true)]].concat()), [""; 0], "it was a dead letter meanwhile");
    }

    #[test]
    fn a_schedule_that_makes_up_for_everything_leaves_no_moment_out() {
        let ids = ["rare@2026-01-01T22:00:00Z", "rare@2026-01-02T00:00:00Z", "rare@2026-01-02T02:00:00Z"];
        let done = |id: &str, at: u64| {
            [scheduled(at, id, 1), handled(at + 5, &format!("{id}/{at}"), Handling::Ack, Some(true))]
        };
        let all: Vec<Note> = ids.iter().zip([10, 20, 30]).flat_map(|(id, at)| done(id, at)).collect();
        assert_eq!(rules(&all), [""; 0]);
        let hole = [done(ids[0], 10), done(ids[2], 20)].concat();
        assert_eq!(rules(&hole), ["no moment is left out"]);
        let set_back = [done(ids[1], 10), done(ids[0], 20), done(ids[2], 30)].concat();
        assert_eq!(rules(&set_back), [""; 0], "what lies between was sent before");
    }

    #[test]
    fn what_nobody_sent_is_not_handed_out() {
        let done = handled(20, "a/10", Handling::Ack, Some(true));
        assert_eq!(rules(&[handed(10, "w", "a", 1), done]), ["handed out as sent"]);
    }
}
