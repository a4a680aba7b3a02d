//! What a statement is made of, what it may do, and how it is said here.
//!
//! Rooms, and programs that are to run on either engine, write one dialect: `$1` for parameters, `ON CONFLICT`, and in the
//! making of tables the types `INTEGER` (64 bits), `REAL` (64 bits), `TEXT` and `BLOB`. The last three words of it are said
//! otherwise here, and nothing else is touched; whoever writes PostgreSQL's own types gets those.
//!
//! What an application may reach is held by the server: its statements run as a role of their own, which has rights on its
//! own schema alone. This file holds what a role cannot: that nobody ends the transaction, sets its role or its time limit
//! anew, leaves something behind on the connection, or has the server run a text that nobody looked at.

use std::{borrow::Cow, collections::BTreeSet};

use crate::store::{Scope, SqlError, StoreError};

use super::backend::{ENGINE, VIEWS};

/// What a statement may begin with.
const VERBS: [&str; 14] = [
    "select", "with", "values", "table", "explain", "insert", "update", "delete", "merge", "create", "alter", "drop",
    "truncate", "analyze",
];
/// What may stand between CREATE, ALTER or DROP and the kind of thing.
const BEFORE_KINDS: [&str; 5] = ["or", "replace", "unique", "recursive", "materialized"];
/// What may be made, changed and dropped: not what runs by itself (functions, triggers, rules), nor what belongs to others.
const KINDS: [&str; 6] = ["table", "index", "view", "sequence", "type", "domain"];
/// What stands behind INTO where a table is made that does not last.
const FLEETING: [&str; 5] = ["temp", "temporary", "unlogged", "local", "global"];
/// Functions, and a view that works as one, by the beginnings of their names, that set what holds for the transaction, leave something behind on the
/// connection, run a text, or wake others under a lock of the whole server.
const HELD_BACK: [&str; 19] = [
    "set_config",
    "pg_settings",
    "crosstab",
    "connectby",
    "xpath_table",
    "pg_advisory_xact_lock",
    "pg_try_advisory_xact_lock",
    "query_to_xml",
    "ts_stat",
    "ts_rewrite",
    "pg_advisory_lock",
    "pg_advisory_unlock",
    "pg_try_advisory_lock",
    "pg_temp",
    "dblink",
    "lo_import",
    "lo_export",
    "pg_export_snapshot",
    "pg_notify",
];
/// Names of quorate's own tables begin so.
const RESERVED: &str = "quorate_";

/// A statement that may be run.
#[derive(Debug)]
pub(super) struct Statement<'s> {
    /// As the server reads it.
    pub(super) sql: Cow<'s, str>,
    /// The numbers of its parameters, counted from 1.
    pub(super) params: BTreeSet<usize>,
}

impl<'s> Statement<'s> {
    /// Looks at a statement of `scope`, and says it as the server reads it.
    ///
    /// # Errors
    /// [`SqlError::Refused`] says what it may not do.
    pub(super) fn new(sql: &'s str, scope: Scope) -> Result<Self, SqlError> {
        let is_room = match scope {
            Scope::Application => false,
            Scope::Room => true,
            Scope::View(_) | Scope::ViewRead(_) | Scope::ViewSchema(_) => {
                return Err(StoreError::Unsupported { engine: ENGINE, what: VIEWS }.into());
            }
        };
        if sql.contains('\0') {
            return Err(SqlError::Failed { what: "a statement has no character 0".to_owned() });
        }
        let tokens = tokens(sql);
        judge(sql, &tokens, is_room)?;
        let params = tokens.iter().filter_map(|token| token.param(sql)).collect();
        Ok(Self { sql: translate(sql, &tokens, is_room), params })
    }
}

/// What kind of thing a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Word,
    /// A name in double quotes.
    Quoted,
    /// A name or text with escapes of its own, which nobody here reads.
    Escaped,
    Text,
    Param,
    Other,
}

/// A part of a statement, by its place in it.
#[derive(Clone, Copy, Debug)]
struct Token {
    kind: Kind,
    from: usize,
    to: usize,
}

