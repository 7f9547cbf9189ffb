//! Allocate and Refresh, RFC 8656 sections 7 and 8.

use std::time::Duration;

use super::Relay;
use super::ending::End;
use super::limits::Bucket;
use super::outside::memory;
use super::policy::MAX_MEDIA;
use super::ports::IpFamily;
use super::proof::{Proven, remaining};
use super::request::{Answer, Refusal};
use super::table::{Allocation, Channel, MAX_CHANNELS, Owner, Relayed};
use super::timers::NEVER;
use crate::auth::turn as credential;
use crate::ids::FiveTuple;
use crate::metrics::{Counters, Id};
use crate::time::{Mono, Now, Unix};
use crate::wire::stun::{Message, attr};
use crate::wire::turn::{self, Family};

/// What an Allocate asks for.
struct Wanted {
    v4: bool,
    v6: bool,
    /// IPv6 is welcome but need not be: ADDITIONAL-ADDRESS-FAMILY.
    v6_optional: bool,
    even: bool,
    /// The next higher port is to be reserved, too.
    pair: bool,
    token: Option<u64>,
}

const fn ip_family(family: Family) -> Option<IpFamily> {
    match family {
        Family::V4 => Some(IpFamily::V4),
        Family::V6 => Some(IpFamily::V6),
        Family::Other(_) => None,
    }
}

impl Relay {
    /// Seconds granted: RFC 8656 section 7.2, and never beyond the session limit.
    fn granted(&self, now: Unix, asked: Option<u32>, live_until: Unix) -> u32 {
        let limits = &self.config.limits;
        let asked = asked.unwrap_or(0).min(limits.max_lifetime).max(limits.default_lifetime);
        asked.min(u32::try_from(remaining(now, live_until)).unwrap_or(u32::MAX))
    }

    pub(super) fn on_allocate(
        &mut self,
        now: Now,
        tuple: FiveTuple,
        message: &Message<'_>,
        existing: Option<u32>,
        proven: &Proven<'_>,
        counters: &mut Counters,
    ) -> Result<Answer, Refusal> {
        let verified = match (existing, &proven.fresh) {
            (None, Some(verified)) => verified,
            (Some(index), None) => return self.allocated_before(message, index),
            _ => return Err(Refusal::Mismatch),
        };
        let wanted = self.check_allocate(message, verified.class)?;
        let lifetime = self.granted(now.unix, turn::lifetime(message)?, verified.live_until);
        if now.unix >= verified.allocate_by {
            return Err(Refusal::Expired);
        }
        let owner = Owner { subject: verified.subject, room: verified.room, class: verified.class };
        if owner.class == credential::Class::Room && owner.room.is_none() {
            // There is nobody it could ever reach.
            return Err(Refusal::Forbidden(Id::RelayDeniedPermission));
        }
        if owner.class == credential::Class::External && self.outlets.is_none() {
            return Err(Refusal::Forbidden(Id::RelayDeniedPermission));
        }
        if let Some(alternate) = &self.draining {
            let v4 = tuple.client.ip().is_ipv4();
            return Err(Refusal::Draining(if v4 { alternate.v4 } else { alternate.v6 }));
        }
        let limits = &self.config.limits;
        if self.table.of_subject(verified.subject) >= limits.allocations_per_subject {
            return Err(Refusal::Quota);
        }
        if self.table.len() as u64 >= u64::from(limits.allocations) {
            return Err(Refusal::Capacity);
        }
        let (ports, reservation, v6_error) = self.draw(now.mono, &owner, &wanted, counters)?;
        let expires = now.mono.plus(Duration::from_secs(lifetime.into()));
        let relayed = ports.map(|port| match port {
            Some(port) => Relayed { port, expires },
            None => Relayed::default(),
        });
        let index = self
            .table
            .insert(Allocation {
                tuple,
                owner,
                relayed,
                sent: Bucket::default(),
                received: Bucket::default(),
                channels: [Channel::default(); MAX_CHANNELS],
                permissions: [Mono::ZERO; MAX_MEDIA],
                armed: NEVER,
                live_until: verified.live_until,
                credential: verified.credential,
                issued: verified.issued,
                granted: lifetime,
                reservation,
                created_by: message.transaction_id(),
                key: verified.key,
                key_sha256: verified.key_sha256,
                username: proven.username.into(),
                outside: memory(owner.class),
            })
            .ok_or(Refusal::Capacity)?;
        self.timers.arm(index, &mut self.table);
        counters.inc(Id::RelayAllocationsCreated);
        self.publish(counters);
        Ok(Answer::Allocated { index, v6_error })
    }

