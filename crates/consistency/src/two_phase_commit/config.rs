//! How a coordinator works, and what it accepts at most.

use std::{ops::RangeInclusive, time::Duration};

use quorate_foundations::name::Name;

use super::TxnError;

/// When a caller hears that its transaction is committed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Answer {
    /// When every participant has done it, or [`Config::applied_within`] has passed since it was decided.
    #[default]
    Applied,
    /// When it is decided, and every participant is being told. Participants in this process have it in line before anything that is
    /// asked of them later.
    Decided,
}

/// How a coordinator works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The coordinator's name in its store. Whoever opens the same name takes over, unless `takeover` says otherwise. Default `main`.
    pub name: Name,
    /// Where several processes coordinate under the name beside each other: after how long without a sign of life one is fenced by the others,
    /// which end what it left. It gives five in that time. Where two differ, the longer one holds. 1 s to 1 h. Default none: whoever
    /// opens the name has it alone.
    pub takeover: Option<Duration>,
    /// How long participants may take to vote; then the transaction is aborted. Default 5 s.
    pub prepare_timeout: Duration,
    /// How long one commit, abort or question for what is in doubt may take before it is sent again. Default 5 s.
    pub call_timeout: Duration,
    /// How long the caller of a transaction waits, once it is decided, for participants to do it. Default 1 s.
    pub applied_within: Duration,
    /// When the caller is answered, unless its transaction says otherwise. Default when it is applied.
    pub answer: Answer,
    /// How long the log may leave a decision unanswered before the caller is told that its outcome is unknown. Default 5 s.
    pub decision_patience: Duration,
    /// How often participants are asked what is in doubt with them. Default 5 s.
    pub sweep: Duration,
    /// The pause before a commit or an abort is sent again: the first, doubled up to 64 times as long. Default 50 ms.
    pub pause: Duration,
    /// Transactions that have not ended, at most; beyond it new ones are refused. Default 10,000.
    pub max_unfinished: usize,
    /// Transactions whose end one and the same participant has not confirmed, at most: one that votes and then confirms nothing does not keep the
    /// others from theirs. Default 10,000.
    pub max_unfinished_of_one: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            name: Name::new("main").unwrap_or_else(|_| unreachable!("it is a name")),
            takeover: None,
            prepare_timeout: Duration::from_secs(5),
            call_timeout: Duration::from_secs(5),
            applied_within: Duration::from_secs(1),
            answer: Answer::Applied,
            decision_patience: Duration::from_secs(5),
            sweep: Duration::from_secs(5),
            pause: Duration::from_millis(50),
            max_unfinished: 10_000,
            max_unfinished_of_one: 10_000,
        }
    }
}

impl Config {
    /// The longest of its spans.
    pub const MAX_SPAN: Duration = Duration::from_secs(24 * 3_600);
    /// What [`takeover`](Self::takeover) may be.
    pub const TAKEOVER: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3_600);
    /// The longest name, in bytes: it stands in a tag.
    pub const MAX_NAME_BYTES: usize = 64;

    pub(super) fn check(&self) -> Result<(), TxnError> {
        let invalid = |what: String| Err(TxnError::Invalid { what });
        let name = self.name.as_str();
        let is_plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        if name.len() > Self::MAX_NAME_BYTES || !is_plain {
            let max = Self::MAX_NAME_BYTES;
            return invalid(format!(
                "a coordinator's name is 1 to {max} letters, digits, `.`, `_` and `-`, `{name}` is not"
            ));
        }
        let spans = [
            ("prepare_timeout", self.prepare_timeout),
            ("call_timeout", self.call_timeout),
            ("sweep", self.sweep),
            ("pause", self.pause),
            ("decision_patience", self.decision_patience),
        ];
        let longest = [("applied_within", self.applied_within)];
        let wrong = spans.iter().find(|(_, span)| span.is_zero() || *span > Self::MAX_SPAN);
        let wrong = wrong.or_else(|| longest.iter().find(|(_, span)| *span > Self::MAX_SPAN));
        if let Some((field, span)) = wrong {
            return invalid(format!("{field} is more than nothing and at most {:?}, {span:?} is not", Self::MAX_SPAN));
        }
        if let Some(takeover) = self.takeover.filter(|span| !Self::TAKEOVER.contains(span)) {
            let (least, most) = Self::TAKEOVER.into_inner();
            return invalid(format!("takeover is {least:?} to {most:?}, {takeover:?} is not"));
        }
        for (field, most) in
            [("max_unfinished", self.max_unfinished), ("max_unfinished_of_one", self.max_unfinished_of_one)]
        {
            if most == 0 {
                return invalid(format!("{field} is at least 1"));
            }
        }
        Ok(())
    }
}
