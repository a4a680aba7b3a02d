//! As much Markdown as it takes to find links and headings.

use std::collections::{BTreeMap, BTreeSet};

/// A link as written.
pub(super) struct Link {
    /// Counted from 1.
    pub(super) line: usize,
    pub(super) target: String,
}

/// Every link of a document: inline, by definition, image, or HTML; none from code.
pub(super) fn links(text: &str) -> impl Iterator<Item = Link> + use<> {
    let lines = prose(text).into_iter();
    lines.flat_map(|(line, prose)| targets(&prose).into_iter().map(move |target| Link { line, target }))
}

/// The anchors that the headings of a document give.
pub(super) fn anchors(text: &str) -> BTreeSet<String> {
    let mut seen = BTreeMap::<String, usize>::new();
    let mut anchors = BTreeSet::new();
    for heading in lines_outside_fences(text).filter_map(|(_, line)| heading(line)) {
        let slug = slug(heading);
        let times = seen.entry(slug.clone()).or_default();
        anchors.insert(if *times == 0 { slug } else { format!("{slug}-{times}") });
        *times += 1;
    }
    for (_, line) in lines_outside_fences(text) {
        anchors.extend(attributes(line, "id=\"").chain(attributes(line, "name=\"")));
    }
    anchors
}

fn heading(line: &str) -> Option<&str> {
    let rest = line.trim_start_matches('#');
    let level = line.len() - rest.len();
    ((1..=6).contains(&level) && rest.starts_with(' ')).then(|| rest.trim())
}

/// The anchor of a heading: lower case, spaces as hyphens, punctuation dropped.
fn slug(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.flat_map(char::to_lowercase).map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// The numbered lines of a document, without fenced code and with code spans emptied.
fn prose(text: &str) -> Vec<(usize, String)> {
    lines_outside_fences(text).map(|(number, line)| (number, without_code_spans(line))).collect()
}

fn lines_outside_fences(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fence: Option<&str> = None;
    text.lines().enumerate().filter_map(move |(index, line)| {
        let trimmed = line.trim_start();
        let marker = ["```", "~~~"].into_iter().find(|marker| trimmed.starts_with(marker));
        match (fence, marker) {
            (None, None) => return Some((index + 1, line)),
            (None, Some(opening)) => fence = Some(opening),
            (Some(opening), Some(closing)) if opening == closing => fence = None,
            (Some(_), _) => {}
        }
        None
    })
}

fn without_code_spans(line: &str) -> String {
    let mut kept = String::new();
    let mut rest = line;
    while let Some(start) = rest.find('`') {
        let ticks = rest[start..].len() - rest[start..].trim_start_matches('`').len();
        let inside = start + ticks;
        let Some(end) = closing_ticks(&rest[inside..], ticks) else { break };
        kept.push_str(&rest[..start]);
        rest = &rest[inside + end + ticks..];
    }
    kept + rest
}

/// Where a run of exactly `ticks` backticks starts.
fn closing_ticks(text: &str, ticks: usize) -> Option<usize> {
    let mut at = 0;
    while let Some(found) = text[at..].find('`') {
        let start = at + found;
        let run = text[start..].len() - text[start..].trim_start_matches('`').len();
        if run == ticks {
            return Some(start);
        }
        at = start + run;
    }
    None
}

fn targets(line: &str) -> Vec<String> {
    let inline = line.match_indices("](").filter_map(|(at, marker)| destination(&line[at + marker.len()..]));
    let html = attributes(line, "src=\"").chain(attributes(line, "href=\""));
    inline.chain(definition(line)).chain(html).collect()
}

/// The target at the start of `text`: in angle brackets, or up to a space or the closing parenthesis.
fn destination(text: &str) -> Option<String> {
    if let Some(bracketed) = text.strip_prefix('<') {
        return Some(bracketed.split_once('>')?.0.to_owned());
    }
    let mut open = 0_usize;
    let end = text.find(|c: char| {
        open += usize::from(c == '(');
        let closes = c == ')' && open == 0;
        open -= usize::from(c == ')' && open > 0);
        closes || c.is_whitespace()
    });
    Some(text[..end.unwrap_or(text.len())].to_owned())
}

/// The target of `[label]: target`.
fn definition(line: &str) -> Option<String> {
    let (label, rest) = line.trim_start().strip_prefix('[')?.split_once("]:")?;
    let is_footnote = label.starts_with('^');
    (!is_footnote && !label.contains(']')).then(|| destination(rest.trim_start())).flatten()
}

fn attributes<'a>(line: &'a str, opening: &'a str) -> impl Iterator<Item = String> + 'a {
    line.match_indices(opening).filter_map(move |(at, _)| {
        let value = &line[at + opening.len()..];
        Some(value.split_once('"')?.0.to_owned())
    })
}
