//! ICE restart (RFC 8445 section 9): the credentials of a session, and those that follow them.
//!
//! Media goes on over the old paths until the client nominates with the new credentials. DTLS and
//! SRTP never hear of it.

use std::net::SocketAddr;

use super::ice_lite::{self, Answer, CheckError, IceCredentials};

/// What connectivity checks of one ICE generation are judged by.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Generation {
    /// Our credentials.
    pub local: IceCredentials,
    /// The client's ufrag.
    pub remote_ufrag: String,
}

/// The generation in force and, during a restart, the one that follows: never more than two.
#[derive(Debug)]
pub(super) struct Generations {
    current: Generation,
    next: Option<Generation>,
}

impl Generations {
    pub(super) fn new(current: Generation, next: Option<Generation>) -> Self {
        Self { current, next }
    }

    pub(super) fn current(&self) -> &Generation {
        &self.current
    }

    /// A restart that was under way is given up for this one.
    pub(super) fn follow_with(&mut self, next: Generation) {
        if next != self.current {
            self.next = Some(next);
        }
    }

    /// Local ufrags that checks may carry.
    pub(super) fn ufrags(&self) -> impl Iterator<Item = &str> {
        [Some(&self.current), self.next.as_ref()].into_iter().flatten().map(|g| &*g.local.ufrag)
    }

    /// Judges a check by the credentials it names. True beside the answer: it nominates, and with
    /// it the old credentials are over.
    pub(super) fn answer(
        &mut self,
        datagram: &[u8],
        mapped: SocketAddr,
        out: &mut [u8],
    ) -> Result<(Answer, bool), CheckError> {
        let named = |next: &Generation| {
            ice_lite::peek(datagram).is_some_and(|check| check.local_ufrag == next.local.ufrag)
        };
        let Some(next) = self.next.take_if(|next| named(next)) else {
            let Generation { local, remote_ufrag } = &self.current;
            let answer = ice_lite::answer(datagram, local, remote_ufrag, mapped, out)?;
            return Ok((answer, false));
        };
        let answer = ice_lite::answer(datagram, &next.local, &next.remote_ufrag, mapped, out);
        let restarted = answer.is_ok_and(|answer| answer.use_candidate);
        if restarted {
            self.current = next;
        } else {
            self.next = Some(next);
        }
        answer.map(|answer| (answer, restarted))
    }
}
