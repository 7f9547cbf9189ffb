//! Data channels beside what a publisher sends, or alone.

use super::{AnswerPlan, Refusal, check_security, publish};
use crate::session::data::MAX_MESSAGE;
use crate::wire::media::TrackSpec;
use crate::wire::sdp::{Answer, MediaSection, Offer, Section, SectionKind};

/// As [`publish`], and the offer's first section of data channels is taken too; an offer of
/// nothing else is fine. True when there are data channels.
///
/// # Errors
/// [`Refusal`].
pub fn publish_with_data(offer: &Offer) -> Result<(Vec<TrackSpec>, AnswerPlan, bool), Refusal> {
    let place = offer.media.iter().position(is_data);
    let (tracks, mut plan) = match publish(offer) {
        Err(Refusal::NoCodec(_)) if place.is_some() => {
            check_security(offer)?;
            (Vec::new(), nothing(offer))
        }
        other => other?,
    };
    let taken = place.is_some_and(|place| plan.take_data(offer, place));
    if !taken && tracks.is_empty() {
        let text = "the section of data channels is not in the a=group:BUNDLE";
        return Err(Refusal::BadSdp(text.to_owned()));
    }
    Ok((tracks, plan, taken))
}

fn is_data(media: &MediaSection) -> bool {
    let sctp = |protocol| matches!(protocol, "UDP/DTLS/SCTP" | "DTLS/SCTP");
    media.kind == SectionKind::Application
        && !media.disabled
        && media.protocol.is_some_and(|protocol| sctp(protocol.name()))
}

/// An answer that rejects everything.
fn nothing(offer: &Offer) -> AnswerPlan {
    let rejected = |media: &MediaSection| Section::Rejected {
        kind: media.kind,
        protocol: media.protocol,
        mid: media.mid.clone(),
    };
    let sections = offer.media.iter().map(rejected).collect();
    AnswerPlan { answer: Answer { sections, bundle: Vec::new() } }
}

impl AnswerPlan {
    /// Takes the offer's section at `place`; false when it would need a transport of its own.
    fn take_data(&mut self, offer: &Offer, place: usize) -> bool {
        let alone = self.answer.sections.iter().all(|s| matches!(s, Section::Rejected { .. }));
        let mid = offer.media.get(place).and_then(|media| media.mid.clone());
        let bundled = mid.as_ref().is_some_and(|mid| offer.bundle.contains(mid));
        let Some(section) = self.answer.sections.get_mut(place).filter(|_| bundled || alone) else {
            return false;
        };
        *section = Section::Data { mid: mid.clone(), max_message: MAX_MESSAGE };
        let kept = |of: &&String| self.answer.bundle.contains(of) || mid.as_ref() == Some(*of);
        self.answer.bundle = offer.bundle.iter().filter(kept).cloned().collect();
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALONE: &str =
        include_str!("../../../tests/data/sdp/node-datachannel-0.33.4-datachannel.sdp");

    fn offer(text: &str) -> Offer {
        let text = text.lines().map(|l| format!("{l}\r\n")).collect::<String>();
        Offer::parse(&text).expect("valid")
    }

    fn answer(plan: &AnswerPlan) -> String {
        let media = ["203.0.113.9:20000".parse().expect("valid")];
        plan.answer_sdp("ourfragment", "ourpasswordourpassword", "sha-256 AA", &media)
    }

    #[test]
    fn an_offer_of_data_channels_alone_is_taken() {
        let (tracks, plan, data) = publish_with_data(&offer(ALONE)).expect("taken");
        assert!(data && tracks.is_empty());
        let answer = answer(&plan);
        assert!(answer.contains("m=application 20000 UDP/DTLS/SCTP webrtc-datachannel\r\n"));
        assert!(answer.contains("a=sctp-port:5000\r\na=max-message-size:65536\r\n"), "{answer}");
        assert!(answer.contains("a=group:BUNDLE 0\r\n"), "{answer}");
    }

    #[test]
    fn without_them_it_is_publishing_as_ever() {
        let text = ALONE.replace("m=application", "m=text");
        let refused = publish_with_data(&offer(&text)).map(|(_, _, data)| data);
        assert_eq!(refused, publish(&offer(&text)).map(|_| false));
    }

    #[test]
    fn data_channels_need_a_fingerprint_as_media_does() {
        let text: String = ALONE
            .lines()
            .filter(|line| !line.contains("fingerprint"))
            .map(|line| format!("{line}\r\n"))
            .collect();
        let refused = publish_with_data(&offer(&text)).map(|(_, _, data)| data);
        assert_eq!(refused, Err(Refusal::NoFingerprint));
    }
}
