use super::{
    Mode, Parsed, Shape, parse,
    statement::{Shapes, SqlFault},
};

fn shapes() -> Shapes {
    let table = |columns: &[(&str, bool)], key: &[&str], live| Shape {
        columns: columns.iter().map(|(name, null)| ((*name).to_owned(), *null)).collect(),
        key: key.iter().map(|name| (*name).to_owned()).collect(),
        live,
    };
    Shapes::from([
        ("loan".to_owned(), table(&[("id", false), ("state", false), ("amount", true)], &["id"], false)),
        ("visit".to_owned(), table(&[("day", false), ("who", false), ("n", false)], &["day", "who"], true)),
    ])
}

fn write(sql: &str) -> Result<Parsed, SqlFault> {
    parse(sql, Mode::Write, &shapes())
}

fn rendered(sql: &str) -> String {
    write(sql).unwrap_or_else(|fault| panic!("{sql}: {fault}")).render(sql).sql
}

fn read(sql: &str) -> Result<String, SqlFault> {
    parse(sql, Mode::Read, &shapes()).map(|parsed| parsed.render(sql).sql)
}

/// The place of a fault, as the rest of the statement from there.
fn refused<'s>(mode: Mode, sql: &'s str, says: &str) -> &'s str {
    let fault = parse(sql, mode, &shapes()).map(|_| ()).expect_err(sql);
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

#[test]
fn a_delete_on_a_live_table_remembers_the_keys_first() {
    let sql = "DELETE FROM visit AS v WHERE v.day < :day -- old";
    let parsed = write(sql).unwrap();
    assert_eq!(parsed.render(sql).sql, "DELETE FROM {visit} AS v WHERE v.day < $1");
    let remember = parsed.remember(sql, &shapes()["visit"]).unwrap();
    assert_eq!(
        remember.sql,
        "INSERT INTO {visit_gone} (day, who, logposition) SELECT day, who, $2 FROM {visit} AS v WHERE v.day < $1 \
         ON CONFLICT (day, who) DO UPDATE SET logposition = excluded.logposition"
    );
    let all = "DELETE FROM visit";
    let remember = write(all).unwrap().remember(all, &shapes()["visit"]).unwrap();
    assert!(remember.sql.contains("FROM {visit} WHERE TRUE ON CONFLICT"), "{}", remember.sql);
    assert_eq!(write("DELETE FROM loan").unwrap().remember("DELETE FROM loan", &shapes()["loan"]), None);
}

/// The tables of [`shapes`], in the engine.
fn engine() -> rusqlite::Connection {
    let engine = rusqlite::Connection::open_in_memory().unwrap();
    engine
        .execute_batch(
            "CREATE TABLE loan (id TEXT NOT NULL, state TEXT NOT NULL, amount INTEGER, logposition INTEGER NOT NULL,
                PRIMARY KEY (id)) STRICT, WITHOUT ROWID;
             CREATE TABLE visit (day TEXT NOT NULL, who TEXT NOT NULL, n INTEGER NOT NULL, logposition INTEGER NOT NULL,
                PRIMARY KEY (day, who)) STRICT, WITHOUT ROWID;
             CREATE TABLE visit_gone (day TEXT NOT NULL, who TEXT NOT NULL, logposition INTEGER NOT NULL,
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
    assert_eq!(prepare(&engine, &parsed.remember(sql, &shapes()["visit"]).unwrap().sql), 2);
}

#[test]
fn rows_carry_the_position_that_wrote_them_last_and_deleted_keys_are_remembered() {
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

    let forget = "DELETE FROM visit WHERE day = :day";
    let parsed = write(forget).unwrap();
    assert_eq!(run(&parsed.remember(forget, &shapes()["visit"]).unwrap().sql, &[&"mon", &13]), 1);
    assert_eq!(run(&parsed.render(forget).sql, &[&"mon"]), 1);
    assert_eq!(row("SELECT count(*), max(logposition) FROM visit"), (1, 11));
    assert_eq!(row("SELECT count(*), max(logposition) FROM visit_gone"), (1, 13));
}

#[test]
fn queries_have_joins_windows_subqueries_and_names_of_their_own() {
    for sql in [
        "SELECT * FROM loan",
        "SELECT l.*, v.n AS visits FROM loan l LEFT JOIN visit v ON v.who = l.id WHERE l.state IN ('a', :b) ORDER BY 1 DESC LIMIT 10 OFFSET :skip",
        "WITH late AS (SELECT id FROM loan WHERE NOT amount IS NULL) SELECT count(*) FILTER (WHERE id > 'a') FROM late",
        "SELECT avg(amount) FROM (SELECT amount, row_number() OVER (PARTITION BY state ORDER BY amount) AS n, count(*) OVER () AS m FROM loan) x WHERE n BETWEEN (m + 1) / 2 AND (m + 2) / 2",
        "SELECT CASE WHEN state = 'a' THEN 1 ELSE 0 END, CAST(amount AS real), coalesce(amount, -1) FROM loan WHERE EXISTS (SELECT 1 FROM visit WHERE visit.who = loan.id)",
        "SELECT sum(amount) OVER w FROM loan WINDOW w AS (ORDER BY id ROWS BETWEEN 2 PRECEDING AND CURRENT ROW)",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5) SELECT i FROM n",
        "SELECT id FROM loan WHERE id LIKE 'a%' ESCAPE '\\' AND state IS DISTINCT FROM 'b'",
        "VALUES (1, 'a''b'), (2, NULL)",
    ] {
        let rendered = read(sql).unwrap_or_else(|fault| panic!("{sql}: {fault} at {:?}", &sql[fault.at..]));
        prepare(&engine(), &rendered);
    }
    assert_eq!(
        read("SELECT loan.id, logposition FROM loan, visit AS v").unwrap(),
        "SELECT {loan}.id, logposition FROM {loan}, {visit} AS v"
    );
}

