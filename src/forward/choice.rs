//! Which layers of a track a player gets: what its application wishes and what its way can carry.

use super::MAX_LAYERS;

/// What the application of a player wishes of a track. `None`: the best there is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Wish {
    /// Send nothing.
    pub paused: bool,
    /// Highest simulcast or spatial layer, from 0.
    pub spatial: Option<u8>,
    /// Highest temporal layer, from 0.
    pub temporal: Option<u8>,
}

/// What of a track to send at most, for want of bandwidth.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Target {
    /// Highest simulcast or spatial layer, from 0.
    pub spatial: u8,
    /// Highest temporal layer, from 0.
    pub temporal: u8,
}

impl Target {
    /// Everything there is.
    pub const BEST: Self = Self { spatial: u8::MAX, temporal: u8::MAX };
}

/// What each choice of a track's layers takes, bits per second of RTP over about a second.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TrackRates {
    /// By spatial (or simulcast) and temporal layer; with all that it depends on. 0: not there.
    pub bps: [[u32; MAX_LAYERS]; MAX_LAYERS],
}

impl Wish {
    /// What to send at most by wish and by bandwidth; `None`: nothing.
    pub(crate) fn limit(&self, target: Option<Target>) -> Option<Target> {
        let target = target.filter(|_| !self.paused)?;
        Some(Target {
            spatial: self.spatial.map_or(target.spatial, |wish| wish.min(target.spatial)),
            temporal: self.temporal.map_or(target.temporal, |wish| wish.min(target.temporal)),
        })
    }

    /// The choices that the wish allows with their rates, ascending. A smaller picture comes before
    /// fewer pictures: only of the smallest are temporal layers left out.
    pub(crate) fn options(&self, rates: &TrackRates) -> Vec<(Target, u32)> {
        let Some(limit) = self.limit(Some(Target::BEST)) else { return Vec::new() };
        let mut all = Vec::with_capacity(MAX_LAYERS * MAX_LAYERS);
        for (spatial, row) in (0u8..).zip(&rates.bps).take(1 + usize::from(limit.spatial)) {
            let smallest = all.is_empty();
            let sent = (0u8..).zip(row).take(1 + usize::from(limit.temporal));
            let sent = sent.filter(|(_, bps)| **bps > 0);
            let choice = |(temporal, bps): (u8, &u32)| (Target { spatial, temporal }, *bps);
            if smallest {
                all.extend(sent.map(choice));
            } else {
                all.extend(sent.last().map(choice));
            }
        }
        all
    }
}
