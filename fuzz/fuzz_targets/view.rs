#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    quorate_data::fuzzing::view(bytes);
});
