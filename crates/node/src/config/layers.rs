//! Four layers of settings, merged, with the memory of where each value came from.

use std::{collections::BTreeMap, fmt, path::PathBuf};

use toml::{Table, Value};

use super::{
    Config, ConfigError, Settings,
    follow::follow,
    platform,
    secrets::{holds_odd_password, shown, without_values},
};

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Nobody set it.
    Default,
    /// The file at this path.
    File(PathBuf),
    /// This environment variable.
    Environment(String),
    /// This flag of the command line.
    Flag(String),
    /// Nobody set it, and it agrees with this other setting, which somebody set.
    Follows(String),
}

/// One setting's value and where it came from.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The value as it would stand in `quorate.toml`.
    pub value: Value,
    /// Where it came from.
    pub source: Source,
}

impl Entry {
    /// The value as it may be shown: without a password.
    pub fn shown(&self) -> Value {
        shown(&self.value)
    }
}

/// Why a layer was refused.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayerError {
    /// The file is no TOML.
    #[error("{path} is no TOML", path = path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where, and what is wrong.
        #[source]
        cause: toml::de::Error,
    },
    /// There is no such setting.
    #[error("there is no setting `{key}` ({from}){hint}")]
    Unknown {
        /// The key.
        key: String,
        /// Where it stands.
        from: Source,
        /// The nearest one there is, as a half-sentence; may be empty.
        hint: String,
    },
    /// The value does not fit the setting.
    #[error("`{key}` cannot be {value} ({from}): {why}")]
    Value {
        /// The key.
        key: String,
        /// The value.
        value: String,
        /// Where it stands.
        from: Source,
        /// What is wrong with it.
        why: String,
    },
}

/// Settings by dotted key (`http.max-body`), each with its source. Later layers win.
///
/// # Example
/// ```
/// use quorate_node::config::{Layers, Source};
/// let layers = Layers::defaults()
///     .file("quorate.toml", "[http]\nheartbeat = '5s'")?
///     .environment([("QUORATE_LISTEN".to_owned(), "127.0.0.1:9000".to_owned())])?
///     .flags([("data".to_owned(), "/var/lib/quorate".to_owned())])?;
/// assert_eq!(layers.get("http.heartbeat").unwrap().source, Source::File("quorate.toml".into()));
/// assert_eq!(layers.settings().listen.port(), 9000);
/// # Ok::<(), quorate_node::config::LayerError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Layers {
    entries: BTreeMap<String, Entry>,
    /// What each is where nobody sets anything.
    defaults: BTreeMap<String, Value>,
}

/// Variables that begin with `QUORATE_` and are no settings of the node: commands read them.
const NOT_SETTINGS: [&str; 4] = ["QUORATE_SERVER", "QUORATE_CONFIG", "QUORATE_LOG", "QUORATE_LOANS"];

impl Layers {
    /// The lowest layer.
    pub fn defaults() -> Self {
        let defaults = Value::try_from(Settings::default())
            .unwrap_or_else(|wrong| unreachable!("the default settings have a TOML form: {wrong}"));
        let mut leaves = Vec::new();
        flatten("", defaults, &mut leaves);
        let defaults: BTreeMap<String, Value> = leaves.into_iter().collect();
        let entry =
            |(key, value): (&String, &Value)| (key.clone(), Entry { value: value.clone(), source: Source::Default });
        Self { entries: defaults.iter().map(entry).collect(), defaults }
    }

    /// With the settings that `text`, the content of the file at `path`, holds.
    pub fn file(mut self, path: impl Into<PathBuf>, text: &str) -> Result<Self, LayerError> {
        let path = path.into();
        let table: Table = text.parse().map_err(|mut cause: toml::de::Error| {
            cause.set_input(Some(&without_values(text)));
            LayerError::Syntax { path: path.clone(), cause }
        })?;
        let mut leaves = Vec::new();
        flatten("", Value::Table(table), &mut leaves);
        for (key, value) in leaves {
            if value.as_table().is_some_and(Table::is_empty) && self.is_table(&key) {
                continue;
            }
            self.set(&key, value, Source::File(path.clone()))?;
        }
        Ok(self)
    }

