//! From a program's text to its terms.

mod reading;

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use jaq_core::{
    load::{
        lex::{Lexer, StrPart},
        parse::{self, BinaryOp, Parser, Pattern as Written, Term as Ast},
        span,
    },
    path::{Opt, Part},
};

use super::{
    Fault, Limits, Program,
    meter::{Meter, Stop},
    native,
    number::Number,
    term::{Definition, Id, Pattern, Piece, Term},
    text::Flags,
    value::Value,
};
use reading::{brackets, length, unlexed, unparsed};

/// Functions written in jq, which every program has.
const PRELUDE: &str = include_str!("prelude.jq");

/// How deep terms lie in each other, at most.
const MAX_NESTING: usize = 500;
/// The most tokens of a program: operators in front of terms nest it without brackets, each by one.
const MAX_TOKENS: usize = 4_000;
/// What it may take to read the regular expressions that stand in a program: a tenth of a second.
const PATTERNS: Limits = Limits { steps: 2_000_000, bytes: 1 << 20, depth: 0, outputs: 0 };
/// What reading a program may take of the stack, in bytes.
const STACK: usize = 64 << 20;

pub(super) fn program(text: &str) -> Result<Program, Fault> {
    if text.len() > Program::MAX_BYTES {
        let what = format!("a program has at most {} bytes, this one has {}", Program::MAX_BYTES, text.len());
        return Err(Fault { at: 0, what });
    }
    brackets(text)?;
    stacker::grow(STACK, || {
        let tokens = Lexer::new(text).lex().map_err(|wrong| unlexed(text, &wrong))?;
        let length = length(&tokens);
        if length > MAX_TOKENS {
            let what = format!("a program has at most {MAX_TOKENS} words and signs, this one has {length}");
            return Err(Fault { at: 0, what });
        }
        let parsed = Parser::new(&tokens).parse(Parser::term).map_err(|wrong| unparsed(text, &wrong))?;
        let prelude = jaq_core::load::parse(PRELUDE, |parser| parser.defs()).unwrap_or_default();
        let prelude = prelude.iter().map(|def| ((def.name, def.args.len()), def)).collect();
        let mut compiler = Compiler {
            text,
            prelude,
            known: BTreeMap::new(),
            terms: Vec::new(),
            single: Vec::new(),
            definitions: Vec::new(),
            scope: Scope::default(),
            nesting: 0,
            meter: Meter::new(PATTERNS),
        };
        let main = compiler.term(&parsed)?;
        Ok(Program {
            text: text.into(),
            terms: compiler.terms,
            single: compiler.single,
            definitions: compiler.definitions,
            patterns: Arc::new(compiler.meter.patterns()),
            main,
        })
    })
}

type Def<'s> = parse::Def<&'s str, Ast<&'s str>>;
/// A function's name and how many arguments it takes.
type Signature<'s> = (&'s str, usize);

/// What names mean at a place of the program.
#[derive(Default)]
struct Scope<'s> {
    entries: Vec<Entry<'s>>,
    /// How many of them are bound when the program runs.
    bound: u32,
}

