//! Patterns of LIKE and GLOB.
//!
//! A star takes as little as it can, and one letter more whenever what follows does not fit: only the last star is ever
//! reconsidered, so that there are at most as many comparisons as letters of the text times parts of the pattern.

use super::functions::{Refusal, Watch};

/// Whose wildcards a pattern has.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wildcards {
    /// `%` and `_`; capitals and small letters of ASCII are the same.
    Like { escape: Option<char> },
    /// `*`, `?` and `[…]`.
    Glob,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    /// Any letters.
    Any,
    /// Any one letter.
    One,
    Letter(char),
    /// One of these letters, or one of no others.
    Set {
        ranges: Vec<(char, char)>,
        inverted: bool,
    },
    /// Nothing fits: the pattern ends in the middle of something.
    Never,
}

/// A pattern that is understood.
pub(super) struct Pattern {
    parts: Vec<Part>,
    folds: bool,
}

impl Pattern {
    /// Reads a pattern; as SQLite does it, up to the first zero byte.
    pub(super) fn read(pattern: &[u8], wildcards: Wildcards) -> Self {
        let text = String::from_utf8_lossy(up_to_zero(pattern));
        let (mut letters, mut parts) = (text.chars().peekable(), Vec::new());
        while let Some(letter) = letters.next() {
            parts.push(match (wildcards, letter) {
                (Wildcards::Like { escape: Some(escape) }, letter) if letter == escape => {
                    letters.next().map_or(Part::Never, Part::Letter)
                }
                (Wildcards::Like { .. }, '%') | (Wildcards::Glob, '*') => Part::Any,
                (Wildcards::Like { .. }, '_') | (Wildcards::Glob, '?') => Part::One,
                (Wildcards::Glob, '[') => set(&mut letters),
                (_, letter) => Part::Letter(letter),
            });
        }
        parts.dedup_by(|next, before| *next == Part::Any && *before == Part::Any);
        Self { parts, folds: matches!(wildcards, Wildcards::Like { .. }) }
    }

    /// Whether a text is like it.
    pub(super) fn matches(&self, text: &[u8], watch: &Watch) -> Result<bool, Refusal> {
        /// Comparisons that are counted together.
        const TOGETHER: usize = 1 << 12;
        let text = String::from_utf8_lossy(up_to_zero(text));
        let (mut rest, mut at, mut compared) = (&*text, 0, 0);
        // The part behind the last star, and where what it took ends.
        let mut star: Option<(usize, &str)> = None;
        loop {
            compared += 1;
            if compared == TOGETHER {
                watch.spend(TOGETHER)?;
                compared = 0;
            }
            let letter = rest.chars().next();
            match (self.parts.get(at), letter) {
                (Some(Part::Any), _) => {
                    at += 1;
                    star = Some((at, rest));
                    if at == self.parts.len() {
                        return Ok(true);
                    }
                }
                (Some(part), Some(letter)) if self.fits(part, letter) => {
                    at += 1;
                    rest = &rest[letter.len_utf8()..];
                }
                (None, None) => return Ok(true),
                // What is left of the text only gets shorter.
                (Some(_), None) => return Ok(false),
                (_, Some(_)) => {
                    let Some((behind, taken)) = star else { return Ok(false) };
                    let Some(next) = taken.chars().next() else { return Ok(false) };
                    rest = &taken[next.len_utf8()..];
                    (at, star) = (behind, Some((behind, rest)));
                }
            }
        }
    }

    fn fits(&self, part: &Part, letter: char) -> bool {
        match part {
            Part::Any | Part::One => true,
            Part::Letter(wanted) => letter == *wanted || (self.folds && letter.eq_ignore_ascii_case(wanted)),
            Part::Set { ranges, inverted } => {
                ranges.iter().any(|(first, last)| (*first..=*last).contains(&letter)) != *inverted
            }
            Part::Never => false,
        }
    }
}

/// What stands behind `[`, up to its `]`.
fn set(letters: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Part {
    let inverted = letters.next_if_eq(&'^').is_some();
    let (mut ranges, mut before) = (Vec::new(), None);
    // A `]` in the first place stands for itself.
    if letters.next_if_eq(&']').is_some() {
        ranges.push((']', ']'));
    }
    while let Some(letter) = letters.next() {
        match (letter, before, letters.peek()) {
            (']', ..) => return Part::Set { ranges, inverted },
            ('-', Some(first), Some(last)) if *last != ']' => {
                ranges.push((first, *last));
                letters.next();
                before = None;
            }
            _ => {
                ranges.push((letter, letter));
                before = Some(letter);
            }
        }
    }
    Part::Never
}

fn up_to_zero(text: &[u8]) -> &[u8] {
    let end = memchr::memchr(0, text).unwrap_or(text.len());
    &text[..end]
}
