//! A TURN client and a STUN codec that are not ours, against the real engine: an ICE check through
//! the allocation reaches a parked session and is answered the same way.

mod peer;

use std::sync::Arc;
use std::time::Duration;

use peer::gateway::{Gateway, eventually};
use peer::{Identity, Remote, offer};
use stun::agent::TransactionId;
use stun::attributes::{
    ATTR_ICE_CONTROLLING, ATTR_PRIORITY, ATTR_USE_CANDIDATE, ATTR_USERNAME, RawAttribute,
};
use stun::fingerprint::FINGERPRINT;
use stun::integrity::MessageIntegrity;
use stun::message::{BINDING_REQUEST, BINDING_SUCCESS, Getter as _, Message, MessageType, Setter};
use stun::textattrs::TextAttribute;
use stun::xoraddr::XorMappedAddress;
use tokio::net::UdpSocket;
use tokio::time::timeout;
use turn::client::{Client, ClientConfig};
use veilgate::metrics::Id;
use webrtc_util::Conn as _;

const PATIENCE: Duration = Duration::from_secs(10);

fn check(remote: &Remote, password: &str) -> Message {
    let raw =
        |typ, value: &[u8]| RawAttribute { typ, length: value.len() as u16, value: value.to_vec() };
    let kind: MessageType = BINDING_REQUEST;
    let attributes: Vec<Box<dyn Setter>> = vec![
        Box::new(TransactionId::new()),
        Box::new(kind),
        Box::new(TextAttribute::new(ATTR_USERNAME, format!("{}:foreigner", remote.ufrag))),
        Box::new(raw(ATTR_PRIORITY, &1u32.to_be_bytes())),
        Box::new(raw(ATTR_ICE_CONTROLLING, &[1; 8])),
        Box::new(raw(ATTR_USE_CANDIDATE, &[])),
        Box::new(MessageIntegrity::new_short_term_integrity(password.to_owned())),
        Box::new(FINGERPRINT),
    ];
    let mut message = Message::new();
    message.build(&attributes).expect("built");
    message
}

#[test]
fn turn_crates_client_gets_an_answer_to_an_ice_check_through_its_allocation() {
    let mut gateway = Gateway::start(1);
    let name = "lobby/cam1".parse().expect("a name");
    let sdp = offer(&Identity::new(), "sendonly", "foreigner");
    let accepted = gateway.control.publish(&name, &Gateway::principal("alice"), &sdp);
    let remote = Remote::from_answer(&accepted.expect("accepted").answer);
    let minted = gateway.mint("alice");
    let server = gateway.udp;

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let conn = UdpSocket::bind("127.0.0.1:0").await.expect("bound");
        let client = Client::new(ClientConfig {
            stun_serv_addr: String::new(),
            turn_serv_addr: server.to_string(),
            username: minted.username,
            password: minted.credential,
            realm: "veilgate".to_owned(),
            software: String::new(),
            rto_in_ms: 0,
            conn: Arc::new(conn),
            vnet: None,
        });
        let client = client.await.expect("a client");
        client.listen().await.expect("listens");
        let relayed = client.allocate().await.expect("allocates");
        let own = relayed.local_addr().expect("an address");

        // With the wrong password first: that one must stay without an answer.
        let forged = check(&remote, "not the password at all");
        relayed.send_to(&forged.raw, remote.media).await.expect("sent");
        let asked = check(&remote, &remote.pwd);
        relayed.send_to(&asked.raw, remote.media).await.expect("sent");

        let mut buffer = [0; 2048];
        let received = timeout(PATIENCE, relayed.recv_from(&mut buffer));
        let (len, from) = received.await.expect("an answer in time").expect("an answer");
        assert_eq!(from, remote.media);
        let mut answer = Message::new();
        answer.unmarshal_binary(&buffer[..len]).expect("STUN");
        assert_eq!(answer.transaction_id, asked.transaction_id);
        assert_eq!(answer.typ, BINDING_SUCCESS);
        let key = MessageIntegrity::new_short_term_integrity(remote.pwd.clone());
        key.check(&mut answer).expect("signed with our password");
        FINGERPRINT.check(&answer).expect("a right fingerprint");
        let mut mapped = XorMappedAddress::default();
        mapped.get_from(&answer).expect("XOR-MAPPED-ADDRESS");
        assert_eq!((mapped.ip, mapped.port), (own.ip(), own.port()), "and no other address");
        relayed.close().await.expect("closes");
        client.close().await.expect("closes");
    });
    eventually(|| (gateway.count(Id::SessionIceChecks) == 1).then_some(()));
}
