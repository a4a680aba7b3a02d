//! What of streams may be gone, and what must be: from what clients asked to forget, the rules they set, and when.

use std::collections::BTreeMap;

use quorate_sim::check::Verdict;

use crate::{
    notes::{Action, Note, Seen, Told},
    rule,
};

/// What was asked to be forgotten, by stream.
pub(crate) struct Forgotten<'n> {
    truncated: BTreeMap<&'n str, Vec<Truncated>>,
    rules: BTreeMap<&'n str, Vec<Rule>>,
    /// When an event of each version was first asked for: a stream was no longer than that.
    asked_for: BTreeMap<&'n str, BTreeMap<u64, u64>>,
    scavenges: Vec<(u64, u64)>,
}

/// Events before a version were asked to be forgotten.
struct Truncated {
    invoked: u64,
    before: u64,
    /// When that was confirmed, if it was.
    confirmed: Option<u64>,
}

/// A stream was told to keep so many events, or all.
struct Rule {
    keep: Option<u64>,
    invoked: u64,
    /// When that was confirmed, if it was. Otherwise it may come into force at any time, or never.
    confirmed: Option<u64>,
}

/// Where somebody saw a stream begin and end.
struct Look<'n> {
    note: &'n Note,
    stream: &'n str,
    first: u64,
    version: u64,
}

fn confirmed(note: &Note, told: &Told) -> Option<u64> {
    matches!(told, Told::Done { .. }).then_some(note.completed)
}

impl<'n> Forgotten<'n> {
    /// What `notes` say.
    pub(crate) fn of(notes: &'n [Note]) -> Self {
        let mut forgotten = Self {
            truncated: BTreeMap::new(),
            rules: BTreeMap::new(),
            asked_for: asked_for(notes),
            scavenges: Vec::new(),
        };
        for note in notes {
            match &note.what {
                Action::Truncate { told: Told::Refused(_), .. } | Action::SetRule { told: Told::Refused(_), .. } => {}
                Action::Truncate { stream, before, told } => {
                    let one = Truncated { invoked: note.invoked, before: *before, confirmed: confirmed(note, told) };
                    forgotten.truncated.entry(stream).or_default().push(one);
                }
                Action::SetRule { stream, max_count, told } => {
                    let one = Rule { keep: *max_count, invoked: note.invoked, confirmed: confirmed(note, told) };
                    forgotten.rules.entry(stream).or_default().push(one);
                }
                Action::Scavenged { done: true } => forgotten.scavenges.push((note.invoked, note.completed)),
                _ => {}
            }
        }
        forgotten
    }

    /// Whether somebody had asked to forget this version by `at`, when its stream had been seen up to `newest`, if that is
    /// known.
    pub(crate) fn may_be_gone(&self, stream: &str, version: u64, at: u64, newest: Option<u64>) -> bool {
        let mut truncated = self.truncated.get(stream).into_iter().flatten();
        if truncated.any(|asked| asked.invoked <= at && version < asked.before) {
            return true;
        }
        let rules = self.rules_of(stream);
        rules.iter().filter(|rule| rule.invoked <= at).any(|rule| {
            // The longest that the stream was while the rule may have been in force.
            let longest = self.longest(stream, at.min(superseded(rule, rules))).min(newest.unwrap_or(u64::MAX));
            rule.keep.is_some_and(|keep| version.saturating_add(keep) <= longest)
        })
    }

    /// What was served although it had been forgotten before anybody asked, and what is gone although nobody asked for that.
    pub(crate) fn judge(&self, notes: &[Note]) -> Vec<Verdict> {
        let looks: Vec<Look<'_>> = notes.iter().filter_map(look).collect();
        let cut = looks.iter().filter(|look| look.first > 1).count();
        let ruled = looks
            .iter()
            .filter(|look| self.keeps_at_most(look.stream, look.note.invoked, look.note.completed).is_some());
        let forgotten = self.truncated.values().map(Vec::len).sum::<usize>() + self.scavenges.len();
        vec![
            rule::verdict("forgotten for good", forgotten, self.forgotten_for_good(notes)),
            rule::verdict("gone for a reason", cut, looks.iter().filter_map(|look| self.begins_too_late(look))),
            rule::verdict(
                "rules hide at once",
                ruled.count(),
                looks.iter().filter_map(|look| self.shows_too_much(look)),
            ),
        ]
    }

    fn rules_of(&self, stream: &str) -> &[Rule] {
        self.rules.get(stream).map_or(&[], Vec::as_slice)
    }

    /// The longest that a stream can have been at `at`.
    fn longest(&self, stream: &str, at: u64) -> u64 {
        let versions = self.asked_for.get(stream).into_iter().flatten();
        versions.filter(|(_, asked)| **asked <= at).map(|(version, _)| *version).max().unwrap_or(0)
    }

