//! The few lines of a description that a bridge changes; every other one passes as it came.
//!
//! Towards the gateway: no address, no port, no name of this machine. Towards the client: the
//! bridge's socket where the gateway's media address was. Fingerprints, ufrags and passwords are
//! never touched, so DTLS and ICE are between the client and the gateway.

use std::net::{IpAddr, SocketAddr};

/// What goes out of the machine: an offer, or a fragment of one (RFC 8840).
pub(super) fn outgoing(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let (line, end) = split_end(line);
        let Some(line) = hidden(line) else { continue };
        out.push_str(&line);
        out.push_str(end);
    }
    out
}

/// The line as the gateway may see it.
fn hidden(line: &str) -> Option<String> {
    let (kind, value) = line.split_once('=').unwrap_or((line, ""));
    match kind {
        "o" => {
            // RFC 8866 section 5.2: user name, session, version, then three words of an address.
            let mut words = value.split_ascii_whitespace().skip(1).map(|word| {
                let is_number = !word.is_empty() && word.bytes().all(|b| b.is_ascii_digit());
                if is_number { word } else { "0" }
            });
            let (session, version) = (words.next().unwrap_or("0"), words.next().unwrap_or("0"));
            Some(format!("o=- {session} {version} IN IP4 0.0.0.0"))
        }
        "c" => Some("c=IN IP4 0.0.0.0".to_owned()),
        // Title, URL, mail and telephone of a person.
        "i" | "u" | "e" | "p" => None,
        "m" => Some(with_port(line, 9)),
        "a" => match value.split(':').next().unwrap_or_default() {
            "candidate" | "remote-candidates" | "source-filter" => None,
            "rtcp" => Some("a=rtcp:9 IN IP4 0.0.0.0".to_owned()),
            _ => Some(line.to_owned()),
        },
        _ => Some(line.to_owned()),
    }
}

/// What the gateway answered, for the client.
#[derive(Debug)]
pub(super) struct Incoming {
    pub(super) text: String,
    /// The gateway's media addresses, each once, in its order.
    pub(super) media: Vec<SocketAddr>,
    /// Its ICE user fragments.
    pub(super) ufrags: Vec<String>,
}

/// An answer, or a fragment of one, whose only candidate is `local`.
pub(super) fn incoming(text: &str, local: SocketAddr) -> Incoming {
    let mut found =
        Incoming { text: String::with_capacity(text.len()), media: Vec::new(), ufrags: Vec::new() };
    // One candidate a section, in place of its first one.
    let mut section_has_one = false;
    for line in text.split_inclusive('\n') {
        let (line, end) = split_end(line);
        let (kind, value) = line.split_once('=').unwrap_or((line, ""));
        let changed = match (kind, value.split_once(':').unwrap_or((value, ""))) {
            ("m", _) => {
                section_has_one = false;
                with_port(line, local.port())
            }
            // 0.0.0.0 stays: of a rejected section, or of one that names no default.
            ("c", _) if !value.ends_with(" 0.0.0.0") => connection(local.ip()),
            ("a", ("rtcp", _)) => {
                format!(
                    "a=rtcp:{} {}",
                    local.port(),
                    connection(local.ip()).trim_start_matches("c=")
                )
            }
            ("a", ("candidate", candidate)) => {
                if let Some(address) = udp_address(candidate)
                    && !found.media.contains(&address)
                {
                    found.media.push(address);
                }
                if std::mem::replace(&mut section_has_one, true) {
                    continue;
                }
                // RFC 8445 section 5.1.2.1: host, component 1.
                let (ip, port) = (local.ip(), local.port());
                format!("a=candidate:1 1 udp 2130706431 {ip} {port} typ host")
            }
            ("a", ("ice-ufrag", ufrag)) => {
                let ufrag = ufrag.trim().to_owned();
                if !found.ufrags.contains(&ufrag) {
                    found.ufrags.push(ufrag);
                }
                line.to_owned()
            }
            _ => line.to_owned(),
        };
        found.text.push_str(&changed);
        found.text.push_str(end);
    }
    found
}

fn split_end(line: &str) -> (&str, &str) {
    let bare = line.trim_end_matches(['\r', '\n']);
    line.split_at(bare.len())
}

fn connection(ip: IpAddr) -> String {
    let family = if ip.is_ipv4() { "IP4" } else { "IP6" };
    format!("c=IN {family} {ip}")
}

/// `m=video 50203 UDP/…` with another port; 0 means "not used" and stays.
fn with_port(line: &str, port: u16) -> String {
    let mut words = line.splitn(3, ' ');
    match (words.next(), words.next(), words.next()) {
        (Some(kind), Some(old), Some(rest)) if old != "0" => format!("{kind} {port} {rest}"),
        _ => line.to_owned(),
    }
}

