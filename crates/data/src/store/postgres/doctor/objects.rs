//! What is in the store's schema and was not made by quorate.

use tokio_postgres::{Row, types::Type};

use super::Patient;
use crate::store::postgres::{fault::Fault, tables};

/// The tables of the log; those of rooms begin with [`ROOMS`].
const TABLES: [&str; 6] = ["meta", "stream", "event", "pending", "log", "metadata"];
const ROOMS: &str = "quorate_";

impl Patient {
    /// Tables, triggers, rules, functions and foreign keys.
    pub(super) async fn objects(&mut self) -> Result<(), Fault> {
        self.relations().await?;
        self.attached().await
    }

    /// Whether everything is there that nodes call.
    pub(super) async fn functions(&mut self) -> Result<(), Fault> {
        const LOOK: &str = "SELECT p.proname::text FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
            WHERE n.nspname = $1";
        let schema = self.schema.clone();
        let there = self.client.query_typed(LOOK, &[(&schema, Type::TEXT)]).await?;
        for (name, _) in tables::functions(&schema) {
            if there.iter().all(|row| row.get::<_, &str>(0) != name) {
                let what = format!("function \"{schema}\".{name} is not there: nodes cannot do without it");
                self.danger("changed-function", what, "start a node: it makes the store's functions anew");
            }
        }
        Ok(())
    }

    async fn relations(&mut self) -> Result<(), Fault> {
        const LOOK: &str = "SELECT c.relname::text, c.relkind::text, c.relpersistence::text, c.relrowsecurity,
                coalesce(c.reloptions::text, '')
            FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE n.nspname = $1 AND c.relkind IN ('r', 'p', 'v', 'm', 'f') ORDER BY c.relname";
        let schema = self.schema.clone();
        for row in self.client.query_typed(LOOK, &[(&schema, Type::TEXT)]).await? {
            let (name, kind): (&str, &str) = (row.try_get(0)?, row.try_get(1)?);
            let quoted = format!("\"{schema}\".\"{}\"", name.replace('"', "\"\""));
            let word = match kind {
                "v" => "VIEW",
                "m" => "MATERIALIZED VIEW",
                "f" => "FOREIGN TABLE",
                _ => "TABLE",
            };
            let is_ours = kind == "r" && (TABLES.contains(&name) || name.starts_with(ROOMS));
            if !is_ours {
                let what = format!(
                    "{} {quoted} was not made by quorate: a later version may need its name, and moving or dropping the store's \
                     schema takes it along",
                    word.to_lowercase()
                );
                self.warn("foreign-object", what, format!("ALTER {word} {quoted} SET SCHEMA public, or another one"));
                continue;
            }
            if row.try_get::<_, &str>(2)? == "u" {
                let what = format!("{quoted} is unlogged: a crash of the server empties it");
                self.danger("unlogged", what, format!("ALTER TABLE {quoted} SET LOGGED"));
            }
            if row.try_get(3)? {
                let what = format!("{quoted} has row security: rows that nodes cannot see count as not there");
                self.danger("row-security", what, format!("ALTER TABLE {quoted} DISABLE ROW LEVEL SECURITY"));
            }
            let options = row.try_get::<_, &str>(4)?;
            if ["autovacuum_enabled=false", "autovacuum_enabled=off"].iter().any(|off| options.contains(off)) {
                let what = format!("autovacuum is off for {quoted}: dead rows stay");
                self.warn("autovacuum", what, format!("ALTER TABLE {quoted} RESET (autovacuum_enabled)"));
            }
        }
        Ok(())
    }

    async fn attached(&mut self) -> Result<(), Fault> {
        const LOOK: &str = "
            WITH ours AS (SELECT c.oid, format('%I.%I', n.nspname, c.relname) AS name FROM pg_class c
                JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relkind IN ('r', 'p'))
            SELECT 'trigger', quote_ident(t.tgname), ours.name, '' FROM pg_trigger t JOIN ours ON ours.oid = t.tgrelid
                WHERE NOT t.tgisinternal AND t.tgname <> 'quorate_moved'
            UNION ALL
            SELECT 'rule', quote_ident(r.rulename), ours.name, '' FROM pg_rewrite r JOIN ours ON ours.oid = r.ev_class
            UNION ALL
            SELECT 'foreign-key', quote_ident(k.conname), ours.name, k.conrelid::regclass::text FROM pg_constraint k
                JOIN ours ON ours.oid = k.confrelid
                WHERE k.contype = 'f' AND k.conrelid NOT IN (SELECT oid FROM ours)
            UNION ALL
            SELECT 'function', p.oid::regprocedure::text, p.proname::text, p.prokind::text || p.prosrc FROM pg_proc p
                JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = $1 AND p.proname <> 'quorate_moved'
            ORDER BY 1, 2";
        let schema = self.schema.clone();
        let ours = |name: &str| tables::functions(&schema).find(|(ours, _)| *ours == name).map(|(_, body)| body);
        let rows = self.client.query_typed(LOOK, &[(&schema, Type::TEXT)]).await?;
        let is_there = |name: &str, body: &str| {
            let is = |row: &Row| row.get::<_, &str>(2) == name && row.get::<_, &str>(3).get(1..) == Some(body);
            rows.iter().any(is)
        };
        for row in &rows {
            let (kind, name, table): (&str, &str, &str) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
            let other: &str = row.try_get(3)?;
            match kind {
                "trigger" => {
                    let what = format!(
                        "trigger {name} runs in transactions that write {table}: appends take as long as it does, fail if it fails, \
                         and cannot be part of a prepared transaction if it sends NOTIFY"
                    );
                    let advice = format!("DROP TRIGGER {name} ON {table}; a subscription hears of every event");
                    self.warn("trigger", what, advice);
                }
                "rule" => {
                    let what =
                        format!("rule {name} changes what statements on {table} do: events may be lost or doubled");
                    self.danger("rule", what, format!("DROP RULE {name} ON {table}"));
                }
                "foreign-key" => {
                    let what = format!(
                        "{other} refers to {table} by foreign key {name}: its writers lock rows of the log, and versions that come \
                         may not be able to change it"
                    );
                    self.warn("foreign-key", what, format!("ALTER TABLE {other} DROP CONSTRAINT {name}"));
                }
                _ if other.get(1..) == ours(table).as_deref() => {}
                _ if ours(table).is_some_and(|body| is_there(table, &body)) || ours(table).is_none() => {
                    let word = if other.starts_with('p') { "PROCEDURE" } else { "FUNCTION" };
                    let what = format!("{} {name} was not made by quorate", word.to_lowercase());
                    self.warn("foreign-object", what, format!("ALTER {word} {name} SET SCHEMA public, or another one"));
                }
                _ => {
                    let what = format!("function {name} is not as quorate made it: appends do what it says");
                    self.danger(
                        "changed-function",
                        what,
                        "start a node: it makes the store's functions anew".to_owned(),
                    );
                }
            }
        }
        Ok(())
    }
}
