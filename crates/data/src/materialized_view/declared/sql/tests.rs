use super::{super::kind::Kind, Shape, ShapeColumn, Shapes, SqlFault, parse, statement::Parsed};

fn shapes() -> Shapes {
    let table = |columns: &[(&str, bool)], key: &[&str]| Shape {
        columns: columns
            .iter()
            .map(|(name, null)| ShapeColumn {
                name: (*name).to_owned(),
                kind: if ["amount", "n"].contains(name) { Kind::Integer } else { Kind::Text },
                null: *null,
            })
            .collect(),
        key: key.iter().map(|name| (*name).to_owned()).collect(),
    };
    Shapes::from([
        ("loan".to_owned(), table(&[("id", false), ("state", false), ("amount", true)], &["id"])),
        ("visit".to_owned(), table(&[("day", false), ("who", false), ("n", false)], &["day", "who"])),
    ])
}

fn write(sql: &str) -> Result<Parsed, SqlFault> {
    parse(sql, &shapes())
}

fn rendered(sql: &str) -> String {
    write(sql).unwrap_or_else(|fault| panic!("{sql}: {fault}")).render(sql).sql
}

/// The place of a fault, as the rest of the statement from there.
fn refused<'s>(sql: &'s str, says: &str) -> &'s str {
    let fault = parse(sql, &shapes()).map(|_| ()).expect_err(sql);
    assert!(fault.what.contains(says), "{sql}: {fault}");
    &sql[fault.at..]
}

#[test]
fn every_row_that_is_written_gets_the_events_position() {
    assert_eq!(
        rendered("INSERT INTO loan (id, state) VALUES (:id, 'new'), (:id, :state) -- twice"),
        "INSERT INTO {loan} (id, state, logposition) VALUES ($1, 'new', $3), ($1, $2, $3)"
    );
    assert_eq!(
        rendered(
            "insert into loan (id, state) select who, max(day) from visit group by who union select 'a', 'b' where true on conflict (id) do nothing;"
        ),
        "insert into {loan} (id, state, logposition) select who, max(day), $1 from {visit} group by who union select 'a', 'b', $1 where true on conflict (id) do nothing"
    );
    assert_eq!(
        rendered(
            "INSERT INTO visit (day, who, n) VALUES (:d, :w, 1) ON CONFLICT (who, day) DO UPDATE SET n = visit.n + 1"
        ),
        "INSERT INTO {visit} (day, who, n, logposition) VALUES ($1, $2, 1, $3) ON CONFLICT (who, day) DO UPDATE SET logposition = excluded.logposition, n = {visit}.n + 1"
    );
    assert_eq!(
        rendered("UPDATE loan AS l SET state = :s FROM visit WHERE l.id = visit.who"),
        "UPDATE {loan} AS l SET logposition = $2, state = $1 FROM {visit} WHERE l.id = {visit}.who"
    );
}

/// The tables of [`shapes`], in the engine.
fn engine() -> rusqlite::Connection {
    let engine = rusqlite::Connection::open_in_memory().unwrap();
    engine
        .execute_batch(
            "CREATE TABLE loan (id TEXT NOT NULL, state TEXT NOT NULL, amount INTEGER, logposition INTEGER NOT NULL,
                PRIMARY KEY (id)) STRICT, WITHOUT ROWID;
             CREATE TABLE visit (day TEXT NOT NULL, who TEXT NOT NULL, n INTEGER NOT NULL, logposition INTEGER NOT NULL,
                PRIMARY KEY (day, who)) STRICT, WITHOUT ROWID;",
        )
        .unwrap();
    engine
}

/// The engine's word on a rendered statement: tables stand without their braces.
fn prepare(engine: &rusqlite::Connection, sql: &str) -> usize {
    let sql = sql.replace(['{', '}'], "");
    engine.prepare(&sql).unwrap_or_else(|cause| panic!("{sql}: {cause}")).parameter_count()
}

#[test]
fn what_is_accepted_the_engine_prepares_with_the_position_as_its_last_parameter() {
    let engine = engine();
    for (sql, own) in [
        ("INSERT INTO loan (id, state) VALUES (:id, 'new'), (:id, :state)", 2),
        (
            "INSERT INTO loan (id, state) SELECT who, max(day) FROM visit WHERE n > :n GROUP BY who ON CONFLICT (id) DO NOTHING",
            1,
        ),
        (
            "INSERT INTO visit (day, who, n) VALUES (:d, :w, 1) ON CONFLICT (who, day) DO UPDATE SET n = visit.n + 1 WHERE visit.n < 9",
            2,
        ),
        ("UPDATE loan AS l SET state = :s, amount = coalesce(l.amount, 0) + :a FROM visit WHERE l.id = visit.who", 2),
        ("UPDATE loan SET state = (SELECT max(day) FROM visit WHERE who = loan.id)", 0),
    ] {
        let parsed = write(sql).unwrap();
        assert_eq!(parsed.parameters.len(), own, "{sql}");
        assert_eq!(prepare(&engine, &parsed.render(sql).sql), own + 1, "{sql}");
        assert!(parsed.render(sql).positioned, "{sql}");
    }
    let sql = "DELETE FROM visit AS v WHERE v.day < :day";
    let parsed = write(sql).unwrap();
    assert_eq!(prepare(&engine, &parsed.render(sql).sql), 1);
}

