//! One remote WebRTC endpoint: ICE-lite, DTLS and SRTP as one state machine without a socket.
//!
//! A [`Session`] is fed the datagrams that came out of the client's TURN allocations. It believes
//! a path only after a valid connectivity check, takes DTLS and media from such paths alone, sends
//! to the one the client nominated, and ends when the client stops checking.

pub mod bwe;
pub mod data;
pub mod dtls;
mod dtls_ffi;
#[cfg(test)]
mod dtls_tests;
pub mod ice_lite;
pub mod negotiate;
mod paths;
mod restart;
pub mod srtp;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::ids::{Path, RoomHash, SessionId, SubjectHash};
use crate::metrics::{Counters, Id};
use crate::time::{Mono, Now};
use crate::wire::mux::{self, Inner};

pub use dtls::{ContextError as SetupError, Fingerprint, HashAlgorithm, Version};
pub use ice_lite::IceCredentials;
pub use restart::Generation;

use data::Data;
use dtls::{Dtls, Failure, Step};
use ice_lite::MAX_ANSWER;
use paths::Paths;
use restart::Generations;

/// From the session's making to its first media keys.
pub const CONNECT_LIMIT: Duration = Duration::from_secs(30);

/// Answers to checks that wait to be sent; a check whose answer is lost is repeated.
const MAX_ANSWERS: usize = 16;

/// What signalling agreed for one session.
#[derive(Clone, Debug)]
pub struct Params {
    /// The session.
    pub id: SessionId,
    /// Our ICE credentials.
    pub local: IceCredentials,
    /// The client's `a=ice-ufrag`.
    pub remote_ufrag: String,
    /// What an ICE restart before the first check has agreed.
    pub restart: Option<Generation>,
    /// The client's `a=fingerprint` lines: its certificate must fit one of them.
    pub fingerprints: Vec<Fingerprint>,
    /// Whom its allocations may be minted for.
    pub subject: SubjectHash,
    /// The room its allocations may be minted for.
    pub room: RoomHash,
    /// Data channels were agreed; the instant of [`Mono::ZERO`].
    pub data: Option<Instant>,
}

/// What a datagram was to its session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Received {
    /// Dealt with, or dropped and counted.
    Nothing,
    /// An authentic RTP packet, in clear at this range of the datagram.
    Rtp(Range<usize>),
    /// An authentic compound RTCP packet, in clear at this range of the datagram.
    Rtcp(Range<usize>),
}

/// A datagram to send.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Transmit {
    /// Which way.
    pub path: Path,
    /// Its length in the buffer given, bytes.
    pub len: usize,
}

/// Something happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// The client chose this path.
    Nominated(Path),
    /// The client nominated with the credentials of an ICE restart: the old ones are over.
    Restarted,
    /// Media can flow.
    Connected {
        /// DTLS version.
        dtls: Version,
        /// SRTP profile.
        profile: srtp::Profile,
    },
    /// Over. Only what [`Session::poll_transmit`] still yields is to be sent.
    Ended(Reason),
}

/// Why a session ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Reason {
    /// No valid check for 30 s (RFC 7675).
    Consent,
    /// The client closed it.
    Peer,
    /// DTLS failed.
    Handshake,
    /// The client's certificate is not the one its SDP announced.
    Fingerprint,
    /// Not connected within [`CONNECT_LIMIT`].
    Timeout,
    /// We closed it.
    Control,
    /// A bug or a missing resource on our side.
    Fault,
}

/// Keys of a connected session.
#[derive(Debug)]
struct Keys {
    receiver: srtp::Receiver,
    sender: srtp::Sender,
}

/// One remote WebRTC endpoint.
pub struct Session {
    ice: Generations,
    paths: Paths,
    dtls: Dtls,
    data: Option<Box<Data>>,
    keys: Option<Keys>,
    connect_by: Mono,
    answers: VecDeque<(Path, [u8; MAX_ANSWER], usize)>,
    events: VecDeque<Event>,
    ended: bool,
}

