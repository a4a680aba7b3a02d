//! What a schema and a document may cost.

/// The most a schema, or a document checked against one, may ask of us. Everything beyond is refused by name.
///
/// The defaults leave ample room for hand-written and generated event schemas and keep every operation of this room
/// within milliseconds and a few megabytes, whoever wrote the schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Size of a schema as compact JSON, in bytes. Default 256 KiB.
    pub schema_bytes: usize,
    /// Nesting of a schema as JSON, in levels of arrays and objects. Default 96.
    pub schema_depth: usize,
    /// Length of a name in a schema that is part of the pointer to a subschema (a property, a definition), in bytes.
    /// Default 512. Regular expressions as names have a limit of their own.
    pub name_bytes: usize,
    /// Length of the pointers to all of its subschemas together, in bytes. Default 2 MiB.
    pub pointers_bytes: usize,
    /// Subschemas in a schema. Default 2,000.
    pub subschemas: usize,
    /// Subschemas applied one inside another to one and the same value (`allOf` in `$ref` in `anyOf` …). Default 24.
    pub in_place_depth: usize,
    /// Size of a schema, in subschemas, once every non-recursive `$ref` is written out. Default 250,000.
    pub expansion: u64,
    /// Regular expressions in a schema. Default 64.
    pub patterns: usize,
    /// Length of one regular expression, in bytes. Default 1,024.
    pub pattern_bytes: usize,
    /// Memory of one compiled regular expression, in bytes. Default 1 MiB.
    pub pattern_memory_bytes: usize,
    /// Nesting of a document, in levels of arrays and objects. Default 64.
    pub document_depth: usize,
    /// Violations listed for one document. Default 16.
    pub violations: usize,
    /// Subschema visits that listing the violations of one document may take; beyond that only the fact is reported.
    /// Default 20,000.
    pub listing_visits: usize,
    /// Effort that one proposal may take to be compared, with all versions together: about one for each subschema looked
    /// at, and no more than 200,000 for one version and direction. Default 2,000,000, seconds at the worst.
    pub comparing_effort: usize,
    /// Versions of one event type. Default 1,000.
    pub versions: usize,
    /// Event types with a schema. Default 10,000.
    pub types: usize,
    /// Memory that schemas may take once they are compiled, all together and as estimated, in bytes. Beyond it those that
    /// were not used for longest are put away, and compiled again when they are needed. Default 64 MiB.
    pub compiled_bytes: usize,
    /// All schemas of a registry together, as compact JSON, in bytes: they are kept in memory. Default 64 MiB.
    pub registry_bytes: usize,
}

/// Every limit of schemas that a node's settings cannot change: its name, and the most there may be; bytes where the name
/// ends so.
pub fn fixed_limits() -> Vec<(&'static str, u64)> {
    let Limits {
        schema_depth,
        name_bytes,
        pointers_bytes,
        subschemas,
        in_place_depth,
        expansion,
        patterns,
        pattern_bytes,
        pattern_memory_bytes,
        document_depth,
        violations,
        listing_visits,
        comparing_effort,
        ..
    } = Limits::default();
    let counts = [
        ("compared-at-once", super::registry::COMPARING),
        ("comparing-effort", comparing_effort),
        ("data-depth", document_depth),
        ("depth", schema_depth),
        ("findings", super::MAX_FINDINGS),
        ("incompatible-versions", super::registry::MAX_INCOMPATIBLE),
        ("listing-visits", listing_visits),
        ("name-bytes", name_bytes),
        ("one-value-depth", in_place_depth),
        ("pattern-bytes", pattern_bytes),
        ("pattern-memory-bytes", pattern_memory_bytes),
        ("patterns", patterns),
        ("pointers-bytes", pointers_bytes),
        ("subschemas", subschemas),
        ("violations", violations),
    ];
    let written_out = ("subschemas-written-out", expansion);
    counts.into_iter().map(|(name, most)| (name, most as u64)).chain([written_out]).collect()
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            schema_bytes: 256 << 10,
            schema_depth: 96,
            name_bytes: 512,
            pointers_bytes: 2 << 20,
            subschemas: 2_000,
            in_place_depth: 24,
            expansion: 250_000,
            patterns: 64,
            pattern_bytes: 1_024,
            pattern_memory_bytes: 1 << 20,
            document_depth: 64,
            violations: 16,
            listing_visits: 20_000,
            comparing_effort: 10 * super::compat::EFFORT,
            versions: 1_000,
            types: 10_000,
            compiled_bytes: 64 << 20,
            registry_bytes: 64 << 20,
        }
    }
}
