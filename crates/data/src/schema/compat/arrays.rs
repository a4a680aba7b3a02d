//! Keywords that look into arrays.

use super::{
    Gap, Undeclared,
    conjunction::{Conjunction, Node},
    prover::{Prover, few, unproved},
    scalars::closed_length,
};
use serde_json::Value;

impl<'a> Prover<'a> {
    /// `prefixItems` speaks of the first positions, `items` of all that follow.
    pub(super) fn items(&mut self, keyword: &str, writer: &Conjunction<'a>, reader: &Node<'a>) -> Vec<Gap> {
        let own = reader.branches("prefixItems");
        let longest = writer.nodes.iter().map(|node| node.list("prefixItems").len()).max().unwrap_or(0);
        let asked: Vec<_> = match keyword {
            "prefixItems" => own.into_iter().enumerate().collect(),
            _ => reader
                .child("items")
                .into_iter()
                .flat_map(|items| (own.len()..=longest.max(own.len())).map(move |at| (at, items.clone())))
                .collect(),
        };
        let exists = asked.into_iter().filter(|(position, _)| reaches(writer, *position));
        few(exists.flat_map(|(position, wanted)| {
            let item = self.item(writer, position);
            self.prove(&item, &wanted)
        }))
    }

    /// What is known of the item at `position`.
    fn item(&self, writer: &Conjunction<'a>, position: usize) -> Conjunction<'a> {
        let of_node = |node: &Node<'a>| {
            let in_prefix = node.branches("prefixItems").into_iter().nth(position);
            in_prefix.or_else(|| node.child("items"))
        };
        let nodes: Vec<_> = writer.nodes.iter().filter_map(of_node).collect();
        let at = nodes.first().map_or_else(|| writer.at.clone(), |node| node.at.clone());
        self.conjunction(at, nodes).beside(self.perhaps_of_item(writer, position))
    }

    /// Schemas that may apply to the item at `position`, known to apply or not.
    fn perhaps_of_item(&self, writer: &Conjunction<'a>, position: usize) -> Vec<Node<'a>> {
        if self.undeclared == Undeclared::Possible {
            return vec![];
        }
        let of_node = |node: Node<'a>| {
            let any = ["items", "contains", "unevaluatedItems"].into_iter().filter_map(|keyword| node.child(keyword));
            any.chain(node.branches("prefixItems").into_iter().nth(position)).collect::<Vec<_>>()
        };
        writer.reached(self.pair).into_iter().flat_map(of_node).collect()
    }

    /// Proved only where nothing is asked, or the same is known.
    pub(super) fn contains(&mut self, keyword: &str, writer: &Conjunction<'a>, reader: &Node<'a>) -> Vec<Gap> {
        let asks_nothing = reader.get("contains").is_none()
            || (reader.get("minContains").and_then(Value::as_u64) == Some(0) && reader.get("maxContains").is_none());
        let known = asks_nothing || self.repeats(&["contains", "minContains", "maxContains"], writer, reader);
        if known || keyword != "contains" { vec![] } else { vec![unproved(keyword, writer, reader)] }
    }
}

/// Whether an array of the writer can have an item at `position`, counted from 0.
fn reaches(writer: &Conjunction<'_>, position: usize) -> bool {
    let longest = writer.at_most("maxItems").into_iter().chain(closed_length(writer)).min();
    longest.is_none_or(|longest| longest > position as u64)
}
