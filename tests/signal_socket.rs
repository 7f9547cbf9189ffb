//! The WebSocket of rooms over real HTTP/1.1: who gets one, how it ends, and what strangers send.

mod http_support;
mod signal_kit;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use futures_util::{SinkExt, StreamExt};
use http_support::{Fake, NOW, bare, our_keys, send};
use serde_json::{Value, json};
use signal_kit::{Claims, FakeMedia, camera, from_client, from_server, join_message, only};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, Message};
use veilgate::control::api::Refusal;
use veilgate::control::rooms::{self, Rooms};
use veilgate::http::server::serve_connection;
use veilgate::http::{Config, Origins, Patience, router};
use veilgate::metrics::{Exposition, RoomMetrics};
use veilgate::time::Unix;

/// A gateway with rooms, and what can be seen of it.
struct Door {
    fake: Fake,
    rooms: Rooms,
    media: Arc<FakeMedia>,
    router: Router,
    metrics: Exposition,
}

fn door_with(config: Config, places: usize) -> Door {
    let media = Arc::new(FakeMedia::default());
    let metrics = Exposition::new(Vec::new()).expect("a registry");
    let counted = RoomMetrics::new().expect("counters");
    counted.register(&metrics).expect("free names");
    let rooms = Rooms::new(Arc::clone(&media) as _, places, Some(counted));
    let mut fake = Fake::default();
    fake.rooms = Some(rooms.clone());
    let router = router(fake.clone(), Arc::new(our_keys()), config);
    Door { fake, rooms, media, router, metrics }
}

fn door() -> Door {
    door_with(Config::default(), rooms::MAX_PARTICIPANTS)
}

struct Client {
    socket: WebSocketStream<DuplexStream>,
}

impl Door {
    fn line(&self, buffer: usize) -> DuplexStream {
        let (near, far) = duplex(buffer);
        let router = self.router.clone();
        tokio::spawn(serve_connection(far, router, std::future::pending()));
        near
    }

    async fn try_open(&self, origin: Option<&str>) -> Result<Client, Error> {
        let mut request = "ws://gw.example/v1/signal".into_client_request().expect("a request");
        if let Some(origin) = origin {
            request.headers_mut().insert("origin", origin.parse().expect("a header"));
        }
        let line = self.line(64 * 1024);
        let (socket, _) = tokio_tungstenite::client_async(request, line).await?;
        Ok(Client { socket })
    }

    async fn open(&self) -> Client {
        self.try_open(None).await.expect("a WebSocket")
    }

    async fn join(&self, claims: &Claims) -> (Client, Value) {
        let mut client = self.open().await;
        client.say(&join_message(&token(claims), None)).await;
        let joined = client.hear().await;
        assert_eq!(joined["type"], "joined", "{joined}");
        (client, joined)
    }

    fn metric(&self, line: &str) -> bool {
        self.metrics.text().expect("encodes").lines().any(|known| known == line)
    }
}

fn token(claims: &Claims) -> String {
    claims.token(&our_keys(), Unix::from_secs(NOW))
}

impl Client {
    async fn send(&mut self, message: Message) {
        self.socket.send(message).await.expect("sent");
    }

    async fn text(&mut self, text: &str) {
        self.send(Message::text(text)).await;
    }

    async fn say(&mut self, message: &Value) {
        self.text(&from_client(message)).await;
    }

