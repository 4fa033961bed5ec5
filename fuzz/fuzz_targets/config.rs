#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| opship_fuzz::config::check(data));
