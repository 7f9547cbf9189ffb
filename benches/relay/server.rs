//! The two servers: started alike, each on the server's core, with secrets in files of a folder
//! that goes with them, and measured from outside.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tempfile::TempDir;
use veilgate::auth::token::{TokenKeys, TokenRequest};
use veilgate::auth::turn::{Class, Key, Keys, Mint};
use veilgate::time::Unix;

pub const REALM: &str = "bench";
const METRICS: u16 = 9_641;
/// Both start within a second.
const START_TRIES: usize = 200;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Coturn,
    Veilgate,
}

impl Kind {
    pub const BOTH: [Self; 2] = [Self::Coturn, Self::Veilgate];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Coturn => "coturn",
            Self::Veilgate => "veilgate",
        }
    }

    pub const fn address(self) -> SocketAddrV4 {
        let port = match self {
            Self::Coturn => 3_478,
            Self::Veilgate => 3_479,
        };
        SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)
    }
}

/// A running server.
pub struct Server {
    process: Child,
    secret: String,
    token: Vec<u8>,
    now: u64,
    _folder: TempDir,
}

/// What a server has used so far.
#[derive(Clone, Copy)]
pub struct Used {
    /// CPU of all its threads, user and system, nanoseconds.
    pub cpu: u64,
    /// Resident memory, bytes.
    pub rss: u64,
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(())
}

impl Server {
    /// Starts one; its threads inherit the core of the thread that calls this.
    pub fn start(kind: Kind) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let secret = format!("{:032x}", rand::random::<u128>());
        let token = rand::random::<[u8; 32]>().to_vec();
        let command = match kind {
            Kind::Coturn => coturn(folder.path(), &secret)?,
            Kind::Veilgate => veilgate(folder.path(), &secret, &token)?,
        };
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
        let process = spawn(command)?;
        let mut server = Self { process, secret, token, now, _folder: folder };
        for _ in 0..START_TRIES {
            if let Some(status) = server.process.try_wait()? {
                bail!("{} ended at its start: {status}", kind.name());
            }
            if is_ready(kind) {
                return Ok(server);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        bail!("{} does not answer", kind.name())
    }

    /// The name and the password of a TURN REST credential: both servers take it.
    pub fn rest(&self, user: usize) -> (String, String) {
        let username = format!("{}:user{user}", self.now + 86_400);
        let key = aws_lc_rs::hmac::Key::new(
            aws_lc_rs::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            self.secret.as_bytes(),
        );
        let password = STANDARD.encode(aws_lc_rs::hmac::sign(&key, username.as_bytes()));
        (username, password)
    }

    /// A token for all streams.
    #[allow(dead_code, reason = "for the forwarder's bench")]
    pub fn token(&self, user: usize) -> anyhow::Result<String> {
        let key = Key { id: "t1".to_owned(), secret: self.token.clone() };
        let request = TokenRequest {
            subject: Some(format!("user{user}")),
            publish: vec!["bench/*".to_owned()],
            play: vec!["bench/*".to_owned()],
            ttl: Duration::from_secs(7_200),
            ..TokenRequest::default()
        };
        Ok(TokenKeys::new(vec![key])?.mint(Unix::from_secs(self.now), &request, "bench")?)
    }

    /// A credential as veilgate mints them.
    pub fn sealed(&self, user: usize, room: Option<&str>) -> anyhow::Result<(String, String)> {
        let key = Key { id: "k1".to_owned(), secret: self.secret.clone().into_bytes() };
        let mint = Mint {
            subject: &format!("user{user}"),
            room,
            class: if room.is_some() { Class::Room } else { Class::Forwarder },
            ttl: Duration::from_secs(7_200),
            session_limit: Duration::from_secs(7_200),
        };
        let mut nonce = [0; 12];
        nonce[..8].copy_from_slice(&(user as u64).to_be_bytes());
        let minted = Keys::new(vec![key])?.mint(Unix::from_secs(self.now), &mint, nonce)?;
        Ok((minted.username, minted.credential))
    }

    /// Resident memory once it stands still: allocators give back late.
    pub fn settled(&self) -> anyhow::Result<u64> {
        let mut rss = self.used()?.rss;
        for _ in 0..20 {
            std::thread::sleep(Duration::from_millis(150));
            let now = self.used()?.rss;
            if now == rss {
                break;
            }
            rss = now;
        }
        Ok(rss)
    }

    pub fn used(&self) -> anyhow::Result<Used> {
        let process = format!("/proc/{}", self.process.id());
        let mut cpu = 0;
        for task in fs::read_dir(format!("{process}/task"))? {
            let text = fs::read_to_string(task?.path().join("schedstat"))?;
            cpu += text.split(' ').next().unwrap_or_default().parse::<u64>()?;
        }
        let status = fs::read_to_string(format!("{process}/status"))?;
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib: u64 = rss.context("VmRSS")?.trim().trim_end_matches(" kB").parse()?;
        Ok(Used { cpu, rss: 1_024 * kib })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn spawn(mut command: Command) -> anyhow::Result<Child> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let name = command.get_program().to_string_lossy().into_owned();
    command.spawn().with_context(|| format!("{name} does not start"))
}

/// Asks as a client would, so that both are waited for alike.
fn is_ready(kind: Kind) -> bool {
    if kind == Kind::Veilgate {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, METRICS));
        let Ok(mut stream) = stream else { return false };
        let mut answer = String::new();
        let asked = stream.write_all(b"GET /readyz HTTP/1.0\r\n\r\n");
        return asked.is_ok()
            && stream.read_to_string(&mut answer).is_ok()
            && answer.split(' ').nth(1) == Some("200");
    }
    let ask = || -> std::io::Result<usize> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.connect(kind.address())?;
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        // A Binding request.
        let mut request = [0; 20];
        request[..8].copy_from_slice(&[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42]);
        socket.send(&request)?;
        socket.recv(&mut [0; 256])
    };
    ask().is_ok()
}

