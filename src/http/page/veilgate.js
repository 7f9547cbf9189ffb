// The client: publish() and play() over WHIP (RFC 9725) and WHEP, always through the relay.
//
//   import { publish, play } from './veilgate.js';
//   const session = publish({ name: 'lobby/cam1', token, stream, onstate: console.log });
//   await session.live;            // media flows, or it rejects with a VeilgateError
//   await session.close();
//
// A session reconnects on its own, with growing pauses, until close() or until the gateway
// says that trying again cannot help (a bad token, an offer without a usable codec, ...).

const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 15_000;
const CONNECT_TIMEOUT_MS = 20_000;
// A short radio gap heals by itself; longer than this is a lost path.
const DISCONNECT_GRACE_MS = 5_000;

/** An error with a stable `code` and a message for people. */
export class VeilgateError extends Error {
  constructor(code, message, { status = 0, retryAfterMs = 0 } = {}) {
    super(message);
    this.name = 'VeilgateError';
    this.code = code;
    this.status = status;
    this.retryAfterMs = retryAfterMs;
  }

  /** Whether asking again, unchanged, may succeed. */
  get mayRetry() {
    return (
      this.status === 0 ||
      this.code === 'nobody_publishing' ||
      this.status === 429 ||
      this.status >= 500
    );
  }
}

const STATUS_WORDS = {
  401: 'The token is missing, wrong or expired.',
  403: 'The token does not allow this.',
  404: 'Nobody is publishing under this name.',
  409: 'Somebody already publishes under this name.',
  413: 'The session description is too large.',
  422: 'The gateway cannot use what this browser offers.',
  429: 'Too many requests: a short pause is needed.',
  503: 'The gateway is full or closing.',
};

/** Turns a failed response into words: problem+json (RFC 9457) when there is one. */
async function problem(response) {
  let code = `http_${response.status}`;
  let message = STATUS_WORDS[response.status] ?? `The gateway answered ${response.status}.`;
  const type = response.headers.get('content-type') ?? '';
  if (type.includes('json')) {
    try {
      const body = await response.json();
      if (typeof body.code === 'string') code = body.code;
      const words = body.detail ?? body.title;
      if (typeof words === 'string' && words !== '') message = words;
    } catch {
      // Not JSON after all: the status still says enough.
    }
  }
  const seconds = Number(response.headers.get('retry-after'));
  const retryAfterMs = Number.isFinite(seconds) && seconds > 0 ? seconds * 1000 : 0;
  return new VeilgateError(code, message, { status: response.status, retryAfterMs });
}

/** A request whose failure is a VeilgateError. */
export async function request(url, init) {
  let response;
  try {
    response = await fetch(url, { cache: 'no-store', ...init });
  } catch (error) {
    if (error.name === 'AbortError') throw error;
    throw new VeilgateError('unreachable', 'The gateway cannot be reached.');
  }
  if (!response.ok) throw await problem(response);
  return response;
}

/** A pause that ends early when the session is closed. */
export function pause(ms, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(done, ms);
    function done() {
      clearTimeout(timer);
      signal.removeEventListener('abort', done);
      resolve();
    }
    signal.addEventListener('abort', done);
  });
}

/** The ICE servers reached over 'udp', 'tcp' or 'tls' alone; all of them when nothing is asked. */
function only(transport, servers) {
  if (!transport) return servers;
  const scheme = transport === 'tls' ? 'turns:' : 'turn:';
  const protocol = transport === 'udp' ? 'udp' : 'tcp';
  const fits = (url) => url.startsWith(scheme) && url.endsWith(`transport=${protocol}`);
  return servers.map((server) => ({ ...server, urls: server.urls.filter(fits) }));
}

/** One publication or one viewing, over as many connections as it takes. */
export class Session {
  #kind;
  #options;
  #abort = new AbortController();
  #resource = null;
  #everLive = false;
  #settle;
  #ended;

  /** The RTCPeerConnection in use, or null between two. */
  peer = null;
  /** 'connecting' | 'live' | 'waiting' | 'stopped' | 'failed' */
  state = 'connecting';
  /** Resolves at the first media path, rejects when there will be none. */
  live;

  constructor(kind, options) {
    this.#kind = kind;
    this.#options = { origin: '', onstate() {}, ontrack() {}, ...options };
    this.live = new Promise((resolve, reject) => {
      this.#settle = { resolve, reject };
    });
    // Callers who only watch onstate must not see an "unhandled rejection".
    this.live.catch(() => {});
    this.#ended = this.#run();
  }

  /** Says goodbye to the gateway and stops. The caller's camera stays the caller's. */
  async close() {
    this.#abort.abort();
    await this.#ended;
  }

  /** The last words as the page goes away: nothing can be awaited then. */
  leave() {
    this.#abort.abort();
    this.#release(true);
  }

  /** The browser's statistics of the present connection, or null. */
  async stats() {
    return this.peer ? this.peer.getStats() : null;
  }

