//! What `PATCH` asks of a session (RFC 9725 section 4.3): trickled candidates, of which nothing is
//! kept, and ICE restarts.

use std::time::Duration;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::api::{Principal, Refusal};
use super::{Control, secret};
use crate::ids::SessionId;
use crate::session::{Generation, IceCredentials, negotiate};
use crate::time::Mono;
use crate::wire::media::TrackSpec;
use crate::wire::sdp::{self, Fragment};

/// A session may restart ICE this often in the long run,
const INTERVAL: Duration = Duration::from_secs(2);
/// and this many times at once.
const BURST: u32 = 5;

/// The `If-Match` of a request (RFC 9110 section 13.1.1).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum IfMatch {
    /// `*`: whichever ICE generation the session is in.
    Any,
    /// One of these strong entity tags, quotes included.
    Tags(Vec<String>),
}

/// What came of a `PATCH`.
#[derive(Clone, PartialEq, Eq)]
pub enum Patched {
    /// Candidates were read and forgotten: whoever wants media reaches us, never we them.
    Trickled,
    /// ICE restarts: the old credentials hold until the client nominates with the new ones.
    Restarted {
        /// Our credentials and candidates, `application/trickle-ice-sdpfrag`.
        fragment: String,
        /// The entity tag of the new ICE generation.
        tag: String,
    },
}

impl std::fmt::Debug for Patched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The fragment holds our ICE password.
        f.write_str(match self {
            Self::Trickled => "Trickled",
            Self::Restarted { .. } => "Restarted(hidden)",
        })
    }
}

/// RFC 9725 section 4.3.1: a strong tag for an ICE generation of a session, quotes included. A
/// hash, so that the tag does not give the session's secret URL away.
#[must_use]
pub fn entity_tag(resource: &str, generation: u32) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(b"veilgate etag\0");
    context.update(&generation.to_be_bytes());
    context.update(resource.as_bytes());
    let tag = URL_SAFE_NO_PAD.encode(context.finish());
    format!("\"{}\"", tag.get(..16).unwrap_or_default())
}

/// ICE of one session, as signalling knows it.
#[derive(Clone, Debug)]
pub(super) struct Ice {
    /// Restarts so far.
    generation: u32,
    /// The client's ufrag, last agreed.
    remote_ufrag: String,
    /// When restarts would have used up their rate.
    busy_until: Mono,
}

impl Ice {
    pub(super) fn new(remote_ufrag: String) -> Self {
        Self { generation: 0, remote_ufrag, busy_until: Mono::ZERO }
    }

    fn matches(&self, resource: &str, expected: &IfMatch) -> bool {
        match expected {
            IfMatch::Any => true,
            IfMatch::Tags(tags) => tags.contains(&entity_tag(resource, self.generation)),
        }
    }

    /// The rate after one more restart, or a refusal.
    fn admit(&self, now: Mono) -> Result<Mono, Refusal> {
        let after = self.busy_until.max(now).plus(INTERVAL);
        if after > now.plus(INTERVAL * BURST) {
            return Err(Refusal::RestartsTooOften);
        }
        Ok(after)
    }
}

impl Control {
    /// Restarts ICE of a publisher that says it with a whole offer: the one of its session but for
    /// the ICE credentials. The answer.
    ///
    /// # Errors
    /// As [`Control::patch`]; what is wrong with the offer; [`Refusal::BadSdp`] when it is of
    /// something else than the session publishes.
    pub fn restart(&self, resource: &str, who: &Principal, sdp: &str) -> Result<String, Refusal> {
        let offer = sdp::Offer::parse(sdp).map_err(negotiate::Refusal::from)?;
        let (tracks, plan, _) = negotiate::publish_with_data(&offer)?;
        let (stream, fingerprint) =
            self.directory(|d| d.published(resource)).ok_or(Refusal::NotFound)?;
        let same = |(new, old): (&TrackSpec, &TrackSpec)| {
            (&new.mid, new.kind, new.codec.name, new.pt)
                == (&old.mid, old.kind, old.codec.name, old.pt)
        };
        let own = &stream.spec.tracks;
        if tracks.len() != own.len() || !tracks.iter().zip(own).all(same) {
            let text = "this offer is not of what is published: publish anew to change that";
            return Err(Refusal::BadSdp(text.to_owned()));
        }
        let now = self.now().mono;
        let local = self.directory(|directory| {
            let (session, handle, ice) =
                directory.ice_of(resource, Some(who)).ok_or(Refusal::NotFound)?;
            if offer.ufrag == ice.remote_ufrag {
                return Err(Refusal::BadRestart);
            }
            self.agree_restart(session, &handle, ice, &offer.ufrag, ice.admit(now)?)
        })?;
        let (ufrag, pwd) = (&local.ufrag, &local.pwd);
        Ok(plan.answer_sdp(ufrag, pwd, &fingerprint, &self.inner.config.media))
    }

    fn agree_restart(
        &self,
        session: SessionId,
        handle: &str,
        ice: &mut Ice,
        remote_ufrag: &str,
        busy_until: Mono,
    ) -> Result<IceCredentials, Refusal> {
        let local = IceCredentials { ufrag: secret(6), pwd: secret(24) };
        let next = Generation { local: local.clone(), remote_ufrag: remote_ufrag.to_owned() };
        if !self.inner.engine.restart(handle, &next) {
            return Err(Refusal::NotFound);
        }
        ice.generation = ice.generation.wrapping_add(1);
        ice.remote_ufrag = next.remote_ufrag;
        ice.busy_until = busy_until;
        tracing::info!(%session, "ICE restart agreed");
        Ok(local)
    }

    /// Takes a client's candidates, or restarts ICE when the fragment has a new ufrag. A refused
    /// restart leaves the session as it is.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] when there is no such session, or it is another subject's;
    /// [`Refusal::StaleTag`], [`Refusal::BadRestart`], [`Refusal::RestartsTooOften`].
    pub fn patch(
        &self,
        resource: &str,
        who: Option<&Principal>,
        expected: &IfMatch,
        fragment: &Fragment,
    ) -> Result<Patched, Refusal> {
        let now = self.now().mono;
        // Under the directory's lock throughout: of two restarts at once, one is after the other.
        self.directory(|directory| {
            let (session, handle, ice) =
                directory.ice_of(resource, who).ok_or(Refusal::NotFound)?;
            if !ice.matches(resource, expected) {
                return Err(Refusal::StaleTag);
            }
            let Some(ufrag) = fragment.ufrag.as_ref().filter(|it| **it != ice.remote_ufrag) else {
                return Ok(Patched::Trickled);
            };
            if !fragment.has_pwd {
                return Err(Refusal::BadRestart);
            }
            let busy_until = ice.admit(now)?;
            let local = self.agree_restart(session, &handle, ice, ufrag, busy_until)?;
            Ok(Patched::Restarted {
                fragment: fragment.answer(&local.ufrag, &local.pwd, &self.inner.config.media),
                tag: entity_tag(resource, ice.generation),
            })
        })
    }
}
