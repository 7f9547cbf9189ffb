//! The relay behind authentication: a program of valid requests, time and revocations.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = veilgate::relay::fuzz::program(bytes);
});
