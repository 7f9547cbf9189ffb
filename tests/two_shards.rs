//! A publisher on one shard, players on both.

mod peer;

use std::time::Duration;

use peer::gateway::{Gateway, eventually};
use peer::vp8;
use veilgate::metrics::Id;
use veilgate::session::srtp::Profile;

#[test]
fn players_on_both_shards_get_every_packet() {
    let mut gateway = Gateway::start(2);
    let (mut publisher, _) = gateway.publisher("lobby/cam1");
    assert_eq!(publisher.profile, Some(Profile::Aead128Gcm), "our order of profiles wins");
    let mut players = Vec::new();
    // The kernel's hash of the 4-tuple chooses the shard, so more players until both have one.
    while gateway.by_shard(Id::SessionsPlaying).contains(&0) {
        assert!(players.len() < 40, "40 clients on one of two shards");
        let before: u64 = gateway.count(Id::SessionsPlaying);
        players.push(gateway.player("lobby/cam1", &format!("viewer{}", players.len())));
        eventually(|| (gateway.count(Id::SessionsPlaying) > before).then_some(()));
    }
    const PACKETS: u16 = 200;
    let mut got = vec![0; players.len()];
    for sequence in 1..=PACKETS {
        publisher.send_rtp(&vp8(sequence, sequence == 1));
        for (i, (player, remote, _)) in players.iter_mut().enumerate() {
            loop {
                let packet = player.recv_media(Duration::from_secs(5)).expect("media in time");
                let rtcp = packet[1] >= 192 && packet[1] <= 223;
                if rtcp {
                    continue;
                }
                assert_eq!(packet[1] & 0x7f, 96);
                let ssrc = u32::from_be_bytes([packet[8], packet[9], packet[10], packet[11]]);
                assert_eq!(Some(ssrc), remote.video_ssrc);
                assert!(packet.ends_with(&[0x5a; 100]));
                got[i] += 1;
                break;
            }
        }
    }
    assert!(got.iter().all(|n| *n == PACKETS), "{got:?}");
    let forwarded = eventually(|| {
        let n = gateway.count(Id::ForwardPackets);
        (n >= u64::from(PACKETS) * players.len() as u64).then_some(n)
    });
    assert_eq!(forwarded, u64::from(PACKETS) * players.len() as u64);
}

#[test]
fn a_session_follows_its_client_to_the_other_shard() {
    let mut gateway = Gateway::start(2);
    let identity = peer::Identity::new();
    let name = "lobby/cam1".parse().expect("a name");
    let sdp = peer::offer(&identity, "sendonly", "pubufrag");
    let accepted = gateway.control.publish(&name, &Gateway::principal("alice"), &sdp).expect("ok");
    let remote = peer::Remote::from_answer(&accepted.answer);
    // Twenty allocations, each nominating: the session moves whenever the kernel's hash of the
    // 4-tuple puts one on the other shard.
    for _ in 0..20 {
        let minted = gateway.mint("alice");
        let mut client = peer::Peer::allocate(gateway.udp, remote.media, &minted);
        client.bind_channel();
        client.check("pubufrag", &remote, true);
    }
    eventually(|| gateway.by_shard(Id::SessionIceChecks).iter().all(|n| *n > 0).then_some(()));
    let minted = gateway.mint("alice");
    let mut client = peer::Peer::allocate(gateway.udp, remote.media, &minted);
    client.connect(&identity, "pubufrag", &remote);
    eventually(|| (gateway.count(Id::SessionsPublishing) == 1).then_some(()));
}
