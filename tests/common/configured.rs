//! A gateway with a configuration of its own, in a network of its own.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{Gateway, HTTPS_PORT, METRICS_PORT, Network, UDP_PORT};

/// The secret of the only TURN key, as text: what a back end with a shared secret is given.
pub const TURN_SECRET: &str = "a-secret-that-is-shared-with-jitsi";
/// The admin key.
pub const ADMIN_KEY: &str = "an-admin-key-of-more-than-32-characters";

/// The file of a gateway's configuration.
pub fn file(gateway: &Gateway) -> PathBuf {
    gateway.folder().join("veilgate.yaml")
}

/// Starts a gateway that says it is at `public` and is at `ip`, with `more` of its
/// configuration: what stands by two spaces belongs to `auth`.
pub fn start(network: Network, public: &str, ip: &str, more: &str) -> Gateway {
    start_behind(network, public, ip, "[]", more)
}

/// As [`start`], behind load balancers at `proxies`.
pub fn start_behind(
    network: Network,
    public: &str,
    ip: &str,
    proxies: &str,
    more: &str,
) -> Gateway {
    let folder = tempfile::tempdir().expect("a folder");
    let path = prepare(folder.path(), public, ip, more);
    let text = fs::read_to_string(&path).expect("just written");
    fs::write(&path, text.replace("proxy_from: []", &format!("proxy_from: {proxies}")))
        .expect("written");
    let arguments = ["serve", "--config", path.to_str().expect("utf-8")].map(str::to_owned);
    let (gateway, died) = Gateway::launch(network, folder, &arguments);
    gateway.wait_until_ready(&died, false);
    gateway
}

/// Writes that configuration, its keys and a certificate; the configuration's path.
pub fn prepare(folder: &Path, public: &str, ip: &str, more: &str) -> PathBuf {
    use base64::Engine as _;
    let write = |name: &str, text: &str| {
        fs::write(folder.join(name), text).expect("written");
    };
    let secret = base64::engine::general_purpose::STANDARD.encode(TURN_SECRET);
    write("turn.keys", &format!("k1:{secret}\n"));
    let other = base64::engine::general_purpose::STANDARD.encode([7; 32]);
    write("token.keys", &format!("t1:{other}\n"));
    write("admin.key", &format!("{ADMIN_KEY}\n"));
    let made = rcgen::generate_simple_self_signed([ip.to_owned()]).expect("a certificate");
    write("chain.pem", &made.cert.pem());
    write("key.pem", &made.signing_key.serialize_pem());
    let config = format!(
        "\
public: {{ ip: {public} }}
listen:
  {{ udp: '{ip}:{UDP_PORT}', https: '{ip}:{HTTPS_PORT}', metrics: '127.0.0.1:{METRICS_PORT}',
    proxy_from: [] }}
tls: {{ certificate: chain.pem, key: key.pem }}
auth:
  turn_keys_file: turn.keys
  token_keys_file: token.keys
  admin_key_file: admin.key
{more}"
    );
    write("veilgate.yaml", &config);
    folder.join("veilgate.yaml")
}

/// A credential of a class, minted by the command line with the gateway's keys.
pub fn mint(gateway: &Gateway, class: &str) -> (String, String) {
    let path = file(gateway);
    let config = path.to_str().expect("utf-8");
    let text = gateway.cli(&[
        "turn",
        "mint",
        "--subject",
        "jitsi",
        "--class",
        class,
        "--config",
        config,
        "--json",
    ]);
    let server: Value = serde_json::from_str(&text).expect("json");
    let field = |name: &str| server[name].as_str().expect("a text").to_owned();
    (field("username"), field("credential"))
}
