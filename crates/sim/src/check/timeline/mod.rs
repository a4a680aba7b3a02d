//! A history to look at: a lane per client, a bar per operation, faults as bands, and what is wrong in red.
//!
//! One static page without scripts or anything from elsewhere, so that it can be kept with a seed, sent by mail, and
//! opened in ten years. Whatever comes from a history is escaped.
//!
//! ```
//! use quorate_foundations::time::Mono;
//! use quorate_sim::check::{
//!     history::{ClientId, History},
//!     register::{self, Call, Reply},
//!     timeline::{Band, Timeline},
//! };
//!
//! let mut history = History::new();
//! let read = history.invoke(ClientId(0), Call::read("<x>"), Mono::from_nanos(20));
//! history.ok(read, Reply::Value(Some(7)), Mono::from_nanos(30));
//! let page = Timeline::of(&history)
//!     .titled("seed 17")
//!     .with_band(Band::new("partition", Mono::from_nanos(10), Mono::from_nanos(25)))
//!     .marking(register::linearizable(&history).violations())
//!     .to_html();
//! assert!(page.contains("read of &lt;x&gt;") && page.contains("partition"));
//! ```

mod layout;
mod page;

use std::{collections::BTreeSet, fmt};

use quorate_foundations::time::Mono;

use super::{
    history::{ClientId, History, OpId},
    verdict::Violation,
};

pub use self::page::STYLE;

/// How many operations a page shows unless told otherwise.
const SHOWN: usize = 1_000;

/// Something that was so for a while: a partition, a crash, a slow disk, a clock set back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Band {
    label: String,
    story: String,
    from: Mono,
    until: Mono,
}

impl Band {
    /// A band from one time to another; a single instant is shown as a line.
    pub fn new(label: impl Into<String>, from: Mono, until: Mono) -> Self {
        Self { label: label.into(), story: String::new(), from, until }
    }

    /// With more to be told to whoever points at it.
    #[must_use]
    pub fn telling(mut self, story: impl Into<String>) -> Self {
        self.story = story.into();
        self
    }
}

/// What a page is drawn from.
#[derive(Clone, Debug)]
pub struct Timeline<'h, O, R> {
    history: &'h History<O, R>,
    title: String,
    bands: Vec<Band>,
    marked: BTreeSet<OpId>,
    sentences: Vec<String>,
    names: Vec<String>,
    shown: usize,
}

impl<'h, O: fmt::Display, R: fmt::Display> Timeline<'h, O, R> {
    /// The timeline of a history, with nothing marked.
    pub fn of(history: &'h History<O, R>) -> Self {
        let title = "History".to_owned();
        let (bands, marked, sentences, names) = (Vec::new(), BTreeSet::new(), Vec::new(), Vec::new());
        Self { history, title, bands, marked, sentences, names, shown: SHOWN }
    }

    /// With a title: the scenario, the seed, the commit.
    #[must_use]
    pub fn titled(mut self, title: impl Into<String>) -> Self {
        self.title = title.into();
        self
    }

    /// With names for its clients, by their numbers. Those without one go by their number.
    #[must_use]
    pub fn naming(mut self, clients: impl IntoIterator<Item = String>) -> Self {
        self.names = clients.into_iter().collect();
        self
    }

    /// With a band across all lanes.
    #[must_use]
    pub fn with_band(mut self, band: Band) -> Self {
        self.bands.push(band);
        self
    }

    /// With violations told at the top and their operations marked.
    #[must_use]
    pub fn marking<'v>(mut self, violations: impl IntoIterator<Item = &'v Violation>) -> Self {
        for violation in violations {
            self.marked.extend(&violation.operations);
            self.sentences.push(violation.sentence.clone());
        }
        self
    }

    /// With these operations marked, of which something else tells what is wrong with them.
    #[must_use]
    pub fn marking_operations(mut self, operations: impl IntoIterator<Item = OpId>) -> Self {
        self.marked.extend(operations);
        self
    }

    /// Shows at most so many operations: those nearest to the marked ones, or the first. The page says how many it leaves
    /// out. Default 1,000.
    #[must_use]
    pub fn showing(mut self, operations: usize) -> Self {
        self.shown = operations;
        self
    }

    /// The page.
    pub fn to_html(&self) -> String {
        page::render(self, &layout::Layout::of(self))
    }

    /// What the page shows, to stand in another page that has [`STYLE`].
    pub fn to_figure(&self) -> String {
        page::figure(self, &layout::Layout::of(self))
    }

    /// What a client is called.
    fn name(&self, client: ClientId) -> String {
        let name = usize::try_from(client.0).ok().and_then(|nth| self.names.get(nth));
        name.cloned().unwrap_or_else(|| client.to_string())
    }
}

#[cfg(test)]
mod tests;
