//! The node's configuration as a command sees it: `quorate.toml`, the environment, and one flag per setting.

use std::path::{Path, PathBuf};

use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};
use quorate_node::config::{Config, ConfigError, FixedLimit, LayerError, Layers, fixed_limits};
use quorate_runtime::Env;
use serde_json::{Value, json};

use crate::{
    exit::{Exit, Failure, chain},
    output::{Column, Format, Out, Table},
};

/// Where settings come from.
#[derive(Args, Debug)]
pub(crate) struct Configuration {
    /// The file with settings; without this flag `quorate.toml`, if there is one
    #[arg(long, env = "QUORATE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: SettingFlags,
}

/// One flag for each setting, named as in the file: `--http.max-body 8MiB`.
#[derive(Debug, Default)]
struct SettingFlags(Vec<(String, String)>);

/// The file that is read unless another one is named.
const FILE: &str = "quorate.toml";

/// What no flag sets: each is a table of its own.
const IN_A_FILE_ALONE: [&str; 2] = ["inbox", "relay"];

/// The longest file of settings, in bytes.
const MAX_FILE: u64 = 1 << 20;

impl Configuration {
    /// The checked configuration.
    pub(crate) async fn load(&self, env: &Env) -> Result<Config, Failure> {
        self.layers(env).await?.config().map_err(|wrong: ConfigError| Failure::of(Exit::Usage, &wrong))
    }

    /// All settings, each with its source.
    pub(crate) async fn layers(&self, env: &Env) -> Result<Layers, Failure> {
        let layers = match self.file(env).await? {
            Some((path, text)) => Layers::defaults().file(path, &text),
            None => Ok(Layers::defaults()),
        };
        let variables =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        let layers = layers.and_then(|layers| layers.environment(variables));
        let layers = layers.and_then(|layers| layers.flags(self.settings.0.iter().cloned()));
        layers.map_err(|wrong: LayerError| {
            Failure::new(Exit::Usage, chain(&wrong)).advise("`quorate config show` lists every setting")
        })
    }

    async fn file(&self, env: &Env) -> Result<Option<(PathBuf, String)>, Failure> {
        let (disk, asked) = (env.disk().clone(), self.config.clone());
        let path = asked.clone().unwrap_or_else(|| FILE.into());
        let of_path = path.clone();
        let read = env.run_blocking(move || {
            if asked.is_none() && !disk.exists(&of_path)? {
                return Ok(None);
            }
            if disk.size(&of_path)? > MAX_FILE {
                return Err(std::io::Error::other(format!("a file of settings has at most {MAX_FILE} bytes")));
            }
            disk.read(&of_path).map(Some)
        });
        let bytes = read.await.map_err(|cause| Failure::io(path.display(), &cause))?;
        let text = bytes.map(String::from_utf8).transpose();
        let text = text.map_err(|_| Failure::new(Exit::Usage, format!("{} is not UTF-8", Path::display(&path))))?;
        Ok(text.map(|text| (path, text)))
    }

    /// `config show`: every setting, its value and where it came from; then the limits that cannot be set. Settings that
    /// contradict each other are shown, too, and then refused.
    pub(crate) async fn show(&self, env: &Env, format: Format) -> Result<(), Failure> {
        let layers = self.layers(env).await?;
        let mut out = Out::new();
        match format {
            Format::Json => {
                let entry = |(key, entry): (&str, &quorate_node::config::Entry)| json!({ "key": key, "value": entry.shown(), "source": entry.source.to_string() });
                let limit = |limit: FixedLimit| json!({ "limit": limit.name, "value": limit.value });
                out.json(&json!({
                    "settings": layers.entries().map(entry).collect::<Vec<Value>>(),
                    "limits": fixed_limits().into_iter().map(limit).collect::<Vec<Value>>(),
                }))?;
                out.flush()?;
            }
            Format::Table => {
                let mut table = Table::new([Column::Left("SETTING"), Column::Left("VALUE"), Column::Left("SOURCE")]);
                for (key, entry) in layers.entries() {
                    table.row([key, &entry.shown().to_string(), &entry.source.to_string()]);
                }
                for limit in fixed_limits() {
                    table.row([&*limit.name, &limit.value.to_string(), "fixed"]);
                }
                table.print(&mut out)?;
            }
        }
        layers.config().map(drop).map_err(|wrong| Failure::of(Exit::Usage, &wrong))
    }
}

impl Args for SettingFlags {
    fn augment_args(command: Command) -> Command {
        let layers = Layers::defaults();
        layers.entries().filter(|(key, _)| !IN_A_FILE_ALONE.contains(key)).fold(command, |command, (key, entry)| {
            let flag = Arg::new(key.to_owned()).long(key.to_owned()).value_name("VALUE").help_heading("Settings");
            let flag = match entry.value {
                toml::Value::Boolean(_) => flag.num_args(0..=1).default_missing_value("true").require_equals(true),
                _ => flag,
            };
            // The one setting that everybody sets on the command line.
            let flag = if key == "store.address" { flag.visible_alias("store") } else { flag };
            command.arg(flag.help(format!("Setting `{key}`; by default {}", entry.value)))
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for SettingFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let layers = Layers::defaults();
        let keys = layers.entries().map(|(key, _)| key).filter(|key| !IN_A_FILE_ALONE.contains(key));
        let given = keys.filter_map(|key| Some((key.to_owned(), matches.get_one::<String>(key)?.clone())));
        Ok(Self(given.collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
