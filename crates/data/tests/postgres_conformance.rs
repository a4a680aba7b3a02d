//! The PostgreSQL store keeps every promise that any store must, or refuses to make it.

mod postgres;

quorate_data::store_conformance!(match postgres::Schema::new() {
    Some(schema) => schema,
    None => return,
});
