//! TURN over TCP, seen from a socket: framing, abuse and time limits, on the port of HTTPS.

mod common;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use common::{GATEWAY, Gateway, HTTPS_PORT};
use veilgate::wire::stun::{Builder, Class, IntegrityKey, Message, Method, TransactionId, attr};

const PATIENCE: Duration = Duration::from_secs(20);

fn connect(gateway: &Gateway) -> TcpStream {
    let there = SocketAddr::from((GATEWAY, HTTPS_PORT));
    let stream = gateway.network.as_client(|| TcpStream::connect(there)).expect("TCP connects");
    stream.set_read_timeout(Some(PATIENCE)).expect("socket option");
    stream.set_nodelay(true).expect("socket option");
    stream
}

fn allocate(id: u8, sign: Option<(&str, &str, &str, &IntegrityKey)>) -> Vec<u8> {
    let mut buf = [0; 512];
    let id = TransactionId([id; 12]);
    let mut builder = Builder::new(&mut buf, Class::Request, Method::ALLOCATE, id);
    builder.u32(attr::REQUESTED_TRANSPORT, 17 << 24);
    if let Some((username, realm, nonce, key)) = sign {
        builder.text(attr::USERNAME, username);
        builder.text(attr::REALM, realm);
        builder.text(attr::NONCE, nonce);
        builder.integrity(key);
    }
    let len = builder.finish().expect("fits");
    buf[..len].to_vec()
}

/// The next STUN message of a stream.
fn read(stream: &mut TcpStream) -> Vec<u8> {
    let mut message = vec![0; 20];
    stream.read_exact(&mut message).expect("a header in time");
    let len = usize::from(u16::from_be_bytes([message[2], message[3]]));
    message.resize(20 + len, 0);
    stream.read_exact(&mut message[20..]).expect("a body in time");
    message
}

/// The gateway closes the connection; whatever it says before is passed over.
fn closes(stream: &mut TcpStream) {
    let mut sink = [0; 1_024];
    while stream.read(&mut sink).is_ok_and(|n| n > 0) {}
    // A time-out is an error as well: tell it apart.
    stream.set_nonblocking(true).expect("socket option");
    let last = stream.read(&mut sink);
    let open = last.is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock);
    assert!(!open, "the connection is still open");
}

/// An allocation over TCP.
fn allocated(gateway: &Gateway) -> TcpStream {
    let (username, password) = gateway.turn_credential();
    let mut stream = connect(gateway);
    stream.write_all(&allocate(1, None)).expect("sends");
    let challenge = read(&mut stream);
    let challenge = Message::parse(&challenge).expect("STUN");
    assert_eq!(challenge.error_code(), Some(401));
    let text = |kind| challenge.text(kind).expect("a text").to_owned();
    let (realm, nonce) = (text(attr::REALM), text(attr::NONCE));
    let key = IntegrityKey::long_term(&username, &realm, &password).expect("MD5");
    stream.write_all(&allocate(2, Some((&username, &realm, &nonce, &key)))).expect("sends");
    let answer = read(&mut stream);
    let answer = Message::parse(&answer).expect("STUN");
    assert_eq!(answer.class(), Class::Success, "{:?}", answer.error_code());
    stream
}

#[test]
fn an_allocation_over_tcp_lives_and_dies_with_its_connection() {
    let gateway = Gateway::start(1);
    let stream = allocated(&gateway);
    gateway.metrics_when("it is there", |m| m.sum("veilgate_relay_allocations", &[]) == 1.0);
    drop(stream);
    gateway.metrics_when("it is gone", |m| m.sum("veilgate_relay_allocations", &[]) == 0.0);
}

#[test]
fn messages_come_in_any_pieces() {
    let gateway = Gateway::start(1);
    let mut stream = connect(&gateway);
    for byte in allocate(7, None) {
        stream.write_all(&[byte]).expect("sends");
    }
    assert_eq!(Message::parse(&read(&mut stream)).expect("STUN").error_code(), Some(401));
    let hundred: Vec<u8> = (0..100).flat_map(|id| allocate(id, None)).collect();
    stream.write_all(&hundred).expect("sends");
    for id in 0..100 {
        let answer = read(&mut stream);
        let answer = Message::parse(&answer).expect("STUN");
        assert_eq!(answer.transaction_id(), TransactionId([id; 12]));
    }
}

#[test]
fn a_stream_that_lies_is_closed() {
    let gateway = Gateway::start(1);
    let mut good = allocated(&gateway);
    for lie in [
        // A STUN header without the cookie, and one that claims 64 KiB.
        &[0x00, 0x03, 0x00, 0x04, 1, 2, 3, 4][..],
        &[0x00, 0x03, 0xff, 0xfc, 0x21, 0x12, 0xa4, 0x42],
        // After a good message: a byte nothing starts with, and ChannelData of 65,535 bytes.
        &[0xff; 8],
        &[0x40, 0x00, 0xff, 0xff, 0, 0, 0, 0],
    ] {
        let mut stream = connect(&gateway);
        if lie[0] != 0 {
            stream.write_all(&allocate(9, None)).expect("sends");
            read(&mut stream);
        }
        stream.write_all(lie).expect("sends");
        closes(&mut stream);
    }
    // Nobody else is disturbed.
    good.write_all(&allocate(3, None)).expect("sends");
    assert_eq!(Message::parse(&read(&mut good)).expect("STUN").error_code(), Some(401));
}

#[test]
fn whoever_stalls_is_closed() {
    let gateway = Gateway::start(1);
    let mut silent = connect(&gateway);
    let mut half_tls = connect(&gateway);
    half_tls.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00]).expect("sends");
    let mut half_message = connect(&gateway);
    let whole = allocate(5, None);
    half_message.write_all(&whole[..whole.len() - 1]).expect("sends");
    for stream in [&mut silent, &mut half_tls, &mut half_message] {
        closes(stream);
    }
    let metrics = gateway.metrics();
    assert_eq!(metrics.sum("veilgate_engine_streams", &[]), 0.0);
}