/// `1 1 udp 2130706431 203.0.113.7 20000 typ host`: where to, if it is UDP of component 1.
fn udp_address(candidate: &str) -> Option<SocketAddr> {
    let mut words = candidate.split_ascii_whitespace().skip(1);
    let (component, protocol, _) = (words.next()?, words.next()?, words.next()?);
    let (ip, port) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let fits = component == "1" && protocol.eq_ignore_ascii_case("udp") && port != 0;
    fits.then(|| SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCAL: &str = "127.0.0.1:40000";

    fn local() -> SocketAddr {
        LOCAL.parse().unwrap()
    }

    #[test]
    fn nothing_of_this_machine_leaves_with_an_offer_and_the_rest_is_as_it_came() {
        let offer = "v=0\r\n\
            o=alice 4489045141692799359 2 IN IP4 192.168.7.9\r\n\
            s=-\r\n\
            e=alice@example.org\r\n\
            t=0 0\r\n\
            a=group:BUNDLE 0 1\r\n\
            m=audio 50203 UDP/TLS/RTP/SAVPF 111\r\n\
            c=IN IP4 192.168.7.9\r\n\
            a=rtcp:50204 IN IP4 192.168.7.9\r\n\
            a=candidate:1 1 UDP 2015363327 192.168.7.9 50203 typ host\r\n\
            a=candidate:2 1 UDP 2015363327 fe80::1 50203 typ host\r\n\
            a=candidate:3 1 TCP 1015021823 192.168.7.9 9 typ host tcptype active\r\n\
            a=end-of-candidates\r\n\
            a=ice-ufrag:Sz+O\r\n\
            a=fingerprint:sha-256 60:16\r\n\
            m=video 0 UDP/TLS/RTP/SAVPF 96\r\n\
            c=IN IP6 2001:db8::7\r\n\
            a=bundle-only\r\n";
        assert_eq!(
            outgoing(offer),
            "v=0\r\n\
             o=- 4489045141692799359 2 IN IP4 0.0.0.0\r\n\
             s=-\r\n\
             t=0 0\r\n\
             a=group:BUNDLE 0 1\r\n\
             m=audio 9 UDP/TLS/RTP/SAVPF 111\r\n\
             c=IN IP4 0.0.0.0\r\n\
             a=rtcp:9 IN IP4 0.0.0.0\r\n\
             a=end-of-candidates\r\n\
             a=ice-ufrag:Sz+O\r\n\
             a=fingerprint:sha-256 60:16\r\n\
             m=video 0 UDP/TLS/RTP/SAVPF 96\r\n\
             c=IN IP4 0.0.0.0\r\n\
             a=bundle-only\r\n"
        );
        // A name where a number belongs is an address in another coat.
        assert_eq!(outgoing("o=a 10.0.0.7 x IN IP4 h\n"), "o=- 0 0 IN IP4 0.0.0.0\n");
        assert_eq!(
            outgoing("o=\nm=\nc\na=\n\n"),
            "o=- 0 0 IN IP4 0.0.0.0\nm=\nc=IN IP4 0.0.0.0\na=\n\n"
        );
    }

    #[test]
    fn only_candidate_of_an_answer_is_the_bridge_in_every_section() {
        let answer = "v=0\r\n\
            o=- 1 1 IN IP4 0.0.0.0\r\n\
            m=audio 20000 UDP/TLS/RTP/SAVPF 111\r\n\
            c=IN IP4 203.0.113.7\r\n\
            a=ice-ufrag:gate\r\n\
            a=candidate:1 1 udp 2130706431 203.0.113.7 20000 typ host\r\n\
            a=candidate:2 1 udp 2130706175 2001:db8::7 20000 typ host\r\n\
            a=end-of-candidates\r\n\
            m=video 0 UDP/TLS/RTP/SAVPF 0\r\n\
            c=IN IP4 0.0.0.0\r\n\
            m=video 20000 UDP/TLS/RTP/SAVPF 96\r\n\
            c=IN IP4 203.0.113.7\r\n\
            a=ice-ufrag:gate\r\n\
            a=candidate:1 1 udp 2130706431 203.0.113.7 20000 typ host\r\n";
        let found = incoming(answer, local());
        assert_eq!(
            found.text,
            "v=0\r\n\
             o=- 1 1 IN IP4 0.0.0.0\r\n\
             m=audio 40000 UDP/TLS/RTP/SAVPF 111\r\n\
             c=IN IP4 127.0.0.1\r\n\
             a=ice-ufrag:gate\r\n\
             a=candidate:1 1 udp 2130706431 127.0.0.1 40000 typ host\r\n\
             a=end-of-candidates\r\n\
             m=video 0 UDP/TLS/RTP/SAVPF 0\r\n\
             c=IN IP4 0.0.0.0\r\n\
             m=video 40000 UDP/TLS/RTP/SAVPF 96\r\n\
             c=IN IP4 127.0.0.1\r\n\
             a=ice-ufrag:gate\r\n\
             a=candidate:1 1 udp 2130706431 127.0.0.1 40000 typ host\r\n"
        );
        assert_eq!(found.ufrags, ["gate"]);
        let media: Vec<String> = found.media.iter().map(ToString::to_string).collect();
        assert_eq!(media, ["203.0.113.7:20000", "[2001:db8::7]:20000"]);
    }

    #[test]
    fn candidates_that_lead_nowhere_are_no_media_address() {
        for candidate in [
            "1 1 tcp 1 203.0.113.7 20000 typ host",
            "1 2 udp 1 203.0.113.7 20000 typ host",
            "1 1 udp 1 name.local 20000 typ host",
            "1 1 udp 1 203.0.113.7 0 typ host",
            "1 1 udp 1 203.0.113.7",
            "",
        ] {
            let found = incoming(&format!("m=audio 9 x 1\na=candidate:{candidate}\n"), local());
            assert!(found.media.is_empty(), "{candidate}");
            assert!(found.text.contains(" 127.0.0.1 40000 typ host"), "{}", found.text);
        }
    }

    #[test]
    fn ipv6_loopback_is_written_as_such() {
        let found = incoming("c=IN IP4 203.0.113.7\na=rtcp:1\n", "[::1]:7".parse().unwrap());
        assert_eq!(found.text, "c=IN IP6 ::1\na=rtcp:7 IN IP6 ::1\n");
    }
}
