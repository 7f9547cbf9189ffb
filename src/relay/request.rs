//! Authenticated requests: Allocate, Refresh, CreatePermission and ChannelBind (RFC 8656 sections 7
//! to 12).

use std::time::Duration;

use super::policy::{MAX_MEDIA, Scope};
use super::proof::{Proven, Signer, Unproven, remaining};
use super::table::{Allocation, Channel, Owner};
use super::timers::NEVER;
use super::{End, Handled, Relay, dropped};
use crate::ids::FiveTuple;
use crate::metrics::{Counters, Id};
use crate::time::{Mono, Now, Unix};
use crate::wire::stun::{Builder, Class, Message, Method, attr};
use crate::wire::turn::{self, Family, Malformed};

const PERMISSION: Duration = Duration::from_secs(300);
const CHANNEL: Duration = Duration::from_secs(600);

/// The comprehension-required attributes a TURN server of RFC 8656 understands; others get 420.
pub(super) const KNOWN: &[u16] = &[
    attr::MAPPED_ADDRESS,
    attr::USERNAME,
    attr::ERROR_CODE,
    attr::UNKNOWN_ATTRIBUTES,
    attr::CHANNEL_NUMBER,
    attr::LIFETIME,
    attr::XOR_PEER_ADDRESS,
    attr::DATA,
    attr::REALM,
    attr::NONCE,
    attr::XOR_RELAYED_ADDRESS,
    attr::REQUESTED_ADDRESS_FAMILY,
    attr::EVEN_PORT,
    attr::REQUESTED_TRANSPORT,
    attr::DONT_FRAGMENT,
    attr::XOR_MAPPED_ADDRESS,
    attr::RESERVATION_TOKEN,
    attr::PASSWORD_ALGORITHM,
];

/// An error response, by its code; its counter follows from it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Refusal {
    BadRequest,
    Expired,
    Forbidden(Id),
    Mismatch,
    Family,
    WrongCredentials,
    Transport,
    PeerFamily,
    Quota,
    Capacity,
}

impl Refusal {
    const fn code(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::Expired => 401,
            Self::Forbidden(_) => 403,
            Self::Mismatch => 437,
            Self::Family => 440,
            Self::WrongCredentials => 441,
            Self::Transport => 442,
            Self::PeerFamily => 443,
            Self::Quota => 486,
            Self::Capacity => 508,
        }
    }

    const fn counter(self) -> Id {
        match self {
            Self::BadRequest => Id::RelayRefusedBadRequest,
            Self::Expired => Id::RelayAuthExpired,
            Self::Forbidden(id) => id,
            Self::Mismatch => Id::RelayRefusedMismatch,
            Self::WrongCredentials => Id::RelayAuthWrongUser,
            Self::Family | Self::Transport | Self::PeerFamily => Id::RelayRefusedUnsupported,
            Self::Quota => Id::RelayRefusedQuota,
            Self::Capacity => Id::RelayRefusedCapacity,
        }
    }
}

impl From<Malformed> for Refusal {
    fn from(Malformed: Malformed) -> Self {
        Self::BadRequest
    }
}

/// What a success response carries.
enum Answer {
    Allocated { port: u16, lifetime: u32, v6_refused: bool },
    Refreshed(u32),
    Done,
}