    /// A retransmission gets the answer of the first (RFC 8656 section 7.2), anything else 437.
    fn allocated_before(&self, message: &Message<'_>, index: u32) -> Result<Answer, Refusal> {
        let allocation = self.table.get(index).ok_or(Refusal::Mismatch)?;
        if allocation.created_by != message.transaction_id() {
            return Err(Refusal::Mismatch);
        }
        let asked = message.first(attr::ADDITIONAL_ADDRESS_FAMILY).is_some();
        let [_, v6] = allocation.relayed;
        let class = allocation.owner.class;
        let v6_error = (asked && v6.port == 0).then(|| self.why_no_v6(class));
        Ok(Answer::Allocated { index, v6_error })
    }

    fn why_no_v6(&self, class: credential::Class) -> u16 {
        if self.policy.relayed_of(class, IpFamily::V6).is_none() { 440 } else { 508 }
    }

    /// The attributes of an Allocate, in the order of RFC 8656 section 7.2.
    fn check_allocate(
        &self,
        message: &Message<'_>,
        class: credential::Class,
    ) -> Result<Wanted, Refusal> {
        match turn::requested_transport(message)? {
            None => return Err(Refusal::BadRequest),
            Some(turn::PROTOCOL_UDP) => {}
            Some(_) => return Err(Refusal::Transport),
        }
        let requested = turn::family(message, attr::REQUESTED_ADDRESS_FAMILY)?;
        let additional = turn::family(message, attr::ADDITIONAL_ADDRESS_FAMILY)?;
        let even = turn::even_port(message)?;
        let token = message.first(attr::RESERVATION_TOKEN);
        let token = token
            .map(|token| token.try_into().map(u64::from_be_bytes))
            .transpose()
            .map_err(|_| Refusal::BadRequest)?;
        if token.is_some() && (even.is_some() || requested.is_some() || additional.is_some()) {
            return Err(Refusal::BadRequest);
        }
        // ADDITIONAL-ADDRESS-FAMILY asks for IPv6 beside IPv4, and for nothing else.
        if additional.is_some_and(|family| family != Family::V6)
            || (additional.is_some() && (requested.is_some() || even == Some(true)))
        {
            return Err(Refusal::BadRequest);
        }
        // Without a word about it: IPv4, over whatever the client comes.
        let family = requested.map_or(Some(IpFamily::V4), ip_family).ok_or(Refusal::Family)?;
        let no_class = class == credential::Class::External && self.outlets.is_none();
        if self.policy.relayed_of(class, family).is_none() && !no_class {
            return Err(Refusal::Family);
        }
        Ok(Wanted {
            v4: family == IpFamily::V4,
            v6: family == IpFamily::V6 || additional.is_some(),
            v6_optional: additional.is_some(),
            even: even.is_some(),
            pair: even == Some(true),
            token,
        })
    }

    /// Ports for IPv4 and IPv6, a token for the reserved neighbour (0: none), and why there is no
    /// IPv6 though it was welcome.
    #[expect(clippy::type_complexity, reason = "three answers to one question, used once")]
    fn draw(
        &mut self,
        now: Mono,
        owner: &Owner,
        wanted: &Wanted,
        counters: &mut Counters,
    ) -> Result<([Option<u16>; 2], u64, Option<u16>), Refusal> {
        if owner.class == credential::Class::External {
            return self.draw_outside(now, owner, wanted, counters);
        }
        if let Some(token) = wanted.token {
            let reserved = self.config.shared.redeem(now, owner.subject, token);
            // A token is from an allocation of the forwarder's; a room's ports are drawn unique.
            let unique = owner.class == credential::Class::Room;
            let (family, port) = reserved.filter(|_| !unique).ok_or(Refusal::Capacity)?;
            let ports = match family {
                IpFamily::V4 => [Some(port), None],
                IpFamily::V6 => [None, Some(port)],
            };
            return Ok((ports, 0, None));
        }
        let mut ports = [None; 2];
        if wanted.v4 {
            ports[0] = Some(self.draw_port(owner, IpFamily::V4, wanted)?);
        }
        let mut v6_error = None;
        if wanted.v6 {
            match self.draw_v6(owner, wanted) {
                Ok(port) => ports[1] = Some(port),
                Err(_) if wanted.v6_optional => v6_error = Some(self.why_no_v6(owner.class)),
                Err(refusal) => return Err(refusal),
            }
        }
        let reservation = if wanted.pair {
            let family = if wanted.v4 { IpFamily::V4 } else { IpFamily::V6 };
            let odd = ports.into_iter().flatten().next().ok_or(Refusal::Capacity)? | 1;
            let shared = &self.config.shared;
            shared
                .reserve(now, owner.subject, family, odd, &mut self.rng)
                .ok_or(Refusal::Capacity)?
        } else {
            0
        };
        Ok((ports, reservation, v6_error))
    }

