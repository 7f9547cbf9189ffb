// A sealed call: two people, relay-only, encrypted from browser to browser. The gateway passes
// on what it cannot read.
//
//   import { sealedCall } from './sealed.js';
//   const call = sealedCall({ room: 'attic', token, stream, onstate, ontrack });
//   await call.live;            // both sides are connected, or it rejects with a VeilgateError
//   await call.close();

import { Session, VeilgateError, pause, request } from './veilgate/session.js';

const GATHER_TIMEOUT_MS = 15_000;
const CONNECT_TIMEOUT_MS = 30_000;
// A short radio gap heals by itself; longer than this is a lost path.
const DISCONNECT_GRACE_MS = 8_000;
const RETRY_MS = 1_000;

/** Resolves when every relayed address is known: candidates are not sent one by one. */
function gathered(peer, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(finish, GATHER_TIMEOUT_MS);
    function finish() {
      clearTimeout(timer);
      peer.removeEventListener('icegatheringstatechange', look);
      signal.removeEventListener('abort', finish);
      resolve();
    }
    function look() {
      if (peer.iceGatheringState === 'complete') finish();
    }
    peer.addEventListener('icegatheringstatechange', look);
    signal.addEventListener('abort', finish);
    look();
  });
}

const fingerprints = (sdp) => [...new Set(sdp.match(/^a=fingerprint:.*$/gim) ?? [])].sort().join();

/**
 * Forty digits that two people can read to each other: the same on both sides unless somebody
 * sits in between, the gateway included.
 */
export async function safetyCode(peer) {
  const sides = [peer.localDescription, peer.remoteDescription].map(({ sdp }) =>
    fingerprints(sdp).toUpperCase(),
  );
  const text = new TextEncoder().encode(sides.sort().join('|'));
  const hash = new DataView(await crypto.subtle.digest('SHA-512', text));
  const groups = [];
  for (let i = 0; i < 8; i += 1) {
    groups.push(String(hash.getBigUint64(i * 8) % 100_000n).padStart(5, '0'));
  }
  return groups.join(' ');
}

/** One call, from taking a seat to leaving it. */
export class SealedCall extends Session {
  #seat = null;

  /** 'offerer' | 'answerer', once the gateway has said it. */
  role = null;

  /** A call that is lost is over: the other side has no way to know that we would come again. */
  _worthRetrying() {
    return false;
  }

  async _open(signal) {
    const { room, stream, origin } = this.options;
    const headers = await this._headers();
    const name = encodeURIComponent(room);
    const ice = await this._ice(signal, `?class=room&room=${name}`);
    const joined = await request(`${origin}/v1/sealed/${name}`, { method: 'POST', headers, signal });
    this.#seat = new URL(joined.headers.get('location'), joined.url).href;
    this.role = (await joined.json()).role;

    const peer = this._connection(ice.iceServers);
    this.peer = peer;
    const theirs = new MediaStream();
    peer.addEventListener('track', ({ track }) => {
      theirs.addTrack(track);
      this._tell('track', { stream: theirs, track }, theirs, track);
    });
    if (this.role === 'offerer') {
      for (const track of stream.getTracks()) peer.addTrack(track, stream);
      // Somebody without a camera wants to see the other all the same.
      for (const kind of ['audio', 'video']) {
        if (!stream.getTracks().some((track) => track.kind === kind)) {
          peer.addTransceiver(kind, { direction: 'recvonly' });
        }
      }
      await peer.setLocalDescription();
      await this.#tell(peer, signal);
      this._become('alone');
      await peer.setRemoteDescription({ type: 'answer', sdp: await this.#hear(signal) });
    } else {
      await peer.setRemoteDescription({ type: 'offer', sdp: await this.#hear(signal) });
      for (const track of stream.getTracks()) peer.addTrack(track, stream);
      await peer.setLocalDescription();
      await this.#tell(peer, signal);
    }
    this._become('connecting');
    await this._connected(peer, signal, CONNECT_TIMEOUT_MS, 'No way through to the other side.');
    this._isLive({ code: await safetyCode(peer) });
  }

  async #tell(peer, signal) {
    await gathered(peer, signal);
    await request(this.#seat, {
      method: 'POST',
      headers: { ...(await this._headers()), 'content-type': 'application/sdp' },
      body: peer.localDescription.sdp,
      signal,
    });
  }

  /** The other side's description, however long it takes. */
  async #hear(signal) {
    for (;;) {
      try {
        const headers = await this._headers();
        const response = await request(this.#seat, { headers, signal });
        if (response.status === 200) return await response.text();
      } catch (error) {
        // The seat is gone for good; anything else may pass.
        if (signal.aborted || error.status === 404 || !error.mayRetry) throw error;
        await pause(error.retryAfterMs || RETRY_MS, signal);
      }
      if (signal.aborted) throw new VeilgateError('stopped', 'Stopped.');
    }
  }

  /** Asks the gateway until it says that the call is over. */
  async #untilLeft(signal) {
    while (!signal.aborted && this.#seat) {
      try {
        const headers = await this._headers();
        await request(`${this.#seat}?until=over`, { headers, signal });
      } catch (error) {
        if (error.status === 404) return;
        // A token that has run out ends nothing: then the connection alone tells.
        if (signal.aborted || !error.mayRetry) break;
        await pause(error.retryAfterMs || RETRY_MS, signal);
      }
    }
    await new Promise(() => {});
  }

  /** Resolves when either side leaves, or the path is gone. */
  async _over(signal) {
    const gone = new AbortController();
    const either = AbortSignal.any([signal, gone.signal]);
    await Promise.race([this.#untilLeft(either), this.#untilLost(either)]);
    gone.abort();
    return { byOther: !signal.aborted };
  }

  async #untilLost(signal) {
    let why;
    do {
      why = await this._trouble([this.peer], signal, Infinity, DISCONNECT_GRACE_MS);
      // There is no renegotiation: ICE's own checks find out what another network means.
    } while (why === 'network');
  }

  async _release(keepalive = false) {
    const { peer } = this;
    const seat = this.#seat;
    this.peer = null;
    this.#seat = null;
    peer?.close();
    if (seat) await this._delete(seat, keepalive);
  }
}

/**
 * Joins the sealed call of `room`; `stream` is what the other side sees and hears.
 * `ontrack(stream, track)` is called for each track of theirs. In `onstate`, 'alone' waits for
 * the other; 'live' comes with `{code}`, 'failed' with `{error}`, 'stopped' with `{byOther}`.
 * @param {{room: string, token: string, stream: MediaStream, origin?: string,
 *   ontrack?: (stream: MediaStream, track: MediaStreamTrack) => void,
 *   onstate?: (state: string, detail: {code?: string, error?: Error, byOther?: boolean}) => void}}
 *   options
 */
export function sealedCall(options) {
  return new SealedCall(options);
}
