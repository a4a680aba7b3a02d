//! A query as a condition in SQL.

use tokio_postgres::types::{ToSql, Type};

use crate::store::Query;

/// A value of a statement, with its type.
pub(super) type Param = (Box<dyn ToSql + Sync + Send>, Type);

/// Parameters as `tokio_postgres` takes them.
pub(super) fn borrowed(params: &[Param]) -> Vec<(&(dyn ToSql + Sync), Type)> {
    params.iter().map(|(value, kind)| (&**value as &(dyn ToSql + Sync), kind.clone())).collect()
}

/// What of the table `e`, the events, `query` matches; its words go to `params`, behind those that are there.
pub(super) fn filter(query: &Query, params: &mut Vec<Param>) -> String {
    if query.is_everything() {
        return "TRUE".to_owned();
    }
    let items = query.items.iter().map(|item| {
        let mut all = Vec::new();
        for (words, test) in
            [(&item.types, "e.kind = ANY($)"), (&item.categories, "e.category = ANY($)"), (&item.tags, "e.tags @> $")]
        {
            if !words.is_empty() {
                params.push((Box::new(words.clone()), Type::TEXT_ARRAY));
                all.push(test.replace('$', &format!("${}", params.len())));
            }
        }
        format!("({})", all.join(" AND "))
    });
    format!("({})", items.collect::<Vec<_>>().join(" OR "))
}
