//! The repository speaks of quorate alone: no path of somebody's machine, no package registry's address.

use super::Finding;
use crate::tree::Tree;

/// Folders that exist on some machine. Written in two halves, since this file is judged, too.
const FOLDERS: &[&str] = &[concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/"), concat!("/Us", "ers/")];

/// Hosts and settings that send cargo, or another package manager, to a particular registry.
const REGISTRIES: &[&str] = &[
    concat!("index.crates", ".io"),
    concat!("static.crates", ".io"),
    concat!("sparse+", "http"),
    concat!("artif", "actory"),
    concat!("registry.npmjs", ".org"),
    concat!("pypi.org/", "simple"),
    concat!("files.python", "hosted.org"),
    concat!("proxy.golang", ".org"),
    concat!("deb.debian", ".org"),
    concat!("archive.ubuntu", ".com"),
    concat!("[regis", "tries"),
    concat!("replace", "-with"),
];

/// The one place a locked package may come from.
const CRATES: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Reads every line of every text file.
pub(super) fn findings(tree: &Tree) -> Vec<Finding> {
    let lines = tree.texts().flat_map(|(path, text)| text.lines().enumerate().map(move |line| (path, line)));
    lines.filter_map(|(path, (index, line))| Some(Finding::on_line(path, index + 1, fault(path, line)?))).collect()
}

fn fault(path: &str, line: &str) -> Option<String> {
    if let Some(folder) = FOLDERS.iter().find(|folder| names_folder(line, folder)) {
        return Some(format!("`{folder}` is a path of one machine"));
    }
    if let Some(registry) = REGISTRIES.iter().find(|registry| line.contains(**registry)) {
        return Some(format!("`{registry}` names a package registry"));
    }
    let source = line.strip_prefix("source = \"").filter(|_| path.ends_with("Cargo.lock"))?.trim_end_matches('"');
    (source != CRATES).then(|| format!("a locked package comes from `{source}`"))
}

/// Whether `folder` stands in `line` as the start of an absolute path, and not inside a longer one or an address.
fn names_folder(line: &str, folder: &str) -> bool {
    let goes_on = |c: char| c.is_alphanumeric() || "_-.~}/*".contains(c);
    line.match_indices(folder).any(|(at, _)| !line[..at].ends_with(goes_on))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(path: &str, text: &str) -> Vec<String> {
        findings(&Tree::from([(path, text)])).into_iter().map(|finding| finding.to_string()).collect()
    }

    #[test]
    fn every_folder_of_a_machine_is_found_in_any_file() {
        for folder in FOLDERS {
            let found = judge("docs/a.md", &format!("fine\nsee ({folder}x)"));
            assert_eq!(found, [format!("docs/a.md:2: `{folder}` is a path of one machine")]);
        }
    }

    #[test]
    fn folders_inside_longer_paths_and_addresses_are_left_alone() {
        for folder in FOLDERS {
            assert_eq!(judge("a.md", &format!("crates/x{folder}y https://example.org{folder} ~{folder}")), [""; 0]);
        }
    }

    #[test]
    fn every_registry_is_found() {
        for registry in REGISTRIES {
            assert_eq!(judge(".cargo/config.toml", &format!("x = \"{registry}\"")).len(), 1, "{registry}");
        }
    }

    #[test]
    fn a_locked_package_comes_from_the_public_index_alone() {
        assert_eq!(judge("Cargo.lock", &format!("source = \"{CRATES}\"")), [""; 0]);
        assert_eq!(judge("Cargo.lock", "source = \"git+https://github.com/a/b#c\"").len(), 1);
        assert_eq!(judge("Cargo.lock", "source = \"registry+https://mirror.example/index\"").len(), 1);
    }
}