impl Relay {
    pub(super) fn on_request(
        &mut self,
        now: Now,
        tuple: FiveTuple,
        message: &Message<'_>,
        reply: &mut [u8],
        counters: &mut Counters,
    ) -> Handled {
        let existing = self.live(now, tuple, counters);
        let proven = match self.authenticate(now, tuple, message, existing) {
            Ok(proven) => proven,
            Err(Unproven::Silent(id)) => return dropped(counters, id),
            Err(Unproven::Answer(code, id)) => {
                counters.inc(id);
                return self.challenge(now, tuple, message, code, reply, counters);
            }
        };
        let owned_by_other = existing.is_some() && proven.fresh.is_some();
        if owned_by_other && message.method() != Method::ALLOCATE {
            return refuse(Refusal::WrongCredentials, message, &proven.signer, reply, counters);
        }
        let unknown = message.unknown_required(KNOWN);
        if !unknown.is_empty() {
            counters.inc(Id::RelayRefusedUnknownAttribute);
            let mut builder = response(Class::Error, message, reply);
            builder.error_code(420, "");
            let mut list = [0; 16];
            for (place, kind) in list.chunks_exact_mut(2).zip(unknown.as_slice()) {
                place.copy_from_slice(&kind.to_be_bytes());
            }
            let used = 2 * unknown.as_slice().len();
            builder.attribute(attr::UNKNOWN_ATTRIBUTES, list.get(..used).unwrap_or_default());
            return sign(builder, &proven.signer);
        }
        let outcome = match (message.method(), existing) {
            (Method::ALLOCATE, _) => {
                self.on_allocate(now, tuple, message, existing, &proven, counters)
            }
            (_, None) => Err(Refusal::Mismatch),
            (Method::REFRESH, Some(index)) => self.on_refresh(now, message, index, counters),
            (Method::CREATE_PERMISSION, Some(index)) => {
                self.on_create_permission(now.mono, message, index, counters)
            }
            (_, Some(index)) => self.on_channel_bind(now.mono, message, index, counters),
        };
        match outcome {
            Ok(answer) => self.accept(&answer, tuple, message, &proven.signer, reply),
            Err(Refusal::Expired) => {
                counters.inc(Id::RelayAuthExpired);
                self.challenge(now, tuple, message, 401, reply, counters)
            }
            Err(refusal) => refuse(refusal, message, &proven.signer, reply, counters),
        }
    }

    /// The 5-tuple's allocation; one whose time has come, but not yet its timer, ends here.
    fn live(&mut self, now: Now, tuple: FiveTuple, counters: &mut Counters) -> Option<u32> {
        let index = self.table.find(tuple)?;
        if self.table.get(index)?.expires > now.mono {
            return Some(index);
        }
        self.end(now, index, End::Expired, counters);
        None
    }

    fn accept(
        &self,
        answer: &Answer,
        tuple: FiveTuple,
        message: &Message<'_>,
        signer: &Signer,
        reply: &mut [u8],
    ) -> Handled {
        let mut builder = response(Class::Success, message, reply);
        match *answer {
            Answer::Allocated { port, lifetime, v6_refused } => {
                let relayed = (self.config.relayed_ip, port).into();
                builder.xor_address(attr::XOR_RELAYED_ADDRESS, relayed);
                builder.u32(attr::LIFETIME, lifetime);
                builder.xor_address(attr::XOR_MAPPED_ADDRESS, tuple.client.expose());
                if v6_refused {
                    // Family 2, error 440 (RFC 8656 section 18.11).
                    builder.attribute(attr::ADDRESS_ERROR_CODE, &[2, 0, 4, 40]);
                }
            }
            Answer::Refreshed(lifetime) => builder.u32(attr::LIFETIME, lifetime),
            Answer::Done => {}
        }
        sign(builder, signer)
    }

    /// Seconds granted: RFC 8656 section 7.2, and never beyond the session limit.
    fn granted(&self, now: Unix, asked: Option<u32>, live_until: Unix) -> u32 {
        let limits = &self.config.limits;
        let asked = asked.unwrap_or(0).min(limits.max_lifetime).max(limits.default_lifetime);
        asked.min(u32::try_from(remaining(now, live_until)).unwrap_or(u32::MAX))
    }