#[test]
fn rows_carry_the_position_that_wrote_them_last() {
    let engine = engine();
    // As the store binds them: `$n` is the n-th value wherever it stands.
    let run = |sql: &str, params: &[&dyn rusqlite::ToSql]| {
        let mut statement = engine.prepare(&sql.replace(['{', '}'], "")).unwrap();
        for index in 1..=statement.parameter_count() {
            let number: usize = statement.parameter_name(index).unwrap()[1..].parse().unwrap();
            statement.raw_bind_parameter(index, params[number - 1]).unwrap();
        }
        statement.raw_execute().unwrap_or_else(|cause| panic!("{sql}: {cause}"))
    };
    let count =
        "INSERT INTO visit (day, who, n) VALUES (:d, :w, 1) ON CONFLICT (day, who) DO UPDATE SET n = visit.n + 1";
    let counted = write(count).unwrap().render(count).sql;
    run(&counted, &[&"mon", &"a", &7]);
    run(&counted, &[&"mon", &"a", &9]);
    run(&counted, &[&"tue", &"b", &11]);
    let row = |sql: &str| engine.query_row(sql, [], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))).unwrap();
    assert_eq!(row("SELECT n, logposition FROM visit WHERE day = 'mon'"), (2, 9));
}

#[test]
fn sources_have_joins_windows_subqueries_and_names_of_their_own() {
    for query in [
        "SELECT l.id, v.n AS visits FROM loan l LEFT JOIN visit v ON v.who = l.id WHERE l.state IN ('a', :b) ORDER BY 1 DESC LIMIT 10 OFFSET :skip",
        "WITH late AS (SELECT id FROM loan WHERE NOT amount IS NULL) SELECT 'late', count(*) FILTER (WHERE id > 'a') FROM late",
        "SELECT 'mean', avg(amount) FROM (SELECT amount, row_number() OVER (PARTITION BY state ORDER BY amount) AS n, count(*) OVER () AS m FROM loan) x WHERE n BETWEEN (m + 1) / 2 AND (m + 2) / 2",
        "SELECT id, CASE WHEN state = 'a' THEN 1 ELSE CAST(amount AS real) + coalesce(amount, -1) END FROM loan WHERE EXISTS (SELECT 1 FROM visit WHERE visit.who = loan.id)",
        "SELECT id, sum(amount) OVER w FROM loan WINDOW w AS (ORDER BY id ROWS BETWEEN 2 PRECEDING AND CURRENT ROW)",
        "SELECT id, state FROM loan WHERE state IS DISTINCT FROM 'b'",
        "VALUES ('1', 'a''b'), ('2', 'c')",
    ] {
        let sql = format!("INSERT INTO loan (id, state) {query}");
        let parsed = write(&sql).unwrap_or_else(|fault| panic!("{sql}: {fault} at {:?}", &sql[fault.at..]));
        prepare(&engine(), &parsed.render(&sql).sql);
    }
}

#[test]
fn a_fault_names_its_place() {
    assert_eq!(
        refused("INSERT INTO lone (id) VALUES (1)", "no table `lone`; it has loan, visit"),
        "lone (id) VALUES (1)"
    );
    assert_eq!(refused("INSERT INTO loan (id, stat) VALUES (1, 2)", "no column `stat`"), "stat) VALUES (1, 2)");
    assert_eq!(refused("INSERT INTO loan (id, state) VALUES (1)", "2 columns and 1 values"), "(1)");
    assert_eq!(refused("UPDATE loan SET id = 'x'", "part of the key"), "id = 'x'");
    assert_eq!(refused("UPDATE loan SET logposition = 1", "no column"), "logposition = 1");
    assert_eq!(refused("DELETE FROM loan WHERE", "an expression stands here, not the end"), "");
    assert_eq!(refused("INSERT INTO loan (id) VALUES ('a')", "`state` of `loan` may not be null"), ") VALUES ('a')");
    assert_eq!(
        refused(
            "INSERT INTO visit (day, who, n) VALUES ('mon','a',3) ON CONFLICT (day) DO NOTHING",
            "collide on their key"
        ),
        "(day) DO NOTHING"
    );
}

