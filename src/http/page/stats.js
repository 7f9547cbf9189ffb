// Live numbers out of getStats(), the same for Chromium, Firefox and Safari.

const RTP = new Set(['inbound-rtp', 'outbound-rtp']);

function selectedPair(reports) {
  for (const report of reports.values()) {
    if (report.type === 'transport' && report.selectedCandidatePairId) {
      const pair = reports.get(report.selectedCandidatePairId);
      if (pair) return pair;
    }
  }
  // Firefox marks the pair itself.
  for (const report of reports.values()) {
    if (report.type === 'candidate-pair' && report.selected) return report;
  }
  return null;
}

/** "relay over udp", or what it is instead. */
export function pathWords(local) {
  if (!local) return 'not connected';
  if (local.candidateType !== 'relay') return `NOT relayed (${local.candidateType})`;
  return `relay over ${local.relayProtocol ?? local.protocol ?? 'udp'}`;
}

/** Keeps the last reading, so that totals become rates. */
export class Meter {
  #last = new Map();

  /**
   * @param {RTCStatsReport | null} reports
   * @returns {{path: string, relayed: boolean, rttMs: number | null, bitsPerSecond: number,
   *   framesPerSecond: number, frames: number, width: number, height: number,
   *   lost: number, audioBitsPerSecond: number}}
   */
  read(reports) {
    const numbers = {
      path: 'not connected',
      relayed: false,
      rttMs: null,
      bitsPerSecond: 0,
      audioBitsPerSecond: 0,
      framesPerSecond: 0,
      frames: 0,
      width: 0,
      height: 0,
      lost: 0,
    };
    if (!reports) {
      this.#last.clear();
      return numbers;
    }
    const pair = selectedPair(reports);
    const local = pair && reports.get(pair.localCandidateId);
    numbers.path = pathWords(local);
    numbers.relayed = local?.candidateType === 'relay';
    if (typeof pair?.currentRoundTripTime === 'number') {
      numbers.rttMs = pair.currentRoundTripTime * 1000;
    }
    for (const report of reports.values()) {
      if (report.type === 'remote-inbound-rtp' && numbers.rttMs === null) {
        if (typeof report.roundTripTime === 'number') numbers.rttMs = report.roundTripTime * 1000;
      }
      if (!RTP.has(report.type)) continue;
      const rate = this.#rate(report);
      const kind = report.kind ?? report.mediaType;
      numbers.bitsPerSecond += rate.bits;
      if (kind === 'audio') numbers.audioBitsPerSecond += rate.bits;
      if (kind === 'video') {
        numbers.framesPerSecond = rate.frames;
        numbers.frames = rate.total;
        numbers.width = report.frameWidth ?? numbers.width;
        numbers.height = report.frameHeight ?? numbers.height;
      }
      if (report.type === 'inbound-rtp') numbers.lost += Math.max(0, report.packetsLost ?? 0);
    }
    return numbers;
  }

  #rate(report) {
    const bytes = report.bytesReceived ?? report.bytesSent ?? 0;
    const total = report.framesDecoded ?? report.framesEncoded ?? 0;
    const before = this.#last.get(report.id);
    this.#last.set(report.id, { at: report.timestamp, bytes, total });
    const seconds = before ? (report.timestamp - before.at) / 1000 : 0;
    if (seconds <= 0) return { bits: 0, frames: 0, total };
    return {
      bits: Math.max(0, ((bytes - before.bytes) * 8) / seconds),
      frames: Math.max(0, (total - before.total) / seconds),
      total,
    };
  }
}