    /// The same, of real ports.
    #[expect(clippy::type_complexity, reason = "three answers to one question, used once")]
    fn draw_outside(
        &mut self,
        now: Mono,
        owner: &Owner,
        wanted: &Wanted,
        counters: &mut Counters,
    ) -> Result<([Option<u16>; 2], u64, Option<u16>), Refusal> {
        let subject = owner.subject;
        if let Some(token) = wanted.token {
            return self.take_outlet(now, subject, token).map(|(family, port)| match family {
                IpFamily::V4 => ([Some(port), None], 0, None),
                IpFamily::V6 => ([None, Some(port)], 0, None),
            });
        }
        let which = (wanted.even, wanted.pair);
        let mut ports = [None; 2];
        let mut token = 0;
        if wanted.v4 {
            let drawn = self.open_outlet(now, subject, IpFamily::V4, which, counters)?;
            (ports[0], token) = (Some(drawn.port), drawn.token);
        }
        let mut v6_error = None;
        if wanted.v6 {
            let there = self.policy.relayed_of(owner.class, IpFamily::V6).is_some();
            let drawn = if there {
                self.open_outlet(now, subject, IpFamily::V6, which, counters)
            } else {
                Err(Refusal::Family)
            };
            match drawn {
                // Both with a pair is 400, so there is one token at most.
                Ok(drawn) => {
                    (ports[1], token) = (Some(drawn.port), token.max(drawn.token));
                }
                Err(_) if wanted.v6_optional => v6_error = Some(self.why_no_v6(owner.class)),
                Err(refusal) => return Err(refusal),
            }
        }
        Ok((ports, token, v6_error))
    }

    fn draw_v6(&mut self, owner: &Owner, wanted: &Wanted) -> Result<u16, Refusal> {
        if self.config.relayed_ip6.is_none() {
            return Err(Refusal::Family);
        }
        self.draw_port(owner, IpFamily::V6, wanted)
    }

    fn draw_port(
        &mut self,
        owner: &Owner,
        family: IpFamily,
        wanted: &Wanted,
    ) -> Result<u16, Refusal> {
        let rng = &mut self.rng;
        let port = match (owner.class, owner.room) {
            (credential::Class::Forwarder | credential::Class::Probe, _) => {
                self.ports.draw(rng, wanted.even, wanted.pair)
            }
            // The neighbour is another shard's, so there are no pairs.
            (credential::Class::Room, Some(room)) if !wanted.pair => {
                self.ports.draw_unique(rng, wanted.even, &self.config.shared, family, room)
            }
            (credential::Class::Room | credential::Class::External, _) => None,
        };
        port.ok_or(Refusal::Capacity)
    }

    /// RFC 8656 section 8.2. Without REQUESTED-ADDRESS-FAMILY it is about all relayed addresses of
    /// the allocation, with it about that one.
    pub(super) fn on_refresh(
        &mut self,
        now: Now,
        message: &Message<'_>,
        index: u32,
        counters: &mut Counters,
    ) -> Result<Answer, Refusal> {
        let asked = turn::lifetime(message)?;
        let only = turn::family(message, attr::REQUESTED_ADDRESS_FAMILY)?;
        let allocation = self.table.get(index).ok_or(Refusal::Mismatch)?;
        let has = |family: IpFamily| allocation.port(family, now.mono).is_some();
        let only = match only {
            None => None,
            Some(family) => {
                let family = ip_family(family).filter(|family| has(*family));
                Some(family.ok_or(Refusal::PeerFamily)?)
            }
        };
        let meant = IpFamily::BOTH.map(|family| has(family) && only.is_none_or(|o| o == family));
        let kept = IpFamily::BOTH.map(|family| has(family) && only.is_some_and(|o| o != family));
        if asked == Some(0) {
            if kept == [false, false] {
                self.end(now, index, End::Released, counters);
                return Ok(Answer::Refreshed(0));
            }
            for (family, _) in IpFamily::BOTH.into_iter().zip(meant).filter(|(_, meant)| *meant) {
                self.drop_family(index, family);
            }
            self.publish(counters);
            return Ok(Answer::Refreshed(0));
        }
        let lifetime = self.granted(now.unix, asked, allocation.live_until);
        let allocation = self.table.get_mut(index).ok_or(Refusal::Mismatch)?;
        for (relayed, _) in allocation.relayed.iter_mut().zip(meant).filter(|(_, meant)| *meant) {
            relayed.expires = now.mono.plus(Duration::from_secs(lifetime.into()));
        }
        self.timers.arm(index, &mut self.table);
        Ok(Answer::Refreshed(lifetime))
    }
}