    fn on_allocate(
        &mut self,
        now: Now,
        tuple: FiveTuple,
        message: &Message<'_>,
        existing: Option<u32>,
        proven: &Proven<'_>,
        counters: &mut Counters,
    ) -> Result<Answer, Refusal> {
        let additional = turn::family(message, attr::ADDITIONAL_ADDRESS_FAMILY)?;
        let v6_refused = additional.is_some();
        let verified = match (existing.and_then(|index| self.table.get(index)), &proven.fresh) {
            (None, Some(verified)) => verified,
            (Some(allocation), None) if allocation.created_by == message.transaction_id() => {
                let (port, lifetime) = (allocation.port, allocation.granted);
                return Ok(Answer::Allocated { port, lifetime, v6_refused });
            }
            _ => return Err(Refusal::Mismatch),
        };
        let even = self.check_allocate(message, additional)?;
        let lifetime = self.granted(now.unix, turn::lifetime(message)?, verified.live_until);
        if now.unix >= verified.allocate_by {
            return Err(Refusal::Expired);
        }
        let limits = &self.config.limits;
        if self.table.of_subject(verified.subject) >= limits.allocations_per_subject {
            return Err(Refusal::Quota);
        }
        if self.table.len() as u64 >= u64::from(limits.allocations) {
            return Err(Refusal::Capacity);
        }
        let port = self.draw_port(even);
        let index = self
            .table
            .insert(Allocation {
                tuple,
                owner: Owner {
                    subject: verified.subject,
                    room: verified.room,
                    class: verified.class,
                },
                expires: now.mono.plus(Duration::from_secs(lifetime.into())),
                channels: [Channel::default(); MAX_MEDIA],
                permissions: [Mono::ZERO; MAX_MEDIA],
                armed: NEVER,
                live_until: verified.live_until,
                port,
                granted: lifetime,
                created_by: message.transaction_id(),
                key: verified.key,
                key_sha256: verified.key_sha256,
                username: proven.username.into(),
                credential: verified.credential,
                issued: verified.issued,
            })
            .ok_or(Refusal::Capacity)?;
        self.timers.arm(index, &mut self.table);
        counters.inc(Id::RelayAllocationsCreated);
        self.publish(counters);
        Ok(Answer::Allocated { port, lifetime, v6_refused })
    }

    /// The attributes of an Allocate, in the order of RFC 8656 section 7.2. Returns whether the
    /// port is to be even.
    fn check_allocate(
        &self,
        message: &Message<'_>,
        additional: Option<Family>,
    ) -> Result<bool, Refusal> {
        match turn::requested_transport(message)? {
            None => return Err(Refusal::BadRequest),
            Some(turn::PROTOCOL_UDP) => {}
            Some(_) => return Err(Refusal::Transport),
        }
        let requested = turn::family(message, attr::REQUESTED_ADDRESS_FAMILY)?;
        let even = turn::even_port(message)?;
        let token = message.first(attr::RESERVATION_TOKEN);
        if token.is_some_and(|token| token.len() != 8)
            || (token.is_some() && (even.is_some() || requested.is_some() || additional.is_some()))
        {
            return Err(Refusal::BadRequest);
        }
        // ADDITIONAL-ADDRESS-FAMILY asks for IPv6 beside IPv4, and for nothing else.
        if additional.is_some_and(|family| family != Family::V6)
            || (additional.is_some() && (requested.is_some() || even == Some(true)))
        {
            return Err(Refusal::BadRequest);
        }
        // No token was ever handed out, no pair of ports is ever held.
        if token.is_some() || even == Some(true) {
            return Err(Refusal::Capacity);
        }
        if requested.is_some_and(|family| family != self.family()) {
            return Err(Refusal::Family);
        }
        Ok(even.is_some())
    }

    fn on_refresh(
        &mut self,
        now: Now,
        message: &Message<'_>,
        index: u32,
        counters: &mut Counters,
    ) -> Result<Answer, Refusal> {
        let asked = turn::lifetime(message)?;
        let family = turn::family(message, attr::REQUESTED_ADDRESS_FAMILY)?;
        if family.is_some_and(|family| family != self.family()) {
            return Err(Refusal::PeerFamily);
        }
        if asked == Some(0) {
            self.end(now, index, End::Released, counters);
            return Ok(Answer::Refreshed(0));
        }
        let live_until = self.table.get(index).ok_or(Refusal::Mismatch)?.live_until;
        let lifetime = self.granted(now.unix, asked, live_until);
        let allocation = self.table.get_mut(index).ok_or(Refusal::Mismatch)?;
        allocation.expires = now.mono.plus(Duration::from_secs(lifetime.into()));
        self.timers.arm(index, &mut self.table);
        Ok(Answer::Refreshed(lifetime))
    }

