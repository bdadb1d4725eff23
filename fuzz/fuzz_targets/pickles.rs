#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| anced_fuzz::pickles::run(input));
