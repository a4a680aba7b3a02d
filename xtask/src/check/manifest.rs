//! What a `Cargo.toml` says about dependencies, with the workspace's inheritance resolved.

use anyhow::{Context, Result};
use toml::{Table, Value};

use crate::tree::Tree;

/// A package of the workspace.
pub(super) struct Manifest {
    /// Where it stands, from the root.
    pub(super) path: String,
    pub(super) package: String,
    pub(super) dependencies: Vec<Dependency>,
}

/// One entry of a dependency table.
pub(super) struct Dependency {
    /// The package's own name, whatever it is called here.
    pub(super) package: String,
    pub(super) kind: Kind,
}

/// When a dependency is needed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Normal,
    Build,
    Dev,
}

const TABLES: [(&str, Kind); 3] =
    [("dependencies", Kind::Normal), ("build-dependencies", Kind::Build), ("dev-dependencies", Kind::Dev)];

impl Manifest {
    /// The folder below `crates/`, for a crate of the product.
    pub(super) fn crate_name(&self) -> Option<&str> {
        let (name, rest) = self.path.strip_prefix("crates/")?.split_once('/')?;
        (rest == "Cargo.toml").then_some(name)
    }
}

/// Whether `package` is one of the product's crates.
pub(super) fn is_ours(package: &str) -> bool {
    package == "quorate" || package.starts_with("quorate-")
}

/// Reads every package of the tree, except those in the root manifest.
///
/// # Errors
/// When a manifest isn't valid TOML.
pub(super) fn read_all(tree: &Tree) -> Result<Vec<Manifest>> {
    let root = parse("Cargo.toml", tree.text("Cargo.toml").unwrap_or_default())?;
    let shared = table_at(&root, &["workspace", "dependencies"]).cloned().unwrap_or_default();
    tree.under("", "/Cargo.toml").map(|(path, text)| read(path, text, &shared)).collect()
}

fn parse(path: &str, text: &str) -> Result<Table> {
    text.parse().with_context(|| format!("{path} isn't valid TOML"))
}

fn read(path: &str, text: &str, shared: &Table) -> Result<Manifest> {
    let manifest = parse(path, text)?;
    let name = table_at(&manifest, &["package"]).and_then(|package| package.get("name")?.as_str());
    let targets = table_at(&manifest, &["target"]).into_iter().flat_map(|targets| targets.values());
    let places = std::iter::once(&manifest).chain(targets.filter_map(Value::as_table));
    let dependencies = places.flat_map(|place| dependencies_of(place, shared)).collect();
    Ok(Manifest { path: path.to_owned(), package: name.unwrap_or_default().to_owned(), dependencies })
}

fn dependencies_of(place: &Table, shared: &Table) -> Vec<Dependency> {
    let tables = TABLES.iter().filter_map(|(key, kind)| Some((place.get(*key)?.as_table()?, *kind)));
    let entries = tables.flat_map(|(table, kind)| table.iter().map(move |(key, value)| (key, value, kind)));
    entries.map(|(key, value, kind)| Dependency { package: package_of(key, value, shared), kind }).collect()
}

fn package_of(key: &str, value: &Value, shared: &Table) -> String {
    let inherits = value.get("workspace").and_then(Value::as_bool) == Some(true);
    let source = if inherits { shared.get(key) } else { Some(value) };
    let renamed = source.and_then(|source| source.get("package")?.as_str());
    renamed.unwrap_or(key).to_owned()
}

fn table_at<'a>(table: &'a Table, path: &[&str]) -> Option<&'a Table> {
    path.iter().try_fold(table, |table, key| table.get(*key)?.as_table())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packages(manifest: &str) -> Vec<String> {
        let tree = Tree::from([
            ("Cargo.toml", "[workspace.dependencies]\nstore = { package = \"quorate-data\", path = \"crates/data\" }"),
            ("crates/node/Cargo.toml", manifest),
        ]);
        let manifests = read_all(&tree).unwrap();
        manifests[0].dependencies.iter().map(|dependency| dependency.package.clone()).collect()
    }

    #[test]
    fn renamed_dependencies_are_known_by_their_packages() {
        assert_eq!(packages("[dependencies]\nx = { package = \"quorate-cli\", version = \"1\" }"), ["quorate-cli"]);
        assert_eq!(packages("[dependencies]\nstore.workspace = true"), ["quorate-data"]);
        assert_eq!(packages("[dependencies]\nserde = \"1\""), ["serde"]);
    }

    #[test]
    fn build_dev_and_target_dependencies_are_seen() {
        assert_eq!(packages("[build-dependencies]\na = \"1\"\n[dev-dependencies]\nb = \"1\""), ["a", "b"]);
        assert_eq!(packages("[target.'cfg(unix)'.dependencies]\nc = \"1\""), ["c"]);
    }
}
