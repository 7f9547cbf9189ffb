//! `veilgate bridge` beside its clients, and a recorder between it and the gateway.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::{Gateway, collect, need, veilgate};

/// Where its clients find it.
pub const BRIDGE: &str = "http://127.0.0.1:8889";
/// Where the recorder listens, beside the bridge.
const RECORDER: &str = "127.0.0.1:9443";
const PATIENCE: Duration = Duration::from_secs(30);

/// A bridge under way, in the clients' namespace. Dropped, it is killed.
#[derive(Debug)]
pub struct Bridge {
    process: Child,
    events: Receiver<Value>,
    log: Arc<Mutex<String>>,
    printed: Arc<Mutex<String>>,
    token: String,
}

/// The arguments of a bridge to `gateway` with a token of its own.
pub fn arguments(gateway: &Gateway, token: &str) -> Vec<String> {
    let file = gateway.folder().join("bridge.token");
    fs::write(&file, format!("{token}\n")).expect("written");
    let ca = gateway.note()["ca"].as_str().expect("ca").to_owned();
    let file = file.to_str().expect("utf-8").to_owned();
    ["bridge", "--json", "--gateway", &gateway.page(), "--token-file", &file, "--ca", &ca]
        .map(str::to_owned)
        .to_vec()
}

impl Bridge {
    /// Starts one that goes straight to the gateway, and waits until it is ready.
    pub fn start(gateway: &Gateway, more: &[&str]) -> Self {
        let token = gateway.token();
        Self::launch(gateway, arguments(gateway, &token), token, more)
    }

    /// Starts one that believes the recorder to be the gateway.
    pub fn behind(recorder: &Recorder, gateway: &Gateway, more: &[&str]) -> Self {
        let token = gateway.token();
        let all = Self::to_recorder(recorder, gateway, &token);
        Self::launch(gateway, all, token, more)
    }

    /// As [`Self::behind`], without a token of its own.
    pub fn without_token(recorder: &Recorder, gateway: &Gateway) -> Self {
        let token = gateway.token();
        let mut all = Self::to_recorder(recorder, gateway, &token);
        let at = all.iter().position(|argument| argument == "--token-file").expect("given");
        all.drain(at..at + 2);
        Self::launch(gateway, all, token, &[])
    }

    fn to_recorder(recorder: &Recorder, gateway: &Gateway, token: &str) -> Vec<String> {
        let mut all = arguments(gateway, token);
        for (flag, value) in
            [("--gateway", format!("https://{RECORDER}")), ("--ca", recorder.ca(gateway))]
        {
            let at = all.iter().position(|argument| argument == flag).expect("given");
            all[at + 1] = value;
        }
        all
    }

    fn launch(gateway: &Gateway, mut all: Vec<String>, token: String, more: &[&str]) -> Self {
        all.extend(more.iter().map(|&argument| argument.to_owned()));
        let mut command = veilgate();
        command.args(&all).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = gateway.network.as_client(|| command.spawn()).expect("the bridge starts");
        let log = Arc::new(Mutex::new(String::new()));
        collect(process.stderr.take().expect("piped"), &log, None);
        let stdout = BufReader::new(process.stdout.take().expect("piped"));
        let (sender, events) = channel();
        let printed = Arc::new(Mutex::new(String::new()));
        let kept = Arc::clone(&printed);
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                kept.lock().unwrap_or_else(PoisonError::into_inner).push_str(&line);
                let event = serde_json::from_str(&line).unwrap_or(Value::String(line));
                if sender.send(event).is_err() {
                    return;
                }
            }
        });
        let bridge = Self { process, events, log, printed, token };
        bridge.event("ready");
        bridge
    }

    /// The next event, which must be of this kind.
    pub fn event(&self, kind: &str) -> Value {
        let got = self.events.recv_timeout(PATIENCE).unwrap_or_else(|error| {
            panic!("the bridge said nothing where \"{kind}\" was due ({error}):\n{}", self.log())
        });
        assert_eq!(got["event"], kind, "{got:#}\n{}", self.log());
        got
    }

    /// The next event, if there is one already.
    pub fn next_event(&self) -> Option<Value> {
        self.events.try_recv().ok()
    }

    /// What it said on stderr.
    pub fn log(&self) -> String {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks it to stop, as Ctrl-C does; its exit code. Its token has been seen nowhere.
    pub fn interrupt(mut self) -> i32 {
        let pid = self.process.id().to_string();
        let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).expect("it runs");
        assert!(!line.contains(&self.token), "a token in argv");
        let status = Command::new("kill").args(["-INT", &pid]).status().expect("kill runs");
        assert!(status.success());
        let code = self.process.wait().expect("it ends").code().expect("by itself");
        let printed = self.printed.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for text in [printed, self.log()] {
            assert!(!text.contains(&self.token), "a token in what the bridge says");
        }
        code
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if thread::panicking() {
            eprintln!("--- what the bridge said ---\n{}", self.log());
        }
    }
}

/// `curl` to the bridge: status, headers in lower case, body.
pub fn local(gateway: &Gateway, path: &str, args: &[&str]) -> (u16, String, String) {
    need("curl", "curl");
    let mut command = Command::new("curl");
    command.args(["-sS", "-i", "--max-time", "25", &format!("{BRIDGE}{path}")]).args(args);
    let output: Output = gateway.network.as_client(|| command.output()).expect("curl runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let problem = String::from_utf8_lossy(&output.stderr);
    let (head, body) = text
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("no answer from the bridge: {problem}{text}"));
    let status = head.split_whitespace().nth(1).and_then(|word| word.parse().ok());
    (status.expect("a status"), head.to_ascii_lowercase(), body.to_owned())
}

