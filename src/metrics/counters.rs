//! Every counter and gauge of the data plane, named once. Shards count in plain integers.

use std::sync::atomic::{AtomicU64, Ordering};

use super::histogram::{self, CELLS, HISTS, Hist};

/// How a sample is exposed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
}

/// One time series: a metric family and at most two labels.
#[derive(Debug)]
pub struct Def {
    /// Metric family, `veilgate_<room>_<noun>_<unit>[_total]`.
    pub name: &'static str,
    /// What it counts, for `# HELP`.
    pub help: &'static str,
    /// Closed set of labels: no value ever comes from a client.
    pub labels: &'static [(&'static str, &'static str)],
    /// Counter or gauge.
    pub kind: Kind,
}

macro_rules! counters {
    ($( $id:ident $kind:ident $name:literal { $( $label:ident = $value:literal ),* } $help:literal; )*) => {
        /// A data-plane sample.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(usize)]
        pub enum Id {
            $( #[doc = $help] $id, )*
        }

        /// Definitions, in the order of [`Id`].
        pub const DEFS: &[Def] = &[
            $( Def {
                name: $name,
                help: $help,
                labels: &[ $( (stringify!($label), $value) ),* ],
                kind: Kind::$kind,
            }, )*
        ];
    };
}

counters! {
    RelayAllocations Gauge "veilgate_relay_allocations" {} "Live TURN allocations";
    RelayAllocationsCreated Counter "veilgate_relay_allocations_created_total" {} "TURN allocations created";
    RelayAllocationsEndedExpired Counter "veilgate_relay_allocations_ended_total" { reason = "expired" } "TURN allocations ended";
    RelayAllocationsEndedReleased Counter "veilgate_relay_allocations_ended_total" { reason = "released" } "TURN allocations ended";
    RelayAllocationsEndedSessionLimit Counter "veilgate_relay_allocations_ended_total" { reason = "session_limit" } "TURN allocations ended";
    RelayAllocationsEndedRevoked Counter "veilgate_relay_allocations_ended_total" { reason = "revoked" } "TURN allocations ended";
    RelayPermissions Gauge "veilgate_relay_permissions" {} "Live TURN permissions";
    RelayChannels Gauge "veilgate_relay_channels" {} "Live TURN channel bindings";

    RelayAuthMissing Counter "veilgate_relay_auth_failures_total" { reason = "challenged" } "Unauthenticated requests answered with a 401 challenge, and refused credentials";
    RelayAuthStaleNonce Counter "veilgate_relay_auth_failures_total" { reason = "stale_nonce" } "Unauthenticated requests answered with a 401 challenge, and refused credentials";
    RelayAuthUnknownKey Counter "veilgate_relay_auth_failures_total" { reason = "unknown_key" } "Unauthenticated requests answered with a 401 challenge, and refused credentials";
    RelayAuthMalformed Counter "veilgate_relay_auth_failures_total" { reason = "malformed" } "Unauthenticated requests answered with a 401 challenge, and refused credentials";
    RelayAuthForged Counter "veilgate_relay_auth_failures_total" { reason = "forged" } "Unauthenticated requests answered with a 401 challenge, and refused credentials";
    RelayAuthExpired Counter "veilgate_relay_auth_failures_total" { reason = "expired" } "Unauthenticated requests answered with a 401 challenge, and refused credentials";
    RelayAuthBadIntegrity Counter "veilgate_relay_auth_failures_total" { reason = "bad_integrity" } "Unauthenticated requests answered with a 401 challenge, and refused credentials";
    RelayAuthWrongUser Counter "veilgate_relay_auth_failures_total" { reason = "wrong_user" } "Unauthenticated requests answered with a 401 challenge, and refused credentials";
    RelayAuthBidDown Counter "veilgate_relay_auth_failures_total" { reason = "bid_down" } "Unauthenticated requests answered with a 401 challenge, and refused credentials";

    RelayRefusedQuota Counter "veilgate_relay_refused_total" { reason = "quota" } "Authenticated requests refused";
    RelayRefusedMismatch Counter "veilgate_relay_refused_total" { reason = "allocation_mismatch" } "Authenticated requests refused";
    RelayRefusedBadRequest Counter "veilgate_relay_refused_total" { reason = "bad_request" } "Authenticated requests refused";
    RelayRefusedUnknownAttribute Counter "veilgate_relay_refused_total" { reason = "unknown_attribute" } "Authenticated requests refused";
    RelayRefusedUnsupported Counter "veilgate_relay_refused_total" { reason = "unsupported" } "Authenticated requests refused";
    RelayRefusedCapacity Counter "veilgate_relay_refused_total" { reason = "capacity" } "Authenticated requests refused";

    RelayDeniedPermission Counter "veilgate_relay_denied_peers_total" { reason = "permission" } "Peers denied by policy";
    RelayDeniedChannel Counter "veilgate_relay_denied_peers_total" { reason = "channel" } "Peers denied by policy";
    RelayDeniedSend Counter "veilgate_relay_denied_peers_total" { reason = "send" } "Peers denied by policy";

    RelayDropNotTurn Counter "veilgate_relay_dropped_total" { reason = "not_turn" } "Datagrams dropped without an answer";
    RelayDropMalformed Counter "veilgate_relay_dropped_total" { reason = "malformed" } "Datagrams dropped without an answer";
    RelayDropNoAllocation Counter "veilgate_relay_dropped_total" { reason = "no_allocation" } "Datagrams dropped without an answer";
    RelayDropNoChannel Counter "veilgate_relay_dropped_total" { reason = "no_channel" } "Datagrams dropped without an answer";
    RelayDropNoPermission Counter "veilgate_relay_dropped_total" { reason = "no_permission" } "Datagrams dropped without an answer";
    RelayDropBinding Counter "veilgate_relay_dropped_total" { reason = "binding_off" } "Datagrams dropped without an answer";
    RelayDropReplyCap Counter "veilgate_relay_dropped_total" { reason = "reply_cap" } "Datagrams dropped without an answer";
    RelayDropBadSource Counter "veilgate_relay_dropped_total" { reason = "bad_source" } "Datagrams dropped without an answer";

    RelayPacketsIn Counter "veilgate_relay_packets_total" { direction = "from_client" } "Relayed packets";
    RelayHairpins Counter "veilgate_relay_hairpin_packets_total" {} "Packets passed between two clients of a room";
    RelayPacketsOut Counter "veilgate_relay_packets_total" { direction = "to_client" } "Relayed packets";
    RelayBytesIn Counter "veilgate_relay_bytes_total" { direction = "from_client" } "Relayed payload bytes";
    RelayBytesOut Counter "veilgate_relay_bytes_total" { direction = "to_client" } "Relayed payload bytes";
    RelayAllocationsEndedDisconnected Counter "veilgate_relay_allocations_ended_total" { reason = "disconnected" } "TURN allocations ended";
    RelayAuthRevoked Counter "veilgate_relay_auth_failures_total" { reason = "revoked" } "Unauthenticated requests answered with a 401 challenge, and refused credentials";
    RelayRefusedDraining Counter "veilgate_relay_refused_total" { reason = "draining" } "Authenticated requests refused";
    RelayDropPacketRate Counter "veilgate_relay_dropped_total" { reason = "packet_rate" } "Datagrams dropped without an answer";
    RelayDropBitRate Counter "veilgate_relay_dropped_total" { reason = "bit_rate" } "Datagrams dropped without an answer";
    RelayDropTotalRate Counter "veilgate_relay_dropped_total" { reason = "total_rate" } "Datagrams dropped without an answer";
    RelayDropPacketRateOut Counter "veilgate_relay_dropped_total" { reason = "packet_rate_to_client" } "Datagrams dropped without an answer";
    RelayDropBitRateOut Counter "veilgate_relay_dropped_total" { reason = "bit_rate_to_client" } "Datagrams dropped without an answer";
    RelayDropTotalRateOut Counter "veilgate_relay_dropped_total" { reason = "total_rate_to_client" } "Datagrams dropped without an answer";
    RelayNonceKeys Counter "veilgate_relay_nonce_keys_total" {} "Times the key of nonces was replaced";
    RelayDeniedInbound Counter "veilgate_relay_denied_peers_total" { reason = "inbound" } "Peers denied by policy";
    RelaySockets Gauge "veilgate_relay_external_sockets" {} "Relayed sockets of the external policy";
    RelayPortsTaken Counter "veilgate_relay_external_ports_total" { result = "taken" } "Relayed ports that could not be opened at once";
    RelayPortsExhausted Counter "veilgate_relay_external_ports_total" { result = "exhausted" } "Relayed ports that could not be opened at once";
    ExternalPacketsOut Counter "veilgate_engine_external_packets_total" { direction = "to_peer" } "Datagrams of relayed sockets";
    ExternalPacketsIn Counter "veilgate_engine_external_packets_total" { direction = "from_peer" } "Datagrams of relayed sockets";
    ExternalIcmp Counter "veilgate_engine_external_icmp_total" {} "ICMP errors about datagrams to peers";
    ExternalDropBlocked Counter "veilgate_engine_external_dropped_total" { reason = "would_block" } "Datagrams to peers dropped";
    ExternalDropRefused Counter "veilgate_engine_external_dropped_total" { reason = "refused" } "Datagrams to peers dropped";
    ExternalDropClosed Counter "veilgate_engine_external_dropped_total" { reason = "closed" } "Datagrams to peers dropped";
    RelayDropNoPeer Counter "veilgate_relay_dropped_total" { reason = "no_peer" } "Datagrams dropped without an answer";
    RelayDropRing Counter "veilgate_relay_dropped_total" { reason = "ring_full" } "Datagrams dropped without an answer";

    SessionsPublishing Gauge "veilgate_session_sessions" { role = "publisher" } "Connected sessions";
    SessionsPlaying Gauge "veilgate_session_sessions" { role = "player" } "Connected sessions";
    SessionIceChecks Counter "veilgate_session_ice_checks_total" { result = "ok" } "ICE connectivity checks";
    SessionIceUnknownUfrag Counter "veilgate_session_ice_checks_total" { result = "unknown_ufrag" } "ICE connectivity checks";
    SessionIceBadIntegrity Counter "veilgate_session_ice_checks_total" { result = "bad_integrity" } "ICE connectivity checks";
    SessionIceMalformed Counter "veilgate_session_ice_checks_total" { result = "malformed" } "ICE connectivity checks";
    SessionIceForeignCredential Counter "veilgate_session_ice_checks_total" { result = "foreign_credential" } "ICE connectivity checks";
    SessionIceRoleConflict Counter "veilgate_session_ice_checks_total" { result = "role_conflict" } "ICE connectivity checks";
    SessionIceRestarts Counter "veilgate_session_ice_restarts_total" {} "ICE restarts that clients have nominated with";
    SessionConsentLost Counter "veilgate_session_ended_total" { reason = "consent" } "Sessions ended";
    SessionClosedByPeer Counter "veilgate_session_ended_total" { reason = "peer" } "Sessions ended";
    SessionClosedByControl Counter "veilgate_session_ended_total" { reason = "control" } "Sessions ended";
    SessionFailed Counter "veilgate_session_ended_total" { reason = "failed" } "Sessions ended";
    SessionPanicked Counter "veilgate_session_ended_total" { reason = "panic" } "Sessions ended";
    SessionDropNoPath Counter "veilgate_session_dropped_total" { reason = "no_path" } "Packets to or from a session dropped";
    SessionDropUnknown Counter "veilgate_session_dropped_total" { reason = "no_session" } "Packets to or from a session dropped";
    SessionDropNotMedia Counter "veilgate_session_dropped_total" { reason = "not_media" } "Packets to or from a session dropped";

    DtlsDone13 Counter "veilgate_session_dtls_handshakes_total" { version = "1.3", result = "ok" } "DTLS handshakes";
    DtlsDone12 Counter "veilgate_session_dtls_handshakes_total" { version = "1.2", result = "ok" } "DTLS handshakes";
    DtlsFailed Counter "veilgate_session_dtls_handshakes_total" { version = "none", result = "failed" } "DTLS handshakes";
    DtlsFingerprint Counter "veilgate_session_dtls_handshakes_total" { version = "none", result = "fingerprint_mismatch" } "DTLS handshakes";
    DtlsTimeout Counter "veilgate_session_dtls_handshakes_total" { version = "none", result = "timeout" } "DTLS handshakes";

    SrtpDropAuth Counter "veilgate_session_srtp_dropped_total" { reason = "auth" } "SRTP and SRTCP packets dropped";
    SrtpDropReplay Counter "veilgate_session_srtp_dropped_total" { reason = "replay" } "SRTP and SRTCP packets dropped";
    SrtpDropMalformed Counter "veilgate_session_srtp_dropped_total" { reason = "malformed" } "SRTP and SRTCP packets dropped";
    SrtpDropNoKeys Counter "veilgate_session_srtp_dropped_total" { reason = "no_keys" } "SRTP and SRTCP packets dropped";
    SrtpDropSsrcLimit Counter "veilgate_session_srtp_dropped_total" { reason = "ssrc_limit" } "SRTP and SRTCP packets dropped";
    SrtpDropSeal Counter "veilgate_session_srtp_dropped_total" { reason = "seal" } "SRTP and SRTCP packets dropped";

    DataChannelsOpened Counter "veilgate_session_data_channels_opened_total" {} "Data channels that clients opened";
    DataAssociationsEnded Counter "veilgate_session_data_associations_ended_total" {} "SCTP associations that failed or were given up";
    DataMessagesIn Counter "veilgate_session_data_messages_total" { direction = "in" } "Messages on data channels";
    DataMessagesOut Counter "veilgate_session_data_messages_total" { direction = "out" } "Messages on data channels";
    DataDropMalformed Counter "veilgate_session_data_dropped_total" { reason = "malformed" } "Data channel messages dropped";
    DataDropNoChannel Counter "veilgate_session_data_dropped_total" { reason = "no_channel" } "Data channel messages dropped";
    DataDropNotGranted Counter "veilgate_session_data_dropped_total" { reason = "not_granted" } "Data channel messages dropped";
    DataDropSlow Counter "veilgate_session_data_dropped_total" { reason = "slow_receiver" } "Data channel messages dropped";
    DataDropFlood Counter "veilgate_session_data_dropped_total" { reason = "flood" } "Data channel messages dropped";
    DataDropRing Counter "veilgate_session_data_dropped_total" { reason = "ring_full" } "Data channel messages dropped";

    ForwardPackets Counter "veilgate_forward_packets_total" {} "RTP packets written to players";
    ForwardBytes Counter "veilgate_forward_bytes_total" {} "RTP bytes written to players";
    ForwardReceived Counter "veilgate_forward_received_packets_total" {} "RTP packets taken from publishers";
    ForwardDropUnknownTrack Counter "veilgate_forward_dropped_total" { reason = "unknown_track" } "RTP packets not forwarded";
    ForwardDropDuplicate Counter "veilgate_forward_dropped_total" { reason = "duplicate" } "RTP packets not forwarded";
    ForwardDropMalformed Counter "veilgate_forward_dropped_total" { reason = "malformed" } "RTP packets not forwarded";
    ForwardDropAwaitKeyframe Counter "veilgate_forward_dropped_total" { reason = "await_keyframe" } "RTP packets not forwarded";
    ForwardDropLayer Counter "veilgate_forward_dropped_total" { reason = "layer" } "RTP packets not forwarded";
    ForwardDropPaused Counter "veilgate_forward_dropped_total" { reason = "paused" } "RTP packets not forwarded";
    ForwardDropRing Counter "veilgate_forward_dropped_total" { reason = "ring_full" } "RTP packets not forwarded";
    ForwardDropTooLarge Counter "veilgate_forward_dropped_total" { reason = "too_large" } "RTP packets not forwarded";
    ForwardDropLate Counter "veilgate_forward_dropped_total" { reason = "late" } "RTP packets not forwarded";
    ForwardRtcpMalformed Counter "veilgate_forward_dropped_total" { reason = "rtcp_malformed" } "RTP packets not forwarded";
    ForwardKeyframeAsked Counter "veilgate_forward_keyframe_requests_total" { direction = "from_player" } "Keyframe requests (PLI and FIR)";
    ForwardKeyframeSent Counter "veilgate_forward_keyframe_requests_total" { direction = "to_publisher" } "Keyframe requests (PLI and FIR)";
    ForwardNackReceived Counter "veilgate_forward_nacks_total" { direction = "from_player" } "Packets named in NACKs";
    ForwardNackSent Counter "veilgate_forward_nacks_total" { direction = "to_publisher" } "Packets named in NACKs";
    ForwardRetransmitted Counter "veilgate_forward_retransmissions_total" { result = "sent" } "Answers to players' NACKs";
    ForwardRetransmitMiss Counter "veilgate_forward_retransmissions_total" { result = "not_cached" } "Answers to players' NACKs";
    ForwardRecovered Counter "veilgate_forward_recovered_packets_total" {} "Packets recovered from the publisher by retransmission";
    ForwardLost Counter "veilgate_forward_lost_packets_total" {} "Packets of publishers given up as lost";
    ForwardRetransmitLimited Counter "veilgate_forward_retransmissions_total" { result = "limited" } "Answers to players' NACKs";
    ForwardFeedbackSent Counter "veilgate_forward_transport_feedback_total" { direction = "to_publisher" } "Transport-wide feedback messages";
    ForwardFeedbackReceived Counter "veilgate_forward_transport_feedback_total" { direction = "from_player" } "Transport-wide feedback messages";
    ForwardEstimate Gauge "veilgate_forward_estimate_bits_per_second" {} "What the paths to players carry by our estimates, all together";
    ForwardEstimates Gauge "veilgate_forward_estimates" {} "Players whose path has an estimate";
    ForwardProbes Counter "veilgate_forward_probes_total" {} "Bursts sent to players to learn what their path carries";
    ForwardProbeBytes Counter "veilgate_forward_probe_bytes_total" {} "Bytes of these";
    ForwardLayerUp Counter "veilgate_forward_layer_switches_total" { direction = "up" } "Layers chosen anew for a player's track";
    ForwardLayerDown Counter "veilgate_forward_layer_switches_total" { direction = "down" } "Layers chosen anew for a player's track";

    EngineLoops Counter "veilgate_engine_loops_total" {} "Turns of the shard loop";
    EngineDatagramsIn Counter "veilgate_engine_datagrams_total" { direction = "in" } "UDP datagrams";
    EngineDatagramsOut Counter "veilgate_engine_datagrams_total" { direction = "out" } "UDP datagrams";
    EngineRecvCalls Counter "veilgate_engine_syscalls_total" { call = "recv" } "Batched system calls";
    EngineSendCalls Counter "veilgate_engine_syscalls_total" { call = "send" } "Batched system calls";
    EngineSendErrors Counter "veilgate_engine_send_errors_total" { reason = "refused" } "Datagrams the kernel did not take";
    EngineSendBlocked Counter "veilgate_engine_send_errors_total" { reason = "would_block" } "Datagrams the kernel did not take";
    Streams Gauge "veilgate_engine_streams" {} "TURN connections over TCP and TLS";
    StreamOpened Counter "veilgate_engine_streams_opened_total" {} "TURN connections over TCP and TLS taken in";
    StreamRefused Counter "veilgate_engine_streams_closed_total" { reason = "refused" } "TURN connections closed";
    StreamEnded Counter "veilgate_engine_streams_closed_total" { reason = "client" } "TURN connections closed";
    StreamNotTurn Counter "veilgate_engine_streams_closed_total" { reason = "not_turn" } "TURN connections closed";
    StreamWasted Counter "veilgate_engine_streams_closed_total" { reason = "idle_or_slow" } "TURN connections closed";
    StreamDropUnread Counter "veilgate_engine_stream_dropped_total" { reason = "unread" } "Messages to TURN connections dropped";
    StreamDropClosed Counter "veilgate_engine_stream_dropped_total" { reason = "closed" } "Messages to TURN connections dropped";
    StreamMessagesOut Counter "veilgate_engine_stream_messages_total" { direction = "out" } "Messages on TURN connections";
    StreamMessagesIn Counter "veilgate_engine_stream_messages_total" { direction = "in" } "Messages on TURN connections";
    EngineMailboxFull Counter "veilgate_engine_mailbox_full_total" {} "Messages dropped at a full mailbox or ring";
}

/// Samples of one shard, counted without atomics on the shard's own thread.
#[derive(Clone, Debug)]
pub struct Counters {
    values: Box<[u64]>,
}

impl Default for Counters {
    fn default() -> Self {
        Self { values: vec![0; DEFS.len() + CELLS].into_boxed_slice() }
    }
}

impl Counters {
    /// Adds one.
    pub fn inc(&mut self, id: Id) {
        self.add(id, 1);
    }

    /// Adds `n`, wrapping.
    pub fn add(&mut self, id: Id, n: u64) {
        let value = &mut self.values[id as usize];
        *value = value.wrapping_add(n);
    }

    /// Sets a gauge.
    pub fn set(&mut self, id: Id, n: u64) {
        self.values[id as usize] = n;
    }

    /// Reads a sample.
    #[must_use]
    pub fn get(&self, id: Id) -> u64 {
        self.values[id as usize]
    }

    /// Counts one observation, in the units of the histogram's bounds.
    pub fn observe(&mut self, hist: Hist, value: u64) {
        let def = &HISTS[hist as usize];
        let base = DEFS.len() + histogram::offset(hist as usize);
        let bucket = def.bounds.iter().position(|b| value <= *b).unwrap_or(def.bounds.len());
        self.values[base + bucket] = self.values[base + bucket].wrapping_add(1);
        let sum = &mut self.values[base + def.bounds.len() + 1];
        *sum = sum.wrapping_add(value);
    }

    /// Copies all samples where the scraper reads them.
    pub fn publish(&self, to: &Published) {
        for (cell, value) in to.cells.iter().zip(self.values.iter()) {
            cell.store(*value, Ordering::Relaxed);
        }
    }
}

/// What a shard has published, read by the scraper.
#[derive(Debug)]
pub struct Published {
    cells: Box<[AtomicU64]>,
}

impl Default for Published {
    fn default() -> Self {
        Self { cells: (0..DEFS.len() + CELLS).map(|_| AtomicU64::new(0)).collect() }
    }
}

impl Published {
    /// Reads one sample.
    #[must_use]
    pub fn get(&self, id: Id) -> u64 {
        self.at(id as usize)
    }

    pub(crate) fn at(&self, index: usize) -> u64 {
        self.cells[index].load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_unique_and_families_agree() {
        for (i, a) in DEFS.iter().enumerate() {
            assert!(a.name.starts_with("veilgate_"), "{}", a.name);
            assert_eq!(a.kind == Kind::Counter, a.name.ends_with("_total"), "{}", a.name);
            for b in &DEFS[i + 1..] {
                assert!(a.name != b.name || a.labels != b.labels, "{} twice", a.name);
                if a.name == b.name {
                    assert_eq!((a.help, a.kind), (b.help, b.kind), "{}", a.name);
                    let keys = |d: &Def| d.labels.iter().map(|l| l.0).collect::<Vec<_>>();
                    assert_eq!(keys(a), keys(b), "{}", a.name);
                }
            }
        }
    }
}
