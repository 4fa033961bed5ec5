#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| opship_fuzz::claims::check(data));
