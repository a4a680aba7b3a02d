//! Regular expressions. What it takes to read one is told from how it is written, and paid before it is done.

use std::{collections::BTreeMap, convert::Infallible, sync::Arc};

use regex::Regex;
use regex_syntax::{
    ast::{self, Ast, ClassSetBinaryOp, ClassSetItem, FlagsItemKind},
    hir::{
        Class, Hir, HirKind,
        translate::{Translator, TranslatorBuilder},
    },
};

use super::meter::{Meter, Step, Stop};

/// The longest regular expression, in bytes.
const MAX_BYTES: usize = 1 << 10;
/// How deep its groups and classes lie in each other, at most.
const NESTING: u32 = 50;
/// Steps that it costs to read any, and for each of its bytes.
const READ: (u64, u64) = (1_000, 16);
/// Steps that a class costs that has a name, as `\w` and `\p{L}`.
const NAMED: u64 = 1_000;
/// The most memory of an automaton, in bytes.
const AUTOMATON: usize = 256 << 10;
/// What it costs at most to make an automaton, which ends at so much memory, in steps.
const MADE: u64 = 100_000;
/// All code points.
const ALL: u64 = 0x11_0000;

/// Regular expressions that were read, by [`key`].
pub(super) type Patterns = BTreeMap<String, Arc<Searched>>;

/// How a regular expression is read.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RegexFlags {
    pub(super) ignore_case: bool,
    pub(super) extended: bool,
    pub(super) dot_matches_newline: bool,
}

/// A regular expression with what a byte of a search with it may cost.
#[derive(Debug)]
pub(super) struct Searched {
    pub(super) regex: Regex,
    pub(super) weight: u64,
}

/// What an expression is known by, where it was read.
pub(super) fn key(text: &str, flags: RegexFlags) -> String {
    let flag = |is_set: bool, name: &'static str| if is_set { name } else { "" };
    let RegexFlags { ignore_case, extended, dot_matches_newline } = flags;
    format!("{}{}{} {text}", flag(ignore_case, "i"), flag(extended, "x"), flag(dot_matches_newline, "s"))
}

/// Refuses what is too long, before anything looks at it.
pub(super) fn check_length(text: &str) -> Step {
    if text.len() > MAX_BYTES {
        let what = format!("a regular expression has at most {MAX_BYTES} bytes, this one has {}", text.len());
        return Err(Stop::raise(what));
    }
    Ok(())
}

/// Reads a regular expression. An error is raised in a line where it is none.
pub(super) fn read(meter: &mut Meter, text: &str, flags: RegexFlags) -> Step<Searched> {
    let wrong = |cause: &dyn std::fmt::Display| {
        let cause = cause.to_string();
        let why = cause.lines().last().unwrap_or_default().trim_start_matches("error: ");
        Stop::raise(format!("`{text}` is no regular expression: {why}"))
    };
    check_length(text)?;
    meter.step(READ.0 + READ.1 * text.len() as u64)?;
    let written = ast::parse::ParserBuilder::new()
        .ignore_whitespace(flags.extended)
        .nest_limit(NESTING)
        .build()
        .parse(text)
        .map_err(|cause| wrong(&cause))?;
    meter.step(classes(&written, flags.ignore_case))?;
    let parsed = TranslatorBuilder::new()
        .case_insensitive(flags.ignore_case)
        .dot_matches_new_line(flags.dot_matches_newline)
        .build()
        .translate(text, &written)
        .map_err(|cause| wrong(&cause))?;
    meter.step(sum(&parsed, &ranges).min(MADE))?;
    let regex = regex::RegexBuilder::new(text)
        .case_insensitive(flags.ignore_case)
        .ignore_whitespace(flags.extended)
        .dot_matches_new_line(flags.dot_matches_newline)
        .size_limit(AUTOMATON)
        .dfa_size_limit(AUTOMATON)
        .nest_limit(NESTING)
        .build()
        .map_err(|cause| wrong(&cause))?;
    Ok(Searched { regex, weight: 1 + sum(&parsed, &|_| 2) / 8 })
}

/// About how many states an expression's automaton has, with `of` for a class: where nothing quicker fits, a search tries all
/// of them at each byte.
fn sum(parsed: &Hir, of: &dyn Fn(&Class) -> u64) -> u64 {
    match parsed.kind() {
        HirKind::Empty | HirKind::Look(_) => 1,
        HirKind::Literal(literal) => literal.0.len() as u64,
        HirKind::Class(class) => of(class),
        HirKind::Repetition(repeated) => {
            let times = u64::from(repeated.max.unwrap_or(repeated.min + 1).max(1));
            sum(&repeated.sub, of).saturating_mul(times)
        }
        HirKind::Capture(group) => sum(&group.sub, of),
        HirKind::Concat(all) | HirKind::Alternation(all) => {
            all.iter().map(|part| sum(part, of)).fold(0_u64, u64::saturating_add)
        }
    }
}

