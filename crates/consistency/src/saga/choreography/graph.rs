//! What led to what in a course: as a tree, for Mermaid, for Graphviz, and as data.

use std::{collections::BTreeMap, fmt::Write as _, sync::Arc};

use serde::Serialize;

use super::machine::{Course, Seen};

/// The events of a course with their causes, and what is missing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Graph {
    /// The process.
    pub process: Arc<str>,
    /// The course.
    pub course: Arc<str>,
    /// How it stands, in a word.
    pub standing: &'static str,
    /// Its events, in the order of the log.
    pub events: Vec<Node>,
    /// What is expected and has not come.
    pub missing: Vec<Missing>,
}

/// An event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Node {
    /// Where it stands in the log.
    pub position: u64,
    /// Its `id`.
    pub id: Arc<str>,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: Arc<str>,
    /// Its stream.
    pub stream: Arc<str>,
    /// How many events of the course led to it.
    pub depth: u32,
    /// The position of the event that caused it, if that is of the course.
    pub cause: Option<u64>,
    /// Its `causationid`.
    pub causation: Option<Arc<str>>,
}

/// Something that has not come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// The position of the event behind which it is expected.
    pub after: u64,
    /// The types of which one is.
    pub any_of: Vec<Arc<str>>,
    /// Whether it is overdue.
    pub overdue: bool,
}

impl Graph {
    /// The graph of a course.
    pub fn of(process: &str, key: &str, course: &Course, trail: &[Seen]) -> Self {
        let node = |(n, seen): (usize, &Seen)| {
            let cause = seen.causation.as_ref().and_then(|id| trail[..n].iter().rfind(|one| one.id == *id));
            Node {
                position: seen.position.get(),
                id: seen.id.clone(),
                kind: seen.kind.clone(),
                stream: seen.stream.clone(),
                depth: seen.depth,
                cause: cause.map(|cause| cause.position.get()),
                causation: seen.causation.clone(),
            }
        };
        let missing = course.pending.iter().map(|one| Missing {
            after: one.position,
            any_of: one.any_of.clone(),
            overdue: one.overdue,
        });
        Self {
            process: process.into(),
            course: key.into(),
            standing: course.standing.word(),
            events: trail.iter().enumerate().map(node).collect(),
            missing: missing.collect(),
        }
    }

    /// As a tree, an event under the one that caused it.
    pub fn tree(&self) -> String {
        let mut below: BTreeMap<Option<u64>, Vec<&Node>> = BTreeMap::new();
        for node in &self.events {
            below.entry(node.cause).or_default().push(node);
        }
        let mut text = format!("{} {}: {}\n", plain(&self.process), plain(&self.course), self.standing);
        // Iterative, the last one pushed first: a chain may be as deep as there are events.
        let roots =
            |of: Option<u64>, depth: usize| below.get(&of).into_iter().flatten().rev().map(move |node| (*node, depth));
        let mut left: Vec<(&Node, usize)> = roots(None, 1).collect();
        while let Some((node, depth)) = left.pop() {
            let indent = "  ".repeat(depth);
            let (kind, stream) = (plain(&node.kind), plain(&node.stream));
            let _infallible = writeln!(text, "{indent}{kind}  {stream} @{}", node.position);
            for missing in self.missing.iter().filter(|missing| missing.after == node.position) {
                let _infallible = writeln!(text, "{indent}  ✗ {}", missing.told());
            }
            left.extend(roots(Some(node.position), depth + 1));
        }
        text
    }

    /// For Mermaid: a flowchart.
    pub fn mermaid(&self) -> String {
        let mut text = "flowchart TD\n".to_owned();
        for node in &self.events {
            let _infallible =
                writeln!(text, "  e{}[\"{}<br/>{}\"]", node.position, html(&node.kind), html(&node.stream));
        }
        for (from, to) in self.events.iter().filter_map(|node| Some((node.cause?, node.position))) {
            let _infallible = writeln!(text, "  e{from} --> e{to}");
        }
        for (n, missing) in self.missing.iter().enumerate() {
            let _infallible = writeln!(text, "  m{n}([\"{}\"])\n  e{} -.-> m{n}", html(&missing.told()), missing.after);
            if missing.overdue {
                let _infallible = writeln!(text, "  style m{n} stroke:#c00,color:#c00");
            }
        }
        text
    }

    /// For Graphviz, in DOT.
    pub fn dot(&self) -> String {
        let mut text = format!("digraph {} {{\n  node [shape=box];\n", quoted(&self.process));
        for node in &self.events {
            let label = quoted(&format!("{}\n{}", node.kind, node.stream));
            let _infallible = writeln!(text, "  e{} [label={label}];", node.position);
        }
        for (from, to) in self.events.iter().filter_map(|node| Some((node.cause?, node.position))) {
            let _infallible = writeln!(text, "  e{from} -> e{to};");
        }
        for (n, missing) in self.missing.iter().enumerate() {
            let colour = if missing.overdue { "red" } else { "gray" };
            let (label, after) = (quoted(&missing.told()), missing.after);
            let _infallible = writeln!(
                text,
                "  m{n} [label={label}, style=dashed, color={colour}];\n  e{after} -> m{n} [style=dashed, color={colour}];"
            );
        }
        text.push_str("}\n");
        text
    }
}

impl Missing {
    fn told(&self) -> String {
        let which = self.any_of.iter().map(|kind| plain(kind)).collect::<Vec<_>>().join(" or ");
        format!("{which} {}", if self.overdue { "is overdue" } else { "is expected" })
    }
}

/// Without what would move a terminal's cursor.
fn plain(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '\u{fffd}' } else { letter }).collect()
}

fn html(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in plain(text).chars() {
        match letter {
            // Mermaid writes entities with `#`.
            '"' | '<' | '>' | '&' | '#' | ';' | '`' => {
                let _infallible = write!(escaped, "#{};", u32::from(letter));
            }
            _ => escaped.push(letter),
        }
    }
    escaped
}

fn quoted(text: &str) -> String {
    let mut escaped = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' | '\\' => escaped.extend(['\\', letter]),
            '\n' => escaped.push_str("\\n"),
            letter if letter.is_control() => escaped.push('\u{fffd}'),
            letter => escaped.push(letter),
        }
    }
    escaped.push('"');
    escaped
}
