//! Playing connections: sessions on which the gateway makes the offers, and renegotiates as the
//! streams they carry come and go.
//!
//! Whoever speaks with the client sets what is wanted ([`Control::subscribe_playing`]) and carries
//! offers and answers. One offer waits for its answer at a time; what is wanted meanwhile is in the
//! offer that follows. When a wanted stream starts or ends ([`super::StreamEvent`]), the same list
//! said again gives the offer that is due, if one is.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::api::Wish;
use super::directory::Entry;
use super::{Agreed, CLAIM_WITHIN, Control, Principal, Refusal, secret};
use crate::engine::Closing;
use crate::engine::media::StreamShared;
use crate::engine::parked::{Blueprint, BlueprintRole, Played};
use crate::ids::{RoomHash, SessionId, StreamId, StreamName, SubjectHash};
use crate::session::negotiate;
use crate::session::negotiate::offering::{Offered, Offering, Remote, Taken};
use crate::session::{Generation, IceCredentials, Params, dtls};
use crate::wire::media::{MediaKind, PlaySpec};
use crate::wire::sdp;

/// Streams looked at in a list of wanted ones; with 128 m-sections fewer may find a place.
pub const MAX_STREAMS: usize = 128;

/// A playing connection: one session that the gateway offers, carrying several streams.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PlayingId(pub String);

impl std::fmt::Debug for PlayingId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PlayingId(hidden)")
    }
}

/// An offer of the gateway on a playing connection.
#[derive(Clone, PartialEq, Eq)]
pub struct PlayOffer {
    /// Grows with each offer of the connection.
    pub revision: u32,
    /// The offer.
    pub sdp: String,
    /// All that is played, by m-section.
    pub tracks: Vec<PlayedTrack>,
}

impl std::fmt::Debug for PlayOffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The ICE password in the SDP is a secret.
        f.debug_struct("PlayOffer")
            .field("revision", &self.revision)
            .field("tracks", &self.tracks)
            .finish_non_exhaustive()
    }
}

/// What an m-section of a playing connection carries.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PlayedTrack {
    /// Its `a=mid`.
    pub mid: String,
    /// Of which stream.
    pub stream: StreamName,
    /// The track's number within the stream.
    pub track: u8,
    /// Audio or video.
    pub kind: MediaKind,
}

/// All playing connections.
#[derive(Debug, Default)]
pub(super) struct Playings {
    by_id: HashMap<PlayingId, Playing>,
    /// To be told once more what they play: a message between shards may be lost.
    again: Vec<PlayingId>,
}

#[derive(Debug)]
struct Playing {
    session: SessionId,
    subject: SubjectHash,
    room: String,
    /// The first, by which the data plane knows the session for life.
    handle: String,
    /// In the last offer.
    local: IceCredentials,
    dtls: Arc<dtls::Context>,
    offering: Offering,
    wanted: Vec<StreamName>,
    /// The next offer has new ICE credentials.
    restart: bool,
    /// What the data plane sends.
    plays: Vec<Played>,
    /// Of `plays`.
    change: u32,
    /// The data plane knows of it.
    parked: bool,
}

impl Control {
    /// Opens a playing connection for the streams of a room. Nothing is offered, and it costs the
    /// data plane nothing, until something is played; then its client has the usual time to
    /// connect.
    ///
    /// # Errors
    /// [`Refusal::Full`], [`Refusal::SubjectFull`].
    pub fn open_playing(&self, who: &Principal, room: &str) -> Result<PlayingId, Refusal> {
        let session = SessionId(self.random());
        let local = IceCredentials { ufrag: secret(6), pwd: secret(24) };
        let id = PlayingId(secret(24));
        let rng = {
            let mut rng = self.inner.rng.lock().unwrap_or_else(PoisonError::into_inner);
            StdRng::from_rng(&mut *rng)
        };
        let agreed = Agreed {
            session,
            ufrag: local.ufrag.clone(),
            resource: id.0.clone(),
            remote_ufrag: String::new(),
            subject: who.subject.clone(),
            fingerprint: String::new(),
        };
        let limit = self.inner.config.max_sessions;
        self.directory(|d| d.insert(Entry::playing(agreed), limit))?;
        let playing = Playing {
            session,
            subject: SubjectHash::of(&who.subject),
            room: room.to_owned(),
            handle: local.ufrag.clone(),
            local,
            dtls: self.inner.dtls.read().unwrap_or_else(PoisonError::into_inner).clone(),
            offering: Offering::new(rng),
            wanted: Vec::new(),
            restart: false,
            plays: Vec::new(),
            change: 0,
            parked: false,
        };
        self.playings(|it| it.by_id.insert(id.clone(), playing));
        tracing::info!(%session, "playing connection opened");
        Ok(id)
    }

