//! Clients that are not ours against the relay over a real socket, with an echo at the media
//! address.
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::net::UdpSocket;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};
use turn::client::{Client, ClientConfig};
use veilgate::auth::turn::{Class, Key, Keys, Mint, Minted};
use veilgate::ids::{ClientAddr, FiveTuple, ShardId, Transport};
use veilgate::metrics::{Counters, Id};
use veilgate::relay::{Config, HEADROOM, Handled, Limits, NonceKeys, Relay, TAILROOM};
use veilgate::time::{Mono, Now, Unix};
use webrtc_util::Conn;

const MEDIA: &str = "192.0.2.10:20000";
const REALM: &str = "veilgate";
const START: Unix = Unix::from_secs(1_780_000_000);

struct Server {
    address: SocketAddr,
    user: Minted,
    stop: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<Counters>,
}

impl Server {
    async fn start() -> Self {
        let secret = Key { id: "k1".to_owned(), secret: vec![7; 32] };
        let keys = Arc::new(Keys::new(vec![secret]).unwrap());
        let mint = Mint {
            subject: "foreigner",
            room: None,
            class: Class::Forwarder,
            ttl: Duration::from_secs(600),
            session_limit: Duration::from_secs(3600),
        };
        let user = keys.mint(START, &mint, [5; 12]).unwrap();
        let media: SocketAddr = MEDIA.parse().unwrap();
        let config = Config {
            realm: REALM.to_owned(),
            media: vec![media],
            relayed_ip: media.ip(),
            relayed_ip6: None,
            external: None,
            excluded_ports: vec![],
            limits: Limits::default(),
            shards: 1,
            shared: veilgate::relay::Shared::default(),
        };
        let nonces = NonceKeys::new([1; 32], None);
        let relay = Relay::new(config, keys, nonces, StdRng::seed_from_u64(1), ShardId(0)).unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(serve(relay, socket, stopped));
        Self { address, user, stop, task }
    }

    async fn finish(self) -> Counters {
        self.stop.send(()).unwrap();
        self.task.await.unwrap()
    }
}

/// What the engine will be: datagrams in, replies and echoes out.
async fn serve(mut relay: Relay, socket: UdpSocket, mut stop: oneshot::Receiver<()>) -> Counters {
    let start = Instant::now();
    let mut counters = Counters::default();
    let (mut datagram, mut reply) = (vec![0; 2048], vec![0; 1500]);
    let mut slot = vec![0; HEADROOM + 2048 + TAILROOM];
    loop {
        let (len, from) = tokio::select! {
            received = socket.recv_from(&mut datagram) => received.unwrap(),
            _ = &mut stop => return counters,
        };
        let elapsed = start.elapsed();
        let now = Now { mono: Mono::ZERO, unix: START }.advanced(elapsed);
        let tuple = FiveTuple::new(ClientAddr::new(from), Transport::Udp);
        match relay.handle(now, tuple, &datagram[..len], &mut reply, &mut counters) {
            Handled::Dropped | Handled::ToRelayed(_) | Handled::ToExternal(_) => {}
            Handled::Reply(len) => {
                socket.send_to(&reply[..len], from).await.unwrap();
            }
            Handled::ToPeer(to) => {
                let payload = HEADROOM..HEADROOM + to.payload.len();
                slot[payload.clone()].copy_from_slice(&datagram[to.payload]);
                let Some(route) = relay.route(to.allocation, &to.peer) else { continue };
                let out = route.framing.encapsulate(&mut slot, payload, [6; 12]).unwrap();
                socket.send_to(&slot[out], from).await.unwrap();
            }
        }
    }
}

#[tokio::test]
async fn turn_crates_client_allocates_talks_to_the_media_address_and_closes() {
    let server = Server::start().await;
    let conn = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let client = Client::new(ClientConfig {
        stun_serv_addr: String::new(),
        turn_serv_addr: server.address.to_string(),
        username: server.user.username.clone(),
        password: server.user.credential.clone(),
        realm: REALM.to_owned(),
        software: String::new(),
        rto_in_ms: 0,
        conn: Arc::new(conn),
        vnet: None,
    })
    .await
    .unwrap();
    client.listen().await.unwrap();
    let relayed = client.allocate().await.unwrap();
    assert_eq!(relayed.local_addr().unwrap().ip().to_string(), "192.0.2.10");
    let media: SocketAddr = MEDIA.parse().unwrap();
    for text in ["first, in an indication", "second", "third"] {
        relayed.send_to(text.as_bytes(), media).await.unwrap();
        let mut echo = [0; 100];
        let received = timeout(Duration::from_secs(10), relayed.recv_from(&mut echo));
        let (len, from) = received.await.expect("an echo").unwrap();
        assert_eq!((&echo[..len], from), (text.as_bytes(), media));
    }
    let denied = relayed.send_to(b"x", "127.0.0.1:9".parse().unwrap()).await;
    assert!(denied.is_err(), "its CreatePermission gets 403");
    relayed.close().await.unwrap();
    client.close().await.unwrap();
    let counters = server.finish().await;
    assert_eq!(counters.get(Id::RelayAllocationsCreated), 1);
    assert_eq!(counters.get(Id::RelayDeniedPermission), 1);
    assert_eq!(counters.get(Id::RelayPacketsIn), 3);
}

async fn uclient(server: &Server, extra: &[&str], peer: &str) -> String {
    let (host, port) = peer.split_once(':').unwrap();
    let mut command = Command::new("turnutils_uclient");
    command.args(["-u", &server.user.username, "-w", &server.user.credential]);
    command.args(["-e", host, "-r", port, "-p", &server.address.port().to_string()]);
    command.args(["-X", "-n", "20", "-m", "2", "-l", "170", "-z", "15", "-g"]);
    command.args(extra).arg("127.0.0.1");
    let run = tokio::task::spawn_blocking(move || command.output());
    let output = timeout(Duration::from_secs(60), run).await.expect("ends").unwrap().unwrap();
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn coturns_client_loses_nothing_to_the_media_address_and_is_refused_elsewhere() {
    // `-s`: indications; its channel numbers reach beyond what RFC 8656 allows. Without `-c` it
    // asks for a pair of ports (EVEN-PORT with the R bit), which is 508 here.
    for mode in [&["-c", "-s"][..], &["-c", "-s", "-D"]] {
        let server = Server::start().await;
        let text = uclient(&server, mode, MEDIA).await;
        assert!(text.contains("Total lost packets 0 "), "{mode:?}: {text}");
        assert!(server.finish().await.get(Id::RelayPacketsIn) >= 40);
    }
    for mode in [&["-c"][..], &["-c", "-s"]] {
        for peer in ["127.0.0.1:9", "10.0.0.1:9", "8.8.8.8:53"] {
            let server = Server::start().await;
            let text = uclient(&server, mode, peer).await;
            assert!(text.contains("403"), "{text}");
            let counters = server.finish().await;
            let denied = [Id::RelayDeniedPermission, Id::RelayDeniedChannel];
            assert!(denied.iter().any(|id| counters.get(*id) > 0), "{text}");
            assert_eq!(counters.get(Id::RelayPacketsIn), 0);
        }
    }
}
