//! A revoked room: its sealed call is over, and both pages are told.

mod common;
mod peer;

use std::fs;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use common::{CLIENT, GATEWAY, Gateway, MEDIA_PORT, UDP_PORT};
use peer::Peer;
use serde_json::Value;

/// The bound for the end of what lives by a revoked credential.
const BOUND: Duration = Duration::from_secs(2);

/// What a page has, beside its allocation: its token and its seat.
struct Page {
    bearer: String,
    seat: String,
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// A page that has come as far as its seat.
fn page(gateway: &Gateway, subject: &str) -> (Page, Peer) {
    let mint = ["token", "mint", "--subject", subject, "--publish", "attic/*", "--play", "attic/*"];
    let bearer = format!("Authorization: Bearer {}", gateway.cli(&mint).trim());
    let (status, _, body) = gateway.https("/v1/ice?class=room", &["-H", &bearer]);
    assert_eq!(status, 200, "{body}");
    let server = &json(&body)["iceServers"][0];
    let field = |name: &str| server[name].as_str().expect("a text").to_owned();
    let (username, credential) = (field("username"), field("credential"));
    let ice = gateway.network.as_client(|| {
        let (server, media) = ((GATEWAY, UDP_PORT).into(), (GATEWAY, MEDIA_PORT).into());
        Peer::try_allocate_from((CLIENT, 0).into(), server, media, &username, &credential)
            .unwrap_or_else(|code| panic!("refused: {code}"))
    });
    let (status, _, body) = gateway.https("/v1/sealed/attic", &["-X", "POST", "-H", &bearer]);
    assert_eq!(status, 201, "{body}");
    let seat = json(&body)["seat"].as_str().expect("a seat").to_owned();
    (Page { bearer, seat }, ice)
}

impl Page {
    fn tell(&self, gateway: &Gateway, setup: &str, relayed: SocketAddr) {
        let (ip, port) = (relayed.ip(), relayed.port());
        let hash = ["AB"; 32].join(":");
        let sdp = format!(
            "v=0\r\na=group:BUNDLE 0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=ice-ufrag:abcd\r\n\
             a=ice-pwd:abcdefghijklmnopqrstuv\r\na=fingerprint:sha-256 {hash}\r\n\
             a=setup:{setup}\r\na=mid:0\r\na=rtcp-mux\r\na=rtpmap:111 opus/48000/2\r\n\
             a=candidate:1 1 udp 2 {ip} {port} typ relay raddr 0.0.0.0 rport 0\r\n"
        );
        let kind = "Content-Type: application/sdp";
        let args = ["-H", &self.bearer, "-H", kind, "--data-binary", &sdp];
        let (status, _, body) = gateway.https(&self.seat, &args);
        assert_eq!(status, 204, "{body}");
    }

    /// 204: the call goes on; 404: it is over.
    fn is_over(&self, gateway: &Gateway, wait: u32) -> u16 {
        let question = format!("{}?until=over&wait={wait}", self.seat);
        gateway.https(&question, &["-H", &self.bearer]).0
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a bound in real time is what is tested")]
fn revocation_of_a_room_ends_its_sealed_call_for_both_pages() {
    let gateway = Gateway::start(2);
    let ((alice, alices), (bob, bobs)) = (page(&gateway, "alice"), page(&gateway, "bob"));
    alice.tell(&gateway, "actpass", alices.relayed);
    bob.tell(&gateway, "active", bobs.relayed);
    let both = [&alice, &bob];
    assert_eq!(both.map(|page| page.is_over(&gateway, 0)), [204, 204]);

    let key = fs::read_to_string(gateway.state_dir().join("admin.key")).expect("an admin key");
    let key = format!("Authorization: Bearer {}", key.trim());
    let revoke = |room: &str| {
        let body = format!("{{\"room\":\"{room}\"}}");
        let kind = "Content-Type: application/json";
        let args = ["-H", &key, "-H", kind, "--data-binary", &body];
        let (status, _, body) = gateway.https("/v1/turn/revocations", &args);
        assert_eq!(status, 201, "{body}");
        Instant::now()
    };
    revoke("cellar");
    assert_eq!(both.map(|page| page.is_over(&gateway, 2)), [204, 204], "another room's");
    let gateway = &gateway;
    thread::scope(|scope| {
        // They wait already when it comes.
        let waiting =
            both.map(|page| scope.spawn(move || (page.is_over(gateway, 15), Instant::now())));
        let revoked = revoke("attic");
        for told in waiting.map(|page| page.join().expect("asks")) {
            assert_eq!(told.0, 404);
            // On a machine that does other things, too.
            let late = told.1.saturating_duration_since(revoked);
            assert!(late < BOUND * 3, "told after {late:?}");
        }
    });
}
