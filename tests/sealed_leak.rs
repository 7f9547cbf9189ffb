//! What one side of a sealed call writes into its SDP, the other never reads: canaries in every
//! line, posted with curl to the real binary.

mod common;
mod peer;

use std::net::SocketAddr;

use common::{CLIENT, GATEWAY, Gateway, MEDIA_PORT, UDP_PORT};
use peer::Peer;
use serde_json::Value;

const CANARIES: [&str; 4] = ["198.51.100.7", "2001:db8::77", "3325256711", "canary.local"];

/// An offer with `canary` wherever an address could stand, and one relayed address.
fn poisoned(canary: &str, relayed: SocketAddr) -> String {
    let (ip, port) = (relayed.ip(), relayed.port());
    let hash = ["AB"; 32].join(":");
    format!(
        "v=0\r\no={canary} 1 1 IN IP4 {canary}\r\ns={canary}\r\nc=IN IP4 {canary}\r\nt=0 0\r\n\
         a=group:BUNDLE 0\r\na=msid-semantic: WMS {canary}\r\n\
         m=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 {canary}\r\na=rtcp:9 IN IP4 {canary}\r\n\
         a=ice-ufrag:abcd\r\na=ice-pwd:abcdefghijklmnopqrstuv\r\na=fingerprint:sha-256 {hash}\r\n\
         a=setup:actpass\r\na=mid:0\r\na=rtcp-mux\r\na=sendrecv\r\n\
         a=candidate:1 1 udp 2 {canary} 5 typ host\r\n\
         a=candidate:2 1 udp 2 {canary} 5 typ srflx raddr {canary} rport 5\r\n\
         a=candidate:3 1 udp 2 {canary} 5 typ relay raddr {canary} rport 5\r\n\
         a=candidate:4 1 udp 2 {ip} {port} typ relay raddr {canary} rport 5\r\n\
         a=rtpmap:111 opus/48000/2\r\na=fmtp:111 minptime=10;address={canary};stereo={canary}\r\n\
         a=extmap:1 urn:{canary}\r\na=msid:{canary} {canary}\r\na=ssrc:1 cname:{canary}\r\n\
         a=label:{canary}\r\n"
    )
}

/// A relayed address of the room `attic`, alive as long as the client is.
fn allocate(gateway: &Gateway) -> Peer {
    let mint = ["turn", "mint", "--json", "--subject", "alice", "--class", "room"];
    let entry = gateway.cli(&[&mint[..], &["--room", "attic"]].concat());
    let entry: Value = serde_json::from_str(&entry).expect("json");
    let field = |name: &str| entry[name].as_str().expect("a text").to_owned();
    gateway.network.as_client(|| {
        let (server, media) = ((GATEWAY, UDP_PORT).into(), (GATEWAY, MEDIA_PORT).into());
        let (username, credential) = (field("username"), field("credential"));
        Peer::try_allocate_from((CLIENT, 0).into(), server, media, &username, &credential)
            .unwrap_or_else(|code| panic!("refused: {code}"))
    })
}

#[test]
fn no_canary_of_one_side_reaches_the_other_the_log_or_the_metrics() {
    let gateway = Gateway::start(2);
    let alive = allocate(&gateway);
    let grants = ["--ttl", "10m", "--publish", "attic/*", "--play", "attic/*"];
    let bearer = |subject: &str| {
        let token = gateway.cli(&[&["token", "mint", "--subject", subject][..], &grants].concat());
        format!("Authorization: Bearer {token}")
    };
    let (alice, bob) = (bearer("alice"), bearer("bob"));
    let sdp = ["-H", "Content-Type: application/sdp"];
    for canary in CANARIES {
        let join = |who: &str| {
            let (status, head, body) =
                gateway.https("/v1/sealed/attic", &["-X", "POST", "-H", who]);
            assert_eq!(status, 201, "{head}{body}");
            let joined: Value = serde_json::from_str(&body).expect("json");
            joined["seat"].as_str().expect("a seat").to_owned()
        };
        let (first, second) = (join(&alice), join(&bob));
        let tell = |body: &str| {
            gateway.https(&first, &[&["-H", &alice, "--data-binary", body][..], &sdp].concat())
        };
        // Without its relayed address the offer is refused, and the refusal quotes nothing.
        let elsewhere = poisoned(canary, (common::OTHER, alive.relayed.port()).into());
        let (status, _, body) = tell(&elsewhere);
        assert!(status == 422 && body.contains("no_relay_candidate"), "{body}");
        assert!(!body.contains(canary), "{body}");
        let (status, _, body) = tell(&poisoned(canary, alive.relayed));
        assert_eq!(status, 204, "{body}");
        let (status, head, body) = gateway.https(&second, &["-H", &bob]);
        assert_eq!(status, 200, "{body}");
        assert!(!body.contains(canary) && !head.contains(canary), "{head}{body}");
        let line = format!(" {} typ relay raddr 0.0.0.0 rport 0", alive.relayed.port());
        assert_eq!(body.matches("a=candidate:").count(), 1, "{body}");
        assert!(body.contains(&line), "{body}");
        let (status, _, _) = gateway.https(&first, &["-X", "DELETE", "-H", &alice]);
        assert_eq!(status, 200);
    }
    let (_, metrics) = gateway.loopback_get("/metrics").expect("metrics are served");
    for canary in CANARIES {
        assert!(!gateway.log().contains(canary) && !metrics.contains(canary), "{canary}");
    }
    let dropped = gateway.metrics();
    let dropped = |result: &str| {
        dropped.sum("veilgate_http_sealed_candidates_total", &[&format!("result=\"{result}\"")])
    };
    assert_eq!((dropped("kept"), dropped("not_relayed")), (4.0, 16.0));
    // What is no IP address cannot be ours either.
    assert_eq!(dropped("foreign"), 12.0);
}
