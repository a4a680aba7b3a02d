//! `quorate guarantees`: what holds, per operation and backend, and the test behind each row.

use quorate_node::guarantees::{Ability, Guarantee, Proof, STORES, matrix, table as rows};
use serde_json::{Value, json};

use crate::{
    exit::Failure,
    output::{Column, Format, Out, Table},
};

/// Prints the table.
pub(crate) fn show(format: Format) -> Result<(), Failure> {
    let mut out = Out::new();
    if format == Format::Json {
        out.json(&json!({
            "guarantees": rows().into_iter().map(document).collect::<Vec<Value>>(),
            "capabilities": matrix().iter().map(ability).collect::<Vec<Value>>(),
        }))?;
        return out.flush();
    }
    let headings = ["ABOUT", "OPERATION", "SURFACE", "BACKEND", "WHAT HOLDS", "TESTED BY"];
    let mut table = Table::new(headings.map(Column::Left));
    for row in rows() {
        let tests = row.proofs.iter().map(|proof| proof.name()).collect::<Vec<_>>().join(", ");
        let backends = if row.backends.is_empty() { "any".to_owned() } else { backends(row).join(", ") };
        table.row([row.about.word(), row.operation, row.surface.word(), &backends, row.holds, &tests]);
    }
    table.print(&mut out)?;
    out.line("")?;
    let mut headings = vec![Column::Left("CAPABILITY")];
    headings.extend(STORES.map(|store| Column::Left(store.engine)));
    headings.extend(["WHAT IT MEANS", "TESTED BY"].map(Column::Left));
    let mut table = Table::new(headings);
    for row in matrix() {
        let has = row.stores.map(|has| if has { "yes" } else { "no" });
        let tests = row.proofs.iter().map(|proof| proof.name()).collect::<Vec<_>>().join(", ");
        let mut cells = vec![row.name];
        cells.extend(has);
        cells.extend([row.means, &tests]);
        table.row(cells);
    }
    table.print(&mut out)
}

fn ability(row: &Ability) -> Value {
    let stores: serde_json::Map<String, Value> =
        STORES.iter().zip(row.stores).map(|(store, has)| (store.engine.to_owned(), has.into())).collect();
    json!({
        "capability": row.name,
        "means": row.means,
        "stores": stores,
        "tests": row.proofs.iter().map(|proof| proof_document(*proof)).collect::<Vec<Value>>(),
    })
}

fn backends(row: &Guarantee) -> Vec<&'static str> {
    row.backends.iter().map(|backend| backend.word()).collect()
}

fn document(row: &Guarantee) -> Value {
    json!({
        "about": row.about.word(),
        "operation": row.operation,
        "surface": row.surface.word(),
        "backends": backends(row),
        "holds": row.holds,
        "tests": row.proofs.iter().map(|proof| proof_document(*proof)).collect::<Vec<Value>>(),
    })
}

fn proof_document(proof: Proof) -> Value {
    match proof {
        Proof::Conformance(name) => json!({ "suite": "conformance", "name": name }),
        Proof::Test { file, name } => json!({ "file": file, "name": name }),
    }
}
