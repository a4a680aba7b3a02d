//! Ours give the answers that SQLite's give, and end.

use proptest::prelude::*;
use rusqlite::{Connection, types::Value};

use super::install;

fn pair() -> (Connection, Connection) {
    super::super::vfs::name().unwrap();
    let (mut ours, theirs) = (Connection::open_in_memory().unwrap(), Connection::open_in_memory().unwrap());
    install(&mut ours).unwrap();
    (ours, theirs)
}

const CALLS: [&str; 12] = [
    "instr(?1, ?2)",
    "replace(?1, ?2, ?3)",
    "trim(?1)",
    "trim(?1, ?2)",
    "ltrim(?1, ?2)",
    "rtrim(?1, ?2)",
    "?1 LIKE ?2",
    "?1 NOT LIKE ?2",
    "?1 LIKE ?2 ESCAPE '\\'",
    "?1 LIKE ?2 ESCAPE '%'",
    "?1 GLOB ?2",
    "typeof(replace(?1, ?2, ?3))",
];

fn answer(connection: &Connection, call: &str, given: &[Value; 3]) -> Result<Value, String> {
    let sql = format!("SELECT {call}, ?1, ?2, ?3");
    let asked = connection.query_row(&sql, rusqlite::params_from_iter(given), |row| row.get(0));
    asked.map_err(|failed| failed.to_string())
}

fn value() -> impl Strategy<Value = Value> {
    let letters = prop::sample::select(vec![
        "a", "b", "A", "%", "_", "*", "?", "[", "]", "^", "-", "\\", "ä", "Ä", "€", " ", "0",
    ]);
    let text = prop::collection::vec(letters, 0..9).prop_map(|letters| letters.concat());
    prop_oneof![
        8 => text.clone().prop_map(Value::Text),
        1 => text.prop_map(|text| Value::Blob(text.into_bytes())),
        1 => Just(Value::Null),
        1 => (-20_i64..20).prop_map(Value::Integer),
        1 => (-20.0..20.0_f64).prop_map(Value::Real),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn our_functions_answer_as_sqlites_do(one in value(), two in value(), three in value()) {
        thread_local!(static PAIR: (Connection, Connection) = pair());
        let given = [one, two, three];
        PAIR.with(|(ours, theirs)| {
            for call in CALLS {
                prop_assert_eq!(answer(ours, call, &given), answer(theirs, call, &given), "{} of {:?}", call, &given);
            }
            Ok(())
        })?;
    }
}

/// Of texts that are no UTF-8.
const CALLS_OF_BYTES: [&str; 6] = [
    "instr(CAST(?1 AS TEXT), CAST(?2 AS TEXT))",
    "hex(replace(CAST(?1 AS TEXT), CAST(?2 AS TEXT), CAST(?3 AS TEXT)))",
    "hex(trim(CAST(?1 AS TEXT)))",
    "hex(trim(CAST(?1 AS TEXT), CAST(?2 AS TEXT)))",
    "hex(ltrim(CAST(?1 AS TEXT), CAST(?2 AS TEXT)))",
    "hex(rtrim(CAST(?1 AS TEXT), CAST(?2 AS TEXT)))",
];

fn bytes() -> impl Strategy<Value = Value> {
    let some = prop::sample::select(vec![0x80, 0xa4, 0xbf, 0xc3, 0xf0, b'a', b' ', 0]);
    prop::collection::vec(some, 0..7).prop_map(Value::Blob)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn our_functions_answer_as_sqlites_do_over_any_bytes(one in bytes(), two in bytes(), three in bytes()) {
        thread_local!(static PAIR: (Connection, Connection) = pair());
        let given = [one, two, three];
        PAIR.with(|(ours, theirs)| {
            for call in CALLS_OF_BYTES {
                prop_assert_eq!(answer(ours, call, &given), answer(theirs, call, &given), "{} of {:?}", call, &given);
            }
            Ok(())
        })?;
    }
}

#[test]
fn a_function_looks_whether_it_is_enough() {
    super::super::vfs::name().unwrap();
    let mut connection = Connection::open_in_memory().unwrap();
    let watch = install(&mut connection).unwrap();
    watch.set(Some(|| true));
    let pattern = "%ab".repeat(80);
    let like = "SELECT printf('%.*c', 900000, 'a') LIKE ?1";
    let asked = connection.query_row(like, [pattern], |row| row.get::<_, bool>(0));
    assert!(asked.unwrap_err().to_string().contains("interrupted"));
    watch.set(None::<fn() -> bool>);
    assert!(connection.query_row("SELECT 'abc' LIKE '%C'", [], |row| row.get::<_, bool>(0)).unwrap());
}
