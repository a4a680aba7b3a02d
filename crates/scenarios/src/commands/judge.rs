//! The judge: a key has one effect and one answer, an answer is what the log says of it, and a question sees the command.

use std::collections::BTreeMap;

use quorate_sim::check::Verdict;

use super::{Answer, Dealing, Entry, Held, Ledger};
use crate::{
    judge::without_holes,
    notes::{Action, Note},
    rule,
};

/// A command and its answer, as one client knows them.
#[derive(Clone, Copy)]
struct Told<'n> {
    note: &'n Note,
    key: &'n str,
    purse: u64,
    cents: i64,
    answer: &'n Answer,
}

fn dealings(notes: &[Note]) -> impl Iterator<Item = (&Note, &Dealing)> {
    notes.iter().filter_map(|note| match &note.what {
        Action::Dealt(dealing) => Some((note, dealing)),
        _ => None,
    })
}

fn ledger(notes: &[Note]) -> Option<&Ledger> {
    dealings(notes).find_map(|(_, dealing)| if let Dealing::Closed(ledger) = dealing { Some(ledger) } else { None })
}

/// Judges what was written down.
pub(super) fn judge(notes: &[Note]) -> Vec<Verdict> {
    let ledger = ledger(notes);
    let read = rule::verdict("the run ends with the log", 1, ledger.is_none().then(|| "nobody read it".to_owned()));
    let Some(ledger) = ledger else { return vec![read] };
    let told = dealings(notes).filter_map(|(note, dealing)| match dealing {
        Dealing::Commanded { key, purse, cents, answer } => {
            Some(Told { note, key, purse: *purse, cents: *cents, answer })
        }
        _ => None,
    });
    let told: Vec<Told<'_>> = told.collect();
    let entries = &ledger.entries;
    vec![
        read,
        one_effect(&told, entries),
        one_answer(&told),
        decided_rightly(&told, entries),
        seen(notes, entries),
        folded(ledger),
    ]
}

/// Judges where syncs lie: what is left is that nobody is served a log with a hole in it.
pub(super) fn judge_where_syncs_lie(notes: &[Note]) -> Vec<Verdict> {
    let entries = ledger(notes).map(|ledger| &ledger.entries);
    entries.map(|entries| without_holes(entries.iter().map(|entry| entry.position))).into_iter().collect()
}

/// What a purse holds as of a position, and how often it was changed.
fn fold(entries: &[Entry], purse: u64, upto: u64) -> (i64, i64) {
    let own = entries.iter().filter(|entry| entry.purse == purse && entry.position <= upto);
    own.fold((0, 0), |(cents, times), entry| (cents + entry.cents, times + 1))
}

