//! Every path that a file mentions, in code and inside macros.

use proc_macro2::{Delimiter, Group, Spacing, TokenStream, TokenTree};
use quote::ToTokens;
use syn::File;

use super::{
    imports::{Imports, Path},
    rules::Rule,
};

/// Something that a rule may forbid, by everything its name can stand for.
pub(super) struct Mention {
    pub(super) line: usize,
    pub(super) what: What,
}

/// What is mentioned.
pub(super) enum What {
    /// A path: what stands there, and what it may mean.
    Path { meanings: Vec<Path> },
    /// A method called without arguments.
    Method { name: String },
}

impl Mention {
    /// What a report calls it: the meaning that breaks a rule, or the method.
    pub(super) fn name(&self) -> String {
        match &self.what {
            What::Path { meanings } => {
                let forbidden = meanings.iter().find(|meaning| Rule::about(meaning).is_some());
                forbidden.map(|meaning| meaning.join("::")).unwrap_or_default()
            }
            What::Method { name } => format!(".{name}()"),
        }
    }
}

/// All mentions in `file`, in order; the imports first.
pub(super) fn of(mut file: File) -> Vec<Mention> {
    let mut imports = Imports::take_from(&mut file);
    let mentioned = imports.all.iter().map(|import| {
        let meanings = imports.expand(&import.path);
        Mention { line: import.line, what: What::Path { meanings } }
    });
    let mut mentions: Vec<_> = mentioned.collect();
    imports.forget(|path| Rule::about(path).is_some());
    let mut scan = Scan { imports: &imports, mentions: &mut mentions };
    scan.tokens(file.to_token_stream());
    mentions
}

struct Scan<'a> {
    imports: &'a Imports,
    mentions: &'a mut Vec<Mention>,
}

impl Scan<'_> {
    fn tokens(&mut self, stream: TokenStream) {
        let tokens: Vec<TokenTree> = stream.into_iter().collect();
        // Where the last path ended, and the path: `<Instant>::now` goes on after the bracket.
        let mut last: Option<(usize, Path)> = None;
        let mut at = 0;
        while at < tokens.len() {
            match &tokens[at] {
                TokenTree::Group(group) => self.tokens(group.stream()),
                TokenTree::Punct(_) if is_method(&tokens, at) => {
                    self.method(&tokens, at + 1);
                    at += 1;
                }
                TokenTree::Ident(first) => {
                    let continued = last.take().filter(|(end, _)| closes_and_goes_on(&tokens, *end, at));
                    let mut path = continued.map(|(_, path)| path).unwrap_or_default();
                    let length = read_path(&tokens[at..], &mut path);
                    let meanings = self.meanings(&path);
                    self.mentions.push(Mention { line: first.span().start().line, what: What::Path { meanings } });
                    at += length - 1;
                    last = Some((at + 1, path));
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => {}
            }
            at += 1;
        }
    }

    /// A lone word stands for a path only if it was imported; `rand` by itself is any variable.
    fn meanings(&self, path: &Path) -> Vec<Path> {
        let mut meanings = self.imports.expand(path);
        meanings.retain(|meaning| meaning.len() > 1 || Rule::is_telling_word(&meaning[0]));
        meanings
    }

    fn method(&mut self, tokens: &[TokenTree], at: usize) {
        if let (Some(TokenTree::Ident(name)), Some(TokenTree::Group(arguments))) = (tokens.get(at), tokens.get(at + 1))
            && is_empty_call(arguments)
        {
            let what = What::Method { name: name.to_string() };
            self.mentions.push(Mention { line: name.span().start().line, what });
        }
    }
}

fn is_empty_call(arguments: &Group) -> bool {
    arguments.delimiter() == Delimiter::Parenthesis && arguments.stream().is_empty()
}

/// Appends the segments at the start of `tokens` to `path`; returns how many tokens they are.
fn read_path(tokens: &[TokenTree], path: &mut Path) -> usize {
    let mut length = 0;
    while let Some(TokenTree::Ident(segment)) = tokens.get(length) {
        path.push(segment.to_string().trim_start_matches("r#").to_owned());
        length += 1;
        if !(is_double_colon(tokens, length) && matches!(tokens.get(length + 2), Some(TokenTree::Ident(_)))) {
            break;
        }
        length += 2;
    }
    length
}

/// Whether the tokens from `end` up to `start` are `> ::`, as in `<Instant>::now`.
fn closes_and_goes_on(tokens: &[TokenTree], end: usize, start: usize) -> bool {
    start == end + 3 && is_punct(tokens.get(end), '>') && is_double_colon(tokens, end + 1)
}

/// Whether a field or method follows the dot at `at`; a range's dots come in pairs.
fn is_method(tokens: &[TokenTree], at: usize) -> bool {
    let joined = |token: &TokenTree| matches!(token, TokenTree::Punct(dot) if dot.spacing() == Spacing::Joint);
    let follows_dot = at > 0 && is_punct(tokens.get(at - 1), '.') && joined(&tokens[at - 1]);
    is_punct(tokens.get(at), '.') && !follows_dot && matches!(tokens.get(at + 1), Some(TokenTree::Ident(_)))
}

fn is_double_colon(tokens: &[TokenTree], at: usize) -> bool {
    is_punct(tokens.get(at), ':') && is_punct(tokens.get(at + 1), ':')
}

fn is_punct(token: Option<&TokenTree>, wanted: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == wanted)
}
