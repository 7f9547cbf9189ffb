//! Writing an offer of ours: what a playing connection carries.

use std::fmt::{self, Write as _};
use std::net::{IpAddr, SocketAddr};

use super::answer::write_candidates;
use super::{AnsweredCodec, AnsweredExtension, Direction, SectionKind, Transport};

/// An offer of ours, but for our transport.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct OwnOffer {
    /// The version in `o=`: grows with each offer of a session (RFC 8866 section 5.2).
    pub version: u32,
    /// The sections; the first open one is the bundle's tagged one.
    pub sections: Vec<OwnSection>,
}

/// One m-section of an offer of ours.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OwnSection {
    /// Audio or video.
    pub kind: SectionKind,
    /// Its `a=mid`.
    pub mid: String,
    /// Port 0, to be recycled (RFC 8829 section 5.2.2): its media is only there because some
    /// clients (aiortc) want to agree on a codec and a transport even so.
    pub closed: bool,
    /// What it says.
    pub media: OwnMedia,
}

/// What a section of an offer of ours says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OwnMedia {
    /// The codec, then its RTX.
    pub codecs: Vec<AnsweredCodec>,
    /// Header extensions.
    pub extensions: Vec<AnsweredExtension>,
    /// What we send; `None`: the section is inactive.
    pub track: Option<OwnTrack>,
}

/// A track we offer to send.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OwnTrack {
    /// Its SSRC.
    pub ssrc: u32,
    /// The SSRC of its retransmissions.
    pub rtx_ssrc: Option<u32>,
    /// Our CNAME (RFC 7022).
    pub cname: String,
    /// The id of its MediaStream (RFC 8830): tracks of one stay in step.
    pub stream: String,
    /// The id of its MediaStreamTrack.
    pub label: String,
}

impl OwnOffer {
    /// The SDP.
    #[must_use]
    pub fn write(&self, transport: &Transport<'_>) -> String {
        let mut out = String::with_capacity(512 + 1_024 * self.sections.len());
        // Writing to a String cannot fail.
        let _infallible = self.write_to(&mut out, transport);
        out
    }

    fn write_to(&self, out: &mut String, transport: &Transport<'_>) -> fmt::Result {
        write!(out, "v=0\r\no=- {} {} IN IP4 0.0.0.0\r\n", transport.session, self.version)?;
        out.write_str("s=-\r\nt=0 0\r\na=ice-lite\r\na=group:BUNDLE")?;
        for section in self.sections.iter().filter(|section| !section.closed) {
            write!(out, " {}", section.mid)?;
        }
        out.write_str("\r\na=msid-semantic: WMS *\r\n")?;
        for section in &self.sections {
            section.write(out, transport)?;
        }
        Ok(())
    }
}

impl OwnSection {
    fn write(&self, out: &mut String, transport: &Transport<'_>) -> fmt::Result {
        let Self { kind, mid, closed, media } = self;
        // The default destination is the first candidate (RFC 8839 section 4.2.1.2).
        let default = transport.candidates.first().filter(|_| !closed);
        let port = if *closed { 0 } else { default.map_or(9, SocketAddr::port) };
        write!(out, "m={} {port} UDP/TLS/RTP/SAVPF", kind.name())?;
        for codec in &media.codecs {
            write!(out, " {}", codec.pt)?;
        }
        match default.map(SocketAddr::ip) {
            Some(IpAddr::V6(ip)) => write!(out, "\r\nc=IN IP6 {ip}\r\n")?,
            Some(IpAddr::V4(ip)) => write!(out, "\r\nc=IN IP4 {ip}\r\n")?,
            None => out.write_str("\r\nc=IN IP4 0.0.0.0\r\n")?,
        }
        write!(out, "a=ice-ufrag:{}\r\na=ice-pwd:{}\r\n", transport.ufrag, transport.pwd)?;
        // RFC 8842 section 5.2: every offer says actpass, later ones too.
        write!(out, "a=fingerprint:{}\r\na=setup:actpass\r\n", transport.fingerprint)?;
        let direction =
            if media.track.is_some() { Direction::SendOnly } else { Direction::Inactive };
        write!(out, "a=mid:{mid}\r\na={}\r\n", direction.name())?;
        out.write_str("a=rtcp-mux\r\na=rtcp-rsize\r\n")?;
        for codec in &media.codecs {
            codec.write(out)?;
        }
        for extension in &media.extensions {
            write!(out, "a=extmap:{} {}\r\n", extension.id, extension.uri)?;
        }
        if let Some(track) = &media.track {
            track.write(out)?;
        }
        if *closed { Ok(()) } else { write_candidates(out, transport.candidates) }
    }
}

impl OwnTrack {
    fn write(&self, out: &mut String) -> fmt::Result {
        let Self { cname, stream, label, .. } = self;
        write!(out, "a=msid:{stream} {label}\r\n")?;
        if let Some(rtx) = self.rtx_ssrc {
            write!(out, "a=ssrc-group:FID {} {rtx}\r\n", self.ssrc)?;
        }
        for ssrc in [Some(self.ssrc), self.rtx_ssrc].into_iter().flatten() {
            write!(out, "a=ssrc:{ssrc} cname:{cname}\r\n")?;
            write!(out, "a=ssrc:{ssrc} msid:{stream} {label}\r\n")?;
        }
        Ok(())
    }
}