impl std::fmt::Debug for Session {
    // Queued answers hold the client's mapped address: none is shown.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("path", &self.paths.nominated())
            .field("dtls", &self.dtls)
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

impl Session {
    /// A session that waits for its first check.
    ///
    /// # Errors
    /// When the DTLS library has no memory or refuses its settings.
    pub fn new(params: Params, context: Arc<dtls::Context>, now: Now) -> Result<Self, SetupError> {
        Ok(Self {
            ice: Generations::new(
                Generation { local: params.local, remote_ufrag: params.remote_ufrag },
                params.restart,
            ),
            paths: Paths::default(),
            dtls: Dtls::new(context, params.fingerprints)?,
            data: params.data.map(|zero| Box::new(Data::new(zero))),
            keys: None,
            connect_by: now.mono.plus(CONNECT_LIMIT),
            answers: VecDeque::new(),
            events: VecDeque::new(),
            ended: false,
        })
    }

    /// Takes a datagram that came over `path`. `mapped` is the client's relayed address there.
    /// Media is decrypted in place; its range lies within `datagram`.
    pub fn handle(
        &mut self,
        now: Now,
        path: Path,
        mapped: SocketAddr,
        datagram: &mut [u8],
        counters: &mut Counters,
    ) -> Received {
        if self.ended {
            counters.inc(Id::SessionDropUnknown);
            return Received::Nothing;
        }
        match mux::inner(datagram) {
            Inner::Stun => self.on_stun(now, path, mapped, datagram, counters),
            Inner::Dtls | Inner::Rtp | Inner::Rtcp if !self.paths.is_proved(path) => {
                counters.inc(Id::SessionDropNoPath);
            }
            Inner::Dtls => self.on_dtls(now, path, datagram, counters),
            Inner::Rtp => match self.open(datagram, counters, srtp::Receiver::unprotect_rtp) {
                Some(len) => {
                    self.follow(path);
                    return Received::Rtp(0..len);
                }
                None => return Received::Nothing,
            },
            Inner::Rtcp => match self.open(datagram, counters, srtp::Receiver::unprotect_rtcp) {
                Some(len) => {
                    self.follow(path);
                    return Received::Rtcp(0..len);
                }
                None => return Received::Nothing,
            },
            Inner::Other => counters.inc(Id::SessionDropNotMedia),
        }
        Received::Nothing
    }

    fn on_stun(
        &mut self,
        now: Now,
        path: Path,
        mapped: SocketAddr,
        datagram: &[u8],
        counters: &mut Counters,
    ) {
        if ice_lite::is_keepalive(datagram) {
            return;
        }
        let mut out = [0; MAX_ANSWER];
        match self.ice.answer(datagram, mapped, &mut out) {
            Ok((answer, restarted)) => {
                counters.inc(Id::SessionIceChecks);
                self.paths.on_check(now.mono, path);
                self.queue_answer(path, out, answer.len);
                if restarted {
                    counters.inc(Id::SessionIceRestarts);
                    self.events.push_back(Event::Restarted);
                }
                if answer.use_candidate {
                    self.nominate(path);
                }
            }
            Err(error) => {
                counters.inc(error.counter());
                if let Some(len) = error.answer_len() {
                    self.queue_answer(path, out, len);
                }
            }
        }
    }

    fn queue_answer(&mut self, path: Path, answer: [u8; MAX_ANSWER], len: usize) {
        if self.answers.len() < MAX_ANSWERS {
            self.answers.push_back((path, answer, len));
        }
    }

    fn nominate(&mut self, path: Path) {
        if self.paths.nominate(path) {
            self.announce(path);
        }
    }

    fn announce(&mut self, path: Path) {
        // Only the latest choice is of interest to a slow reader.
        if let Some(Event::Nominated(last)) = self.events.back_mut() {
            *last = path;
        } else {
            self.events.push_back(Event::Nominated(path));
        }
    }

    /// DTLS or authentic media on a proved path counts as a nomination when there is none yet
    /// (browsers may send a ClientHello before the nominating check), or when the nominated
    /// path belongs to a shard this session has left.
    fn follow(&mut self, path: Path) {
        if self.paths.nominated().is_none_or(|nominated| nominated.shard != path.shard) {
            self.nominate(path);
        }
    }

    fn on_dtls(&mut self, now: Now, path: Path, datagram: &[u8], counters: &mut Counters) {
        if self.paths.nominated().is_none() {
            self.nominate(path);
        }
        if !self.dtls.push(datagram) {
            counters.inc(Id::SessionDropNotMedia);
            return;
        }
        // A handshake flight is dear: the engine runs it when its turn comes.
        if !self.dtls.is_handshaking() {
            self.read_dtls(now, counters);
        }
    }