    /// Whether settings stand below `key`.
    fn is_table(&self, key: &str) -> bool {
        self.entries.keys().any(|known| known.strip_prefix(key).is_some_and(|rest| rest.starts_with('.')))
    }

    /// With the settings among `variables`: `http.max-body` is `QUORATE_HTTP_MAX_BODY`. Those that do not begin with
    /// `QUORATE_` are passed over, and those that Kubernetes sets for a Service called `quorate` or `quorate-…`.
    ///
    /// Relays and inboxes that name a `password-variable` are given the password that it holds.
    pub fn environment(mut self, variables: impl IntoIterator<Item = (String, String)>) -> Result<Self, LayerError> {
        let variables: BTreeMap<String, String> = variables.into_iter().collect();
        for key in ["relay", "inbox"] {
            if let Some(Value::Array(all)) = self.entries.get_mut(key).map(|entry| &mut entry.value) {
                all.iter_mut().filter_map(Value::as_table_mut).for_each(|one| give_password(one, &variables));
            }
        }
        let ours = |name: &str| name.starts_with("QUORATE_") && !NOT_SETTINGS.contains(&name);
        for (name, text) in variables.into_iter().filter(|(name, _)| ours(name)) {
            let source = Source::Environment(name.clone());
            let key = self.entries.keys().find(|key| variable(key) == name).cloned();
            if key.is_none() && platform::sets(&name, &text) {
                continue;
            }
            let key = key.unwrap_or(name);
            self.set_text(&key, &text, source)?;
        }
        Ok(self)
    }

    /// With settings given on the command line, by dotted key.
    pub fn flags(mut self, flags: impl IntoIterator<Item = (String, String)>) -> Result<Self, LayerError> {
        for (key, text) in flags {
            self.set_text(&key, &text, Source::Flag(key.clone()))?;
        }
        Ok(self)
    }

    /// One setting.
    pub fn get(&self, key: &str) -> Option<&Entry> {
        self.entries.get(key)
    }

    /// All settings in order of their keys: what `quorate config show` prints.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.entries.iter().map(|(key, entry)| (key.as_str(), entry))
    }

    /// The settings together.
    pub fn settings(&self) -> Settings {
        let pairs = self.entries.iter().map(|(key, entry)| (key.as_str(), entry.value.clone()));
        nest(pairs).try_into().unwrap_or_else(|wrong| unreachable!("each value was tried when it was set: {wrong}"))
    }

    /// The settings together, checked against each other.
    pub fn config(&self) -> Result<Config, ConfigError> {
        Config::try_from(self.settings())
    }

    fn set_text(&mut self, key: &str, text: &str, source: Source) -> Result<(), LayerError> {
        let value = match self.entries.get(key).map(|entry| &entry.value) {
            Some(Value::Integer(_)) => text.parse().map_or_else(|_| text.into(), Value::Integer),
            Some(Value::Boolean(_)) => text.parse().map_or_else(|_| text.into(), Value::Boolean),
            Some(Value::Array(_)) => {
                let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
                Value::Array(items.map(Value::from).collect())
            }
            _ => text.into(),
        };
        self.set(key, value, source)
    }

    fn set(&mut self, key: &str, value: Value, source: Source) -> Result<(), LayerError> {
        if !self.entries.contains_key(key) {
            let hint = nearest(key, self.entries.keys()).map_or_else(String::new, |near| format!(": `{near}`?"));
            return Err(LayerError::Unknown { key: key.to_owned(), from: source, hint });
        }
        // Tried alone over the defaults, so that the refusal can name the key, the value and where it stands.
        let alone: Result<Settings, _> = nest([(key, value.clone())]).try_into();
        if let Err(why) = alone {
            let why = match holds_odd_password(&value) {
                true => "a password in it is no text: put it in quotes".to_owned(),
                false => why.message().trim().to_owned(),
            };
            let (key, value) = (key.to_owned(), Entry { value, source: source.clone() }.shown().to_string());
            return Err(LayerError::Value { key, value, from: source, why });
        }
        self.entries.insert(key.to_owned(), Entry { value, source });
        follow(&mut self.entries, &self.defaults);
        Ok(())
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Flag(name) => write!(f, "flag --{name}"),
            Self::Follows(key) => write!(f, "follows {key}"),
        }
    }
}