    /// How many events a stream certainly keeps at most from `from` until `to`.
    fn keeps_at_most(&self, stream: &str, from: u64, to: u64) -> Option<u64> {
        let rules = self.rules_of(stream);
        let in_force = rules.iter().filter(|rule| rule.confirmed.is_some_and(|at| at < from));
        let last = in_force.max_by_key(|rule| rule.invoked)?;
        let is_over = |other: &Rule| other.confirmed.is_some_and(|at| at < last.invoked) || other.invoked > to;
        rules.iter().all(|other| std::ptr::eq(other, last) || is_over(other)).then_some(last.keep)?
    }

    /// Nobody is served what was forgotten before they asked.
    fn forgotten_for_good(&self, notes: &[Note]) -> Option<String> {
        notes.iter().find_map(|note| {
            let Action::Read { events, .. } = &note.what else { return None };
            let mut served = events.iter().filter(|event| event.content.is_some());
            let Seen { id, version, stream, .. } = served.find(|event| self.is_gone(event, note.invoked, notes))?;
            Some(format!("{} was served {id}, version {version} of {stream}", note.client))
        })
    }

    /// Whether an event had been forgotten for good before `at`.
    fn is_gone(&self, event: &Seen, at: u64, notes: &[Note]) -> bool {
        let stream = event.stream.as_str();
        let mut truncated = self.truncated.get(stream).into_iter().flatten();
        if truncated.any(|asked| asked.confirmed.is_some_and(|done| done < at) && event.version < asked.before) {
            return true;
        }
        self.scavenges.iter().filter(|(_, completed)| *completed < at).any(|(invoked, completed)| {
            let keep = self.keeps_at_most(stream, *invoked, *completed);
            keep.is_some_and(|keep| event.version.saturating_add(keep) <= acknowledged(notes, stream, *invoked))
        })
    }

    /// A stream begins no later than somebody asked for.
    fn begins_too_late(&self, Look { note, stream, first, version }: &Look<'_>) -> Option<String> {
        let gone = first.saturating_sub(1);
        if gone == 0 || self.may_be_gone(stream, gone, note.completed, Some(*version)) {
            return None;
        }
        Some(format!("{} saw {stream} begin at version {first} and end at {version}", note.client))
    }

    /// A stream shows no more than its rule keeps, from the moment that the rule is set.
    fn shows_too_much(&self, Look { note, stream, first, version }: &Look<'_>) -> Option<String> {
        let keep = self.keeps_at_most(stream, note.invoked, note.completed)?;
        if (version + 1).saturating_sub(*first) <= keep {
            return None;
        }
        let who = &note.client;
        Some(format!("{who} saw {stream} from version {first} to {version}, and it keeps {keep} events"))
    }
}

/// When `rule` certainly was no longer in force; an unconfirmed one may come into force late.
fn superseded(rule: &Rule, rules: &[Rule]) -> u64 {
    let Some(confirmed) = rule.confirmed else { return u64::MAX };
    let later = rules.iter().filter(|other| other.invoked > confirmed);
    later.filter_map(|other| other.confirmed).min().unwrap_or(u64::MAX)
}

fn look(note: &Note) -> Option<Look<'_>> {
    match &note.what {
        Action::Read { read, events, .. } => {
            let (stream, first, last) = (read.stream.as_deref()?, events.first()?, events.last()?);
            Some(Look { note, stream, first: first.version, version: last.version })
        }
        Action::Head { stream, first, version } => Some(Look { note, stream, first: *first, version: *version }),
        _ => None,
    }
}

/// When each version of each stream was first asked for, as far as anybody has read them.
fn asked_for(notes: &[Note]) -> BTreeMap<&str, BTreeMap<u64, u64>> {
    let mut asked: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for note in notes {
        let Action::Append { append, .. } = &note.what else { continue };
        for (stream, event) in append.events() {
            let first = asked.entry((stream, &event.id)).or_insert(note.invoked);
            *first = note.invoked.min(*first);
        }
    }
    let mut versions: BTreeMap<&str, BTreeMap<u64, u64>> = BTreeMap::new();
    for note in notes {
        let Action::Read { events, .. } = &note.what else { continue };
        for event in events {
            let first = asked.get(&(event.stream.as_str(), event.id.as_str())).copied().unwrap_or(0);
            versions.entry(&event.stream).or_default().insert(event.version, first);
        }
    }
    versions
}