    /// RFC 8656 section 10.2: all peers or none.
    fn on_create_permission(
        &mut self,
        now: Mono,
        message: &Message<'_>,
        index: u32,
        counters: &mut Counters,
    ) -> Result<Answer, Refusal> {
        let class = self.table.get(index).ok_or(Refusal::Mismatch)?.owner.class;
        let peers = || message.attributes().filter(|(kind, _)| *kind == attr::XOR_PEER_ADDRESS);
        let mut granted = [false; MAX_MEDIA];
        let mut any = false;
        let mut foreign_family = false;
        for (_, value) in peers() {
            let peer = message.decode_xor_address(value).ok_or(Refusal::BadRequest)?;
            // Policy before family: a denied target is 403 in whatever form it is written.
            let admitted = self
                .policy
                .admit(class, peer, Scope::Address)
                .ok_or(Refusal::Forbidden(Id::RelayDeniedPermission))?;
            foreign_family |= Family::of(peer) != self.family();
            if let Some(place) = granted.get_mut(admitted.permission) {
                *place = true;
                any = true;
            }
        }
        if foreign_family {
            return Err(Refusal::PeerFamily);
        }
        if !any {
            return Err(Refusal::BadRequest);
        }
        for (media, _) in granted.iter().enumerate().filter(|(_, granted)| **granted) {
            self.permit(now, index, media);
        }
        self.timers.arm(index, &mut self.table);
        self.publish(counters);
        Ok(Answer::Done)
    }

    fn permit(&mut self, now: Mono, index: u32, media: usize) {
        let permissions = self.table.get_mut(index).map(|allocation| &mut allocation.permissions);
        let Some(until) = permissions.and_then(|permissions| permissions.get_mut(media)) else {
            return;
        };
        if *until == Mono::ZERO {
            self.permissions += 1;
        }
        *until = now.plus(PERMISSION);
    }

    /// RFC 8656 section 12.2.
    fn on_channel_bind(
        &mut self,
        now: Mono,
        message: &Message<'_>,
        index: u32,
        counters: &mut Counters,
    ) -> Result<Answer, Refusal> {
        let number = turn::channel_number(message);
        let peer = message.xor_address(attr::XOR_PEER_ADDRESS).ok_or(Refusal::BadRequest)?;
        let allocation = self.table.get_mut(index).ok_or(Refusal::Mismatch)?;
        let admitted = self
            .policy
            .admit(allocation.owner.class, peer, Scope::Transport)
            .ok_or(Refusal::Forbidden(Id::RelayDeniedChannel))?;
        // Not `self.family()`: that would borrow all of `self`.
        if peer.is_ipv4() != self.config.relayed_ip.is_ipv4() {
            return Err(Refusal::PeerFamily);
        }
        // After the policy: a denied peer is 403 on any number. (coturn 4.6's client draws numbers
        // up to 0x7FFF, as RFC 5766 had it.)
        let number = number?.ok_or(Refusal::BadRequest)?;
        for (media, channel) in allocation.channels.iter().enumerate() {
            let same = (channel.number == number, media == admitted.media);
            if channel.until > now && same != (true, true) && same != (false, false) {
                return Err(Refusal::BadRequest);
            }
        }
        // An expired binding that no timer has swept yet gives its number up here.
        for channel in &mut allocation.channels {
            if channel.number != 0 && channel.until <= now {
                *channel = Channel::default();
                self.channels = self.channels.saturating_sub(1);
            }
        }
        let place = allocation.channels.get_mut(admitted.media).ok_or(Refusal::Capacity)?;
        if place.number == 0 {
            self.channels += 1;
        }
        *place = Channel { number, until: now.plus(CHANNEL) };
        self.permit(now, index, admitted.permission);
        self.timers.arm(index, &mut self.table);
        self.publish(counters);
        Ok(Answer::Done)
    }
}

pub(super) fn response<'b>(
    class: Class,
    message: &Message<'_>,
    reply: &'b mut [u8],
) -> Builder<'b> {
    Builder::new(reply, class, message.method(), message.transaction_id())
}

fn sign(mut builder: Builder<'_>, signer: &Signer) -> Handled {
    signer.sign(&mut builder);
    builder.finish().map_or(Handled::Dropped, Handled::Reply)
}

fn refuse(
    refusal: Refusal,
    message: &Message<'_>,
    signer: &Signer,
    reply: &mut [u8],
    counters: &mut Counters,
) -> Handled {
    counters.inc(refusal.counter());
    let mut builder = response(Class::Error, message, reply);
    builder.error_code(refusal.code(), "");
    sign(builder, signer)
}