/// Gives a relay or an inbox the password that the variable holds which it names.
fn give_password(one: &mut Table, variables: &BTreeMap<String, String>) {
    let named = one.get("password-variable").and_then(Value::as_str);
    if let Some(password) = named.and_then(|name| variables.get(name)).filter(|_| !one.contains_key("password")) {
        one.insert("password".to_owned(), password.as_str().into());
    }
}

fn variable(key: &str) -> String {
    format!("QUORATE_{}", key.replace(['.', '-'], "_").to_ascii_uppercase())
}

/// The values in `value` that are no table with something in it, each with its dotted key.
fn flatten(prefix: &str, value: Value, leaves: &mut Vec<(String, Value)>) {
    match value {
        Value::Table(table) if !table.is_empty() || prefix.is_empty() => {
            for (name, value) in table {
                let key = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
                flatten(&key, value, leaves);
            }
        }
        leaf => leaves.push((prefix.to_owned(), leaf)),
    }
}

fn nest<'k>(pairs: impl IntoIterator<Item = (&'k str, Value)>) -> Value {
    let mut root = Table::new();
    for (key, value) in pairs {
        let mut table = &mut root;
        let mut path = key.split('.').peekable();
        while let Some(name) = path.next() {
            if path.peek().is_none() {
                table.insert(name.to_owned(), value);
                break;
            }
            let inner = table.entry(name).or_insert_with(|| Value::Table(Table::new()));
            let Value::Table(inner) = inner else { unreachable!("a key is a leaf or a table, never both") };
            table = inner;
        }
    }
    Value::Table(root)
}

/// The key that shares most of its letters with `key`, if it is most of them.
fn nearest<'k>(key: &str, keys: impl Iterator<Item = &'k String>) -> Option<&'k String> {
    let wanted = key.trim_start_matches("QUORATE_").to_ascii_lowercase().replace(['_', '.'], "-");
    keys.map(|known| (distance(&wanted, &known.replace('.', "-")), known))
        .filter(|(apart, known)| *apart * 3 <= known.len())
        .min_by_key(|(apart, _)| *apart)
        .map(|(_, known)| known)
}

