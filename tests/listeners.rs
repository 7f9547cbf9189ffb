//! Several UDP ports and both families, through the real engine.

mod peer;

use std::net::{Ipv6Addr, SocketAddr};
use std::time::Duration;

use peer::gateway::{Gateway, MEDIA, eventually, free_port};
use peer::{Identity, Peer, Remote, offer, vp8};
use veilgate::ids::StreamName;
use veilgate::metrics::Id;
use veilgate::relay::Limits;
use veilgate::wire::stun::{Builder, Message, Method, attr};

const IPV6: u32 = 0x0200_0000;

fn dual_gateway() -> (Gateway, SocketAddr, SocketAddr) {
    let (v4, v6) = (free_port("127.0.0.1:0"), free_port("[::1]:0"));
    let gateway = Gateway::start_at(2, vec![v4, v6], Some(Ipv6Addr::LOCALHOST), Limits::default());
    (gateway, v6, (Ipv6Addr::LOCALHOST, MEDIA.port()).into())
}

/// As libwebrtc does with `turn:host:3478` and `turn:host:443`.
#[test]
fn one_socket_at_two_ports_has_two_allocations_and_each_answers_from_its_own() {
    let ports = [free_port("127.0.0.1:0"), free_port("127.0.0.1:0")];
    let mut gateway = Gateway::start_at(2, ports.to_vec(), None, Limits::default());
    let minted = gateway.mint("alice");
    let mut first = Peer::allocate(ports[0], MEDIA, &minted);
    assert_eq!(first.last_from(), Some(ports[0]));
    let mut second = first.beside(ports[1], &minted);
    assert_eq!(second.last_from(), Some(ports[1]));
    eventually(|| (gateway.count(Id::RelayAllocations) == 2).then_some(()));
    let refresh = |b: &mut Builder<'_>| b.u32(attr::LIFETIME, 0);
    let answer = first.request(Method::REFRESH, true, refresh);
    assert_eq!(Message::parse(&answer).expect("STUN").error_code(), None);
    eventually(|| (gateway.count(Id::RelayAllocations) == 1).then_some(()));
    let answer = second.request(Method::REFRESH, true, |b| b.u32(attr::LIFETIME, 600));
    assert_eq!(Message::parse(&answer).expect("STUN").error_code(), None, "the other one lives");
    assert_eq!(second.last_from(), Some(ports[1]));
}

#[test]
fn client_that_asks_for_ipv6_watches_over_ipv6_from_end_to_end() {
    let (mut gateway, server, media) = dual_gateway();
    let (mut publisher, _) = gateway.publisher("lobby/cam1");
    let name: StreamName = "lobby/cam1".parse().expect("a name");
    let identity = Identity::new();
    let who = Gateway::principal("bob");
    let accepted = eventually(|| {
        gateway.control.play(&name, &who, &offer(&identity, "recvonly", "plyufrag")).ok()
    });
    assert!(accepted.answer.contains(&format!("{} {} typ host", media.ip(), media.port())));
    let remote = Remote::from_answer(&accepted.answer);
    let minted = gateway.mint("bob");
    let ask = |b: &mut Builder<'_>| b.u32(attr::REQUESTED_ADDRESS_FAMILY, IPV6);
    let mut player = Peer::allocate_asking(server, media, &minted, ask);
    assert_eq!(player.relayed.ip(), media.ip());
    player.connect(&identity, "plyufrag", &remote);
    eventually(|| (gateway.count(Id::SessionsPlaying) == 1).then_some(()));
    publisher.send_rtp(&vp8(1, true));
    loop {
        let packet = player.recv_media(Duration::from_secs(5)).expect("media in time");
        if packet[1] & 0x7f == 96 {
            assert!(packet.ends_with(&[0x5a; 100]));
            break;
        }
    }
}

#[test]
fn dual_allocation_reaches_both_media_addresses_each_from_its_own_relayed_address() {
    let (mut gateway, server, media6) = dual_gateway();
    let name: StreamName = "lobby/cam1".parse().expect("a name");
    let identity = Identity::new();
    let sdp = offer(&identity, "sendonly", "pubufrag");
    let accepted = gateway.control.publish(&name, &Gateway::principal("alice"), &sdp);
    let remote = Remote::from_answer(&accepted.expect("agreed").answer);
    let minted = gateway.mint("alice");
    let ask = |b: &mut Builder<'_>| b.u32(attr::ADDITIONAL_ADDRESS_FAMILY, IPV6);
    let mut client = Peer::allocate_asking(server, MEDIA, &minted, ask);
    assert_eq!(client.all_relayed.len(), 2);
    // Each check asserts that its answer names the relayed address it came from.
    client.bind_channel();
    client.check("pubufrag", &remote, false);
    client.talk_to(media6);
    client.bind_channel_number(0x4001);
    client.check("pubufrag", &remote, true);
    client.talk_to(MEDIA);
    client.use_channel(0x4000);
    client.check("pubufrag", &remote, false);
}