    fn read_dtls(&mut self, now: Now, counters: &mut Counters) {
        let data = &mut self.data;
        let open = self.dtls.read(now.mono, |packet| match data {
            Some(data) => data.handle(now.mono, packet, counters),
            None => counters.inc(Id::DataDropNotGranted),
        });
        if !open {
            self.end(Reason::Peer);
        }
    }

    fn open(
        &mut self,
        datagram: &mut [u8],
        counters: &mut Counters,
        unprotect: impl FnOnce(&mut srtp::Receiver, &mut [u8]) -> Result<usize, srtp::Error>,
    ) -> Option<usize> {
        let Some(keys) = &mut self.keys else {
            counters.inc(Id::SrtpDropNoKeys);
            return None;
        };
        unprotect(&mut keys.receiver, datagram).map_err(|e| counters.inc(drop_counter(e))).ok()
    }

    /// Whether DTLS datagrams wait for [`Self::handshake_step`].
    #[must_use]
    pub fn needs_handshake_step(&self) -> bool {
        !self.ended && self.dtls.is_handshaking() && self.dtls.has_input()
    }

    /// Runs the DTLS handshake over what has arrived: at most one flight each way, 100 to 200 us.
    pub fn handshake_step(&mut self, now: Now, counters: &mut Counters) {
        if !self.needs_handshake_step() {
            return;
        }
        match self.dtls.step(now.mono) {
            Step::Pending => {}
            Step::Done(agreed) => {
                counters.inc(match agreed.version {
                    Version::Dtls13 => Id::DtlsDone13,
                    Version::Dtls12 => Id::DtlsDone12,
                });
                let (dtls, profile) = (agreed.version, agreed.profile);
                self.keys = Some(Keys { receiver: agreed.receiver, sender: agreed.sender });
                self.events.push_back(Event::Connected { dtls, profile });
                self.read_dtls(now, counters);
            }
            Step::Failed(Failure::Fingerprint) => {
                counters.inc(Id::DtlsFingerprint);
                self.end(Reason::Fingerprint);
            }
            Step::Failed(Failure::Handshake) => {
                counters.inc(Id::DtlsFailed);
                self.end(Reason::Handshake);
            }
        }
    }

    /// Writes the next datagram to send into `out`, at least [`dtls::MTU`] bytes long.
    pub fn poll_transmit(&mut self, now: Now, out: &mut [u8]) -> Option<Transmit> {
        if let Some((path, answer, len)) = self.answers.pop_front() {
            out.get_mut(..len)?.copy_from_slice(answer.get(..len)?);
            return Some(Transmit { path, len });
        }
        let path = self.paths.nominated()?;
        if let Some(data) = self.data.as_mut().filter(|_| !self.ended)
            && self.dtls.has_room()
            && let Some(packet) = data.poll_transmit(now.mono)
        {
            self.dtls.write(now.mono, &packet);
        }
        let datagram = self.dtls.pop()?;
        out.get_mut(..datagram.len())?.copy_from_slice(&datagram);
        Some(Transmit { path, len: datagram.len() })
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When [`Self::handle_timeout`] wants to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Mono> {
        if self.ended {
            return None;
        }
        let connect_by = self.keys.is_none().then_some(self.connect_by);
        let data = self.data.as_ref().and_then(|data| data.poll_timeout());
        [connect_by, self.paths.next_expiry(), self.dtls.deadline(), data]
            .into_iter()
            .flatten()
            .min()
    }

    /// Does what is due: consent, the connect limit, DTLS retransmission.
    pub fn handle_timeout(&mut self, now: Now, counters: &mut Counters) {
        if self.ended {
            return;
        }
        if self.keys.is_none() {
            if now.mono >= self.connect_by {
                counters.inc(Id::DtlsTimeout);
                self.end(Reason::Timeout);
                return;
            }
        } else if self.paths.consent_until().is_none_or(|until| now.mono >= until) {
            self.end(Reason::Consent);
            return;
        }
        if let Some(path) = self.paths.expire(now.mono) {
            self.announce(path);
        }
        if let Some(data) = &mut self.data {
            data.handle_timeout(now.mono, counters);
        }
        let was_handshaking = self.dtls.is_handshaking();
        if !self.dtls.on_timeout(now.mono) {
            self.dtls.clear_output();
            if was_handshaking {
                counters.inc(Id::DtlsFailed);
                self.end(Reason::Handshake);
            } else {
                self.end(Reason::Peer);
            }
        }
    }

    /// Takes checks with the credentials of an ICE restart as well, until the client nominates
    /// with them: then [`Event::Restarted`], and the old ones are over.
    pub fn restart(&mut self, next: Generation) {
        self.ice.follow_with(next);
    }

    /// The ICE credentials in force.
    #[must_use]
    pub fn generation(&self) -> &Generation {
        self.ice.current()
    }

    /// Local ufrags that checks for this session may carry: one, or two during an ICE restart.
    pub fn ufrags(&self) -> impl Iterator<Item = &str> {
        self.ice.ufrags()
    }

    /// The path the client nominated.
    #[must_use]
    pub fn path(&self) -> Option<Path> {
        self.paths.nominated()
    }

    /// Media keys exist and the session has not ended.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.keys.is_some() && !self.ended
    }

