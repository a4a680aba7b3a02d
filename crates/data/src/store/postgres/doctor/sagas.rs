//! Sagas that nobody goes on with.

use tokio_postgres::types::Type;

use super::Patient;
use crate::store::postgres::fault::Fault;

/// Versions of sagas that are named at most.
const NAMED: i64 = 10;

impl Patient {
    /// Open sagas whose owner gives no signs of life, of versions that no document declares: no node takes them over.
    pub(super) async fn sagas(&mut self) -> Result<(), Fault> {
        const THERE: &str = "SELECT c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE n.nspname = $1 AND has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')
              AND c.relname IN ('quorate_saga', 'quorate_saga_sign', 'quorate_saga_document')";
        let mut has = Vec::new();
        for row in self.client.query_typed(THERE, &[(&self.schema, Type::TEXT)]).await? {
            has.push(row.try_get::<_, String>(0)?);
        }
        let has = |table: &str| has.iter().any(|found| found == table);
        if !has("quorate_saga") || !has("quorate_saga_sign") {
            return Ok(());
        }
        let schema = &self.schema;
        // A program may run sagas that it defines itself, and have no documents.
        let declared = if has("quorate_saga_document") {
            format!(
                "AND NOT EXISTS (SELECT 1 FROM \"{schema}\".quorate_saga_document d
                    WHERE d.name = s.name AND d.version = s.version)"
            )
        } else {
            String::new()
        };
        let look = format!(
            "SELECT s.name, s.version, count(*) FROM \"{schema}\".quorate_saga s WHERE s.status < 10
                AND NOT EXISTS (SELECT 1 FROM \"{schema}\".quorate_saga_sign g WHERE g.owner = s.owner) {declared}
            GROUP BY s.name, s.version ORDER BY s.name, s.version LIMIT {NAMED}"
        );
        for row in self.client.query_typed(&look, &[]).await? {
            let (name, version, count): (&str, i64, i64) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
            let what = format!(
                "{count} open sagas of version {version} of `{name}` wait: whoever ran them is gone, and no document declares that version"
            );
            let advice = "declare that version again with `quorate saga declare`, or start the program that defines it";
            self.warn("saga", what, advice);
        }
        Ok(())
    }
}