/// Posts an offer of GStreamer's, with the addresses of a machine that runs it.
pub fn post_offer(gateway: &Gateway, name: &str, more: &[&str]) -> (u16, String, String) {
    let offer = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/sdp/gstreamer1.22-sendonly.sdp");
    let body = format!("@{offer}");
    let args = ["--data-binary", &body, "-H", "Content-Type: application/sdp"];
    local(gateway, &format!("/whip/{name}"), &[&args, more].concat())
}

/// The local path of the session in an answer's headers.
pub fn location(head: &str) -> String {
    let line = head.lines().find_map(|line| line.strip_prefix("location: "));
    line.unwrap_or_else(|| panic!("no Location in {head}")).trim().to_owned()
}

/// A request that the gateway got.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: Method,
    pub path: String,
    pub headers: HeaderMap,
    pub body: String,
}

/// The content type of a `PATCH` and of its answer.
pub const FRAGMENT: &str = "application/trickle-ice-sdpfrag";
/// What the recorder, in the gateway's place, answers a `PATCH`: an ICE restart.
const RESTARTED: &str = "a=ice-lite\r\nm=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\n\
    a=ice-ufrag:anew\r\na=ice-pwd:0123456789012345678901\r\n\
    a=candidate:1 1 udp 2130706431 10.78.0.1 20000 typ host\r\na=end-of-candidates\r\n";

/// Passes HTTPS on to the gateway and keeps what it sees: what leaves the bridge, as the gateway
/// gets it.
pub struct Recorder {
    seen: Arc<Mutex<Vec<Seen>>>,
    ca: String,
    // Its threads live in the clients' namespace, and end with it.
    _runtime: tokio::runtime::Runtime,
}

#[derive(Clone)]
struct Between {
    seen: Arc<Mutex<Vec<Seen>>>,
    gateway: String,
    client: reqwest::Client,
    /// Handed out by `/v1/ice` in place of the gateway's fields of the same name.
    server: Option<Value>,
}

impl Recorder {
    /// Starts one; fields of `server` replace those of the TURN server that the bridge is told of.
    pub fn start(gateway: &Gateway, server: Option<Value>) -> Self {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("made");
        let chain = vec![made.cert.der().clone()];
        let key = rustls_pki_types::PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("a certificate");
        let authority = fs::read(gateway.note()["ca"].as_str().expect("ca")).expect("the CA");
        let authority = reqwest::Certificate::from_pem(&authority).expect("PEM");
        let client = reqwest::Client::builder().tls_certs_only([authority]).build();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let between = Between {
            seen: Arc::clone(&seen),
            gateway: gateway.page().trim_end_matches('/').to_owned(),
            client: client.expect("a client"),
            server,
        };
        let router = axum::Router::new().fallback(pass).with_state(between);
        let runtime = gateway.network.as_client(|| {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .expect("a thread");
            let tcp = runtime.block_on(TcpListener::bind(RECORDER)).expect("bound");
            let listener = Tls { tcp, acceptor: TlsAcceptor::from(Arc::new(tls)) };
            runtime.spawn(async move { axum::serve(listener, router).await });
            runtime
        });
        Self { seen, ca: made.cert.pem(), _runtime: runtime }
    }

    fn ca(&self, gateway: &Gateway) -> String {
        let file = gateway.folder().join("recorder.pem");
        fs::write(&file, &self.ca).expect("written");
        file.to_str().expect("utf-8").to_owned()
    }

    /// Requests by this method to paths that begin so.
    pub fn seen(&self, method: &Method, path: &str) -> Vec<Seen> {
        let all = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |seen: &&Seen| seen.method == *method && seen.path.starts_with(path);
        all.iter().filter(fits).cloned().collect()
    }
}

async fn pass(
    State(between): State<Between>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    between.seen.lock().unwrap_or_else(PoisonError::into_inner).push(Seen {
        method: method.clone(),
        path: path.to_owned(),
        headers: headers.clone(),
        body: String::from_utf8_lossy(&body).into_owned(),
    });
    if method == Method::PATCH {
        let kind = [(header::CONTENT_TYPE, FRAGMENT), (header::ETAG, "\"after\"")];
        return (kind, RESTARTED).into_response();
    }
    let mut onward = between.client.request(method, format!("{}{path}", between.gateway));
    for name in [header::AUTHORIZATION, header::CONTENT_TYPE, header::IF_MATCH] {
        if let Some(value) = headers.get(&name) {
            onward = onward.header(name, value);
        }
    }
    let Ok(answer) = onward.body(body).send().await else {
        return StatusCode::BAD_GATEWAY.into_response();
    };
    let (status, mut headers) = (answer.status(), answer.headers().clone());
    headers.remove(header::CONTENT_LENGTH);
    headers.remove(header::TRANSFER_ENCODING);
    let mut body = answer.bytes().await.unwrap_or_default().to_vec();
    if let (Some(fields), true) = (&between.server, path == "/v1/ice" && status.is_success()) {
        let mut ice: Value = serde_json::from_slice(&body).expect("json");
        for (field, value) in fields.as_object().expect("an object") {
            ice["iceServers"][0][field] = value.clone();
        }
        body = ice.to_string().into_bytes();
    }
    (status, headers, body).into_response()
}

struct Tls {
    tcp: TcpListener,
    acceptor: TlsAcceptor,
}

impl axum::serve::Listener for Tls {
    type Io = TlsStream<TcpStream>;
    type Addr = std::net::SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let Ok((stream, from)) = self.tcp.accept().await else { continue };
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, from);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.tcp.local_addr()
    }
}
