//! Which packets of which layer became which outgoing numbers of one player's track.

use std::collections::VecDeque;

use super::descriptor::Shifts;
use super::{MAX_LAYERS, PacketHead};

/// Runs kept. With every second frame left out (a temporal layer) at 30 frames a second this is
/// four seconds, longer than anybody asks for a repeat.
const MAX_RUNS: usize = 128;

/// How the packets of a run are changed, and which of them are sent. Never changes for a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Edit {
    /// Added to the layer's timestamp.
    pub(crate) timestamp: u32,
    /// Added to what the payload descriptor numbers.
    pub(crate) shifts: Shifts,
    /// Highest spatial layer sent.
    pub(crate) spatial: u8,
    /// Highest temporal layer sent.
    pub(crate) temporal: u8,
}

impl Edit {
    /// Whether a packet is of the layers sent.
    pub(crate) const fn passes(&self, head: &PacketHead) -> bool {
        head.spatial <= self.spatial && head.temporal <= self.temporal
    }

    /// Whether with this packet the picture ends for whoever gets no higher spatial layer.
    pub(crate) const fn ends_picture(&self, head: &PacketHead) -> bool {
        head.ends && head.spatial == self.spatial
    }
}

/// Consecutive sequences of one layer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    pub(crate) layer: u8,
    first: u64,
    /// Inclusive.
    pub(crate) last: u64,
    /// Outgoing number less sequence, wrapping; `None`: left out, without numbers.
    shift: Option<u64>,
    pub(crate) edit: Edit,
}

/// The runs of one track, oldest first; two of one layer do not overlap, nor do their numbers.
#[derive(Debug)]
pub(crate) struct Runs {
    runs: VecDeque<Run>,
    /// The sequence of each layer behind which none is in a run.
    ends: [u64; MAX_LAYERS],
    /// The number before the first one.
    highest: u64,
}

impl Runs {
    /// The first outgoing number will be `first`.
    pub(crate) const fn new(first: u64) -> Self {
        Self { runs: VecDeque::new(), ends: [0; MAX_LAYERS], highest: first.wrapping_sub(1) }
    }

    /// The run that packets of now continue.
    pub(crate) fn current(&self) -> Option<&Run> {
        self.runs.back()
    }

    /// The number and changes of a packet within a run; `None`: it has none.
    pub(crate) fn find(&self, layer: u8, sequence: u64) -> Option<(u64, Edit)> {
        if self.is_new(layer, sequence) {
            return None;
        }
        let covers = |run: &&Run| run.layer == layer && (run.first..=run.last).contains(&sequence);
        let run = self.runs.iter().rev().find(covers)?;
        Some((sequence.wrapping_add(run.shift?), run.edit))
    }

    /// The layer and sequence that an outgoing number stands for.
    pub(crate) fn source(&self, number: u16) -> Option<(u8, u64)> {
        let behind = (self.highest as u16).wrapping_sub(number);
        let number = self.highest.checked_sub(u64::from(behind))?;
        self.runs.iter().rev().find_map(|run| {
            let sequence = number.wrapping_sub(run.shift?);
            (run.first..=run.last).contains(&sequence).then_some((run.layer, sequence))
        })
    }

    /// Whether a sequence lies behind all runs of its layer.
    pub(crate) fn is_new(&self, layer: u8, sequence: u64) -> bool {
        self.ends.get(usize::from(layer)).is_some_and(|end| sequence >= *end)
    }

    /// Starts a run with a packet behind everything of its layer; `skipped` numbers stay free.
    pub(crate) fn open(&mut self, layer: u8, sequence: u64, edit: Edit, skipped: u64) -> u64 {
        let number = self.highest.wrapping_add(1 + skipped);
        let shift = Some(number.wrapping_sub(sequence));
        self.push(Run { layer, first: sequence, last: sequence, shift, edit });
        self.highest = number;
        self.note_end(layer, sequence);
        number
    }

    /// The next packet of the current run's layer is sent. What is missing before it keeps numbers.
    pub(crate) fn send(&mut self, sequence: u64, edit: Edit) -> u64 {
        let highest = self.highest;
        let Some(run) = self.runs.back_mut() else { return self.open(0, sequence, edit, 0) };
        let (layer, last) = (run.layer, run.last);
        let number = highest.wrapping_add(sequence.wrapping_sub(last));
        self.highest = number;
        let shift = number.wrapping_sub(sequence);
        if run.shift == Some(shift) && run.edit == edit {
            run.last = sequence;
        } else {
            self.push(Run { layer, first: last + 1, last: sequence, shift: Some(shift), edit });
        }
        self.note_end(layer, sequence);
        number
    }

    /// The next packet of the current run's layer is left out. What is missing before it keeps
    /// numbers, to be sent with `edit`.
    pub(crate) fn skip(&mut self, sequence: u64, edit: Edit) {
        let Some(run) = self.runs.back().copied() else { return };
        if sequence > run.last + 1 {
            self.send(sequence - 1, edit);
        }
        let Some(run) = self.runs.back_mut() else { return };
        let (layer, first) = (run.layer, run.last + 1);
        if run.shift.is_none() {
            run.last = sequence;
        } else {
            self.push(Run { layer, first, last: sequence, shift: None, edit });
        }
        self.note_end(layer, sequence);
    }

    fn note_end(&mut self, layer: u8, sequence: u64) {
        if let Some(end) = self.ends.get_mut(usize::from(layer)) {
            *end = (*end).max(sequence + 1);
        }
    }

    fn push(&mut self, run: Run) {
        if self.runs.len() >= MAX_RUNS {
            self.runs.pop_front();
        }
        self.runs.push_back(run);
    }
}