enum Entry<'s> {
    Variable(&'s str, u32),
    Closure(&'s str, u32),
    Label(&'s str, u32),
    Definition(Signature<'s>, u32, u32),
}

impl<'s> Scope<'s> {
    fn variable(&mut self, name: &'s str) {
        self.entries.push(Entry::Variable(name, self.bound));
        self.bound += 1;
    }

    fn closure(&mut self, name: &'s str) {
        self.entries.push(Entry::Closure(name, self.bound));
        self.bound += 1;
    }

    fn label(&mut self, name: &'s str) {
        self.entries.push(Entry::Label(name, self.bound));
        self.bound += 1;
    }
}

struct Compiler<'a, 's> {
    text: &'s str,
    prelude: BTreeMap<Signature<'s>, &'a Def<'s>>,
    /// Definitions of the prelude that are compiled, or just being.
    known: BTreeMap<Signature<'s>, u32>,
    terms: Vec<Term>,
    /// Whether a term never has more than one output.
    single: Vec<bool>,
    definitions: Vec<Definition>,
    scope: Scope<'s>,
    nesting: usize,
    /// Counts what it takes to read regular expressions, and keeps them.
    meter: Meter,
}

impl<'a, 's> Compiler<'a, 's> {
    fn fault(&self, at: &str, what: impl Into<String>) -> Fault {
        // What stands in the prelude has no place in the program.
        let (whole, part) = (self.text.as_bytes().as_ptr_range(), at.as_ptr());
        let at = if whole.contains(&part) { span(self.text, at) } else { Range { start: 0, end: 0 } };
        Fault { at: at.start, what: what.into() }
    }

    fn add(&mut self, term: Term) -> Id {
        let is = |id: Id, single: &[bool]| single[id.0 as usize];
        let s = &self.single;
        let single = match &term {
            Term::Identity
            | Term::Constant(_)
            | Term::List(_)
            | Term::Variable(_)
            | Term::Break(_)
            | Term::Update(..) => true,
            Term::Text(pieces) => pieces.iter().all(|piece| match piece {
                Piece::Said(_) => true,
                Piece::Term(id) => is(*id, s),
            }),
            Term::Object(members) => members.iter().all(|(key, value)| is(*key, s) && is(*value, s)),
            Term::Negate(of) => is(*of, s),
            Term::Pipe(one, two) | Term::And(one, two) | Term::Or(one, two) => is(*one, s) && is(*two, s),
            Term::Bind(one, pattern, two) => is(*one, s) && is(*two, s) && matches!(pattern, Pattern::Variable),
            Term::Math(one, _, two) | Term::Compare(one, _, two) => is(*one, s) && is(*two, s),
            Term::Assign(_, value) | Term::UpdateMath(_, _, value) | Term::UpdateAlternative(_, value) => is(*value, s),
            Term::If(one, two, three) => is(*one, s) && is(*two, s) && is(*three, s),
            Term::Reduce { init, .. } => is(*init, s),
            Term::Native(_, arguments) => arguments.iter().all(|argument| is(*argument, s)),
            Term::Special(special, arguments) => {
                use native::Special::{
                    All, Any, Empty, Error, First, GetPath, GroupBy, Last, MaxBy, MinBy, Select, SortBy, UniqueBy,
                    Until,
                };
                match special {
                    Empty | First | Last | Any | All | SortBy | GroupBy | UniqueBy | MinBy | MaxBy => true,
                    Error | GetPath | Select | Until => arguments.iter().all(|argument| is(*argument, s)),
                    _ => false,
                }
            }
            Term::Field { of, .. } => is(*of, s),
            Term::Index { of, key, .. } => is(*of, s) && is(*key, s),
            _ => false,
        };
        self.terms.push(term);
        self.single.push(single);
        Id(u32::try_from(self.terms.len() - 1).unwrap_or(u32::MAX))
    }

    fn constant(&mut self, value: Value) -> Id {
        self.add(Term::Constant(value))
    }

    /// Compiles inside of what may be bound there.
    fn within<T>(&mut self, inside: impl FnOnce(&mut Self) -> Result<T, Fault>) -> Result<T, Fault> {
        let (entries, bound) = (self.scope.entries.len(), self.scope.bound);
        let compiled = inside(self);
        self.scope.entries.truncate(entries);
        self.scope.bound = bound;
        compiled
    }

    fn term(&mut self, ast: &Ast<&'s str>) -> Result<Id, Fault> {
        if self.nesting == MAX_NESTING {
            return Err(Fault { at: 0, what: format!("a program is nested at most {MAX_NESTING} deep") });
        }
        self.nesting += 1;
        let compiled = self.compiled(ast);
        self.nesting -= 1;
        compiled
    }

    fn compiled(&mut self, ast: &Ast<&'s str>) -> Result<Id, Fault> {
        let term = match ast {
            Ast::Id => Term::Identity,
            Ast::Recurse => Term::Special(native::Special::Recurse, Vec::new()),
            Ast::Num(digits) => {
                let number =
                    Number::read_loosely(digits).map_err(|why| self.fault(digits, format!("`{digits}`: {why}")))?;
                Term::Constant(Value::Number(number))
            }
            Ast::Str(format, parts) => return self.string(*format, parts),
            Ast::Arr(of) => Term::List(of.as_ref().map(|of| self.term(of)).transpose()?),
            Ast::Obj(members) => {
                let members = members.iter().map(|(key, value)| self.member(key, value.as_ref()));
                Term::Object(members.collect::<Result<_, _>>()?)
            }
            Ast::Neg(of) => Term::Negate(self.term(of)?),
            Ast::BinOp(one, op, two) => return self.operation(one, op, two),
            Ast::Label(name, body) => {
                let body = self.within(|compiler| {
                    compiler.scope.label(name);
                    compiler.term(body)
                })?;
                Term::Label(body)
            }
            Ast::Break(name) => {
                let found = self.scope.entries.iter().rev().find_map(|entry| match entry {
                    Entry::Label(known, at) if known == name => Some(*at),
                    _ => None,
                });
                let at = found.ok_or_else(|| self.fault(name, format!("there is no label `{name}` here")))?;
                Term::Break(self.scope.bound - at - 1)
            }
            Ast::Fold(word, source, pattern, arguments) => return self.fold(word, source, pattern, arguments),
            Ast::TryCatch(body, catch) => {
                Term::Try(self.term(body)?, catch.as_ref().map(|catch| self.term(catch)).transpose()?)
            }
            Ast::IfThenElse(branches, otherwise) => {
                let mut otherwise = match otherwise {
                    Some(otherwise) => self.term(otherwise)?,
                    None => self.add(Term::Identity),
                };
                for (condition, then) in branches.iter().rev() {
                    let (condition, then) = (self.term(condition)?, self.term(then)?);
                    otherwise = self.add(Term::If(condition, then, otherwise));
                }
                return Ok(otherwise);
            }
            Ast::Def(definitions, body) => {
                return self.within(|compiler| {
                    for definition in definitions {
                        compiler.define(definition)?;
                    }
                    compiler.term(body)
                });
            }
            Ast::Call(name, arguments) => return self.call(name, arguments),
            Ast::Var(name) => {
                let found = self.scope.entries.iter().rev().find_map(|entry| match entry {
                    Entry::Variable(known, at) if known == name => Some(*at),
                    _ => None,
                });
                let at = found.ok_or_else(|| {
                    let why = native::absent(name).map_or(String::new(), |why| format!(": {why}"));
                    self.fault(name, format!("there is no variable `{name}` here{why}"))
                })?;
                Term::Variable(self.scope.bound - at - 1)
            }
            Ast::Path(of, path) => {
                let mut of = self.term(of)?;
                for (part, optional) in &path.0 {
                    of = self.part(of, part, matches!(optional, Opt::Optional))?;
                }
                return Ok(of);
            }
        };
        Ok(self.add(term))
    }

    fn part(&mut self, of: Id, part: &Part<Ast<&'s str>>, optional: bool) -> Result<Id, Fault> {
        let mut bound = |bound: &Option<Ast<&'s str>>| bound.as_ref().map(|bound| self.term(bound)).transpose();
        let term = match part {
            Part::Range(None, None) => Term::Iterate { of, optional },
            Part::Range(from, to) => {
                let (from, to) = (bound(from)?, bound(to)?);
                Term::Slice { of, from, to, optional }
            }
            Part::Index(key) => {
                let key = self.term(key)?;
                match &self.terms[key.0 as usize] {
                    Term::Constant(value) => Term::Field { of, key: value.clone(), optional },
                    _ => Term::Index { of, key, optional },
                }
            }
        };
        Ok(self.add(term))
    }

    fn string(&mut self, format: Option<&'s str>, parts: &[StrPart<&'s str, Ast<&'s str>>]) -> Result<Id, Fault> {
        let mut pieces = Vec::new();
        let mut said = String::new();
        for part in parts {
            match part {
                StrPart::Str(text) => said.push_str(text),
                StrPart::Char(c) => said.push(*c),
                StrPart::Term(term) => {
                    if !said.is_empty() {
                        pieces.push(Piece::Said(std::mem::take(&mut said).into()));
                    }
                    let value = self.term(term)?;
                    let written = self.call(format.unwrap_or("@text"), &[])?;
                    pieces.push(Piece::Term(self.add(Term::Pipe(value, written))));
                }
            }
        }
        if pieces.is_empty() {
            return Ok(self.constant(Value::Text(said.into())));
        }
        if !said.is_empty() {
            pieces.push(Piece::Said(said.into()));
        }
        Ok(self.add(Term::Text(pieces)))
    }

    fn member(&mut self, key: &Ast<&'s str>, value: Option<&Ast<&'s str>>) -> Result<(Id, Id), Fault> {
        // `{$name}` is `{name: $name}`, `{name}` is `{name: .name}`.
        let name = match key {
            Ast::Var(name) if value.is_none() => self.constant(Value::text(&name[1..])),
            key => self.term(key)?,
        };
        let value = match (key, value) {
            (_, Some(value)) => self.term(value)?,
            (variable @ Ast::Var(_), None) => self.term(variable)?,
            (_, None) => {
                let of = self.add(Term::Identity);
                self.add(Term::Index { of, key: name, optional: false })
            }
        };
        Ok((name, value))
    }

    fn operation(&mut self, one: &Ast<&'s str>, op: &BinaryOp<&'s str>, two: &Ast<&'s str>) -> Result<Id, Fault> {
        if let BinaryOp::Pipe(Some(pattern)) = op {
            let source = self.term(one)?;
            return self.within(|compiler| {
                let pattern = compiler.pattern(pattern)?;
                let body = compiler.term(two)?;
                Ok(compiler.add(Term::Bind(source, pattern, body)))
            });
        }
        let (one, two) = (self.term(one)?, self.term(two)?);
        Ok(self.add(match op {
            BinaryOp::Pipe(_) => Term::Pipe(one, two),
            BinaryOp::Comma => Term::Comma(one, two),
            BinaryOp::Alt => Term::Alternative(one, two),
            BinaryOp::Or => Term::Or(one, two),
            BinaryOp::And => Term::And(one, two),
            BinaryOp::Math(math) => Term::Math(one, *math, two),
            BinaryOp::Cmp(compare) => Term::Compare(one, *compare, two),
            BinaryOp::Assign => Term::Assign(one, two),
            BinaryOp::Update => Term::Update(one, two),
            BinaryOp::UpdateMath(math) => Term::UpdateMath(one, *math, two),
            BinaryOp::UpdateAlt => Term::UpdateAlternative(one, two),
        }))
    }

    /// A pattern, whose variables are known from here on.
    fn pattern(&mut self, pattern: &Written<&'s str>) -> Result<Pattern, Fault> {
        self.nesting += 1;
        if self.nesting > MAX_NESTING {
            return Err(Fault { at: 0, what: format!("a program is nested at most {MAX_NESTING} deep") });
        }
        let compiled = match pattern {
            Written::Var(name) => {
                self.scope.variable(name);
                Pattern::Variable
            }
            Written::Arr(all) => {
                Pattern::List(all.iter().map(|pattern| self.pattern(pattern)).collect::<Result<_, _>>()?)
            }
            Written::Obj(all) => {
                let member = |(key, pattern): &(Ast<&'s str>, Written<&'s str>)| {
                    let key = self.term(key)?;
                    Ok((key, self.pattern(pattern)?))
                };
                Pattern::Object(all.iter().map(member).collect::<Result<_, Fault>>()?)
            }
        };
        self.nesting -= 1;
        Ok(compiled)
    }

    fn fold(
        &mut self,
        word: &'s str,
        source: &Ast<&'s str>,
        pattern: &Written<&'s str>,
        arguments: &[Ast<&'s str>],
    ) -> Result<Id, Fault> {
        let source = self.term(source)?;
        let (init, update, extract) = match (word, arguments) {
            (_, [init, update]) => (init, update, None),
            ("foreach", [init, update, extract]) => (init, update, Some(extract)),
            _ => {
                let takes = if word == "reduce" { "two" } else { "two or three" };
                return Err(self.fault(word, format!("`{word}` takes {takes} filters in parentheses")));
            }
        };
        let init = self.term(init)?;
        self.within(|compiler| {
            let pattern = compiler.pattern(pattern)?;
            let update = compiler.term(update)?;
            let extract = extract.map(|extract| compiler.term(extract)).transpose()?;
            Ok(compiler.add(match word {
                "reduce" => Term::Reduce { source, pattern, init, update },
                _ => Term::Foreach { source, pattern, init, update, extract },
            }))
        })
    }

    /// A definition, which is known from here on, and in itself.
    fn define(&mut self, definition: &Def<'s>) -> Result<u32, Fault> {
        let number = u32::try_from(self.definitions.len()).unwrap_or(u32::MAX);
        self.definitions.push(Definition { body: Id(0) });
        let signature = (definition.name, definition.args.len());
        self.scope.entries.push(Entry::Definition(signature, number, self.scope.bound));
        let body = self.within(|compiler| {
            for argument in &definition.args {
                compiler.scope.closure(argument.strip_prefix('$').unwrap_or(argument));
            }
            compiler.body(definition, 0)
        })?;
        self.definitions[number as usize].body = body;
        Ok(number)
    }

    /// `def f($a): g` is `def f(a): a as $a | g`.
    fn body(&mut self, definition: &Def<'s>, from: usize) -> Result<Id, Fault> {
        let next = definition.args[from..].iter().position(|argument| argument.starts_with('$'));
        let Some(at) = next.map(|at| from + at) else { return self.term(&definition.body) };
        // Of closures that were bound, this one is so far back.
        let own = definition.args.len() - 1 - at;
        let values_between = definition.args[..at].iter().filter(|argument| argument.starts_with('$')).count();
        let back = u32::try_from(own + values_between).unwrap_or(u32::MAX);
        let source = self.add(Term::Closure(back));
        self.scope.variable(definition.args[at]);
        let body = self.body(definition, at + 1)?;
        Ok(self.add(Term::Bind(source, Pattern::Variable, body)))
    }

    fn call(&mut self, name: &'s str, arguments: &[Ast<&'s str>]) -> Result<Id, Fault> {
        let found = self.scope.entries.iter().rev().find_map(|entry| match entry {
            Entry::Closure(known, at) if *known == name && arguments.is_empty() => Some((None, *at)),
            Entry::Definition(known, number, at) if *known == (name, arguments.len()) => Some((Some(*number), *at)),
            _ => None,
        });
        let ids = |compiler: &mut Self| {
            arguments.iter().map(|argument| compiler.term(argument)).collect::<Result<Vec<_>, _>>()
        };
        match found {
            Some((None, at)) => return Ok(self.add(Term::Closure(self.scope.bound - at - 1))),
            Some((Some(definition), at)) => {
                let skip = self.scope.bound - at;
                let arguments = ids(self)?;
                return Ok(self.add(Term::Call { definition, arguments, skip }));
            }
            None => {}
        }
        match (name, arguments.len()) {
            ("null", 0) => return Ok(self.constant(Value::Null)),
            ("true", 0) => return Ok(self.constant(true.into())),
            ("false", 0) => return Ok(self.constant(false.into())),
            _ => {}
        }
        if let Some(native) = native::native(name, arguments.len()) {
            let arguments = ids(self)?;
            return Ok(self.add(Term::Native(native, arguments)));
        }
        if let Some(special) = native::special(name, arguments.len()) {
            let arguments = ids(self)?;
            return Ok(self.add(Term::Special(special, arguments)));
        }
        let Some(definition) = self.of_prelude((name, arguments.len()))? else {
            return Err(self.fault(name, self.unknown(name, arguments.len())));
        };
        self.check_regex(name, arguments)?;
        let skip = self.scope.bound;
        let arguments = ids(self)?;
        Ok(self.add(Term::Call { definition, arguments, skip }))
    }

    /// The definition of the prelude, compiled where it is used first.
    fn of_prelude(&mut self, signature: Signature<'s>) -> Result<Option<u32>, Fault> {
        if let Some(known) = self.known.get(&signature) {
            return Ok(Some(*known));
        }
        let Some(definition) = self.prelude.get(&signature).copied() else { return Ok(None) };
        let (scope, nesting) = (std::mem::take(&mut self.scope), std::mem::take(&mut self.nesting));
        self.known.insert(signature, u32::try_from(self.definitions.len()).unwrap_or(u32::MAX));
        let defined = self.define(definition);
        (self.scope, self.nesting) = (scope, nesting);
        defined.map(Some)
    }

    fn unknown(&self, name: &str, arguments: usize) -> String {
        if let Some(why) = native::absent(name) {
            return format!("`{name}` is not here: {why}");
        }
        let takes = |arguments: usize| match arguments {
            0 => "no arguments".to_owned(),
            1 => "1 argument".to_owned(),
            n => format!("{n} arguments"),
        };
        let exists = |n: usize| {
            native::native(name, n).is_some()
                || native::special(name, n).is_some()
                || self.prelude.contains_key(&(name, n))
        };
        let others: Vec<String> = (0..5).filter(|n| exists(*n)).map(takes).collect();
        if others.is_empty() {
            format!("there is no `{name}`")
        } else {
            format!("`{name}` takes {}, not {}", others.join(" or "), takes(arguments))
        }
    }

    /// A regular expression that stands in the program is read now, and kept.
    fn check_regex(&mut self, name: &str, arguments: &[Ast<&'s str>]) -> Result<(), Fault> {
        let flags = match (name, arguments.len()) {
            ("test" | "match" | "capture" | "scan" | "splits", _) | ("split", 2) => arguments.get(1),
            ("sub" | "gsub", _) => arguments.get(2),
            _ => return Ok(()),
        };
        let Some(text) = arguments.first().and_then(said) else { return Ok(()) };
        // Whether flags are right is told where they are used.
        let flags = flags.and_then(said).and_then(|flags| Flags::read(&flags).ok()).unwrap_or_default();
        let why = match self.meter.regex(&text, flags.how) {
            Ok(_) => return Ok(()),
            Err(Stop::Raised(Value::Text(why))) => why.to_string(),
            Err(_) => "the regular expressions of a program take too long to read, together with this one".to_owned(),
        };
        Err(self.fault(name, why))
    }
}

/// What a string says that nothing is put into.
fn said(term: &Ast<&str>) -> Option<String> {
    let Ast::Str(None, parts) = term else { return None };
    let mut text = String::new();
    for part in parts {
        match part {
            StrPart::Str(said) => text.push_str(said),
            StrPart::Char(c) => text.push(*c),
            StrPart::Term(_) => return None,
        }
    }
    Some(text)
}