#[test]
fn what_another_engine_reads_otherwise_is_refused() {
    for (sql, says) in [
        ("REPLACE INTO loan (id) VALUES (1)", "cannot be used"),
        ("INSERT OR REPLACE INTO loan (id) VALUES (1)", "INTO stands here"),
        ("INSERT INTO loan VALUES (1, 2, 3)", "(columns) stand here"),
        ("INSERT INTO loan (id, state) SELECT * FROM visit", "one by one"),
        ("UPDATE loan SET state = random()", "come out the same"),
        ("UPDATE loan SET state = datetime('now')", "times come from events"),
        ("UPDATE loan SET state = current_timestamp", "times come from events"),
        ("DELETE FROM loan WHERE id LIKE 'A%'", "capitals"),
        ("DELETE FROM loan RETURNING id", "cannot be used"),
        ("SELECT 1", "INSERT, UPDATE or DELETE"),
        ("UPDATE loan SET state = 'x'; DELETE FROM loan", "on its own"),
        ("WITH RECURSIVE a AS (SELECT 1) DELETE FROM loan", "INSERT, UPDATE or DELETE"),
        ("UPDATE loan SET state = (WITH RECURSIVE a AS (SELECT 1) SELECT * FROM a)", "recursion"),
        ("UPDATE loan SET amount = max(1, 2)", "takes 1 arguments"),
        ("UPDATE loan SET state = '{visit}'", "as a parameter"),
        ("UPDATE loan SET state = ?1", "`:name`"),
        ("PRAGMA table_info(loan)", "`pragma` cannot be used"),
        ("DELETE FROM quorate_meta", "no table"),
        ("INSERT INTO loan (id, state) SELECT load_extension('x')", "no function"),
        ("INSERT INTO loan (id, state) SELECT 1 FROM quorate_meta", "no table"),
        ("INSERT INTO loan (id, state) SELECT 1 FROM sqlite_master", "no table"),
        ("INSERT INTO loan (id, state) SELECT 1 FROM main.loan", "no table"),
        ("INSERT INTO loan (id, state) SELECT 1 FROM loan loan", "use another name"),
        ("INSERT INTO loan (id, state) SELECT id AS visit FROM loan", "use another name"),
        ("INSERT INTO loan (id, state) SELECT a FROM (SELECT 1)", "a name for the query"),
        ("INSERT INTO loan (id, state) SELECT id FROM loan NATURAL JOIN visit", "cannot be used"),
        ("INSERT INTO loan (id, state) SELECT json_each(id) FROM loan", "no function"),
        ("INSERT INTO loan (id, state) SELECT row_number() FROM loan", "needs a window"),
        ("INSERT INTO loan (id, state) SELECT id == 'a' FROM loan", "an expression"),
        ("INSERT INTO loan (id, state) SELECT id FROM loan WHERE id GLOB 'a*'", "cannot be used"),
        ("INSERT INTO loan (id, state) SELECT 1 LIMIT 1, 2", "end here"),
        ("INSERT INTO loan (id, state) SELECT 'a", "not closed"),
        ("INSERT INTO loan (id, state) SELECT 1x", "no number"),
    ] {
        refused(sql, says);
    }
}

#[test]
fn a_name_that_a_query_gives_is_no_column_of_a_table() {
    let used = |sql: &str| write(sql).unwrap_or_else(|fault| panic!("{sql}: {fault}")).uses.len();
    assert_eq!(used("INSERT INTO loan (id, state) SELECT id, state FROM loan WHERE n = :n AND amount > :a"), 2);
    for sql in [
        "INSERT INTO loan (id, state) SELECT who, n FROM (SELECT who, day AS n FROM visit) AS days WHERE n = :n",
        "INSERT INTO loan (id, state) SELECT who, n FROM (SELECT who, day n FROM visit) days WHERE n = 'mon'",
        "INSERT INTO loan (id, state) SELECT who, n = :n FROM (SELECT who, day AS n FROM visit) AS days",
        "INSERT INTO loan (id, state) WITH days (who, n) AS (SELECT who, day FROM visit) SELECT who, n FROM days WHERE n = :n",
    ] {
        assert_eq!(used(sql), 0, "{sql}");
    }
}

#[test]
fn nesting_and_length_have_limits() {
    let deep = format!("DELETE FROM loan WHERE {}1{}", "(".repeat(100), ")".repeat(100));
    refused(&deep, "nested at most");
    refused(&format!("DELETE FROM loan WHERE 1 IN (1{}", ", 1".repeat(2_500)), "at most 4000 words");
}