impl Token {
    fn text<'s>(&self, sql: &'s str) -> &'s str {
        &sql[self.from..self.to]
    }

    fn is(&self, sql: &str, word: &str) -> bool {
        self.kind == Kind::Word && self.text(sql).eq_ignore_ascii_case(word)
    }

    /// Whether it is one of these words.
    fn is_one_of(&self, sql: &str, words: &[&str]) -> bool {
        words.iter().any(|word| self.is(sql, word))
    }

    /// The name that it is, in small letters.
    fn name(&self, sql: &str) -> Option<String> {
        match self.kind {
            Kind::Word => Some(self.text(sql).to_lowercase()),
            Kind::Quoted => Some(self.text(sql).trim_matches('"').to_lowercase()),
            _ => None,
        }
    }

    fn param(&self, sql: &str) -> Option<usize> {
        if self.kind == Kind::Param { self.text(sql)[1..].parse().ok() } else { None }
    }
}

/// The parts of a statement, without blanks and comments. What does not end goes to the end: the server says so.
fn tokens(sql: &str) -> Vec<Token> {
    let bytes = sql.as_bytes();
    let (mut tokens, mut at) = (Vec::new(), 0);
    while let Some(&first) = bytes.get(at) {
        let rest = &bytes[at..];
        let next = rest.get(1).copied();
        let (kind, length) = match first {
            _ if first.is_ascii_whitespace() => (None, 1),
            // A carriage return ends it for the server as well.
            b'-' if next == Some(b'-') => (None, until(rest, |byte| matches!(byte, b'\n' | b'\r'))),
            b'/' if next == Some(b'*') => (None, comment(rest)),
            b'\'' => (Some(Kind::Text), quoted(rest, b'\'', false)),
            b'"' => (Some(Kind::Quoted), quoted(rest, b'"', false)),
            b'e' | b'E' if next == Some(b'\'') => (Some(Kind::Text), 1 + quoted(&rest[1..], b'\'', true)),
            b'u' | b'U' if next == Some(b'&') && matches!(rest.get(2), Some(b'\'' | b'"')) => {
                (Some(Kind::Escaped), 2 + quoted(&rest[2..], rest[2], false))
            }
            b'$' if next.is_some_and(|next| next.is_ascii_digit()) => {
                (Some(Kind::Param), 1 + until(&rest[1..], |byte| !byte.is_ascii_digit()))
            }
            b'$' => (Some(Kind::Text), dollar_quoted(rest)),
            _ if first.is_ascii_digit() => (Some(Kind::Other), until(rest, |byte| !byte.is_ascii_digit())),
            _ if in_word(first) => (Some(Kind::Word), until(rest, |byte| !in_word(byte) && byte != b'$')),
            _ => (Some(Kind::Other), 1),
        };
        let to = at + length.max(1);
        tokens.extend(kind.map(|kind| Token { kind, from: at, to }));
        at = to;
    }
    tokens
}

fn in_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || !byte.is_ascii()
}

fn until(bytes: &[u8], ends: impl Fn(u8) -> bool) -> usize {
    bytes.iter().position(|byte| ends(*byte)).unwrap_or(bytes.len())
}

/// The length of a comment, with those inside it.
fn comment(bytes: &[u8]) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < bytes.len() {
        match &bytes[at..bytes.len().min(at + 2)] {
            b"/*" => (depth, at) = (depth + 1, at + 2),
            b"*/" if depth == 1 => return at + 2,
            b"*/" => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
    }
    bytes.len()
}

/// The length of what stands between two marks; a mark twice is one inside.
fn quoted(bytes: &[u8], mark: u8, escapes: bool) -> usize {
    let mut at = 1;
    while let Some(&byte) = bytes.get(at) {
        at += match byte {
            b'\\' if escapes => 2,
            _ if byte == mark && bytes.get(at + 1) == Some(&mark) => 2,
            _ if byte == mark => return at + 1,
            _ => 1,
        };
    }
    bytes.len()
}

/// The length of a text between `$tag$` and `$tag$`; 1 where none begins.
fn dollar_quoted(bytes: &[u8]) -> usize {
    let tag = 1 + until(&bytes[1..], |byte| !in_word(byte));
    if bytes.get(tag) != Some(&b'$') {
        return 1;
    }
    let mark = &bytes[..=tag];
    let body = &bytes[mark.len()..];
    body.windows(mark.len()).position(|window| window == mark).map_or(bytes.len(), |end| end + 2 * mark.len())
}