/// The version that a stream was known to have at `at`.
fn acknowledged(notes: &[Note], stream: &str, at: u64) -> u64 {
    let before = notes.iter().filter(|note| note.completed < at);
    let versions = before.filter_map(|note| match &note.what {
        Action::Append { append, told: Told::Done { version, .. } } => {
            append.parts.first().filter(|part| part.stream == stream).map(|_| *version)
        }
        _ => None,
    });
    versions.max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use quorate_sim::check::api::{Append, Expected, Read, SentEvent};

    use super::*;

    fn note(invoked: u64, completed: u64, what: Action) -> Note {
        Note { client: "client".into(), invoked, completed, what }
    }

    /// Appends versions 1 to `count` of `a` at the moments 1 to `count`.
    fn grown(count: u64) -> Vec<Note> {
        let append = |n: u64| {
            let append = Append::to("a", Expected::Any, vec![SentEvent::new(format!("{n}"), 1)]);
            note(n, n, Action::Append { append, told: Told::Done { version: n, token: None } })
        };
        (1..=count).map(append).collect()
    }

    fn keep(at: u64, max_count: Option<u64>, told: Told) -> Note {
        note(at, at, Action::SetRule { stream: "a".into(), max_count, told })
    }

    fn seen(version: u64, content: Option<u64>) -> Seen {
        Seen {
            position: version,
            stream: "a".into(),
            version,
            id: version.to_string(),
            kind: String::new(),
            tags: vec![],
            content,
        }
    }

    fn log(at: u64, events: Vec<Seen>) -> Note {
        note(at, at, Action::read(Read::log(0, u64::MAX), events))
    }

    fn stream(at: u64, versions: std::ops::RangeInclusive<u64>) -> Note {
        let events = versions.map(|version| seen(version, Some(1))).collect();
        note(at, at, Action::read(Read::stream("a", 0, u64::MAX), events))
    }

    fn head(at: u64, first: u64, version: u64) -> Note {
        note(at, at, Action::Head { stream: "a".into(), first, version })
    }

    fn whole(at: u64, count: u64) -> Note {
        log(at, (1..=count).map(|version| seen(version, Some(1))).collect())
    }

    fn rules(notes: Vec<Note>) -> Vec<String> {
        rule::names(&Forgotten::of(&notes).judge(&notes))
    }

    const DONE: Told = Told::Done { version: 1, token: None };

    #[test]
    fn a_stream_begins_where_its_rule_says() {
        let look = |first, version, told: Told| {
            let looks = vec![keep(11, Some(3), told), head(12, first, version), whole(90, 10)];
            rules([grown(10), looks].concat())
        };
        assert_eq!(look(8, 10, DONE), [""; 0]);
        assert_eq!(look(9, 10, DONE), ["gone for a reason"]);
        assert_eq!(look(7, 10, DONE), ["rules hide at once"]);
        assert_eq!(look(1, 10, DONE), ["rules hide at once"]);
        // Whether the rule is there nobody knows: both may be.
        assert_eq!(look(1, 10, Told::Unknown), [""; 0]);
        assert_eq!(look(8, 10, Told::Unknown), [""; 0]);
        assert_eq!(look(9, 10, Told::Unknown), ["gone for a reason"]);
    }

    #[test]
    fn a_reading_of_the_stream_is_a_look_at_it() {
        let look = |versions| rules([grown(10), vec![keep(11, Some(3), DONE), stream(12, versions)]].concat());
        assert_eq!(look(8..=10), [""; 0]);
        assert_eq!(look(7..=10), ["rules hide at once"]);
        assert_eq!(look(9..=10), ["gone for a reason"]);
    }

    #[test]
    fn what_begins_before_a_rule_is_confirmed_may_not_know_it() {
        let rule = note(11, 20, Action::SetRule { stream: "a".into(), max_count: Some(3), told: DONE });
        let look = |at| rules([grown(10), vec![rule.clone(), head(at, 1, 10), whole(90, 10)]].concat());
        assert_eq!(look(15), [""; 0]);
        assert_eq!(look(21), ["rules hide at once"]);
    }

    #[test]
    fn a_rule_that_was_lifted_forgets_no_more_than_it_could_meanwhile() {
        let look = |first| {
            let set = vec![keep(5, Some(2), DONE), keep(7, None, DONE)];
            rules([grown(10), set, vec![head(12, first, 10), whole(90, 10)]].concat())
        };
        assert_eq!(look(1), [""; 0]);
        assert_eq!(look(6), [""; 0], "a scavenge may have come while seven events were there");
        assert_eq!(look(7), ["gone for a reason"]);
    }

    #[test]
    fn what_was_scavenged_is_not_served_again() {
        let look = |scavenged, gone: u64| {
            let content = |version: u64| (version > gone).then_some(1);
            let events = (1..=10).map(|version| seen(version, content(version))).collect();
            let rest =
                vec![keep(11, Some(3), DONE), note(12, 14, Action::Scavenged { done: scavenged }), log(20, events)];
            rules([grown(10), rest].concat())
        };
        assert_eq!(look(true, 7), [""; 0]);
        assert_eq!(look(true, 6), ["forgotten for good"]);
        assert_eq!(look(false, 0), [""; 0]);
    }

    #[test]
    fn what_a_rule_keeps_may_not_be_gone() {
        let notes = [grown(10), vec![keep(5, Some(3), DONE), whole(90, 10)]].concat();
        let forgotten = Forgotten::of(&notes);
        let gone = |at, newest| (0..=10).rev().find(|version| forgotten.may_be_gone("a", *version, at, newest));
        assert_eq!([gone(4, None), gone(5, None), gone(8, None), gone(50, None)], [None, Some(2), Some(5), Some(7)]);
        assert_eq!([gone(50, Some(6)), gone(50, Some(20))], [Some(3), Some(7)]);
        assert!(!forgotten.may_be_gone("b", 1, 50, None));
    }
}