/// As lean as it goes: no TLS, no TCP, no logs, one thread for the relaying.
fn coturn(folder: &Path, secret: &str) -> anyhow::Result<Command> {
    let file = folder.join("turnserver.conf");
    let text = format!(
        "listening-ip=127.0.0.1\nlistening-port={}\nrelay-ip=127.0.0.1\nmin-port=10000\n\
         max-port=65535\nrealm={REALM}\nuse-auth-secret\nstatic-auth-secret={secret}\n\
         allow-loopback-peers\nno-tls\nno-dtls\nno-tcp\nno-cli\nno-stun-backward-compatibility\n\
         relay-threads=1\nno-stdout-log\nlog-file=/dev/null\npidfile={folder}/pid\n\
         userdb={folder}/turndb\nno-multicast-peers\n",
        Kind::Coturn.address().port(),
        folder = folder.display(),
    );
    write(&file, &text)?;
    // It needs a descriptor for each allocation.
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n $(ulimit -Hn) && exec turnserver -c \"$0\""]).arg(file);
    Ok(command)
}

fn veilgate(folder: &Path, secret: &str, token: &[u8]) -> anyhow::Result<Command> {
    let made = rcgen::generate_simple_self_signed(["bench.invalid".to_owned()])?;
    write(&folder.join("cert.pem"), &made.cert.pem())?;
    write(&folder.join("key.pem"), &made.signing_key.serialize_pem())?;
    write(&folder.join("turn.keys"), &format!("k1:{}\n", STANDARD.encode(secret)))?;
    write(&folder.join("token.keys"), &format!("t1:{}\n", STANDARD.encode(token)))?;
    let file = folder.join("veilgate.yaml");
    let text = format!(
        "public: {{ ip: 127.0.0.1 }}\n\
         listen: {{ udp: '127.0.0.1:{}', https: '127.0.0.1:8443', metrics: '127.0.0.1:{METRICS}' }}\n\
         relay:\n  realm: {REALM}\n  limits: {{ allocations_per_subject: 100000, \
         allocations_total: 1000000, packets_per_second: 10000000, bits_per_second: 4000000000 }}\n\
         auth: {{ turn_keys_file: turn.keys, token_keys_file: token.keys, plain_rest: true }}\n\
         tls: {{ certificate: cert.pem, key: key.pem }}\nshards: 1\nlog: {{ level: warn }}\n",
        Kind::Veilgate.address().port(),
    );
    write(&file, &text)?;
    let binary = env!("CARGO_BIN_EXE_veilgate");
    ensure!(Path::new(binary).exists(), "{binary} is not there");
    let mut command = Command::new(binary);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("VEILGATE_") {
            command.env_remove(name);
        }
    }
    command.arg("serve").arg("--config").arg(file);
    Ok(command)
}