  #become(state, detail = {}) {
    this.state = state;
    this.#options.onstate(state, detail);
  }

  async #run() {
    const { signal } = this.#abort;
    let wait = FIRST_PAUSE_MS;
    while (!signal.aborted) {
      let error;
      try {
        this.#become('connecting');
        await this.#connect(signal);
        wait = FIRST_PAUSE_MS;
        this.#everLive = true;
        this.#become('live');
        this.#settle.resolve(this);
        error = await this.#untilLost(signal);
      } catch (caught) {
        error = caught;
      }
      await this.#release();
      if (signal.aborted) break;
      if (!this.#worthRetrying(error)) {
        this.#become('failed', { error });
        this.#settle.reject(error);
        return;
      }
      const after = Math.max(error.retryAfterMs ?? 0, wait * (0.75 + Math.random() / 2));
      wait = Math.min(wait * 2, LONGEST_PAUSE_MS);
      this.#become('waiting', { error, retryInMs: after });
      await pause(after, signal);
    }
    this.#settle.reject(new VeilgateError('stopped', 'Stopped.'));
    this.#become('stopped');
  }

  #worthRetrying(error) {
    if (!(error instanceof VeilgateError)) return false;
    // Our own dead session may hold the name until the gateway notices.
    if (error.status === 409) return this.#everLive;
    return error.mayRetry;
  }

  async #connect(signal) {
    const { name, token, stream, origin, transport } = this.#options;
    const bearer = { authorization: `Bearer ${token}` };
    const ice = await (await request(`${origin}/v1/ice`, { headers: bearer, signal })).json();

    // Relay-only whatever the answer says: no other path may ever be tried.
    const peer = new RTCPeerConnection({
      iceServers: only(transport, ice.iceServers),
      iceTransportPolicy: 'relay',
      bundlePolicy: 'max-bundle',
      rtcpMuxPolicy: 'require',
    });
    this.peer = peer;
    if (this.#kind === 'publish') {
      for (const track of stream.getTracks()) {
        peer.addTransceiver(track, { direction: 'sendonly', streams: [stream] });
      }
    } else {
      const target = new MediaStream();
      peer.addEventListener('track', (event) => {
        target.addTrack(event.track);
        this.#options.ontrack(target, event.track);
      });
      peer.addTransceiver('video', { direction: 'recvonly' });
      peer.addTransceiver('audio', { direction: 'recvonly' });
    }

    // The offer goes out at once: the gateway learns the relayed address from the first check,
    // so no candidate of ours is needed.
    await peer.setLocalDescription();
    const path = name.split('/').map(encodeURIComponent).join('/');
    const endpoint = this.#kind === 'publish' ? 'whip' : 'whep';
    const response = await request(`${origin}/${endpoint}/${path}`, {
      method: 'POST',
      headers: { ...bearer, 'content-type': 'application/sdp' },
      body: peer.localDescription.sdp,
      signal,
    });
    const location = response.headers.get('location');
    if (location) this.#resource = new URL(location, response.url).href;
    await peer.setRemoteDescription({ type: 'answer', sdp: await response.text() });
    await this.#connected(peer, signal);
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
        finish(
          reject,
          new VeilgateError('no_path', 'No way through to the gateway: is its UDP port open?'),
        );
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

  /** Resolves with the reason once the path is gone (or the session closed). */
  #untilLost(signal) {
    const { peer } = this;
    return new Promise((resolve) => {
      let grace = 0;
      const finish = () => {
        clearTimeout(grace);
        peer.removeEventListener('connectionstatechange', look);
        signal.removeEventListener('abort', finish);
        resolve(new VeilgateError('lost', 'The connection was lost.'));
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
    });
  }

  async #release(keepalive = false) {
    const { peer } = this;
    const resource = this.#resource;
    this.peer = null;
    this.#resource = null;
    peer?.close();
    if (!resource) return;
    try {
      await fetch(resource, {
        method: 'DELETE',
        headers: { authorization: `Bearer ${this.#options.token}` },
        keepalive,
      });
    } catch {
      // The gateway notices a silent session by itself.
    }
  }
}

/**
 * Publishes `stream` (a MediaStream) as `name` ("room/stream").
 * @param {{name: string, token: string, stream: MediaStream, origin?: string,
 *   onstate?: (state: string, detail: {error?: Error, retryInMs?: number}) => void}} options
 */
export function publish(options) {
  return new Session('publish', options);
}

/**
 * Plays `name`; `ontrack(stream, track)` is called for each track, with one MediaStream
 * a connection.
 * @param {{name: string, token: string, origin?: string,
 *   ontrack?: (stream: MediaStream, track: MediaStreamTrack) => void,
 *   onstate?: (state: string, detail: {error?: Error, retryInMs?: number}) => void}} options
 */
export function play(options) {
  return new Session('play', options);
}
