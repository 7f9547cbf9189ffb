//! Authenticated requests and their answers; CreatePermission and ChannelBind (RFC 8656 sections 10
//! and 12).

use std::net::SocketAddr;
use std::time::Duration;

use super::ending::End;
use super::policy::{MAX_MEDIA, Scope};
use super::ports::IpFamily;
use super::proof::{Signer, Unproven};
use super::table::Channel;
use super::{Handled, Relay, dropped};
use crate::auth::turn as credential;
use crate::ids::FiveTuple;
use crate::metrics::{Counters, Id};
use crate::time::{Mono, Now};
use crate::wire::channel_data::LAST_CHANNEL;
use crate::wire::stun::{Builder, Class, Message, Method, attr};
use crate::wire::turn::{self, Malformed};

pub(super) const PERMISSION: Duration = Duration::from_secs(300);
pub(super) const CHANNEL: Duration = Duration::from_secs(600);

/// The comprehension-required attributes a TURN server of RFC 8656 understands; others get 420.
/// DONT-FRAGMENT comes first, for [`known`].
const KNOWN: &[u16] = &[
    attr::DONT_FRAGMENT,
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
    attr::XOR_MAPPED_ADDRESS,
    attr::RESERVATION_TOKEN,
    attr::PASSWORD_ALGORITHM,
];

/// What is understood of a client of this class: towards peers outside there are IP hops, and we
/// do not set DF on single datagrams (RFC 8656 section 7.2: 420 then).
pub(super) fn known(class: credential::Class) -> &'static [u16] {
    match (class, KNOWN) {
        (credential::Class::External, [_, rest @ ..]) => rest,
        _ => KNOWN,
    }
}

/// An error response, by its code; its counter follows from it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Refusal {
    /// 300, or 508 without an alternate of the client's family.
    Draining(Option<SocketAddr>),
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
            Self::Draining(Some(_)) => 300,
            Self::Draining(None) => 508,
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
            Self::Draining(_) => Id::RelayRefusedDraining,
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
pub(super) enum Answer {
    /// The allocation, new or asked about again, and why it has no IPv6 address beside IPv4.
    Allocated {
        index: u32,
        v6_error: Option<u16>,
    },
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
        let class = match (&proven.fresh, existing.and_then(|index| self.table.get(index))) {
            (Some(verified), _) => verified.class,
            (None, Some(allocation)) => allocation.owner.class,
            (None, None) => credential::Class::Forwarder,
        };
        let unknown = message.unknown_required(known(class));
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
        if self.table.get(index)?.expires() > now.mono {
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
            Answer::Allocated { index, v6_error } => {
                let Some(allocation) = self.table.get(index) else { return Handled::Dropped };
                for (family, relayed) in IpFamily::BOTH.into_iter().zip(&allocation.relayed) {
                    let ip = self.policy.relayed_of(allocation.owner.class, family);
                    if let Some(ip) = ip.filter(|_| relayed.port != 0) {
                        builder.xor_address(attr::XOR_RELAYED_ADDRESS, (ip, relayed.port).into());
                    }
                }
                builder.u32(attr::LIFETIME, allocation.granted);
                if allocation.reservation != 0 {
                    let token = allocation.reservation.to_be_bytes();
                    builder.attribute(attr::RESERVATION_TOKEN, &token);
                }
                builder.xor_address(attr::XOR_MAPPED_ADDRESS, tuple.client.expose());
                if let Some(code) = v6_error {
                    // Family, reserved, class, number (RFC 8656 section 18.12).
                    let code = [2, 0, (code / 100) as u8, (code % 100) as u8];
                    builder.attribute(attr::ADDRESS_ERROR_CODE, &code);
                }
            }
            Answer::Refreshed(lifetime) => builder.u32(attr::LIFETIME, lifetime),
            Answer::Done => {}
        }
        sign(builder, signer)
    }

    /// RFC 8656 section 10.2: all peers or none.
    fn on_create_permission(
        &mut self,
        now: Mono,
        message: &Message<'_>,
        index: u32,
        counters: &mut Counters,
    ) -> Result<Answer, Refusal> {
        let allocation = self.table.get(index).ok_or(Refusal::Mismatch)?;
        if allocation.outside.is_some() {
            return self.on_create_permission_outside(now, message, index, counters);
        }
        let peers = message.attributes().filter(|(kind, _)| *kind == attr::XOR_PEER_ADDRESS);
        let mut granted = [false; MAX_MEDIA];
        let mut foreign_family = false;
        for (_, value) in peers {
            let peer = message.decode_xor_address(value).ok_or(Refusal::BadRequest)?;
            // Policy before family: a denied target is 403 in whatever form it is written.
            let admitted = self
                .policy
                .admit(&allocation.owner, peer, Scope::Address)
                .ok_or(Refusal::Forbidden(Id::RelayDeniedPermission))?;
            foreign_family |= !self.serves(allocation, now, peer, admitted.peer);
            if let Some(place) = granted.get_mut(admitted.permission) {
                *place = true;
            }
        }
        if foreign_family {
            return Err(Refusal::PeerFamily);
        }
        if granted == [false; MAX_MEDIA] {
            return Err(Refusal::BadRequest);
        }
        for (place, _) in granted.iter().enumerate().filter(|(_, granted)| **granted) {
            self.permit(now, index, place);
        }
        self.timers.arm(index, &mut self.table);
        self.publish(counters);
        Ok(Answer::Done)
    }

    fn permit(&mut self, now: Mono, index: u32, place: usize) {
        let permissions = self.table.get_mut(index).map(|allocation| &mut allocation.permissions);
        let Some(until) = permissions.and_then(|permissions| permissions.get_mut(place)) else {
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
        let allocation = self.table.get(index).ok_or(Refusal::Mismatch)?;
        if allocation.outside.is_some() {
            return self.on_channel_bind_outside(now, message, index, counters);
        }
        let number = turn::channel_number(message, LAST_CHANNEL);
        let peer = message.xor_address(attr::XOR_PEER_ADDRESS).ok_or(Refusal::BadRequest)?;
        let admitted = self
            .policy
            .admit(&allocation.owner, peer, Scope::Transport)
            .ok_or(Refusal::Forbidden(Id::RelayDeniedChannel))?;
        if !self.serves(allocation, now, peer, admitted.peer) {
            return Err(Refusal::PeerFamily);
        }
        // After the policy: a denied peer is 403 on any number. (coturn 4.6's client draws numbers
        // up to 0x7FFF, as RFC 5766 had it.)
        let number = number?.ok_or(Refusal::BadRequest)?;
        let allocation = self.table.get_mut(index).ok_or(Refusal::Mismatch)?;
        for channel in &mut allocation.channels {
            if channel.number == 0 {
                continue;
            }
            if channel.until <= now {
                // An expired binding that no timer has swept yet gives its number up here.
                *channel = Channel::default();
                self.channels = self.channels.saturating_sub(1);
            } else if (channel.number == number) != (channel.peer == admitted.peer) {
                return Err(Refusal::BadRequest);
            }
        }
        let bound = allocation.channels.iter().position(|channel| channel.number == number);
        let free = || allocation.channels.iter().position(|channel| channel.number == 0);
        let place = bound.or_else(free).and_then(|at| allocation.channels.get_mut(at));
        let place = place.ok_or(Refusal::Capacity)?;
        if place.number == 0 {
            self.channels += 1;
        }
        *place = Channel { number, peer: admitted.peer, until: now.plus(CHANNEL) };
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
    if let Refusal::Draining(Some(alternate)) = refusal {
        builder.address(attr::ALTERNATE_SERVER, alternate);
    }
    sign(builder, signer)
}
