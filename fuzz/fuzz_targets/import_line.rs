#![no_main]
#![allow(dead_code, unused_imports)]

// The command line is no library: its decoders are taken in as files.
#[path = "../cli/client.rs"]
mod client;
#[path = "../../crates/cli/src/fuzzing.rs"]
mod fuzzing;
#[path = "../cli/import.rs"]
mod import;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    fuzzing::import_line(bytes);
});
