// A sealed call: two people, relay-only, encrypted from browser to browser. The gateway passes
// on what it cannot read.
//
//   import { sealedCall } from './sealed.js';
//   const call = sealedCall({ room: 'attic', token, stream, onstate, ontrack });
//   await call.live;            // both sides are connected, or it rejects with a VeilgateError
//   await call.close();

import { VeilgateError, pause, request } from './veilgate.js';

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
export class SealedCall {
  #options;
  #abort = new AbortController();
  #seat = null;
  #settle;
  #ended;

  /** The RTCPeerConnection, or null before and after. */
  peer = null;
  /** 'connecting' | 'alone' | 'live' | 'stopped' | 'failed' */
  state = 'connecting';
  /** 'offerer' | 'answerer', once the gateway has said it. */
  role = null;
  /** Resolves when both are connected, rejects when they will not be. */
  live;

  constructor(options) {
    this.#options = { origin: '', onstate() {}, ontrack() {}, ...options };
    this.live = new Promise((resolve, reject) => {
      this.#settle = { resolve, reject };
    });
    // Callers who only watch onstate must not see an "unhandled rejection".
    this.live.catch(() => {});
    this.#ended = this.#run();
  }

  /** Leaves. The caller's camera stays the caller's. */
  async close() {
    this.#abort.abort();
    await this.#ended;
  }

  /** The last words as the page goes away: nothing can be awaited then. */
  leave() {
    this.#abort.abort();
    this.#release(true);
  }

  /** The browser's statistics, or null. */
  async stats() {
    return this.peer ? this.peer.getStats() : null;
  }

  #become(state, detail = {}) {
    this.state = state;
    this.#options.onstate(state, detail);
  }

  async #run() {
    const { signal } = this.#abort;
    try {
      this.#become('connecting');
      await this.#meet(signal);
      this.#become('live', { code: await safetyCode(this.peer) });
      this.#settle.resolve(this);
      await this.#untilOver(signal);
      await this.#release();
      this.#become('stopped', { byOther: !signal.aborted });
    } catch (error) {
      await this.#release();
      this.#settle.reject(error);
      if (signal.aborted) this.#become('stopped');
      else this.#become('failed', { error });
    }
  }

  #headers() {
    return { authorization: `Bearer ${this.#options.token}` };
  }

  async #meet(signal) {
    const { room, stream, origin } = this.#options;
    const headers = this.#headers();
    const name = encodeURIComponent(room);
    const query = `class=room&room=${name}`;
    const ice = await (await request(`${origin}/v1/ice?${query}`, { headers, signal })).json();
    const joined = await request(`${origin}/v1/sealed/${name}`, { method: 'POST', headers, signal });
    this.#seat = new URL(joined.headers.get('location'), joined.url).href;
    this.role = (await joined.json()).role;

    // Relay-only whatever the answer says: no other path may ever be tried.
    const peer = new RTCPeerConnection({
      iceServers: ice.iceServers,
      iceTransportPolicy: 'relay',
      bundlePolicy: 'max-bundle',
      rtcpMuxPolicy: 'require',
    });
    this.peer = peer;
    const theirs = new MediaStream();
    peer.addEventListener('track', ({ track }) => {
      theirs.addTrack(track);
      this.#options.ontrack(theirs, track);
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
      this.#become('alone');
      await peer.setRemoteDescription({ type: 'answer', sdp: await this.#hear(signal) });
    } else {
      await peer.setRemoteDescription({ type: 'offer', sdp: await this.#hear(signal) });
      for (const track of stream.getTracks()) peer.addTrack(track, stream);
      await peer.setLocalDescription();
      await this.#tell(peer, signal);
    }
    this.#become('connecting');
    await this.#connected(peer, signal);
  }

  async #tell(peer, signal) {
    await gathered(peer, signal);
    await request(this.#seat, {
      method: 'POST',
      headers: { ...this.#headers(), 'content-type': 'application/sdp' },
      body: peer.localDescription.sdp,
      signal,
    });
  }

  /** The other side's description, however long it takes. */
  async #hear(signal) {
    for (;;) {
      try {
        const response = await request(this.#seat, { headers: this.#headers(), signal });
        if (response.status === 200) return await response.text();
      } catch (error) {
        // The seat is gone for good; anything else may pass.
        if (signal.aborted || error.status === 404 || !error.mayRetry) throw error;
        await pause(error.retryAfterMs || RETRY_MS, signal);
      }
      if (signal.aborted) throw new VeilgateError('stopped', 'Stopped.');
    }
  }

  #connected(peer, signal) {
    return new Promise((resolve, reject) => {
      const finish = (settle, value) => {
        clearTimeout(timer);
        peer.removeEventListener('connectionstatechange', look);
        signal.removeEventListener('abort', stop);
        settle(value);
      };
      const fail = () =>
        finish(reject, new VeilgateError('no_path', 'No way through to the other side.'));
      const look = () => {
        if (peer.connectionState === 'connected') finish(resolve);
        if (peer.connectionState === 'failed' || peer.connectionState === 'closed') fail();
      };
      const stop = () => finish(reject, new VeilgateError('stopped', 'Stopped.'));
      const timer = setTimeout(fail, CONNECT_TIMEOUT_MS);
      peer.addEventListener('connectionstatechange', look);
      signal.addEventListener('abort', stop);
      look();
      if (signal.aborted) stop();
    });
  }

  /** Asks the gateway until it says that the call is over. */
  async #watch(signal, finish) {
    while (!signal.aborted && this.#seat) {
      try {
        await request(`${this.#seat}?until=over`, { headers: this.#headers(), signal });
      } catch (error) {
        if (error.status === 404) {
          finish();
          return;
        }
        // A token that has run out ends nothing: then the connection alone tells.
        if (signal.aborted || !error.mayRetry) return;
        await pause(error.retryAfterMs || RETRY_MS, signal);
      }
    }
  }

  /** Resolves when either side leaves, or the path is gone. */
  #untilOver(signal) {
    const { peer } = this;
    return new Promise((resolve) => {
      let grace = 0;
      let over = false;
      const finish = () => {
        over = true;
        clearTimeout(grace);
        peer.removeEventListener('connectionstatechange', look);
        signal.removeEventListener('abort', finish);
        resolve();
      };
      const look = () => {
        clearTimeout(grace);
        if (peer.connectionState === 'failed' || peer.connectionState === 'closed') finish();
        if (peer.connectionState === 'disconnected') {
          grace = setTimeout(finish, DISCONNECT_GRACE_MS);
        }
      };
      peer.addEventListener('connectionstatechange', look);
      signal.addEventListener('abort', finish);
      look();
      if (signal.aborted) finish();
      if (!over) this.#watch(signal, finish);
    });
  }

  async #release(keepalive = false) {
    const { peer } = this;
    const seat = this.#seat;
    this.peer = null;
    this.#seat = null;
    peer?.close();
    if (!seat) return;
    try {
      await fetch(seat, { method: 'DELETE', headers: this.#headers(), keepalive });
    } catch {
      // The gateway notices by itself when the relayed addresses are gone.
    }
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
