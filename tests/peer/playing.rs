//! The client's end of a playing connection: the gateway offers, this answers.

use std::collections::HashMap;
use std::time::Duration;

use veilgate::control::{PlayOffer, PlayingId};
use veilgate::ids::StreamName;
use veilgate::wire::rtp::Rtp;

use super::gateway::{Gateway, MEDIA};
use super::{Identity, Peer, Remote};

pub const UFRAG: &str = "roomufrag";

/// An m-section of an offer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Section {
    pub kind: String,
    pub mid: String,
    /// Neither port 0 nor inactive.
    pub sends: bool,
    pub port: u16,
    pub ssrc: Option<u32>,
    pub rtx: Option<u32>,
    pub payloads: Vec<u8>,
    pub lines: Vec<String>,
}

pub fn sections(sdp: &str) -> Vec<Section> {
    let mut all: Vec<Section> = Vec::new();
    for line in sdp.lines() {
        if let Some(m) = line.strip_prefix("m=") {
            let words: Vec<_> = m.split(' ').collect();
            all.push(Section {
                kind: words[0].to_owned(),
                port: words[1].parse().expect("a port"),
                payloads: words[3..].iter().map(|pt| pt.parse().expect("a number")).collect(),
                ..Section::default()
            });
        }
        let Some(section) = all.last_mut() else { continue };
        section.lines.push(line.to_owned());
        if let Some(mid) = line.strip_prefix("a=mid:") {
            section.mid = mid.to_owned();
        }
        if let Some(rest) = line.strip_prefix("a=ssrc-group:FID ") {
            section.rtx = rest.split(' ').nth(1).map(|it| it.parse().expect("a number"));
        }
        if let Some(rest) = line.strip_prefix("a=ssrc:") {
            let ssrc = rest.split(' ').next().expect("a word").parse().expect("a number");
            section.ssrc.get_or_insert(ssrc);
        }
        section.sends |= line == "a=sendonly";
    }
    all
}

/// As a browser answers: what is offered is taken.
pub fn answer(offer: &str, fingerprint: &str) -> String {
    let sections = sections(offer);
    let bundle: Vec<_> = sections.iter().filter(|s| s.port != 0).map(|s| s.mid.as_str()).collect();
    let mut sdp = format!(
        "v=0\r\no=- 7 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE {}\r\n",
        bundle.join(" ")
    );
    for section in &sections {
        let payloads: Vec<_> = section.payloads.iter().map(u8::to_string).collect();
        let port = if section.port == 0 { 0 } else { 9 };
        sdp.push_str(&format!(
            "m={} {port} UDP/TLS/RTP/SAVPF {}\r\nc=IN IP4 0.0.0.0\r\na=mid:{}\r\n",
            section.kind,
            payloads.join(" "),
            section.mid
        ));
        if port == 0 {
            sdp.push_str("a=inactive\r\n");
            continue;
        }
        let direction = if section.sends { "recvonly" } else { "inactive" };
        sdp.push_str(&format!(
            "a=ice-ufrag:{UFRAG}\r\na=ice-pwd:0123456789abcdef01234567\r\n\
             a=fingerprint:{fingerprint}\r\na=setup:active\r\na={direction}\r\na=rtcp-mux\r\n"
        ));
        let kept = ["a=rtpmap:", "a=fmtp:", "a=rtcp-fb:", "a=extmap:"];
        for line in section.lines.iter().filter(|line| kept.iter().any(|k| line.starts_with(k))) {
            sdp.push_str(&format!("{line}\r\n"));
        }
    }
    sdp
}

/// A participant's playing connection.
pub struct Participant {
    pub id: PlayingId,
    pub identity: Identity,
    pub peer: Option<Peer>,
    pub remote: Option<Remote>,
    /// The last offer.
    pub offer: Option<PlayOffer>,
    pub subject: String,
}

pub fn names(streams: &[&str]) -> Vec<StreamName> {
    streams.iter().map(|name| name.parse().expect("a name")).collect()
}

impl Participant {
    pub fn open(gateway: &Gateway, subject: &str, room: &str) -> Self {
        let who = Gateway::principal(subject);
        let id = gateway.control.open_playing(&who, room).expect("room for it");
        let subject = subject.to_owned();
        Self { id, identity: Identity::new(), peer: None, remote: None, offer: None, subject }
    }

    /// Says what is wanted; true when that made an offer.
    pub fn want(&mut self, gateway: &Gateway, streams: &[&str]) -> bool {
        let offer = gateway.control.subscribe_playing(&self.id, names(streams)).expect("it lives");
        let made = offer.is_some();
        self.offer = offer.or_else(|| self.offer.take());
        made
    }

    /// Answers the last offer, and every one that follows.
    pub fn answer(&mut self, gateway: &Gateway) {
        let mut next = self.offer.clone();
        while let Some(offer) = next {
            let sdp = answer(&offer.sdp, &self.identity.fingerprint);
            self.remote = Some(Remote::from_answer(&offer.sdp));
            let answered = gateway.control.answer_playing(&self.id, offer.revision, &sdp);
            next = answered.unwrap_or_else(|error| panic!("{error}\n{sdp}\n{}", offer.sdp));
            self.offer = Some(next.clone().unwrap_or(offer));
        }
    }

    /// Wants and answers.
    pub fn take(&mut self, gateway: &Gateway, streams: &[&str]) {
        if self.want(gateway, streams) {
            self.answer(gateway);
        }
    }

    /// The transport, after the first answer.
    pub fn connect(&mut self, gateway: &mut Gateway) {
        let minted = gateway.mint(&self.subject);
        let mut peer = Peer::allocate(gateway.udp, MEDIA, &minted);
        peer.connect(&self.identity, UFRAG, self.remote.as_ref().expect("answered"));
        self.peer = Some(peer);
    }

    /// The SSRC on which the last offer sends a stream's video.
    pub fn video_of(&self, stream: &str) -> Option<u32> {
        let offer = self.offer.as_ref()?;
        let track = offer.tracks.iter().find(|track| {
            track.stream.as_str() == stream && track.kind == veilgate::wire::media::MediaKind::Video
        })?;
        sections(&offer.sdp).into_iter().find(|s| s.mid == track.mid)?.ssrc
    }

    /// RTP packets by SSRC, until none comes for `wait`; without those of padding alone, which look
    /// for what the path carries.
    pub fn heard(&mut self, wait: Duration) -> HashMap<u32, usize> {
        let mut heard = HashMap::new();
        while let Some(packet) = self.peer.as_mut().expect("connected").recv_media(wait) {
            let padding = Rtp::parse(&packet).is_ok_and(|rtp| rtp.payload().is_empty());
            if !(192..=223).contains(&packet[1]) && !padding {
                *heard.entry(ssrc_of(&packet)).or_default() += 1;
            }
        }
        heard
    }

    /// Waits for an RTP packet of an SSRC.
    pub fn hears(&mut self, ssrc: u32) -> Vec<u8> {
        let peer = self.peer.as_mut().expect("connected");
        loop {
            let packet = peer.recv_media(Duration::from_secs(5)).expect("media in time");
            if !(192..=223).contains(&packet[1]) && ssrc_of(&packet) == ssrc {
                return packet;
            }
        }
    }
}

pub fn ssrc_of(rtp: &[u8]) -> u32 {
    u32::from_be_bytes([rtp[8], rtp[9], rtp[10], rtp[11]])
}
