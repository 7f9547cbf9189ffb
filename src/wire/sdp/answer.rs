//! Writing an answer.

use std::fmt::{self, Write as _};
use std::net::{IpAddr, SocketAddr};

use super::{Direction, Feedback, Protocol, SectionKind};

/// Everything an answer says but our transport: one section for each of the offer, in its order.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Answer {
    /// The sections.
    pub sections: Vec<Section>,
    /// Mids that share our one transport (RFC 9143); the first is the tagged one.
    pub bundle: Vec<String>,
}

/// One m-section of an answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Section {
    /// Port 0 (RFC 3264 section 6).
    Rejected {
        /// As offered.
        kind: SectionKind,
        /// As offered; `None` stands for words we do not know.
        protocol: Option<Protocol>,
        /// As offered.
        mid: Option<String>,
    },
    /// On our transport.
    Accepted(Box<Accepted>),
    /// Data channels on our transport (RFC 8841).
    Data {
        /// As offered.
        mid: Option<String>,
        /// Longest message we take, bytes.
        max_message: usize,
    },
}

/// An m-section on our transport.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Accepted {
    /// As offered.
    pub kind: SectionKind,
    /// As offered.
    pub protocol: Protocol,
    /// As offered.
    pub mid: Option<String>,
    /// From our side.
    pub direction: Direction,
    /// Reduced-size RTCP (RFC 5506).
    pub rtcp_rsize: bool,
    /// The codec, then its RTX.
    pub codecs: Vec<AnsweredCodec>,
    /// Header extensions.
    pub extensions: Vec<AnsweredExtension>,
    /// `a=extmap-allow-mixed` (RFC 8285 section 6), where offered and of use.
    pub extmap_allow_mixed: bool,
    /// Simulcast layers we receive (RFC 8853), as offered.
    pub rids: Vec<String>,
    /// What we send, if we do.
    pub outgoing: Option<Outgoing>,
}

/// A payload type of an answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AnsweredCodec {
    /// The offer's payload type.
    pub pt: u8,
    /// The encoding's name.
    pub name: &'static str,
    /// RTP clock rate, Hz.
    pub clock: u32,
    /// Channels; written when more than one.
    pub channels: u8,
    /// Parameters: keys and values of checked characters only.
    pub fmtp: Vec<(String, String)>,
    /// RTCP feedback.
    pub feedback: Feedback,
}

/// A header extension of an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AnsweredExtension {
    /// The offer's id.
    pub id: u8,
    /// From our side, where the offer restricted it.
    pub direction: Option<Direction>,
    /// What it is.
    pub uri: &'static str,
}

/// A track we send.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outgoing {
    /// Its SSRC.
    pub ssrc: u32,
    /// The SSRC of its retransmissions.
    pub rtx_ssrc: Option<u32>,
    /// Our CNAME (RFC 7022): also names the MediaStream, so that audio and video stay in step.
    pub cname: String,
}

/// Our side of the transport, the same in every m-section: some clients look only at one.
#[derive(Clone, Copy, Debug)]
pub struct Transport<'a> {
    /// `o=` session id.
    pub session: u64,
    /// Our ICE user fragment.
    pub ufrag: &'a str,
    /// Our ICE password.
    pub pwd: &'a str,
    /// Our certificate's fingerprint, `sha-256 AA:BB:…`.
    pub fingerprint: &'a str,
    /// Our media addresses, in order of preference; the first is the default destination.
    pub candidates: &'a [SocketAddr],
}

impl Answer {
    /// The SDP.
    #[must_use]
    pub fn write(&self, transport: &Transport<'_>) -> String {
        let mut out = String::with_capacity(512 + 1_024 * self.sections.len());
        // Writing to a String cannot fail.
        let _infallible = self.write_to(&mut out, transport);
        out
    }

    fn write_to(&self, out: &mut String, transport: &Transport<'_>) -> fmt::Result {
        write!(out, "v=0\r\no=- {} 1 IN IP4 0.0.0.0\r\n", transport.session)?;
        out.write_str("s=-\r\nt=0 0\r\na=ice-lite\r\n")?;
        if !self.bundle.is_empty() {
            write!(out, "a=group:BUNDLE {}\r\n", self.bundle.join(" "))?;
        }
        for (index, section) in self.sections.iter().enumerate() {
            match section {
                Section::Rejected { kind, protocol, mid } => {
                    let format = match kind {
                        SectionKind::Application => "webrtc-datachannel",
                        _ => "0",
                    };
                    let protocol = protocol.map_or("RTP/AVP", Protocol::name);
                    write!(out, "m={} 0 {protocol} {format}\r\n", kind.name())?;
                    out.write_str("c=IN IP4 0.0.0.0\r\na=inactive\r\n")?;
                    write_mid(out, mid.as_deref())?;
                }
                Section::Accepted(accepted) => accepted.write(out, index, transport)?,
                Section::Data { mid, max_message } => {
                    transport.write_head(
                        out,
                        "application",
                        "UDP/DTLS/SCTP",
                        "webrtc-datachannel",
                    )?;
                    write_mid(out, mid.as_deref())?;
                    write!(out, "a=sctp-port:5000\r\na=max-message-size:{max_message}\r\n")?;
                    write_candidates(out, transport.candidates)?;
                }
            }
        }
        Ok(())
    }
}

