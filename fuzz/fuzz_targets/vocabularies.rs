#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| anced_fuzz::vocabularies::run(input));
