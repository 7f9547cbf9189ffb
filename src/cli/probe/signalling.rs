//! `GET /v1/ice`: a credential for who has a token, nothing for anybody else, and over TLS.

use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, CACHE_CONTROL, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Client, Response, StatusCode, Url};

use super::report::Row;
use super::target::{IceServer, read_ice_server};

/// An answer of more bytes is none of `/v1/ice`.
const LARGEST_ANSWER: usize = 64 * 1024;

/// What the gateway hands out, and whether it does so as it should.
pub(super) async fn ask(
    base: &Url,
    token: &str,
    tls: &Arc<rustls::ClientConfig>,
    patience: Duration,
) -> (Option<IceServer>, Vec<Row>) {
    let mut rows = Vec::new();
    let made = Client::builder()
        .tls_backend_preconfigured((**tls).clone())
        .https_only(true)
        // A redirect would take the token elsewhere.
        .redirect(Policy::none())
        .timeout(patience * 2)
        .build();
    let (Ok(client), Ok(url)) = (made, base.join("/v1/ice")) else {
        rows.push(Row::fail("https", "no HTTPS client can be made for this URL"));
        return (None, rows);
    };
    match client.get(url.clone()).send().await {
        Ok(answer) => {
            rows.push(Row::ok("https", "the certificate is trusted"));
            rows.push(without_token(answer.status()));
        }
        Err(error) => {
            rows.push(Row::fail("https", explain(&error, base)));
            return (None, rows);
        }
    }
    let Ok(mut bearer) = HeaderValue::from_str(&format!("Bearer {token}")) else {
        rows.push(Row::fail("ice", "the token file does not hold a token"));
        return (None, rows);
    };
    bearer.set_sensitive(true);
    match client.get(url).header(AUTHORIZATION, bearer).send().await {
        Ok(answer) => {
            let server = with_token(answer, &mut rows).await;
            (server, rows)
        }
        Err(error) => {
            rows.push(Row::fail("ice", explain(&error, base)));
            (None, rows)
        }
    }
}

fn without_token(status: StatusCode) -> Row {
    const CHECK: &str = "ice-closed";
    match status.as_u16() {
        401 | 403 => Row::ok(CHECK, format!("{} without a token", status.as_u16())),
        404 => Row::fail(CHECK, "404 for /v1/ice: is this a veilgate gateway?"),
        code if status.is_success() => {
            Row::fail(CHECK, format!("{code} without a token: anybody gets a credential, stop it"))
        }
        code => Row::fail(CHECK, format!("{code} without a token, where 401 is due")),
    }
}

async fn with_token(mut answer: Response, rows: &mut Vec<Row>) -> Option<IceServer> {
    const CHECK: &str = "ice";
    let status = answer.status();
    if !status.is_success() {
        let told = match status.as_u16() {
            401 | 403 => "the token is refused: expired, revoked, or of another gateway".to_owned(),
            503 => "503: the gateway is draining or full".to_owned(),
            code => format!("{code} for /v1/ice: is this a veilgate gateway?"),
        };
        rows.push(Row::fail(CHECK, told));
        return None;
    }
    let stored = answer.headers().get(CACHE_CONTROL).is_none_or(|value| value != "no-store");
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = answer.chunk().await {
        body.extend_from_slice(&chunk);
        if body.len() > LARGEST_ANSWER {
            break;
        }
    }
    let Some(server) = read_ice_server(&body) else {
        rows.push(Row::fail(CHECK, "what comes is no RTCConfiguration"));
        return None;
    };
    let policy = serde_json::from_slice::<serde_json::Value>(&body).ok();
    let policy = policy.as_ref().and_then(|body| body.get("iceTransportPolicy")?.as_str());
    let foreign = server.urls.iter().find(|url| !url.starts_with("turn"));
    rows.push(if stored {
        Row::fail(CHECK, "a credential without `Cache-Control: no-store`: a proxy may keep it")
    } else if policy != Some("relay") {
        Row::fail(CHECK, "iceTransportPolicy is not \"relay\": clients would show their addresses")
    } else if let Some(url) = foreign {
        Row::fail(CHECK, format!("{url} is handed out: it would show clients' addresses"))
    } else if server.urls.is_empty() {
        Row::fail(CHECK, "no TURN URL is handed out")
    } else {
        Row::ok(CHECK, format!("a credential for {}", server.urls.join(" ")))
    });
    Some(server)
}

/// The innermost reason, without the URL, and what to do.
pub(in crate::cli) fn explain(error: &reqwest::Error, base: &Url) -> String {
    let mut reason = String::new();
    let mut next: Option<&dyn std::error::Error> = std::error::Error::source(error);
    while let Some(cause) = next {
        reason = cause.to_string();
        next = cause.source();
    }
    let port = base.port_or_known_default().unwrap_or(443);
    if error.is_timeout() {
        format!("not reachable: no answer in time: open TCP {port} in the firewalls on the way")
    } else if reason.contains("certificate") {
        format!("{reason}: for a private authority give --ca FILE")
    } else if reason.is_empty() {
        format!("not reachable on TCP {port}")
    } else {
        format!("not reachable on TCP {port}: {reason}")
    }
}
