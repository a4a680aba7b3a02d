//! The PostgreSQL store keeps every promise that any store must, or refuses to make it.

use crate::shared;

quorate_data::store_conformance!(match shared::Schema::new() {
    Some(schema) => schema,
    None => return,
});
