//! Settings as they may be shown: without passwords.

use toml::Value;

/// `value` without passwords, however deep they stand.
pub(super) fn shown(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::String(without_password(text)),
        Value::Array(items) => Value::Array(items.iter().map(shown).collect()),
        Value::Table(table) => {
            let hide = |(name, value): (&String, &Value)| {
                let is_secret = names_password(name) && value.as_str() != Some("");
                (name.clone(), if is_secret { "***".into() } else { shown(value) })
            };
            Value::Table(table.iter().map(hide).collect())
        }
        other => other.clone(),
    }
}

/// Whether `name` is that of a password, also where it is misspelt: what is refused is shown as well.
fn names_password(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name.starts_with("pass") && !["password-file", "password-variable"].contains(&&*name)
}

/// The text of a file, as long as before, without what stands behind the first mark on lines that speak of a password or an address: an
/// error quotes its line, and what it finds wrong may be the mark itself.
pub(super) fn without_values(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let is_secret = line.to_ascii_lowercase().contains("pass") || line.contains('@');
        let at = match line.find(['=', ':', '"', '\'']) {
            _ if !is_secret => line.len(),
            Some(at) => at + 1,
            None => 0,
        };
        let (name, value) = line.split_at(at);
        out.push_str(name);
        // As many bytes as there were, for the error says where it stands by them.
        out.extend(value.bytes().map(|byte| if byte.is_ascii_whitespace() { char::from(byte) } else { '*' }));
    }
    out
}

/// Whether a password in `value` is no text: a refusal of it would quote it.
pub(super) fn holds_odd_password(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.iter().any(holds_odd_password),
        Value::Table(table) => {
            table.iter().any(|(name, value)| (names_password(name) && !value.is_str()) || holds_odd_password(value))
        }
        _ => false,
    }
}

/// A text with `***` in place of the password of the address that it is, if it is one.
fn without_password(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else {
        // An address whose scheme was forgotten is refused, and shown.
        return match text.rsplit_once('@') {
            Some((_, host)) => format!("***@{host}"),
            None => text.to_owned(),
        };
    };
    // Parameters first: an `@` in one is not that behind the user.
    let (rest, query) = rest.split_once('?').map_or((rest, None), |(rest, query)| (rest, Some(query)));
    if !rest.contains(['@', '/']) && query.is_some_and(|query| query.contains('@')) {
        // Or a `?` in a password that is not written as an address has it.
        return format!("{scheme}://***");
    }
    let hide = |pair: &str| match pair.split_once('=') {
        Some((name, _)) if name.eq_ignore_ascii_case("password") => format!("{name}=***"),
        _ => pair.to_owned(),
    };
    let query = query.map(|query| format!("?{}", query.split('&').map(hide).collect::<Vec<_>>().join("&")));
    let rest = match rest.rsplit_once('@') {
        Some((user, host)) => match user.split_once(':') {
            Some((user, _)) => format!("{user}:***@{host}"),
            // Who stands alone before the host of NATS is a token.
            None if ["nats", "tls"].contains(&scheme) => format!("***@{host}"),
            None => rest.to_owned(),
        },
        None => rest.to_owned(),
    };
    format!("{scheme}://{rest}{}", query.unwrap_or_default())
}
