//! Fixed-bucket histograms, counted by a shard without atomics.

/// A data-plane histogram.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub enum Hist {
    /// Seconds one turn of the shard loop kept other input waiting.
    LoopLag,
    /// Datagrams taken by one receive call.
    RecvBatch,
    /// Datagrams given to one send call.
    SendBatch,
    /// Equal segments in a row towards one client, the unit of segmentation offload.
    RunLength,
}

/// A histogram's name, help and upper bounds.
#[derive(Debug)]
pub struct HistDef {
    /// Metric family.
    pub name: &'static str,
    /// For `# HELP`.
    pub help: &'static str,
    /// Upper bounds, ascending, in counted units; `+Inf` is implied.
    pub bounds: &'static [u64],
    /// Counted units in one exposed unit (1e6: microseconds counted, seconds exposed).
    pub per_unit: f64,
}

/// Definitions, in the order of [`Hist`].
pub const HISTS: &[HistDef] = &[
    HistDef {
        name: "veilgate_engine_loop_lag_seconds",
        help: "How long a turn of the shard loop kept other input waiting",
        bounds: &[50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 100_000],
        per_unit: 1e6,
    },
    HistDef {
        name: "veilgate_engine_recv_batch_datagrams",
        help: "Datagrams taken by one receive call",
        bounds: &[1, 2, 4, 8, 16, 32, 64, 128, 256],
        per_unit: 1.0,
    },
    HistDef {
        name: "veilgate_engine_send_batch_datagrams",
        help: "Datagrams given to one send call",
        bounds: &[1, 2, 4, 8, 16, 32, 64, 128, 256],
        per_unit: 1.0,
    },
    HistDef {
        name: "veilgate_engine_run_length_segments",
        help: "Equal segments in a row towards one client",
        bounds: &[1, 2, 4, 8, 16, 32, 64],
        per_unit: 1.0,
    },
];

/// Cells a histogram takes in a flat array: one per bound, `+Inf`, and the sum.
pub(crate) const fn cells(def: &HistDef) -> usize {
    def.bounds.len() + 2
}

/// Where a histogram's cells begin.
pub(crate) const fn offset(hist: usize) -> usize {
    let mut at = 0;
    let mut i = 0;
    while i < hist {
        at += cells(&HISTS[i]);
        i += 1;
    }
    at
}

/// All cells.
pub(crate) const CELLS: usize = offset(HISTS.len());