/// About how many states a class takes, each range several bytes long.
fn ranges(class: &Class) -> u64 {
    match class {
        Class::Unicode(class) => 4 * class.ranges().len() as u64,
        Class::Bytes(class) => class.ranges().len() as u64,
    }
}

/// What it takes to bring an expression's classes into their form, in steps.
fn classes(written: &Ast, ignores_case: bool) -> u64 {
    let count = Classes { folds: ignores_case, ..Classes::default() };
    let Ok(count) = ast::visit(written, count);
    count.steps + if count.folds { count.points / 2 } else { 0 }
}

/// Counts an expression's classes.
#[derive(Default)]
struct Classes {
    steps: u64,
    /// How many characters have to be looked at where case is ignored: all of a class, and again in each class around it.
    points: u64,
    /// Whether case is ignored anywhere.
    folds: bool,
    /// How many classes are around.
    around: u64,
}

impl Classes {
    fn has(&mut self, points: u64) {
        self.points = self.points.saturating_add(points.saturating_mul(self.around));
    }

    fn unicode(&mut self, class: &ast::ClassUnicode) {
        let translated = Translator::new().translate("", &Ast::ClassUnicode(Box::new(class.clone())));
        let size = match translated.as_ref().map(Hir::kind) {
            Ok(HirKind::Class(Class::Unicode(class))) => {
                class.iter().map(|range| u64::from(range.end()) - u64::from(range.start()) + 1).sum()
            }
            _ => 1,
        };
        self.steps += NAMED;
        // It is turned round only after its case was seen to.
        self.points = self.points.saturating_add(if class.is_negated() { ALL - size } else { size });
        self.has(size);
    }

    fn flags(&mut self, flags: &ast::Flags) {
        let ignores = |item: &ast::FlagsItem| item.kind == FlagsItemKind::Flag(ast::Flag::CaseInsensitive);
        self.folds = self.folds || flags.items.iter().any(ignores);
    }
}

impl ast::Visitor for Classes {
    type Output = Self;
    type Err = Infallible;

    fn finish(self) -> Result<Self, Infallible> {
        Ok(self)
    }

    fn visit_pre(&mut self, part: &Ast) -> Result<(), Infallible> {
        match part {
            Ast::Flags(set) => self.flags(&set.flags),
            Ast::Group(group) => drop(group.flags().map(|flags| self.flags(flags))),
            Ast::ClassPerl(_) => self.steps += NAMED,
            Ast::ClassUnicode(class) => self.unicode(class),
            Ast::ClassBracketed(_) => self.around = 1,
            _ => {}
        }
        Ok(())
    }

    fn visit_post(&mut self, _: &Ast) -> Result<(), Infallible> {
        self.around = 0;
        Ok(())
    }

    fn visit_class_set_item_pre(&mut self, item: &ClassSetItem) -> Result<(), Infallible> {
        match item {
            ClassSetItem::Empty(_) | ClassSetItem::Union(_) => {}
            ClassSetItem::Literal(_) => self.has(1),
            ClassSetItem::Range(range) => {
                self.has(u64::from(range.end.c).saturating_sub(u64::from(range.start.c)) + 1);
            }
            ClassSetItem::Ascii(ascii) => self.has(if ascii.negated { ALL } else { 128 }),
            ClassSetItem::Perl(class) => {
                self.steps += NAMED;
                // Words are many, but few of their ranges have capitals, and the others are passed over.
                self.has(if class.negated { ALL } else { 10_000 });
            }
            ClassSetItem::Unicode(class) => self.unicode(class),
            ClassSetItem::Bracketed(class) => {
                self.has(if class.negated { ALL } else { 0 });
                self.around += 1;
            }
        }
        Ok(())
    }

    fn visit_class_set_item_post(&mut self, item: &ClassSetItem) -> Result<(), Infallible> {
        self.around -= u64::from(matches!(item, ClassSetItem::Bracketed(_)));
        Ok(())
    }

    fn visit_class_set_binary_op_pre(&mut self, _: &ClassSetBinaryOp) -> Result<(), Infallible> {
        self.around += 1;
        Ok(())
    }

    fn visit_class_set_binary_op_post(&mut self, _: &ClassSetBinaryOp) -> Result<(), Infallible> {
        self.around -= 1;
        Ok(())
    }
}
