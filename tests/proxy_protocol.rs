//! Behind a load balancer that speaks PROXY protocol v2: it says who the client is, and is believed;
//! nobody else is.

mod common;
mod turn_kit;

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};

use common::{CLIENT, GATEWAY, Gateway, HTTPS_PORT, Network, configured};
use ppp::v2;
use turn_kit::{Client, PATIENCE, Transport};

/// Nobody in this network has it: only the header can have told.
const TOLD: &str = "198.51.100.7:4242";
const XOR_MAPPED_ADDRESS: u16 = 0x0020;

fn gateway() -> Gateway {
    let network = Network::with(&[&format!("{GATEWAY}/24")], &[&format!("{CLIENT}/24")]);
    let ip = GATEWAY.to_string();
    configured::start_behind(
        network,
        &ip,
        &ip,
        &format!("['{CLIENT}/32']"),
        "log: { level: trace }\n",
    )
}

fn header(command: v2::Command, from: &str) -> Vec<u8> {
    let from: SocketAddr = from.parse().expect("valid");
    let to = SocketAddr::new(from.ip(), HTTPS_PORT);
    let builder =
        v2::Builder::with_addresses(v2::Version::Two | command, v2::Protocol::Stream, (from, to));
    builder.write_tlv(v2::Type::NoOp, b"tlv").expect("fits").build().expect("builds")
}

fn connect(gateway: &Gateway) -> TcpStream {
    let there = SocketAddr::from((GATEWAY, HTTPS_PORT));
    let stream = gateway.network.as_client(|| TcpStream::connect(there)).expect("TCP connects");
    stream.set_read_timeout(Some(PATIENCE)).expect("socket option");
    stream
}

fn mapped(client: &mut Client) -> SocketAddr {
    let reply = client.try_allocate();
    assert_eq!(reply.code(), 0);
    reply.address(XOR_MAPPED_ADDRESS).expect("XOR-MAPPED-ADDRESS")
}

#[test]
fn client_is_whom_the_load_balancer_names_over_tcp_and_tls() {
    let gateway = gateway();
    let (username, password) = configured::mint(&gateway, "forwarder");
    for (transport, from) in
        [(Transport::Tcp, TOLD), (Transport::Tls, TOLD), (Transport::Tcp, "[2001:db8::7]:4242")]
    {
        let mut stream = connect(&gateway);
        stream.write_all(&header(v2::Command::Proxy, from)).expect("sent");
        let mut client = Client::over(stream, &gateway, transport, &username, &password);
        assert_eq!(mapped(&mut client), from.parse().expect("valid"), "{transport:?}");
    }
    // A health check comes for the load balancer itself.
    let mut stream = connect(&gateway);
    let own = stream.local_addr().expect("bound");
    stream.write_all(&header(v2::Command::Local, TOLD)).expect("sent");
    let mut client = Client::over(stream, &gateway, Transport::Tcp, &username, &password);
    assert_eq!(mapped(&mut client), own);
    let metrics = gateway.metrics_when("connections were counted", |m| {
        m.sum("veilgate_http_connections_total", &["kind=\"turn_tcp\""]) >= 3.0
    });
    assert_eq!(metrics.sum("veilgate_http_connections_total", &["kind=\"turn_tls\""]), 1.0);
    for secret in ["198.51.100.7", "2001:db8::7", &CLIENT.to_string()] {
        assert!(!gateway.log().contains(secret), "{secret} is in the log:\n{}", gateway.log());
    }
}

#[test]
fn load_balancer_without_a_header_and_a_header_from_anybody_else_are_closed() {
    let gateway = gateway();
    let (username, password) = configured::mint(&gateway, "forwarder");
    // What a client of the load balancer could send if that passed it on without a header; a
    // header of version 1; one that claims more than there may be.
    let mut long = header(v2::Command::Proxy, TOLD);
    long[14..16].copy_from_slice(&u16::MAX.to_be_bytes());
    let text = b"PROXY TCP4 198.51.100.7 10.78.0.1 4242 8443\r\n".to_vec();
    for bytes in [vec![0x16; 64], vec![0; 64], text, long] {
        let mut stream = connect(&gateway);
        stream.write_all(&bytes).expect("sent");
        let mut client = Client::over(stream, &gateway, Transport::Tcp, &username, &password);
        assert!(client.is_closed(), "{bytes:?}");
    }
    // From the gateway's own machine, which is not on the list.
    let there = SocketAddr::from((GATEWAY, HTTPS_PORT));
    let direct = || gateway.network.as_gateway(|| TcpStream::connect(there)).expect("connects");
    let mut stream = direct();
    stream.write_all(&header(v2::Command::Proxy, TOLD)).expect("sent");
    let mut liar = Client::over(stream, &gateway, Transport::Tcp, &username, &password);
    assert!(liar.is_closed());
    let honest = direct();
    let own = honest.local_addr().expect("bound");
    let mut honest = Client::over(honest, &gateway, Transport::Tcp, &username, &password);
    assert_eq!(mapped(&mut honest), own);
    let metrics = gateway.metrics_when("what was closed was counted", |m| {
        m.sum("veilgate_http_connections_total", &["kind=\"proxy_header\""]) >= 4.0
    });
    assert_eq!(metrics.sum("veilgate_http_connections_total", &["kind=\"foreign\""]), 1.0);
}