/// Refuses what a statement may not do.
fn judge(sql: &str, tokens: &[Token], is_room: bool) -> Result<(), SqlError> {
    let refused = |what: String| Err(SqlError::Refused { what });
    let mut parts = tokens.iter().skip_while(|token| token.text(sql) == "(");
    let Some(first) = parts.next().filter(|first| first.text(sql) != ";") else {
        return Err(SqlError::Failed { what: "there is no statement".to_owned() });
    };
    if !first.is_one_of(sql, &VERBS) {
        return refused(format!("begin with {}", shown(first.text(sql))));
    }
    if is_room {
        return Ok(());
    }
    if first.is_one_of(sql, &["create", "alter", "drop"]) {
        let kind = parts.find(|token| !token.is_one_of(sql, &BEFORE_KINDS));
        if let Some(kind) = kind.filter(|kind| !kind.is_one_of(sql, &KINDS)) {
            return refused(format!("{} {}", first.text(sql).to_lowercase(), shown(kind.text(sql))));
        }
    }
    for (token, next) in tokens.iter().zip(tokens.iter().skip(1).map(Some).chain([None])) {
        if token.kind == Kind::Escaped {
            return refused("have names or texts with U& escapes".to_owned());
        }
        let is_continued = next.is_some_and(|next| next.kind == Kind::Text);
        if token.kind == Kind::Text && token.text(sql).starts_with(['e', 'E']) && is_continued {
            return refused("go on with a text of escapes on another line".to_owned());
        }
        if token.is(sql, "into") && next.is_some_and(|next| next.is_one_of(sql, &FLEETING)) {
            return refused("make tables that do not last".to_owned());
        }
        let Some(name) = token.name(sql) else { continue };
        if name.starts_with(RESERVED) {
            return refused(format!("name {}: names that begin with {RESERVED} are kept", shown(&name)));
        }
        if let Some(held) = HELD_BACK.iter().find(|held| name.starts_with(**held)) {
            return refused(format!("call or name {held}"));
        }
    }
    Ok(())
}

/// A part of a statement as it may stand in a message.
fn shown(text: &str) -> String {
    let short: String = text.chars().take(60).collect();
    if short.len() < text.len() { format!("`{short}…`") } else { format!("`{short}`") }
}