    /// The next message; a close is `{"close": code}`, a broken line `{"close": 1006}`.
    async fn hear(&mut self) -> Value {
        loop {
            match self.socket.next().await {
                Some(Ok(Message::Text(text))) => return from_server(&text),
                Some(Ok(Message::Close(Some(frame)))) => {
                    return json!({"close": u16::from(frame.code)});
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return json!({"close": 1006}),
            }
        }
    }

    /// The next message of a type.
    async fn wait_for(&mut self, kind: &str) -> Value {
        loop {
            let heard = self.hear().await;
            assert!(heard.get("close").is_none(), "{heard} before {kind}");
            if heard["type"] == kind {
                return heard;
            }
        }
    }

    /// All up to the close, and its code.
    async fn end(&mut self) -> (Vec<Value>, u64) {
        let mut heard = Vec::new();
        loop {
            let message = self.hear().await;
            if let Some(code) = message["close"].as_u64() {
                return (heard, code);
            }
            heard.push(message);
        }
    }
}

#[tokio::test]
async fn participants_meet_talk_and_leave() {
    let door = door();
    let (mut ada, _) = door.join(&Claims::all("ada")).await;
    let (mut bo, joined) = door.join(&Claims::all("bo")).await;
    assert_eq!(joined["participants"].as_array().map(Vec::len), Some(1));
    assert_eq!(ada.wait_for("participant_joined").await["participant"], joined["participant"]);
    bo.say(&json!({"type": "publish", "id": 2, "stream": "bo", "sdp": "offer"})).await;
    assert_eq!(bo.hear().await["type"], "published");
    let event = door.media.start(camera("bo"));
    door.rooms.on_event(veilgate::time::Mono::ZERO, &event);
    ada.wait_for("stream_added").await;
    let offer = ada.wait_for("offer").await;
    let answer = json!({"type": "answer", "id": 3, "revision": offer["revision"], "sdp": "v=0"});
    ada.say(&answer).await;
    assert_eq!(ada.wait_for("ok").await["id"], 3);
    ada.say(&json!({"type": "chat", "text": "hello"})).await;
    assert_eq!(bo.wait_for("chat").await["text"], "hello");
    ada.say(&json!({"type": "ice", "id": 4})).await;
    assert_eq!(ada.wait_for("ice").await["ice"]["iceTransportPolicy"], "relay");
    assert!(door.metric("veilgate_room_participants 2"));
    assert!(door.metric("veilgate_room_rooms 1"));
    ada.say(&json!({"type": "leave", "id": 5})).await;
    let (heard, code) = ada.end().await;
    assert_eq!((only(&heard, "ok")["id"].as_u64(), code), (Some(5), 1000));
    assert_eq!(bo.wait_for("participant_left").await["reason"], "left");
    // Closing the page is leaving, too.
    bo.send(Message::Close(Some(CloseFrame { code: 1001.into(), reason: "".into() }))).await;
    bo.end().await;
    while !door.metric("veilgate_room_rooms 0") {
        tokio::task::yield_now().await;
    }
    assert!(door.metric("veilgate_room_joins_total{result=\"ok\"} 2"));
    assert!(door.metric("veilgate_room_connections_closed_total{reason=\"left\"} 2"));
}

#[tokio::test]
async fn broken_line_resumes_on_another() {
    let door = door();
    let (ada, joined) = door.join(&Claims::all("ada")).await;
    let (mut bo, _) = door.join(&Claims::all("bo")).await;
    // As `close()` without a code does.
    let mut ada = ada;
    ada.send(Message::Close(None)).await;
    ada.end().await;
    let mut back = door.open().await;
    let resume = joined["resume"].as_str();
    back.say(&join_message(&token(&Claims::all("ada")), resume)).await;
    let again = back.hear().await;
    assert_eq!((&again["resumed"], &again["participant"]), (&json!(true), &joined["participant"]));
    // The token was good once; to join without it is still possible on the same line.
    let mut late = door.open().await;
    late.say(&join_message(&token(&Claims::all("ada")), resume)).await;
    let refused = late.hear().await;
    assert_eq!((&refused["code"], &refused["id"]), (&json!("resume_unknown"), &json!(1)));
    late.say(&join_message(&token(&Claims::all("ada")), None)).await;
    assert_eq!(late.hear().await["resumed"], false);
    // Somebody else's is no better than none.
    let mut thief = door.open().await;
    let stolen = again["resume"].as_str();
    thief.say(&join_message(&token(&Claims::all("thief")), stolen)).await;
    assert_eq!(thief.hear().await["code"], "resume_unknown");
    assert_eq!(bo.wait_for("participant_joined").await["name"], "Ada");
    assert!(door.metric("veilgate_room_joins_total{result=\"resume_unknown\"} 2"));
}

#[tokio::test]
async fn who_resumes_takes_the_line_over() {
    let door = door();
    let (mut ada, joined) = door.join(&Claims::all("ada")).await;
    let mut back = door.open().await;
    back.say(&join_message(&token(&Claims::all("ada")), joined["resume"].as_str())).await;
    assert_eq!(back.hear().await["resumed"], true);
    assert_eq!(ada.end().await.1, 4411);
    back.say(&json!({"type": "ping", "id": 1})).await;
    assert_eq!(back.hear().await, json!({"type": "pong", "id": 1}));
}

#[tokio::test]
async fn kicked_and_stopped_are_told_before_the_close() {
    let door = door();
    let (mut ada, _) = door.join(&Claims::all("ada")).await;
    let (mut bo, joined) = door.join(&Claims::plain("bo")).await;
    ada.say(&json!({"type": "kick", "participant": joined["participant"]})).await;
    let (heard, code) = bo.end().await;
    assert_eq!((heard[0]["type"].as_str(), code), (Some("kicked"), 4410));
    let mut again = door.open().await;
    again.say(&join_message(&token(&Claims::plain("bo")), None)).await;
    let (heard, code) = again.end().await;
    assert_eq!((heard[0]["code"].as_str(), code), (Some("kicked"), 4410));
    door.rooms.stop();
    let (heard, code) = ada.end().await;
    assert_eq!((only(&heard, "closing")["reason"].as_str(), code), (Some("draining"), 1001));
}

#[tokio::test]
async fn tokens_that_do_not_open_the_room_are_refused_with_their_code() {
    let door = door();
    let elsewhere = Claims { publish: vec!["attic/*"], play: vec![], ..Claims::all("ada") };
    let foreign = http_support::keys("k1", b"another secret, of 32 bytes as well");
    let forged = Claims::all("ada").token(&foreign, Unix::from_secs(NOW));
    let old = Claims::all("ada").token(&our_keys(), Unix::from_secs(NOW - 7_200));
    for (token, code, close) in [
        (token(&elsewhere), "not_granted", 4403),
        (forged, "token_bad_signature", 4401),
        (old, "token_expired", 4401),
        ("nonsense".to_owned(), "token_malformed", 4401),
    ] {
        let mut client = door.open().await;
        client.say(&join_message(&token, None)).await;
        let (heard, closed) = client.end().await;
        assert_eq!((heard[0]["code"].as_str(), closed), (Some(code), close));
    }
    *door.fake.refusal.lock().expect("not poisoned") = Some(Refusal::Draining);
    assert!(matches!(door.try_open(None).await, Err(Error::Http(r)) if r.status() == 503));
}

#[tokio::test]
async fn full_gateway_refuses_and_closes() {
    let door = door_with(Config::default(), 1);
    let (_ada, _) = door.join(&Claims::all("ada")).await;
    let mut bo = door.open().await;
    bo.say(&join_message(&token(&Claims::all("bo")), None)).await;
    let (heard, code) = bo.end().await;
    assert_eq!((heard[0]["code"].as_str(), code), (Some("full"), 4503));
}

#[tokio::test]
async fn what_is_no_message_closes_with_a_code_that_says_so() {
    let door = door();
    let (mut bystander, _) = door.join(&Claims::all("bystander")).await;
    let giant = json!({"type": "data", "data": "x".repeat(64 * 1024)}).to_string();
    let deep = format!("{}1{}", "[".repeat(20_000), "]".repeat(20_000));
    let cases: [(Message, u64); 8] = [
        (Message::text("hello"), 4400),
        (Message::text("[]"), 4400),
        (Message::text("{}"), 4400),
        (Message::text(r#"{"type": 7}"#), 4400),
        (Message::text(deep), 4400),
        (Message::binary(vec![1, 2, 3]), 1003),
        (Message::text(giant.clone()), 1009),
        (Message::text("x".repeat(8 << 20)), 1009),
    ];
    for joined in [false, true] {
        for (message, code) in &cases {
            let mut client =
                if joined { door.join(&Claims::all("ada")).await.0 } else { door.open().await };
            // A giant is closed upon before it has arrived.
            let _cut_off = client.socket.send(message.clone()).await;
            assert_eq!(client.end().await.1, *code, "{message:.60?}");
        }
    }
    bystander.say(&json!({"type": "ping", "id": 9})).await;
    assert_eq!(bystander.wait_for("pong").await["id"], 9);
}

/// Below what a WebSocket library would send.
#[tokio::test]
async fn broken_frames_close_with_a_protocol_error() {
    let door = door();
    let masked = |opcode: u8, payload: &[u8]| {
        let mut frame =
            vec![opcode, 0x80 | u8::try_from(payload.len()).expect("short"), 0, 0, 0, 0];
        frame.extend_from_slice(payload);
        frame
    };
    for (frame, code) in [
        (vec![0x81, 0x02, b'{', b'}'], 1002_u16),
        (masked(0x83, b"{}"), 1002),
        (masked(0xc1, b"{}"), 1002),
        (masked(0x80, b"{}"), 1002),
        (masked(0x81, &[0xff, 0xfe]), 1007),
    ] {
        let mut line = door.line(4_096);
        let request = "GET /v1/signal HTTP/1.1\r\nHost: gw.example\r\nConnection: Upgrade\r\n\
            Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
            Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        line.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(line.read_u8().await.expect("an answer"));
        }
        assert!(answer.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&answer));
        line.write_all(&frame).await.expect("sent");
        let mut closed = [0; 4];
        line.read_exact(&mut closed).await.expect("a close frame");
        assert_eq!(closed[0], 0x88, "{frame:x?}");
        assert_eq!(u16::from_be_bytes([closed[2], closed[3]]), code, "{frame:x?}");
    }
}

#[tokio::test]
async fn wrong_order_is_refused_and_may_be_mended() {
    let door = door();
    let mut client = door.open().await;
    for message in [
        json!({"type": "publish", "id": 5, "stream": "x", "sdp": "v=0"}),
        json!({"type": "leave", "id": 5}),
        json!({"type": "chat", "id": 5, "text": "hello"}),
    ] {
        client.say(&message).await;
        let heard = client.hear().await;
        assert_eq!((&heard["code"], &heard["id"]), (&json!("join_first"), &json!(5)));
    }
    client.text(r#"{"type": "join", "id": 6, "token": "x", "room": "../x"}"#).await;
    assert_eq!(client.hear().await["code"], "bad_name");
    client.text(r#"{"type": "join", "id": 6, "token": "x"}"#).await;
    assert_eq!(client.hear().await["code"], "bad_message");
    client.say(&join_message(&token(&Claims::all("ada")), None)).await;
    assert_eq!(client.hear().await["type"], "joined");
    client.say(&join_message(&token(&Claims::all("ada")), None)).await;
    assert_eq!(client.hear().await["code"], "already_joined");
}

#[tokio::test]
async fn flood_is_closed_and_others_go_on() {
    let door = door();
    let (mut bystander, _) = door.join(&Claims::all("bystander")).await;
    for joined in [false, true] {
        let mut client = match joined {
            true => door.join(&Claims::all("ada")).await.0,
            false => door.open().await,
        };
        let flood = async {
            for _ in 0..400 {
                if client.socket.send(Message::text(r#"{"type":"ping"}"#)).await.is_err() {
                    break;
                }
            }
        };
        // It reads nothing meanwhile, which is no way out either.
        let _stuck = tokio::time::timeout(Duration::from_secs(20), flood).await;
        let (heard, code) = client.end().await;
        assert_eq!(code, 4429);
        assert!(heard.len() <= 200, "{}", heard.len());
    }
    bystander.say(&json!({"type": "ping", "id": 1})).await;
    bystander.wait_for("pong").await;
    // At its pace it may go on for ever.
    let (mut calm, _) = door.join(&Claims::all("calm")).await;
    for _ in 0..300 {
        *door.fake.elapsed.lock().expect("not poisoned") += Duration::from_millis(20);
        calm.say(&json!({"type": "ping"})).await;
        assert_eq!(calm.hear().await["type"], "pong");
    }
}

#[tokio::test]
async fn silent_client_is_closed_before_and_after_it_joined() {
    let patience = Patience {
        join: Duration::from_millis(200),
        ping: Duration::from_millis(50),
        ..Patience::default()
    };
    let door = door_with(Config { patience, ..Config::default() }, 10);
    assert_eq!(door.open().await.end().await, (Vec::new(), 4408));
    // It neither says anything nor answers a ping: frames are read by hand.
    let (client, _) = door.join(&Claims::all("ada")).await;
    let mut line = client.socket.into_inner();
    let mut pings = 0;
    let code = loop {
        let (first, length) = (line.read_u8().await.expect("a frame"), line.read_u8().await);
        let mut payload = vec![0; usize::from(length.expect("a length"))];
        line.read_exact(&mut payload).await.expect("a payload");
        match first {
            0x89 => pings += 1,
            0x88 => break u16::from_be_bytes([payload[0], payload[1]]),
            other => panic!("{other:x}"),
        }
    };
    assert_eq!((pings, code), (3, 4408));
    // One that answers pings, as every library does on its own, stays.
    let (mut alive, _) = door.join(&Claims::all("bo")).await;
    let waited = tokio::time::timeout(Duration::from_millis(600), alive.hear()).await;
    assert!(waited.is_err(), "{waited:?}");
}

#[tokio::test]
async fn reader_that_does_not_read_is_cut_off_and_the_others_are_not() {
    let door = door();
    let mut request = "ws://gw.example/v1/signal".into_client_request().expect("a request");
    request.headers_mut().remove("origin");
    // A line that holds little: what is not read stays in the gateway.
    let (socket, _) =
        tokio_tungstenite::client_async(request, door.line(2_048)).await.expect("a WebSocket");
    let mut slow = Client { socket };
    slow.say(&join_message(&token(&Claims::plain("slow")), None)).await;
    assert_eq!(slow.hear().await["type"], "joined");
    let (mut ada, _) = door.join(&Claims::all("ada")).await;
    let (mut bo, _) = door.join(&Claims::plain("bo")).await;
    let text = "x".repeat(1_900);
    for n in 1..=200_u32 {
        *door.fake.elapsed.lock().expect("not poisoned") += Duration::from_millis(200);
        ada.say(&json!({"type": "chat", "id": n, "text": text})).await;
        assert_eq!(ada.wait_for("ok").await["id"], n);
        bo.wait_for("chat").await;
    }
    let (heard, code) = slow.end().await;
    assert_eq!(code, 4413);
    assert!(heard.len() < 10, "the rest was dropped: {}", heard.len());
}

#[tokio::test]
async fn pages_of_other_origins_open_one_only_where_cors_would_let_them() {
    let listed = Origins::Listed(vec!["https://app.example".to_owned()]);
    for (origins, origin, allowed) in [
        (Origins::Any, "https://evil.example", true),
        (Origins::SameOrigin, "https://gw.example", true),
        (Origins::SameOrigin, "http://gw.example", false),
        (Origins::SameOrigin, "https://gw.example.evil.example", false),
        (Origins::SameOrigin, "null", false),
        (listed.clone(), "https://app.example", true),
        (listed.clone(), "https://gw.example", true),
        (listed.clone(), "https://evil.example", false),
    ] {
        let door = door_with(Config { origins, ..Config::default() }, 10);
        let opened = door.try_open(Some(origin)).await;
        match opened {
            Ok(_) => assert!(allowed, "{origin}"),
            Err(Error::Http(answer)) => {
                assert!(!allowed && answer.status() == 403, "{origin}: {answer:?}");
            }
            Err(error) => panic!("{origin}: {error}"),
        }
    }
    let door = door_with(Config { origins: listed, ..Config::default() }, 10);
    door.try_open(None).await.expect("who is no browser has no origin");
}

#[tokio::test]
async fn plain_request_is_told_to_upgrade() {
    let door = door();
    let answer = send(door.router.clone(), bare("GET", "/v1/signal", &[])).await;
    assert_eq!((answer.status.as_u16(), answer.code().as_str()), (426, "upgrade_required"));
    assert_eq!(answer.header("upgrade"), "websocket");
    let answer = send(door.router.clone(), bare("POST", "/v1/signal", &[])).await;
    assert_eq!(answer.status.as_u16(), 405);
}
