#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sep4d_fuzz::calibration(bytes));