impl Transport<'_> {
    /// The `m=` and `c=` lines and our side of ICE and DTLS.
    fn write_head(
        &self,
        out: &mut String,
        kind: &str,
        protocol: &str,
        formats: &str,
    ) -> fmt::Result {
        // The default destination is the first candidate (RFC 8839 section 4.2.1.2).
        let port = self.candidates.first().map_or(9, SocketAddr::port);
        write!(out, "m={kind} {port} {protocol} {formats}\r\n")?;
        match self.candidates.first().map(SocketAddr::ip) {
            Some(IpAddr::V6(ip)) => write!(out, "c=IN IP6 {ip}\r\n")?,
            Some(IpAddr::V4(ip)) => write!(out, "c=IN IP4 {ip}\r\n")?,
            None => out.write_str("c=IN IP4 0.0.0.0\r\n")?,
        }
        write!(out, "a=ice-ufrag:{}\r\na=ice-pwd:{}\r\n", self.ufrag, self.pwd)?;
        write!(out, "a=fingerprint:{}\r\na=setup:passive\r\n", self.fingerprint)
    }
}

impl Accepted {
    fn write(&self, out: &mut String, index: usize, transport: &Transport<'_>) -> fmt::Result {
        let formats: Vec<_> = self.codecs.iter().map(|codec| codec.pt.to_string()).collect();
        let protocol = self.protocol.name();
        transport.write_head(out, self.kind.name(), protocol, &formats.join(" "))?;
        write_mid(out, self.mid.as_deref())?;
        write!(out, "a={}\r\na=rtcp-mux\r\n", self.direction.name())?;
        if self.rtcp_rsize {
            out.write_str("a=rtcp-rsize\r\n")?;
        }
        for codec in &self.codecs {
            codec.write(out)?;
        }
        if self.extmap_allow_mixed {
            out.write_str("a=extmap-allow-mixed\r\n")?;
        }
        for extension in &self.extensions {
            write!(out, "a=extmap:{}", extension.id)?;
            if let Some(direction) = extension.direction {
                write!(out, "/{}", direction.name())?;
            }
            write!(out, " {}\r\n", extension.uri)?;
        }
        for rid in &self.rids {
            write!(out, "a=rid:{rid} recv\r\n")?;
        }
        if !self.rids.is_empty() {
            write!(out, "a=simulcast:recv {}\r\n", self.rids.join(";"))?;
        }
        if let Some(outgoing) = &self.outgoing {
            outgoing.write(out, index)?;
        }
        write_candidates(out, transport.candidates)
    }
}

impl AnsweredCodec {
    pub(super) fn write(&self, out: &mut String) -> fmt::Result {
        write!(out, "a=rtpmap:{} {}/{}", self.pt, self.name, self.clock)?;
        if self.channels > 1 {
            write!(out, "/{}", self.channels)?;
        }
        out.write_str("\r\n")?;
        let feedback = [
            (self.feedback.remb, "goog-remb"),
            (self.feedback.transport_cc, "transport-cc"),
            (self.feedback.fir, "ccm fir"),
            (self.feedback.nack, "nack"),
            (self.feedback.pli, "nack pli"),
        ];
        for (_, name) in feedback.into_iter().filter(|(on, _)| *on) {
            write!(out, "a=rtcp-fb:{} {name}\r\n", self.pt)?;
        }
        for (index, (key, value)) in self.fmtp.iter().enumerate() {
            match index {
                // Not of the form key=value, as of RED.
                0 if key.is_empty() => write!(out, "a=fmtp:{} {value}", self.pt)?,
                0 => write!(out, "a=fmtp:{} {key}={value}", self.pt)?,
                _ => write!(out, ";{key}={value}")?,
            }
        }
        if self.fmtp.is_empty() { Ok(()) } else { out.write_str("\r\n") }
    }
}

impl Outgoing {
    fn write(&self, out: &mut String, index: usize) -> fmt::Result {
        let cname = &self.cname;
        write!(out, "a=msid:{cname} {cname}-{index}\r\n")?;
        if let Some(rtx) = self.rtx_ssrc {
            write!(out, "a=ssrc-group:FID {} {rtx}\r\n", self.ssrc)?;
        }
        for ssrc in [Some(self.ssrc), self.rtx_ssrc].into_iter().flatten() {
            write!(out, "a=ssrc:{ssrc} cname:{cname}\r\n")?;
            write!(out, "a=ssrc:{ssrc} msid:{cname} {cname}-{index}\r\n")?;
        }
        Ok(())
    }
}

fn write_mid(out: &mut String, mid: Option<&str>) -> fmt::Result {
    mid.map_or(Ok(()), |mid| write!(out, "a=mid:{mid}\r\n"))
}

pub(super) fn write_candidates(out: &mut String, candidates: &[SocketAddr]) -> fmt::Result {
    for (index, candidate) in (0_u32..).zip(candidates) {
        // RFC 8445 section 5.1.2.1: host (126), falling local preference, component 1.
        let local = 65_535_u32.saturating_sub(index);
        let priority = (126 << 24) | (local << 8) | 255;
        let (ip, port) = (candidate.ip(), candidate.port());
        write!(out, "a=candidate:{} 1 udp {priority} {ip} {port} typ host\r\n", index + 1)?;
    }
    out.write_str("a=end-of-candidates\r\n")
}