/// What was answered is in the log, as often as it was said, and what was rejected is not.
fn one_effect(told: &[Told<'_>], entries: &[Entry]) -> Verdict {
    let mut written = BTreeMap::<&str, u64>::new();
    for entry in entries {
        *written.entry(&entry.key).or_default() += 1;
    }
    let answered: BTreeMap<&str, &Answer> = told.iter().map(|told| (told.key, told.answer)).collect();
    let other = answered.iter().filter_map(|(key, answer)| {
        let (said, there) = (answer.events, written.get(key).copied().unwrap_or_default());
        (said != there).then(|| format!("the command `{key}` was said to lead to {said} events, and led to {there}"))
    });
    let strange = written.keys().filter(|key| !answered.contains_key(*key));
    let strange = strange.map(|key| format!("nobody was told of the command `{key}`, which led to events"));
    rule::verdict("a key has one effect", answered.len(), other.chain(strange))
}

/// Whoever repeats a command is told what was told before, and that it was.
fn one_answer(told: &[Told<'_>]) -> Verdict {
    let same = |one: &Answer, other: &Answer| Answer { repeated: one.repeated, ..other.clone() } == *one;
    let (mut pairs, mut other) = (0, Vec::new());
    for (n, later) in told.iter().enumerate() {
        for earlier in told[..n].iter().filter(|earlier| earlier.key == later.key) {
            pairs += 1;
            let (key, before, now) = (later.key, earlier.answer, later.answer);
            if !same(before, now) {
                other.push(format!("the command `{key}` was answered with {before:?}, and then with {now:?}"));
            } else if earlier.note.completed < later.note.invoked && !now.repeated {
                other.push(format!("the command `{key}` was answered as if for the first time, and not for the first"));
            }
        }
    }
    rule::verdict("an answer stays the answer", pairs, other)
}

/// A command was carried out, or rejected, upon what its purse held then; its token stands for that, and for no less than what was
/// told before it was sent.
fn decided_rightly(told: &[Told<'_>], entries: &[Entry]) -> Verdict {
    let wrong = told.iter().filter_map(|Told { key, purse, cents, answer, note, .. }| {
        let held = |upto| fold(entries, *purse, upto).0;
        let earlier = told.iter().filter(|one| one.purse == *purse && one.answer.events > 0);
        let known = earlier.filter(|one| one.note.completed < note.invoked).map(|one| one.answer.append).max();
        let is_stale = !answer.repeated && known.is_some_and(|known| answer.append < known);
        let right = match answer.missing {
            Some(missing) => missing > 0 && held(answer.append) + cents == -missing,
            None if answer.events == 0 => *cents == 0,
            None => {
                let own = |entry: &&Entry| entry.key == *key && entry.position == answer.append;
                entries.iter().find(own).is_some_and(|entry| entry.cents == *cents && held(entry.position) >= 0)
            }
        };
        let before = held(answer.append);
        (!right || is_stale)
            .then(|| format!("`{key}` of {cents} was answered with {answer:?} where the purse had {before} with it"))
    });
    rule::verdict("a command is decided on what there is", told.len(), wrong)
}

/// Whoever asks with the token of an answer is shown at least that, and the purse as it was at the position said.
fn seen(notes: &[Note], entries: &[Entry]) -> Verdict {
    let asked = dealings(notes).filter_map(|(_, dealing)| match dealing {
        Dealing::Asked { purse, token, held } => Some((*purse, *token, held)),
        _ => None,
    });
    let asked: Vec<(u64, u64, &Held)> = asked.collect();
    let wrong = asked.iter().filter_map(|(purse, token, held)| {
        let Held { cents, times, position } = held;
        let due = fold(entries, *purse, *position);
        let right = position >= token && due == (*cents, *times);
        (!right)
            .then(|| format!("purse {purse} was shown with {held:?} to whoever had token {token}; the log has {due:?}"))
    });
    rule::verdict("a question sees the command", asked.len(), wrong)
}

fn folded(ledger: &Ledger) -> Verdict {
    let wrong = ledger.rows.iter().filter_map(|(purse, cents, times)| {
        let due = fold(&ledger.entries, *purse, u64::MAX);
        (due != (*cents, *times)).then(|| format!("purse {purse} has {cents} of {times} changes, the log {due:?}"))
    });
    rule::verdict("the view is the fold of the log", ledger.rows.len(), wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EFFECT: &str = "a key has one effect";
    const ANSWER: &str = "an answer stays the answer";
    const DECIDED: &str = "a command is decided on what there is";
    const SEEN: &str = "a question sees the command";
    const FOLD: &str = "the view is the fold of the log";

    fn commanded(key: &str, cents: i64, missing: Option<i64>, append: u64, repeated: bool) -> Dealing {
        let events = u64::from(missing.is_none() && cents != 0);
        let answer = Answer { missing, events, append, token: append.to_string(), repeated };
        Dealing::Commanded { key: key.into(), purse: 1, cents, answer }
    }

    fn asked(token: u64, cents: i64, times: i64, position: u64) -> Dealing {
        Dealing::Asked { purse: 1, token, held: Held { cents, times, position } }
    }

    fn entry(position: u64, cents: i64, key: &str) -> Entry {
        Entry { position, purse: 1, cents, key: key.into() }
    }

    fn closed(entries: &[Entry], cents: i64, times: i64) -> Dealing {
        Dealing::Closed(Ledger { entries: entries.to_vec(), rows: vec![(1, cents, times)] })
    }

    fn entries() -> [Entry; 2] {
        [entry(1, 50, "a"), entry(2, -20, "c")]
    }

    /// A run in which everything was right.
    fn right() -> Vec<Dealing> {
        vec![
            commanded("a", 50, None, 1, false),
            commanded("b", -80, Some(30), 1, false),
            commanded("c", -20, None, 2, false),
            commanded("b", -80, Some(30), 1, true),
            commanded("d", 0, None, 2, false),
            asked(1, 50, 1, 1),
            asked(1, 30, 2, 2),
            closed(&entries(), 30, 2),
        ]
    }

    fn judged(dealings: Vec<Dealing>) -> Vec<Verdict> {
        let note = |(n, dealing): (u64, Dealing)| {
            let what = Action::Dealt(dealing);
            Note { client: "client-0".into(), invoked: 2 * n, completed: 2 * n + 1, what }
        };
        judge(&(0..).zip(dealings).map(note).collect::<Vec<_>>())
    }

    fn broken(change: impl FnOnce(&mut Vec<Dealing>)) -> Vec<String> {
        let mut run = right();
        change(&mut run);
        rule::names(&judged(run))
    }

    #[test]
    fn what_is_right_breaks_nothing_and_everything_was_looked_at() {
        assert_eq!(broken(|_| {}), [""; 0]);
        assert!(judged(right()).iter().all(|verdict| verdict.examined() > Some(0)));
    }

    #[test]
    fn each_change_breaks_the_rule_that_it_is_about() {
        assert_eq!(broken(|run| drop(run.pop())), ["the run ends with the log"]);
        let twice = [entries().to_vec(), vec![entry(3, 50, "a")]].concat();
        assert_eq!(broken(|run| run[7] = closed(&twice, 80, 3)), [EFFECT], "carried out twice");
        let rejected = [entries().to_vec(), vec![entry(3, -10, "b")]].concat();
        assert_eq!(broken(|run| run[7] = closed(&rejected, 20, 3)), [EFFECT], "what was rejected was carried out");
        let strange = [entries().to_vec(), vec![entry(3, 1, "e")]].concat();
        assert_eq!(broken(|run| run[7] = closed(&strange, 31, 3)), [EFFECT], "of nobody");
        assert_eq!(broken(|run| run[3] = commanded("b", -80, Some(50), 2, false)), [ANSWER], "decided anew");
        assert_eq!(
            broken(|run| run[3] = commanded("b", -80, Some(30), 1, false)),
            [ANSWER, DECIDED],
            "as if for the first time, and upon what is no more"
        );
        assert_eq!(broken(|run| run[4] = commanded("d", 0, None, 1, false)), [DECIDED], "another was told by then");
        assert_eq!(broken(|run| run[4] = commanded("d", 5, Some(1), 2, false)), [DECIDED], "there was no reason");
        let wrong = |run: &mut Vec<Dealing>| {
            run[1] = commanded("b", -80, Some(29), 1, false);
            run[3] = commanded("b", -80, Some(29), 1, true);
        };
        assert_eq!(broken(wrong), [DECIDED; 2], "it was another");
        assert_eq!(broken(|run| run[2] = commanded("c", -20, None, 1, false)), [DECIDED], "its token is of another");
        assert_eq!(broken(|run| run[6] = asked(2, 50, 1, 1)), [SEEN], "it does not show what the token stands for");
        assert_eq!(broken(|run| run[6] = asked(1, 50, 1, 2)), [SEEN], "nor what it says");
        assert_eq!(broken(|run| run[7] = closed(&entries(), 30, 1)), [FOLD]);
    }

    #[test]
    fn who_asked_at_once_may_both_be_the_first() {
        let note = |invoked, completed| {
            let what = Action::Dealt(commanded("b", 0, None, 1, false));
            Note { client: "client-0".into(), invoked, completed, what }
        };
        let ledger = Note { what: Action::Dealt(closed(&[], 0, 0)), ..note(9, 10) };
        assert_eq!(rule::names(&judge(&[note(1, 5), note(2, 6), ledger.clone()])), [""; 0]);
        assert_eq!(rule::names(&judge(&[note(1, 2), note(3, 4), ledger])), [ANSWER]);
    }
}
