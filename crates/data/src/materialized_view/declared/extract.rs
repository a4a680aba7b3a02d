//! Values at paths into a JSON text, found in one pass over it.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{self, DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;
use smallvec::{SmallVec, smallvec};

use super::path::Step;

/// Paths into a JSON text, each with a number: its place in the order in which they were added.
#[derive(Debug, Default)]
pub(super) struct Extractor {
    root: Branch,
    paths: usize,
}

/// Where several paths part.
#[derive(Debug, Default)]
struct Branch {
    /// The paths that end here.
    ends: Vec<usize>,
    members: Vec<(String, Branch)>,
    items: Vec<(usize, Branch)>,
}

/// What stands at each path.
pub(super) type Found<'d> = SmallVec<[Option<&'d RawValue>; 8]>;

impl Extractor {
    /// Adds a path, and says which number it has.
    pub(super) fn add(&mut self, path: &[Step]) -> usize {
        let mut branch = &mut self.root;
        for step in path {
            branch = match step {
                Step::Member(name) => grow(&mut branch.members, name.clone()),
                Step::Index(index) => grow(&mut branch.items, *index),
            };
        }
        branch.ends.push(self.paths);
        self.paths += 1;
        self.paths - 1
    }

    /// Whether there are no paths.
    pub(super) fn is_empty(&self) -> bool {
        self.paths == 0
    }

    /// Nothing at any path.
    pub(super) fn nothing<'d>(&self) -> Found<'d> {
        smallvec![None; self.paths]
    }

    /// What stands at each path; of a member that is there twice, the later one.
    ///
    /// # Errors
    /// The text is not JSON.
    pub(super) fn run<'d>(&self, json: &'d str) -> Result<Found<'d>, serde_json::Error> {
        let mut found = self.nothing();
        let mut from = serde_json::Deserializer::from_str(json);
        Walk { branch: &self.root, found: &mut found }.deserialize(&mut from)?;
        from.end()?;
        Ok(found)
    }
}

fn grow<K: PartialEq>(branches: &mut Vec<(K, Branch)>, key: K) -> &mut Branch {
    let known = branches.iter().position(|(known, _)| *known == key);
    let at = known.unwrap_or_else(|| {
        branches.push((key, Branch::default()));
        branches.len() - 1
    });
    &mut branches[at].1
}

impl Branch {
    fn is_end(&self) -> bool {
        self.members.is_empty() && self.items.is_empty()
    }
}

struct Walk<'b, 'f, 'd> {
    branch: &'b Branch,
    found: &'f mut Found<'d>,
}

impl<'d> DeserializeSeed<'d> for Walk<'_, '_, 'd> {
    type Value = ();

    fn deserialize<D: Deserializer<'d>>(self, from: D) -> Result<(), D::Error> {
        if self.branch.ends.is_empty() {
            return from.deserialize_any(self);
        }
        let raw = <&RawValue>::deserialize(from)?;
        for end in &self.branch.ends {
            self.found[*end] = Some(raw);
        }
        if self.branch.is_end() {
            return Ok(());
        }
        serde_json::Deserializer::from_str(raw.get()).deserialize_any(self).map_err(de::Error::custom)
    }
}

impl<'d> Visitor<'d> for Walk<'_, '_, 'd> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_map<A: MapAccess<'d>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<std::borrow::Cow<'d, str>>()? {
            match self.branch.members.iter().find(|(name, _)| *name == *key) {
                Some((_, branch)) => map.next_value_seed(Walk { branch, found: self.found })?,
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'d>>(self, mut list: A) -> Result<(), A::Error> {
        for index in 0.. {
            let more = match self.branch.items.iter().find(|(known, _)| *known == index) {
                Some((_, branch)) => list.next_element_seed(Walk { branch, found: self.found })?,
                None => list.next_element::<IgnoredAny>()?.map(drop),
            };
            if more.is_none() {
                break;
            }
        }
        Ok(())
    }

    // A path goes into something that has nothing inside: there is nothing at it.
    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Extractor;
    use crate::materialized_view::declared::path::Path;

    fn at(paths: &[&str], json: &str) -> Vec<Option<String>> {
        let mut extractor = Extractor::default();
        for path in paths {
            let Ok(Path::Data(steps)) = path.parse() else { panic!("{path}") };
            extractor.add(&steps);
        }
        let found = extractor.run(json).unwrap_or_else(|cause| panic!("{json}: {cause}"));
        found.into_iter().map(|raw| raw.map(|raw| raw.get().to_owned())).collect()
    }

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn every_path_gets_the_text_that_stands_at_it() {
        let json = r#"{"a": {"b": [1.50, {"c": "x\u00e9"}], "b2": null}, "d": 12345678901234567890.10}"#;
        assert_eq!(
            at(&["$.data.a.b[0]", "$.data.a.b[1].c", "$.data.d", "$.data.a.b2", "$.data.a.b[1]"], json),
            [
                some("1.50"),
                some(r#""x\u00e9""#),
                some("12345678901234567890.10"),
                some("null"),
                some(r#"{"c": "x\u00e9"}"#)
            ]
        );
    }

    #[test]
    fn where_nothing_stands_nothing_is_found() {
        for json in ["{}", "[]", "7", "\"a\"", "null", "true", r#"{"a": 1}"#, r#"{"a": [1]}"#, "-1.5"] {
            assert_eq!(at(&["$.data.a.b", "$.data[3]"], json), [None, None], "{json}");
        }
    }

    #[test]
    fn the_same_path_twice_and_the_data_itself_are_found() {
        assert_eq!(at(&["$.data.a", "$.data", "$.data.a"], r#"{"a":1}"#), [some("1"), some(r#"{"a":1}"#), some("1")]);
    }

    #[test]
    fn what_is_not_json_is_refused() {
        let mut extractor = Extractor::default();
        extractor.add(&[]);
        for bad in ["", "{", "{}x", "nope"] {
            assert!(extractor.run(bad).is_err(), "{bad}");
        }
    }
}