    /// Sets all that is wanted. Streams that are not there are left out until they are, those of
    /// other rooms always; so are the last ones when there are too many. `None`: nothing to offer
    /// now, or an answer is awaited, and [`Self::answer_playing`] gives the offer that follows.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] when the connection is over.
    pub fn subscribe_playing(
        &self,
        playing: &PlayingId,
        mut streams: Vec<StreamName>,
    ) -> Result<Option<PlayOffer>, Refusal> {
        streams.truncate(MAX_STREAMS);
        self.with_playing(playing, |it| {
            it.wanted = streams;
            Ok(self.next_offer(it))
        })
    }

    /// Takes the answer to the offer of a revision; gives the next offer, if one is due. Tracks the
    /// answer does not take are not played; the others are.
    ///
    /// # Errors
    /// [`Refusal::OutOfTurn`] when no answer, or another's, is awaited; what is wrong with the
    /// answer, and then the offer still waits for a better one; [`Refusal::NotFound`];
    /// [`Refusal::Full`], and then the connection is over.
    pub fn answer_playing(
        &self,
        playing: &PlayingId,
        revision: u32,
        sdp: &str,
    ) -> Result<Option<PlayOffer>, Refusal> {
        // Before the lock: it is the dear part.
        let answer = sdp::Offer::parse_answer(sdp).map_err(negotiate::Refusal::from);
        let (mut told, mut first) = (Closing::Told, false);
        let next = self.with_playing(playing, |it| {
            let waits = it.offering.revision();
            if !it.offering.is_awaiting() {
                let text = format!("no answer is awaited: that to revision {waits} was the last");
                return Err(Refusal::OutOfTurn(text));
            }
            if waits != revision {
                let text =
                    format!("the offer that waits is of revision {waits}, not of {revision}");
                return Err(Refusal::OutOfTurn(text));
            }
            let restarts = it.offering.restarts();
            let Taken { plays, declined } = it.offering.answer(&answer?)?;
            if restarts && !self.restart_ice(it) {
                return Err(Refusal::NotFound);
            }
            for (stream, track, why) in declined {
                tracing::info!(
                    session = %it.session, stream = %stream.name, track, why, "track is not played"
                );
            }
            it.plays = self.played(plays);
            it.change += 1;
            first = !it.parked;
            told = self.tell(it);
            Ok(self.next_offer(it))
        })?;
        match told {
            Closing::Told | Closing::Busy => {
                self.playings(|it| it.again.push(playing.clone()));
                Ok(next)
            }
            Closing::Gone => {
                let session = self.directory(|d| d.by_resource(&playing.0, None));
                if let Some((session, ufrag)) = session {
                    self.end(session, ufrag);
                }
                Err(if first { Refusal::Full } else { Refusal::NotFound })
            }
        }
    }

    /// Offers with new ICE credentials of ours. Media goes on over the old paths until the client
    /// nominates with the new ones. `None`: nothing was agreed yet, so that there is nothing to
    /// restart, or an answer is awaited, and [`Self::answer_playing`] gives this offer.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] when the connection is over.
    pub fn restart_playing(&self, playing: &PlayingId) -> Result<Option<PlayOffer>, Refusal> {
        self.with_playing(playing, |it| {
            it.restart = it.offering.remote().is_some();
            Ok(self.next_offer(it))
        })
    }

    /// The client has answered new credentials of ours with its own.
    fn restart_ice(&self, playing: &Playing) -> bool {
        let Some(remote) = playing.offering.remote() else { return false };
        let (local, remote_ufrag) = (playing.local.clone(), remote.ufrag.clone());
        tracing::info!(session = %playing.session, "ICE restart agreed");
        self.inner.engine.restart(&playing.handle, &Generation { local, remote_ufrag })
    }

    /// Wishes layers of a track that is played, in place of what was wished before.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] when the connection is over; [`Refusal::NoTrack`] when the track is not
    /// played on it; [`Refusal::NotConnected`] before it stands; [`Refusal::Full`].
    pub fn steer_playing(
        &self,
        playing: &PlayingId,
        stream: &StreamName,
        track: u8,
        wish: Wish,
    ) -> Result<(), Refusal> {
        self.with_playing(playing, |it| {
            let meant = |(shared, spec): &&Played| {
                shared.spec.name == *stream && spec.tracks.iter().any(|own| own.track == track)
            };
            let (shared, _) = it.plays.iter().find(meant).ok_or(Refusal::NoTrack)?;
            let stream = Some(shared.spec.id);
            match self.inner.engine.steer(it.session, &it.handle, stream, track, wish) {
                Closing::Told => Ok(()),
                Closing::Gone => Err(Refusal::NotConnected),
                Closing::Busy => Err(Refusal::Full),
            }
        })
    }

