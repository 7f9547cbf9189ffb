//! Writing a description: every byte is ours, a number, or of checked characters.

use std::fmt::{self, Write as _};
use std::net::SocketAddr;

use super::super::Setup;
use super::codecs::{Codec, Value};
use super::{Content, Description, Fault, MAX_WRITTEN, Section};

/// What stands where a client's own names stood.
#[derive(Clone, Copy, Debug)]
pub struct Names<'a> {
    /// `o=` session id.
    pub session: u64,
    /// The MediaStream of all tracks, so that sound and picture stay in step.
    pub stream: &'a str,
}

impl Description {
    /// The SDP for the other side.
    ///
    /// # Errors
    /// [`Fault::TooLong`].
    pub fn write(&self, names: Names<'_>) -> Result<String, Fault> {
        let mut out = String::with_capacity(4_096);
        // Writing to a String cannot fail.
        let _infallible = self.write_to(&mut out, names);
        if out.len() > MAX_WRITTEN { Err(Fault::TooLong) } else { Ok(out) }
    }

    fn write_to(&self, out: &mut String, names: Names<'_>) -> fmt::Result {
        write!(out, "v=0\r\no=- {} 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n", names.session)?;
        out.write_str("a=group:BUNDLE")?;
        for section in self.sections.iter().filter(|s| s.content != Content::Rejected) {
            write!(out, " {}", section.mid)?;
        }
        out.write_str("\r\na=msid-semantic: WMS *\r\n")?;
        for (index, section) in self.sections.iter().enumerate() {
            match &section.content {
                Content::Rejected => section.write_rejected(out)?,
                Content::Media { direction, rtcp_rsize, codecs, extensions } => {
                    let formats = codecs.iter().map(|codec| codec.pt.to_string());
                    self.write_head(out, section, &formats.collect::<Vec<_>>().join(" "))?;
                    write!(out, "a={}\r\na=rtcp-mux\r\n", direction.name())?;
                    if *rtcp_rsize {
                        out.write_str("a=rtcp-rsize\r\n")?;
                    }
                    for codec in codecs {
                        codec.write(out)?;
                    }
                    for extension in extensions {
                        write!(out, "a=extmap:{}", extension.id)?;
                        if let Some(direction) = extension.direction {
                            write!(out, "/{}", direction.name())?;
                        }
                        write!(out, " {}\r\n", extension.uri)?;
                    }
                    if direction.sends() {
                        write!(out, "a=msid:{0} {0}-{index}\r\n", names.stream)?;
                    }
                    self.write_candidates(out)?;
                }
                Content::Data { port, max_message } => {
                    self.write_head(out, section, "webrtc-datachannel")?;
                    write!(out, "a=sctp-port:{port}\r\na=max-message-size:{max_message}\r\n")?;
                    self.write_candidates(out)?;
                }
            }
        }
        Ok(())
    }

    /// The transport stands in every section: some clients look only at one.
    fn write_head(&self, out: &mut String, section: &Section, formats: &str) -> fmt::Result {
        let protocol = section.protocol.map_or("UDP/TLS/RTP/SAVPF", |protocol| protocol.name());
        // RFC 8840 section 4.1.1: port 9 and no address, the candidates say where.
        write!(out, "m={} 9 {protocol} {formats}\r\n", section.kind.name())?;
        out.write_str("c=IN IP4 0.0.0.0\r\n")?;
        write!(out, "a=ice-ufrag:{}\r\na=ice-pwd:{}\r\n", self.ufrag, self.pwd)?;
        for fingerprint in &self.fingerprints {
            write!(out, "a=fingerprint:{} ", fingerprint.algorithm.name())?;
            for (index, byte) in fingerprint.bytes.iter().enumerate() {
                write!(out, "{}{byte:02X}", if index == 0 { "" } else { ":" })?;
            }
            out.write_str("\r\n")?;
        }
        let setup = match self.setup {
            Setup::Active => "active",
            Setup::Passive => "passive",
            Setup::Actpass | Setup::Holdconn => "actpass",
        };
        write!(out, "a=setup:{setup}\r\na=mid:{}\r\n", section.mid)
    }

    fn write_candidates(&self, out: &mut String) -> fmt::Result {
        for (index, candidate) in (0_u32..).zip(&self.candidates) {
            // RFC 8445 section 5.1.2.1: relayed (0), falling local preference, component 1.
            let priority = 65_535_u32.saturating_sub(index) << 8 | 255;
            let (ip, port) = (candidate.ip(), candidate.port());
            let none = if matches!(candidate, SocketAddr::V4(_)) { "0.0.0.0" } else { "::" };
            write!(out, "a=candidate:{} 1 udp {priority} {ip} {port} typ relay ", index + 1)?;
            write!(out, "raddr {none} rport 0\r\n")?;
        }
        out.write_str("a=end-of-candidates\r\n")
    }
}

impl Section {
    fn write_rejected(&self, out: &mut String) -> fmt::Result {
        let (protocol, format) = match self.kind.name() {
            "application" => ("UDP/DTLS/SCTP", "webrtc-datachannel"),
            _ => ("UDP/TLS/RTP/SAVPF", "0"),
        };
        let protocol = self.protocol.map_or(protocol, |protocol| protocol.name());
        write!(out, "m={} 0 {protocol} {format}\r\n", self.kind.name())?;
        write!(out, "c=IN IP4 0.0.0.0\r\na=inactive\r\na=mid:{}\r\n", self.mid)
    }
}

impl Codec {
    fn write(&self, out: &mut String) -> fmt::Result {
        write!(out, "a=rtpmap:{} {}/{}", self.pt, self.name, self.clock)?;
        if self.channels > 1 {
            write!(out, "/{}", self.channels)?;
        }
        out.write_str("\r\n")?;
        for feedback in self.feedback() {
            write!(out, "a=rtcp-fb:{} {feedback}\r\n", self.pt)?;
        }
        if self.name == "telephone-event" {
            return write!(out, "a=fmtp:{} 0-15\r\n", self.pt);
        }
        if !self.redundant.is_empty() {
            let list: Vec<_> = self.redundant.iter().map(u8::to_string).collect();
            return write!(out, "a=fmtp:{} {}\r\n", self.pt, list.join("/"));
        }
        for (index, (key, value)) in self.parameters.iter().enumerate() {
            match index {
                0 => write!(out, "a=fmtp:{} {key}=", self.pt)?,
                _ => write!(out, ";{key}=")?,
            }
            match value {
                Value::Number(number) => write!(out, "{number}")?,
                Value::Level([a, b, c]) => write!(out, "{a:02x}{b:02x}{c:02x}")?,
                Value::Word(word) => out.write_str(word)?,
            }
        }
        if self.parameters.is_empty() { Ok(()) } else { out.write_str("\r\n") }
    }
}