/// Says types of the common dialect as the server does, in statements that make or change a table.
fn translate<'s>(sql: &'s str, tokens: &[Token], is_room: bool) -> Cow<'s, str> {
    let makes = tokens.first().is_some_and(|first| first.is_one_of(sql, &["create", "alter"]))
        && tokens.get(1).is_some_and(|kind| kind.is(sql, "table"));
    if !makes {
        return Cow::Borrowed(sql);
    }
    let mut out = String::with_capacity(sql.len() + 64);
    let mut copied = 0;
    for (n, token) in tokens.iter().enumerate() {
        let follows = |words: &[&str]| {
            words.iter().zip(1..).all(|(word, ahead)| tokens.get(n + ahead).is_some_and(|next| next.is(sql, word)))
        };
        // A type stands behind the name of its column.
        let before = n.checked_sub(1).map(|n| tokens[n]);
        let has_name = before.is_some_and(|before| {
            matches!(before.kind, Kind::Word | Kind::Quoted) && !before.is_one_of(sql, &["add", "column", "key"])
        });
        let to = if token.is(sql, "integer") && has_name {
            if follows(&["primary", "key"]) { "bigint GENERATED BY DEFAULT AS IDENTITY" } else { "bigint" }
        } else if token.is(sql, "real") && has_name {
            "double precision"
        } else if token.is(sql, "blob") && has_name {
            "bytea"
        } else if token.is(sql, "text") && has_name && is_room && !follows(&["collate"]) {
            // Rooms compare names byte by byte, whatever the database's language is.
            "text COLLATE \"C\""
        } else if token.is(sql, "autoincrement")
            || (token.is(sql, "without") && follows(&["rowid"]))
            || (token.is(sql, "rowid") && before.is_some_and(|before| before.is(sql, "without")))
        {
            ""
        } else {
            continue;
        };
        out.push_str(&sql[copied..token.from]);
        out.push_str(to);
        copied = token.to;
    }
    out.push_str(&sql[copied..]);
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(sql: &str, scope: Scope) -> String {
        Statement::new(sql, scope).unwrap_or_else(|refused| panic!("{sql}: {refused}")).sql.into_owned()
    }

    #[test]
    fn types_of_the_common_dialect_are_said_as_the_server_does() {
        let sql =
            "CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER NOT NULL, x REAL, \"b\" BLOB, t TEXT) WITHOUT ROWID";
        let id = "id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, n bigint NOT NULL";
        let rest = "x double precision, \"b\" bytea";
        assert_eq!(said(sql, Scope::Application).trim_end(), format!("CREATE TABLE t ({id}, {rest}, t TEXT)"));
        assert_eq!(said(sql, Scope::Room).trim_end(), format!("CREATE TABLE t ({id}, {rest}, t text COLLATE \"C\")"));
        assert_eq!(said("ALTER TABLE t ADD COLUMN more INTEGER", Scope::Room), "ALTER TABLE t ADD COLUMN more bigint");
    }

    #[test]
    fn what_is_no_type_of_the_common_dialect_is_left_alone() {
        for sql in [
            "CREATE TABLE t (blob bytea, n int, PRIMARY KEY (blob), CHECK (blob <> 'INTEGER'))",
            "CREATE TABLE \"a BLOB\" (real real[])",
            "SELECT 'CREATE TABLE t (n INTEGER)'",
            "CREATE INDEX t_blob ON t (blob)",
            "INSERT INTO t (n) VALUES ($1) -- INTEGER",
        ] {
            assert!(said(sql, Scope::Application).starts_with(&sql[..sql.len() - 8]), "{sql}");
        }
    }

    #[test]
    fn an_application_is_refused_what_a_role_cannot_hold() {
        let cannot = |sql: &str| assert!(Statement::new(sql, Scope::Application).is_err(), "{sql}");
        for sql in [
            "",
            " -- nothing\n",
            "/* /* */ COMMIT */",
            ";",
            "commit",
            "/* */ COMMIT",
            "-- x\nROLLBACK",
            "SET role none",
            "RESET ROLE",
            "DO $$ begin end $$",
            "COPY t TO '/tmp/x'",
            "LISTEN x",
            "PREPARE p AS SELECT 1",
            "CALL p()",
            "LOCK TABLE t",
            "SELECT set_config('role', 'none', true)",
            "SELECT \"SET_CONFIG\"('role', 'none', true)",
            "SELECT pg_catalog . set_config('role', 'none', true)",
            "SELECT U&\"set\\005fconfig\"('role', 'none', true)",
            "SELECT query_to_xml('SELECT set_config(''role'', ''none'', true)', true, true, '')",
            "SELECT pg_advisory_lock(1)",
            "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "CREATE TRIGGER t AFTER INSERT ON n EXECUTE FUNCTION f()",
            "CREATE RULE r AS ON INSERT TO n DO ALSO NOTHING",
            "CREATE TEMP TABLE t (x int)",
            "CREATE UNLOGGED TABLE t (x int)",
            "SELECT 1 INTO TEMP t",
            "ALTER ROLE quorate SET statement_timeout = 0",
            "ALTER SYSTEM SET fsync = off",
            "DROP SCHEMA s",
            "SELECT * FROM quorate_room",
            "SELECT * FROM s.\"Quorate_Room\"",
            "SELECT 1 --\r, set_config('role', 'none', true)",
            "--\rCOMMIT /*\nSELECT 1 --*/",
            "SELECT E'a'\n'\\' || ', set_config(''role'', ''none'', true), ' '",
            "SELECT e'a' -- more\n'b'",
            "UPDATE pg_settings SET setting = 'off' WHERE name = 'synchronous_commit'",
            "SELECT 1 AS x INTO LOCAL TEMP t",
            "SELECT pg_advisory_xact_lock(1)",
            "SELECT pg_notify('quorate_positions', '')",
        ] {
            cannot(sql);
        }
        for sql in [
            "SELECT 'set_config', $q$ COMMIT; quorate_room $q$, E'it\\'s quorate_room', \"a\"\"b\" FROM t -- quorate_x",
            "(SELECT 1) UNION (SELECT 2);",
            "WITH x AS (DELETE FROM t RETURNING *) INSERT INTO u SELECT * FROM x",
            "CREATE UNIQUE INDEX i ON t (x)",
            "CREATE OR REPLACE VIEW v AS SELECT 1",
            "SELECT temp, into_x FROM weather",
        ] {
            said(sql, Scope::Application);
        }
    }

    #[test]
    fn parameters_are_found_where_they_are() {
        let sql = "SELECT $2, '$3', \"$4\", $1::int, $$ $5 $$, x$6 FROM t WHERE a = $12 -- $7";
        let statement = Statement::new(sql, Scope::Application).unwrap();
        assert_eq!(statement.params, BTreeSet::from([1, 2, 12]));
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_looked_at_to_its_end(sql in "[\\$'\"/*\\-eEuU& a-z0-9;\\\\\n☂]{0,60}") {
            let mut end = 0;
            for token in tokens(&sql) {
                assert!(token.from >= end && token.to > token.from && token.to <= sql.len());
                assert!(sql.is_char_boundary(token.from) && sql.is_char_boundary(token.to), "{sql:?}");
                end = token.to;
            }
        }
    }
}