    /// Name of the DTLS key exchange group, once agreed.
    #[must_use]
    pub fn dtls_group(&self) -> Option<&'static str> {
        self.dtls.group()
    }

    /// Seals the RTP packet `buf[..len]` in place; `buf` has [`srtp::MAX_TRAILER`] more bytes.
    /// Returns its new length. The duty of [`srtp::Sender`] is the caller's.
    pub fn protect_rtp(
        &mut self,
        buf: &mut [u8],
        len: usize,
        counters: &mut Counters,
    ) -> Option<usize> {
        self.seal(counters, |sender| sender.protect_rtp(buf, len))
    }

    /// Seals the compound RTCP packet `buf[..len]` in place, like [`Self::protect_rtp`].
    pub fn protect_rtcp(
        &mut self,
        buf: &mut [u8],
        len: usize,
        counters: &mut Counters,
    ) -> Option<usize> {
        self.seal(counters, |sender| sender.protect_rtcp(buf, len))
    }

    fn seal(
        &mut self,
        counters: &mut Counters,
        protect: impl FnOnce(&mut srtp::Sender) -> Result<usize, srtp::Error>,
    ) -> Option<usize> {
        let Some(keys) = self.keys.as_mut().filter(|_| !self.ended) else {
            counters.inc(Id::SrtpDropNoKeys);
            return None;
        };
        protect(&mut keys.sender).map_err(|_| counters.inc(Id::SrtpDropSeal)).ok()
    }

    /// What is heard next on the client's data channels.
    pub fn poll_heard(&mut self, now: Now, counters: &mut Counters) -> Option<data::Heard> {
        self.data.as_mut().filter(|_| !self.ended)?.poll_heard(now.mono, counters)
    }

    /// Sends a data channel message of another session; false when it is dropped, and counted.
    pub fn send_message(
        &mut self,
        now: Now,
        from: SessionId,
        message: &data::Message,
        counters: &mut Counters,
    ) -> bool {
        let data = self.data.as_mut().filter(|_| !self.ended);
        data.is_some_and(|data| data.send(now.mono, from, message, counters))
    }

    /// Closes the channels that carry another session's words, or the one of a label.
    pub fn close_channels(&mut self, from: SessionId, label: Option<&str>) {
        if let Some(data) = &mut self.data {
            data.close_of(from, label);
        }
    }

    /// Ends the session from our side: close_notify is queued, then [`Event::Ended`].
    pub fn close(&mut self, now: Now) {
        if self.ended {
            return;
        }
        self.dtls.close(now.mono);
        self.end(Reason::Control);
    }

    fn end(&mut self, reason: Reason) {
        if self.ended {
            return;
        }
        self.ended = true;
        self.answers.clear();
        // Without consent or a connection nothing more may be sent; otherwise the last word is
        // DTLS's: close_notify, or the alert that says what was wrong.
        if matches!(reason, Reason::Consent | Reason::Timeout) {
            self.dtls.clear_output();
        } else {
            self.dtls.keep_last_output();
        }
        self.events.push_back(Event::Ended(reason));
    }
}

const fn drop_counter(error: srtp::Error) -> Id {
    match error {
        srtp::Error::Auth | srtp::Error::Exhausted | srtp::Error::Key => Id::SrtpDropAuth,
        srtp::Error::Replay => Id::SrtpDropReplay,
        srtp::Error::SsrcLimit => Id::SrtpDropSsrcLimit,
        srtp::Error::Malformed | srtp::Error::NoRoom => Id::SrtpDropMalformed,
    }
}
