use super::{Faults, Format, Reader, Table, Value, parse};

const TOML: &str = "view = \"a\"\n[tables.t]\nkey = [\"id\"]\ncolumns = { z = \"text\", a = \"integer\" }\n";
const JSON: &str = r#"{"view": "a",
 "tables": {"t": {"key": ["id"], "columns": {"z": "text", "a": "integer"}}}}"#;

const YAML: &str = "view: a\ntables:\n  t:\n    key: [id]\n    columns: {z: text, a: integer}\n";

#[test]
fn all_forms_become_the_same_tree() {
    let (toml, json) = (parse(TOML, Format::Toml).unwrap(), parse(JSON, Format::Json).unwrap());
    assert_eq!(toml.value.to_json(), json.value.to_json());
    assert_eq!(parse(YAML, Format::Yaml).unwrap().value.to_json(), json.value.to_json());
    assert_eq!(parse(JSON, Format::Yaml).unwrap().value.to_json(), json.value.to_json(), "JSON is YAML");
}

#[test]
fn scalars_of_yaml_are_what_its_core_schema_says_and_no_is_a_text() {
    let text = "[~, true, no, 1, -1.5e3, 1m, '1', 0x1f, 2026-01-01, \"a: b\", !!str 5, 01]";
    let tree = parse(text, Format::Yaml).unwrap().value.to_json();
    assert_eq!(tree, r#"[null,true,"no",1,-1.5e3,"1m","1","0x1f","2026-01-01","a: b","5","01"]"#);
}

#[test]
fn several_documents_of_yaml_are_read_in_order_and_empty_ones_left_out() {
    let text = "---\na: 1\n---\n---\n# nothing\n---\nb: 2\n...\n";
    let all = super::parse_all(text, Format::Yaml).unwrap();
    assert_eq!(all.iter().map(|node| node.value.to_json()).collect::<Vec<_>>(), [r#"{"a":1}"#, r#"{"b":2}"#]);
    assert_eq!(parse(text, Format::Yaml).unwrap_err().line, 7);
}

#[test]
fn what_yaml_could_blow_up_with_is_refused_with_its_place() {
    for (text, line, says) in [
        ("a: &x 1\nb: 2", 1, "anchors"),
        ("a: 1\nb: *x", 2, "this is not YAML"),
        ("a: !!binary aGk=", 1, "tags"),
        ("a: 1\n? [b]\n: 2", 2, "a name stands here"),
        ("a: [1,\nb: 2", 2, "this is not YAML"),
        ("a: 1\n\tb: 2", 1, "this is not YAML"),
    ] {
        let fault = parse(text, Format::Yaml).unwrap_err();
        assert!(fault.what.contains(says), "{text:?}: {fault}");
        assert_eq!(fault.line, line, "{text:?}: {fault}");
    }
    let deep = format!("{}{}", "[".repeat(60), "]".repeat(60));
    assert!(parse(&deep, Format::Yaml).unwrap_err().what.contains("at most 32"));
}

#[test]
fn places_in_yaml_are_bytes_behind_whatever_characters() {
    let text = "é: ü\nname: ok\n";
    let root = parse(text, Format::Yaml).unwrap();
    let Value::Table(entries) = &root.value else { panic!("a table") };
    assert_eq!(&text[entries[1].key_span.clone()], "name");
    assert_eq!(&text[entries[1].node.span.clone()], "ok");
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

/// What a reader that knows `view`, `live` and `key` says of a document.
fn faults(text: &str) -> Faults {
    let root = parse(text, Format::Toml).unwrap();
    let reader = Reader::new(text);
    let mut table = Table::of(&reader, "", &root).unwrap();
    table.required_text("view");
    table.boolean("live");
    table.texts("key");
    table.end();
    reader.finish().unwrap()
}

#[test]
fn every_fault_of_a_document_is_told_at_once_in_order_with_its_line_column_and_field() {
    let found = faults("live = \"yes\"\nkeys = [\"id\"]\nkey = [\"id\", 7]\n");
    let told: Vec<(u32, u32, &str)> =
        found.list.iter().map(|fault| (fault.line, fault.column, fault.field.as_str())).collect();
    assert_eq!(told, [(1, 1, "view"), (1, 8, "live"), (2, 1, "keys"), (3, 14, "key[1]")], "{found}");
    assert!(found.to_string().contains("did you mean `key`?"), "{found}");
    assert!(!found.more);
}

#[test]
fn a_field_that_stands_there_twice_is_a_fault() {
    let text = r#"{"view": "a", "view": "b"}"#;
    let root = parse(text, Format::Json).unwrap();
    let reader = Reader::new(text);
    let mut table = Table::of(&reader, "", &root).unwrap();
    assert_eq!(table.required_text("view").map(|(text, _)| text), Some("a"));
    table.end();
    let found = reader.finish().unwrap();
    assert_eq!((found.list.len(), found.list[0].column), (1, 15), "{found}");
}

#[test]
fn a_document_full_of_faults_is_told_the_first_twenty() {
    let text: String = (0..30).map(|n| format!("x{n} = 1\n")).collect();
    let found = faults(&text);
    assert!(found.list.len() == Faults::MAX && found.more);
}

#[test]
fn a_fault_inside_a_statement_is_told_where_it_is() {
    let text = "sql = \"\"\"\nDELETE FROM loan\nWHERE nope\n\"\"\"\n";
    let root = parse(text, Format::Toml).unwrap();
    let reader = Reader::new(text);
    let mut table = Table::of(&reader, "", &root).unwrap();
    let (sql, span) = table.required_text("sql").unwrap();
    reader.fault_within(&span, sql, sql.find("nope").unwrap(), "sql", "here");
    let found = reader.finish().unwrap();
    assert_eq!((found.list[0].line, found.list[0].column), (3, 7), "{found}");
}
