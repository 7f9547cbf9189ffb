//! Framing of TURN over TCP and TLS: any stream, in any pieces.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = veilgate::wire::fuzz::stream(bytes);
});
