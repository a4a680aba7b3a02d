//! Which functions, types and words a statement may use: those that every engine has, with the same meaning, and that give
//! the same answer every time.

use super::SqlFault;

/// A function, and how many arguments it takes at least and at most.
type Known = (&'static str, usize, usize);

/// Scalar functions.
const SCALARS: [Known; 12] = [
    ("abs", 1, 1),
    ("coalesce", 2, 16),
    ("nullif", 2, 2),
    ("lower", 1, 1),
    ("upper", 1, 1),
    ("length", 1, 1),
    ("substr", 2, 3),
    ("replace", 3, 3),
    ("trim", 1, 2),
    ("ltrim", 1, 2),
    ("rtrim", 1, 2),
    ("round", 1, 1),
];

/// Aggregates.
const AGGREGATES: [Known; 5] = [("count", 0, 1), ("sum", 1, 1), ("avg", 1, 1), ("min", 1, 1), ("max", 1, 1)];

/// Functions that need a window.
const WINDOWED: [Known; 11] = [
    ("row_number", 0, 0),
    ("rank", 0, 0),
    ("dense_rank", 0, 0),
    ("percent_rank", 0, 0),
    ("cume_dist", 0, 0),
    ("ntile", 1, 1),
    ("lag", 1, 3),
    ("lead", 1, 3),
    ("first_value", 1, 1),
    ("last_value", 1, 1),
    ("nth_value", 2, 2),
];

/// What a function is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Function {
    Scalar,
    Aggregate,
    Windowed,
}

/// Looks a function up.
pub(super) fn function(name: &str, arguments: usize, at: usize) -> Result<Function, SqlFault> {
    let lists: [(&[Known], Function); 3] =
        [(&SCALARS, Function::Scalar), (&AGGREGATES, Function::Aggregate), (&WINDOWED, Function::Windowed)];
    for (list, kind) in lists {
        if let Some((_, least, most)) = list.iter().find(|(known, ..)| *known == name) {
            if (*least..=*most).contains(&arguments) {
                return Ok(kind);
            }
            let wanted = if least == most { least.to_string() } else { format!("{least} to {most}") };
            return Err(SqlFault::new(at, format!("`{name}` takes {wanted} arguments, not {arguments}")));
        }
    }
    Err(SqlFault::new(at, refused(name)))
}

fn refused(name: &str) -> String {
    let why = match name {
        "random" | "randomblob" | "gen_random_uuid" | "uuid" => "a view has to come out the same when it is made again",
        "now" | "date" | "time" | "datetime" | "julianday" | "strftime" | "unixepoch" | "current_timestamp" => {
            "times come from events: bind `$.time` as a timestamp or a date"
        }
        "json_extract" | "json" | "json_each" => "bind a path of the event, or a jq expression, as a parameter",
        "ifnull" => "`coalesce` does the same in every engine",
        "iif" | "if" => "`CASE WHEN … THEN … ELSE … END` does the same in every engine",
        "substring" => "`substr` does the same in every engine",
        "total" => "`coalesce(sum(…), 0)` does the same in every engine",
        _ => "only functions that every engine has, and that always give the same answer, can be used",
    };
    format!("there is no function `{name}` here: {why}")
}

/// Types that CAST knows.
pub(super) const CASTS: [&str; 4] = ["text", "integer", "bigint", "real"];

/// Words that are never names.
pub(super) const RESERVED: [&str; 64] = [
    "all",
    "and",
    "as",
    "asc",
    "between",
    "by",
    "case",
    "cast",
    "conflict",
    "cross",
    "current",
    "delete",
    "desc",
    "distinct",
    "do",
    "else",
    "end",
    "escape",
    "except",
    "exists",
    "false",
    "filter",
    "from",
    "full",
    "group",
    "having",
    "in",
    "inner",
    "insert",
    "intersect",
    "into",
    "is",
    "join",
    "left",
    "like",
    "limit",
    "natural",
    "not",
    "nothing",
    "null",
    "offset",
    "on",
    "or",
    "order",
    "outer",
    "over",
    "partition",
    "recursive",
    "returning",
    "right",
    "select",
    "set",
    "table",
    "then",
    "true",
    "union",
    "update",
    "using",
    "values",
    "when",
    "where",
    "window",
    "with",
    "collate",
];

/// Whether a word is never a name.
pub(in super::super) fn is_reserved(word: &str) -> bool {
    RESERVED.contains(&word)
}

/// Words that only one engine knows, and what to say instead.
pub(super) fn foreign(word: &str) -> Option<&'static str> {
    Some(match word {
        "glob" | "regexp" | "match" => "only one engine knows this",
        "like" => "engines differ in whether LIKE minds capitals: compare with `=` or `substr`",
        "indexed" | "returning" | "collate" | "natural" => "only one engine knows this, or it hides what it does",
        "pragma" | "attach" | "detach" | "vacuum" | "create" | "drop" | "alter" | "begin" | "commit" | "rollback"
        | "savepoint" | "replace" => "a view has INSERT, UPDATE and DELETE",
        "current_timestamp" | "current_date" | "current_time" => "times come from events",
        "isnull" | "notnull" => "IS NULL and IS NOT NULL are in every engine",
        _ => return None,
    })
}
