//! Relative links in Markdown lead to a file or folder of the repository, and their anchors to a heading.

mod markdown;

use super::Finding;
use crate::tree::Tree;

/// Follows every relative link of every document.
pub(super) fn findings(tree: &Tree) -> Vec<Finding> {
    let documents = tree.under("", ".md");
    let links = documents.flat_map(|(path, text)| markdown::links(text).map(move |link| (path, link)));
    links.filter_map(|(path, link)| Some(Finding::on_line(path, link.line, fault(tree, path, &link.target)?))).collect()
}

fn fault(tree: &Tree, from: &str, link: &str) -> Option<String> {
    if !is_relative(link) {
        return None;
    }
    let (place, anchor) = link.split_once('#').map_or((link, None), |(place, anchor)| (place, Some(anchor)));
    let Some(target) = resolve(from, &decode(place)) else {
        return Some(format!("the link `{link}` leads out of the repository"));
    };
    if !tree.has_file(&target) && !tree.has_folder(&target) {
        return Some(format!("the link `{link}` leads nowhere; there is no {target}"));
    }
    let anchor = anchor.filter(|_| target.ends_with(".md"))?;
    let headings = markdown::anchors(tree.text(&target)?);
    (!headings.contains(&decode(anchor))).then(|| format!("the link `{link}` names no heading of {target}"))
}

/// Whether a link stays in the repository: neither another scheme nor a path of the served site.
fn is_relative(link: &str) -> bool {
    let scheme = link.split_once(':').map_or("", |(scheme, _)| scheme);
    let has_scheme = !scheme.is_empty() && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
    !has_scheme && !link.starts_with('/')
}

/// The path from the root that `link` means in the document `from`; `None` when it climbs above the root.
fn resolve(from: &str, link: &str) -> Option<String> {
    if link.is_empty() {
        return Some(from.to_owned());
    }
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in link.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

/// Undoes percent-encoding; what isn't valid stays as it is.
fn decode(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let hex = after.get(..2).filter(|_| first == b'%').and_then(|digits| std::str::from_utf8(digits).ok());
        match hex.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(text: &str) -> Vec<String> {
        let tree = Tree::from([
            ("README.md", "# Two words, and `more`!\n## Again\n## Again\n"),
            ("docs/guide/start.md", text),
            ("docs/guide/a b.md", ""),
            ("docs/adr/0001-x.md", ""),
        ]);
        findings(&tree).into_iter().map(|finding| finding.to_string()).collect()
    }

    const NONE: [&str; 0] = [];

    #[test]
    fn a_link_to_nothing_is_named_with_its_line() {
        let found = judge("fine\n\nsee [the map](../../ARCHITECTURE.md)");
        let expected =
            "docs/guide/start.md:3: the link `../../ARCHITECTURE.md` leads nowhere; there is no ARCHITECTURE.md";
        assert_eq!(found, [expected]);
    }

    #[test]
    fn links_to_files_folders_and_headings_resolve() {
        assert_eq!(judge("[a](../../README.md) [b](../adr) [c](../adr/) [d](./start.md) [e](a%20b.md)"), NONE);
        assert_eq!(judge("[a](../../README.md#two-words-and-more) [b](../../README.md#again-1)"), NONE);
        assert_eq!(judge("# Here\n[a](#here)"), NONE);
    }

    #[test]
    fn an_anchor_without_a_heading_is_named() {
        assert_eq!(judge("[a](../../README.md#three-words)").len(), 1);
        assert_eq!(judge("[a](#nowhere)").len(), 1);
    }

    #[test]
    fn definitions_titles_images_brackets_and_html_are_links_too() {
        assert_eq!(judge("[a]: gone.md").len(), 1);
        assert_eq!(judge("[a](gone.md \"a title\")").len(), 1);
        assert_eq!(judge("![a](gone.png)").len(), 1);
        assert_eq!(judge("[a](<gone for good.md>)").len(), 1);
        assert_eq!(judge("<img src=\"gone.svg\"> <a href=\"gone.md\">x</a>").len(), 2);
    }

    #[test]
    fn other_sites_and_paths_the_node_serves_are_left_alone() {
        assert_eq!(judge("[a](https://example.org/x.md) [b](mailto:a@b.c) [c](/errors/saga-compensating)"), NONE);
    }

    #[test]
    fn a_link_out_of_the_repository_is_named() {
        assert!(judge("[a](../../../elsewhere.md)")[0].ends_with("leads out of the repository"));
    }

    #[test]
    fn code_is_no_link() {
        assert_eq!(judge("```rust\nlet x = a[0](gone.md);\n```\n"), NONE);
        assert_eq!(judge("say `[a](gone.md)` and ``[b](gone`.md)``"), NONE);
        assert_eq!(judge("```\ncode\n```\n[a](gone.md)").len(), 1, "the fence ends");
    }
}