    /// Ends a playing connection, if it is still there.
    pub fn close_playing(&self, playing: &PlayingId) {
        if let Some((session, ufrag)) = self.directory(|d| d.by_resource(&playing.0, None)) {
            self.end(session, ufrag);
        }
    }

    /// The streams of an agreement that are still there.
    fn played(&self, plays: Vec<PlaySpec>) -> Vec<Played> {
        self.directory(|d| {
            let live = |spec: PlaySpec| {
                let stream: Arc<StreamShared> = d.stream(&spec.stream.name)?;
                (stream.spec.id == spec.stream.id).then_some((stream, spec))
            };
            plays.into_iter().filter_map(live).collect()
        })
    }

    fn next_offer(&self, playing: &mut Playing) -> Option<PlayOffer> {
        let of_room = playing.wanted.iter().filter(|name| name.room() == playing.room);
        let streams: Vec<_> = self.directory(|d| {
            of_room.filter_map(|name| Some(Arc::clone(&d.stream(name)?.spec))).collect()
        });
        let restart = playing.restart && !playing.offering.is_awaiting();
        if restart {
            playing.restart = false;
            playing.local = IceCredentials { ufrag: secret(6), pwd: secret(24) };
        }
        playing.offering.offer(&streams, restart).then(|| self.written(playing))
    }

    fn written(&self, playing: &Playing) -> PlayOffer {
        let sdp = playing.offering.sdp(&sdp::Transport {
            session: 0,
            ufrag: &playing.local.ufrag,
            pwd: &playing.local.pwd,
            fingerprint: &playing.dtls.fingerprint(),
            candidates: &self.inner.config.media,
        });
        let track = |track: Offered<'_>| PlayedTrack {
            mid: track.mid.to_owned(),
            stream: track.stream.name.clone(),
            track: track.track,
            kind: track.kind,
        };
        let tracks = playing.offering.tracks().map(track).collect();
        PlayOffer { revision: playing.offering.revision(), sdp, tracks }
    }

    /// Tells the data plane what a connection plays: the first time by parking it.
    fn tell(&self, playing: &mut Playing) -> Closing {
        let Playing { session, handle, local, change, plays, .. } = playing;
        if playing.parked {
            return self.inner.engine.play(*session, handle, *change, plays.clone());
        }
        let Some(Remote { ufrag, fingerprints }) = playing.offering.remote().cloned() else {
            return Closing::Told;
        };
        let params = Params {
            id: *session,
            local: local.clone(),
            remote_ufrag: ufrag,
            restart: None,
            fingerprints,
            subject: playing.subject,
            room: RoomHash::of(&playing.room),
            data: None,
        };
        let role = BlueprintRole::Play(plays.clone());
        let blueprint =
            Box::new(Blueprint { params, dtls: Arc::clone(&playing.dtls), role, data: None });
        let until = self.inner.engine.clock().mono().plus(CLAIM_WITHIN);
        playing.parked = self.inner.engine.park(blueprint, until).is_ok();
        if playing.parked { Closing::Told } else { Closing::Gone }
    }

    /// A stream has ended: nobody sends it any more.
    pub(super) fn drop_stream(&self, stream: StreamId) {
        self.playings(|playings| {
            for (id, playing) in &mut playings.by_id {
                let before = playing.plays.len();
                playing.plays.retain(|(shared, _)| shared.spec.id != stream);
                if playing.plays.len() < before {
                    playing.change += 1;
                    // Whether it was told, it is told again.
                    let _told = self.tell(playing);
                    playings.again.push(id.clone());
                }
            }
        });
    }

    /// Once a second: what was said last is said again, for a message may have been lost.
    pub(super) fn tell_playings_again(&self) {
        self.playings(|playings| {
            for id in std::mem::take(&mut playings.again) {
                let Some(playing) = playings.by_id.get_mut(&id) else { continue };
                if playing.parked && self.tell(playing) == Closing::Busy {
                    playings.again.push(id);
                }
            }
        });
    }

    /// A session is over.
    pub(super) fn forget_playing(&self, resource: &str) {
        let id = PlayingId(resource.to_owned());
        self.playings(|playings| playings.by_id.remove(&id));
    }

    fn with_playing<T>(
        &self,
        id: &PlayingId,
        with: impl FnOnce(&mut Playing) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        self.playings(|it| with(it.by_id.get_mut(id).ok_or(Refusal::NotFound)?))
    }

    fn playings<T>(&self, with: impl FnOnce(&mut Playings) -> T) -> T {
        with(&mut self.inner.playings.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
