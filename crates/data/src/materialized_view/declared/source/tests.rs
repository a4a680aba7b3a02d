use super::{Format, Value, parse};

const TOML: &str = "view = \"a\"\n[tables.t]\nkey = [\"id\"]\ncolumns = { z = \"text\", a = \"integer\" }\n";
const JSON: &str = r#"{"view": "a",
 "tables": {"t": {"key": ["id"], "columns": {"z": "text", "a": "integer"}}}}"#;

#[test]
fn both_forms_become_the_same_tree() {
    let (toml, json) = (parse(TOML, Format::Toml).unwrap(), parse(JSON, Format::Json).unwrap());
    assert_eq!(toml.value.to_json(), json.value.to_json());
}

#[test]
fn columns_keep_the_order_in_which_they_are_written() {
    for (text, format) in [(TOML, Format::Toml), (JSON, Format::Json)] {
        let root = parse(text, format).unwrap();
        let mut node = &root;
        for key in ["tables", "t", "columns"] {
            let Value::Table(entries) = &node.value else { panic!("{key}") };
            node = &entries.iter().find(|entry| entry.key == key).unwrap().node;
        }
        let Value::Table(columns) = &node.value else { panic!("columns") };
        let names: Vec<&str> = columns.iter().map(|column| column.key.as_str()).collect();
        assert_eq!(names, ["z", "a"], "{format:?}");
        assert_eq!(&text[columns[1].key_span.clone()].trim_matches('"'), &"a", "{format:?}");
    }
}

#[test]
fn what_is_neither_toml_nor_json_is_told_with_its_place() {
    let fault = parse("view = \"a\"\nkey = [1,\n", Format::Toml).unwrap_err();
    assert!(fault.line >= 2, "{fault}");
    let fault = parse("{\"a\": 1,\n  nope}", Format::Json).unwrap_err();
    assert_eq!((fault.line, fault.column), (2, 3), "{fault}");
}

#[test]
fn json_that_is_nested_without_end_is_refused() {
    let deep = format!("{}{}", "[".repeat(60), "]".repeat(60));
    assert!(parse(&deep, Format::Json).unwrap_err().what.contains("at most 32"));
}

#[test]
fn a_column_counts_characters() {
    let fault = parse("{\"é\": \"ü\", x}", Format::Json).unwrap_err();
    assert_eq!(fault.line, 1);
    let fault = super::Fault::at("éé!", 4, "", "here");
    assert_eq!((fault.line, fault.column), (1, 3));
}