#[test]
fn a_fault_names_its_place() {
    let w = Mode::Write;
    assert_eq!(
        refused(w, "INSERT INTO lone (id) VALUES (1)", "no table `lone`; it has loan, visit"),
        "lone (id) VALUES (1)"
    );
    assert_eq!(refused(w, "INSERT INTO loan (id, stat) VALUES (1, 2)", "no column `stat`"), "stat) VALUES (1, 2)");
    assert_eq!(refused(w, "INSERT INTO loan (id, state) VALUES (1)", "2 columns and 1 values"), "(1)");
    assert_eq!(refused(w, "UPDATE loan SET id = 'x'", "part of the key"), "id = 'x'");
    assert_eq!(refused(w, "UPDATE loan SET logposition = 1", "no column"), "logposition = 1");
    assert_eq!(refused(w, "DELETE FROM loan WHERE", "an expression stands here, not the end"), "");
    assert_eq!(refused(w, "INSERT INTO loan (id) VALUES ('a')", "`state` of `loan` may not be null"), ") VALUES ('a')");
    assert_eq!(
        refused(
            w,
            "INSERT INTO visit (day, who, n) VALUES (1,2,3) ON CONFLICT (day) DO NOTHING",
            "collide on their key"
        ),
        "(day) DO NOTHING"
    );
}

#[test]
fn what_another_engine_reads_otherwise_is_refused() {
    let (w, r) = (Mode::Write, Mode::Read);
    for (mode, sql, says) in [
        (w, "REPLACE INTO loan (id) VALUES (1)", "cannot be used"),
        (w, "INSERT OR REPLACE INTO loan (id) VALUES (1)", "INTO stands here"),
        (w, "INSERT INTO loan VALUES (1, 2, 3)", "(columns) stand here"),
        (w, "INSERT INTO loan (id, state) SELECT * FROM visit", "one by one"),
        (w, "UPDATE loan SET state = random()", "come out the same"),
        (w, "UPDATE loan SET state = datetime('now')", "times come from events"),
        (w, "UPDATE loan SET state = current_timestamp", "times come from events"),
        (w, "DELETE FROM loan WHERE id LIKE 'A%'", "capitals"),
        (w, "DELETE FROM loan RETURNING id", "cannot be used"),
        (w, "SELECT 1", "INSERT, UPDATE or DELETE"),
        (w, "UPDATE loan SET state = 'x'; DELETE FROM loan", "on its own"),
        (w, "WITH RECURSIVE a AS (SELECT 1) DELETE FROM loan", "INSERT, UPDATE or DELETE"),
        (w, "UPDATE loan SET state = (WITH RECURSIVE a AS (SELECT 1) SELECT * FROM a)", "recursion"),
        (w, "UPDATE loan SET amount = max(1, 2)", "takes 1 arguments"),
        (w, "UPDATE loan SET state = '{visit}'", "as a parameter"),
        (w, "UPDATE loan SET state = ?1", "`:name`"),
        (r, "PRAGMA table_info(loan)", "`pragma` cannot be used"),
        (r, "SELECT load_extension('x')", "no function"),
        (r, "SELECT * FROM quorate_meta", "no table"),
        (r, "SELECT * FROM sqlite_master", "no table"),
        (r, "SELECT * FROM main.loan", "no table"),
        (r, "SELECT * FROM loan loan", "use another name"),
        (r, "SELECT id AS visit FROM loan", "use another name"),
        (r, "SELECT a FROM (SELECT 1)", "a name for the query"),
        (r, "SELECT id FROM loan NATURAL JOIN visit", "cannot be used"),
        (r, "SELECT json_each(id) FROM loan", "no function"),
        (r, "SELECT row_number() FROM loan", "needs a window"),
        (r, "SELECT id == 'a' FROM loan", "an expression"),
        (r, "SELECT id FROM loan WHERE id GLOB 'a*'", "cannot be used"),
        (r, "SELECT 1 LIMIT 1, 2", "end here"),
        (r, "SELECT 'a", "not closed"),
        (r, "SELECT 1x", "no number"),
    ] {
        refused(mode, sql, says);
    }
}

#[test]
fn nesting_and_length_have_limits() {
    let deep = format!("SELECT {}1{}", "(".repeat(100), ")".repeat(100));
    refused(Mode::Read, &deep, "nested at most");
    refused(Mode::Read, &format!("SELECT 1{}", ", 1".repeat(2_500)), "at most 4000 words");
}
