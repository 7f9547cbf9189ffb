//! How loud streams are, read from what their packets say of themselves (RFC 6464).

mod peer;

use peer::gateway::{Gateway, eventually};
use peer::{Identity, Peer, Remote, offer};
use veilgate::control::AudioLevel;
use veilgate::ids::StreamName;

/// A publisher whose audio says how loud it is, by extension 3; or does not.
fn publisher(gateway: &mut Gateway, name: &str, says: bool) -> Peer {
    let identity = Identity::new();
    let parsed: StreamName = name.parse().expect("a name");
    let mut sdp = offer(&identity, "sendonly", "pubufrag");
    if says {
        let level = "a=extmap:3 urn:ietf:params:rtp-hdrext:ssrc-audio-level\r\na=rtpmap:111";
        sdp = sdp.replace("a=rtpmap:111", level);
    }
    let who = Gateway::principal(name);
    let accepted = gateway.control.publish(&parsed, &who, &sdp).expect("agreed");
    let remote = Remote::from_answer(&accepted.answer);
    let minted = gateway.mint(name);
    let mut peer = Peer::allocate(gateway.udp, remote.media, &minted);
    peer.connect(&identity, "pubufrag", &remote);
    peer
}

fn opus(sequence: u16, level: u8) -> Vec<u8> {
    let mut packet = vec![0x90, 111];
    packet.extend(sequence.to_be_bytes());
    packet.extend((u32::from(sequence) * 960).to_be_bytes());
    packet.extend(10u32.to_be_bytes());
    packet.extend([0xbe, 0xde, 0, 1, 0x40, b'0', 0x30, level]);
    packet.extend([0xfc; 40]);
    packet
}

#[test]
fn loud_stream_speaks_and_a_muted_one_falls_silent() {
    let mut gateway = Gateway::start(2);
    let mut loud = publisher(&mut gateway, "lobby/loud", true);
    let mut quiet = publisher(&mut gateway, "lobby/quiet", true);
    let mut mute = publisher(&mut gateway, "lobby/mute", false);
    let names = ["lobby/loud", "lobby/quiet", "lobby/mute", "lobby/nobody"];
    let names: Vec<StreamName> = names.iter().map(|name| name.parse().expect("a name")).collect();
    let mut sequence = 0;
    let levels = eventually(|| {
        sequence += 1;
        loud.send_rtp(&opus(sequence, 0x80 | 25));
        quiet.send_rtp(&opus(sequence, 0x80 | 90));
        mute.send_rtp(&opus(sequence, 0x80 | 10));
        let levels = gateway.control.audio_levels(&names);
        let settled = levels[0].is_some_and(|it| it.level == 25 && it.speaking)
            && levels[1].is_some_and(|it| it.level == 90);
        settled.then_some(levels)
    });
    assert_eq!(levels[1], Some(AudioLevel { level: 90, speaking: false }));
    assert_eq!(levels[2], None, "it was not negotiated");
    assert_eq!(levels[3], None, "there is no such stream");
    // A muted microphone may send nothing at all.
    let silence = Some(AudioLevel { level: 127, speaking: false });
    eventually(|| (gateway.control.audio_levels(&names[..1])[0] == silence).then_some(()));
}