/// Levenshtein's distance.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::{Layers, Source};

    fn pair(key: &str, value: &str) -> [(String, String); 1] {
        [(key.to_owned(), value.to_owned())]
    }

    #[test]
    fn later_layers_win_and_each_value_remembers_its_own() {
        let layers = Layers::defaults()
            .file("q.toml", "listen = '127.0.0.1:1'\n[http]\nmax-page = 7\ndefault-page = 7")
            .and_then(|l| l.environment(pair("QUORATE_HTTP_MAX_PAGE", "8")))
            .and_then(|l| l.flags(pair("http.max-page", "9")))
            .unwrap();
        assert_eq!(layers.settings().http.max_page, 9);
        assert_eq!(layers.get("http.max-page").unwrap().source, Source::Flag("http.max-page".into()));
        assert_eq!(layers.get("listen").unwrap().source, Source::File("q.toml".into()));
        assert_eq!(layers.get("data").unwrap().source, Source::Default);
    }

    #[test]
    fn an_unknown_key_is_an_error_that_names_its_place_and_the_nearest_there_is() {
        let file = Layers::defaults().file("q.toml", "[http]\nmax-boddy = 1").unwrap_err().to_string();
        assert_eq!(file, "there is no setting `http.max-boddy` (file q.toml): `http.max-body`?");
        let env = Layers::defaults().environment(pair("QUORATE_LISTN", "x")).unwrap_err().to_string();
        assert_eq!(env, "there is no setting `QUORATE_LISTN` (environment QUORATE_LISTN): `listen`?");
    }

    #[test]
    fn a_password_in_an_address_is_not_shown() {
        for (address, shown) in [
            ("postgres://u:se@cr:et@h:5432/db", "postgres://u:***@h:5432/db"),
            ("postgres://u@h/db?a=b&password=secret", "postgres://u@h/db?a=b&password=***"),
            ("postgres://u@h:5432/db?password=se@cret", "postgres://u@h:5432/db?password=***"),
            ("postgres://u:se@cret@h/db", "postgres://u:***@h/db"),
            ("postgres://u@h/db", "postgres://u@h/db"),
            ("nats://t0ken@h:4222", "nats://***@h:4222"),
            ("tls://t0ken@h:4222", "tls://***@h:4222"),
            ("nats://shop:secret@h:4222", "nats://shop:***@h:4222"),
            ("nats://h:4222", "nats://h:4222"),
            ("nats://t?ken@h:4222", "nats://***"),
            ("shop:secret@mq", "***@mq"),
            ("quorate", "quorate"),
        ] {
            let layers = Layers::defaults().flags([("store.address".to_owned(), address.to_owned())]).unwrap();
            assert_eq!(layers.get("store.address").unwrap().shown().as_str(), Some(shown));
            assert_eq!(layers.settings().store.address, address);
        }
    }

    #[test]
    fn a_password_is_not_shown_in_a_refusal_either() {
        for (text, why) in [
            ("[[relay]]\npassword = 12345", "in quotes"),
            ("[[relay]]\npassword = ['12345']", "in quotes"),
            ("[[inbox]]\npassword = 12345.5", "in quotes"),
            ("[[relay]]\nPassword = '12345'", "unknown field"),
            ("[[relay]]\npassword = '12345'\nbatch = 'many'", "many"),
            ("[[relay]]\ntransport = 'shop:12345@mq'\nbatch = 'many'", "many"),
        ] {
            let wrong = Layers::defaults().file("q.toml", text).unwrap_err().to_string();
            assert!(wrong.contains(why) && !wrong.contains("12345"), "{wrong}");
        }
        let wrong = Layers::defaults().file("q.toml", "[[relay]]\n password = 'ü12345").unwrap_err();
        let cause = std::error::Error::source(&wrong).unwrap().to_string();
        assert!(cause.contains("line 2") && cause.contains("password =") && !cause.contains("12345"), "{cause}");
        for line in ["password: '12345'", "password '12345'", "  'nats://shop:12345@mq' x", "12345@mq"] {
            let wrong = Layers::defaults().file("q.toml", &format!("[[relay]]\n{line}")).unwrap_err();
            let cause = std::error::Error::source(&wrong).unwrap().to_string();
            assert!(cause.contains("line 2") && !cause.contains("12345"), "{cause}");
        }
    }

    #[test]
    fn a_value_that_does_not_fit_is_named_with_its_key_and_place() {
        let wrong = Layers::defaults().environment(pair("QUORATE_HTTP_HEARTBEAT", "soon")).unwrap_err().to_string();
        assert!(
            wrong.starts_with("`http.heartbeat` cannot be \"soon\" (environment QUORATE_HTTP_HEARTBEAT)"),
            "{wrong}"
        );
        let wrong = Layers::defaults().flags(pair("http.max-page", "-1")).unwrap_err().to_string();
        assert!(wrong.starts_with("`http.max-page` cannot be -1 (flag --http.max-page)"), "{wrong}");
    }

    #[test]
    fn variables_of_others_and_of_commands_are_passed_over() {
        let others = [pair("PATH", "/bin"), pair("QUORATE_SERVER", "http://x")].concat();
        let layers = Layers::defaults().environment(others).unwrap();
        assert_eq!(layers.settings(), super::Settings::default());
    }

    #[test]
    fn an_empty_table_is_known_or_refused() {
        let layers = Layers::defaults().file("q.toml", "[http]\n[store]").unwrap();
        assert_eq!(layers.settings(), super::Settings::default());
        for (text, key) in [("[htttp]", "htttp"), ("[http.tls]", "http.tls"), ("http = { x = {} }", "http.x")] {
            let wrong = Layers::defaults().file("q.toml", text).unwrap_err().to_string();
            assert!(wrong.starts_with(&format!("there is no setting `{key}` (file q.toml)")), "{wrong}");
        }
        let wrong = Layers::defaults().file("q.toml", "listen = {}").unwrap_err().to_string();
        assert!(wrong.starts_with("`listen` cannot be {} (file q.toml)"), "{wrong}");
    }

    #[test]
    fn lists_are_given_with_commas() {
        let layers = Layers::defaults().environment(pair("QUORATE_ALLOWED_HOSTS", "a.example, b.example")).unwrap();
        assert_eq!(layers.settings().allowed_hosts, ["a.example", "b.example"]);
    }
}
