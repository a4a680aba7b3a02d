//! The arguments, each as `quorate bench log` has it.

use std::{path::PathBuf, time::Duration};

use clap::Parser;

/// How to measure.
#[derive(Parser, Debug)]
pub(crate) struct Options {
    /// Measure only figures of this name, or below it
    #[arg(long, value_name = "NAME", default_value = "")]
    only: String,
    /// How long to measure each rate
    #[arg(long, default_value = "1s", value_parser = humantime::parse_duration)]
    pub(crate) span: Duration,
    /// Events of the store that catch-up is measured on
    #[arg(long, default_value_t = 100_000)]
    pub(crate) events: u64,
    /// Where to put files, on the disk to be measured; they are removed at the end
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    pub(crate) folder: PathBuf,
}

impl Options {
    /// Whether `name`, a figure or a group of them, or something below it is to be measured.
    pub(crate) fn wants(&self, name: &str) -> bool {
        is_within(name, &self.only) || is_within(&self.only, name)
    }
}

/// Whether `name` is `group` or below it, as in paths: `append/16` is not within `append/1`.
fn is_within(name: &str, group: &str) -> bool {
    let group = group.trim_end_matches('/');
    name.strip_prefix(group).is_some_and(|rest| group.is_empty() || rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::is_within;

    #[test]
    fn a_group_holds_what_is_below_it_and_nothing_that_merely_begins_the_same() {
        assert!(is_within("append/16", "append/"));
        assert!(is_within("append/16", "append"));
        assert!(is_within("append/16", "append/16"));
        assert!(is_within("append/16", ""));
        assert!(!is_within("append/16", "append/1"));
        assert!(!is_within("append", "append/16"));
    }
}
