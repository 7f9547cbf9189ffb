//! STUN, TURN and ChannelData: any datagram.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = veilgate::wire::fuzz::datagram(bytes);
});
