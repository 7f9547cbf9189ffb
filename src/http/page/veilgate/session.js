// What every session of the client has in common: errors, requests, connecting, trying again.

const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 15_000;
const CONNECT_TIMEOUT_MS = 20_000;
// A short radio gap heals by itself; longer than this is a lost path.
const DISCONNECT_GRACE_MS = 3_000;
// Renewed this long before the allocations end, or after three quarters of a short life.
const RENEW_BEFORE_S = 300;
const LONGEST_TIMER_MS = 2 ** 31 - 1;
// What ends sooner has not helped: the next pause is longer.
const SETTLED_MS = 10_000;
// Whatever a gateway asks for: a longer timer than a browser has would be none at all.
const LONGEST_ASKED_MS = 600_000;

const PASSING = new Set(['unreachable', 'no_path', 'lost']);

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
    if (this.status === 0) return PASSING.has(this.code);
    if (this.code === 'nobody_publishing') return true;
    return this.status === 404 || this.status === 429 || this.status >= 500;
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

/** A pause that ends early when the session is closed or the network is back. */
export function pause(ms, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(done, ms);
    function done() {
      clearTimeout(timer);
      signal.removeEventListener('abort', done);
      globalThis.removeEventListener?.('online', done);
      resolve();
    }
    signal.addEventListener('abort', done);
    globalThis.addEventListener?.('online', done);
    if (signal.aborted) done();
  });
}

/** The ICE servers reached over 'udp', 'tcp' or 'tls' alone; all of them when nothing is asked. */
export function only(transport, servers) {
  if (!transport) return servers;
  const scheme = transport === 'tls' ? 'turns:' : 'turn:';
  const protocol = transport === 'udp' ? 'udp' : 'tcp';
  const fits = (url) => url.startsWith(scheme) && url.endsWith(`transport=${protocol}`);
  return servers.map((server) => ({ ...server, urls: server.urls.filter(fits) }));
}

const NO_PATH = 'No way through to the gateway: is its UDP port open?';
export const stopped = () => new VeilgateError('stopped', 'Stopped.');

/**
 * What a publication, a viewing, a room and a sealed call have in common: connecting, waiting,
 * trying again, ending. Subclasses say how: `_open(signal)` resolves once media can flow,
 * `_over(signal)` with the VeilgateError that ended it, or with the detail of an end for good,
 * `_release(keepalive)` says goodbye, `_worthRetrying(error)` decides.
 *
 * Events: 'state' {state, error?, retryInMs?}, 'track' {stream, track}.
 */
export class Session extends EventTarget {
  #abort = new AbortController();
  #settle;
  #ended;
  #headers = {};

  options;
  /** The RTCPeerConnection in use, or null between two. */
  peer = null;
  /** 'connecting' | 'live' | 'restarting' | 'waiting' | 'stopped' | 'failed', and a subclass's. */
  state = 'connecting';
  /** Resolves at the first media path, rejects when there will be none. */
  live;

  constructor(options) {
    super();
    this.options = { origin: '', ...options };
    this.live = new Promise((resolve, reject) => {
      this.#settle = { resolve, reject };
    });
    // Callers who only watch the state must not see an "unhandled rejection".
    this.live.catch(() => {});
    // Not before the subclass is whole and the caller could listen.
    this.#ended = Promise.resolve()
      .then(() => this.#run())
      .finally(() => this._end());
  }

  /** Says goodbye to the gateway and stops. The caller's camera stays the caller's. */
  async close() {
    this.#abort.abort();
    await this.#ended;
  }

  /** The last words as the page goes away: nothing can be awaited then. */
  leave() {
    this.#abort.abort();
    this._release(true);
  }

  /** The browser's statistics of the present connection, or null. */
  async stats() {
    return this.peer ? this.peer.getStats() : null;
  }

  get _signal() {
    return this.#abort.signal;
  }

  _tell(type, detail, ...said) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
    try {
      this.options[`on${type}`]?.(...(said.length > 0 ? said : [detail]));
    } catch (error) {
      // As a listener's: the page's trouble is not the session's.
      reportError(error);
    }
  }

  _become(state, detail = {}) {
    this.state = state;
    this._tell('state', { state, ...detail }, state, detail);
  }

  _isLive(detail) {
    this._become('live', detail);
    this.#settle.resolve(this);
  }

  _worthRetrying(error) {
    return error instanceof VeilgateError && error.mayRetry;
  }

  /** Nothing comes after. */
  _end() {}

  async #run() {
    const { signal } = this.#abort;
    let wait = FIRST_PAUSE_MS;
    let end = {};
    while (!signal.aborted) {
      let error;
      try {
        this._become('connecting');
        await this._open(signal);
        const since = performance.now();
        error = await this._over(signal);
        if (performance.now() - since > SETTLED_MS) wait = FIRST_PAUSE_MS;
      } catch (caught) {
        error = caught;
      }
      await this._release();
      if (signal.aborted) break;
      if (!(error instanceof Error)) {
        end = error;
        break;
      }
      if (!this._worthRetrying(error)) {
        this._become('failed', { error });
        this.#settle.reject(error);
        return;
      }
      const asked = Math.min(error.retryAfterMs ?? 0, LONGEST_ASKED_MS);
      const after = Math.max(asked, wait * (0.75 + Math.random() / 2));
      wait = Math.min(wait * 2, LONGEST_PAUSE_MS);
      this._become('waiting', { error, retryInMs: after });
      await pause(after, signal);
    }
    this.#settle.reject(stopped());
    this._become('stopped', end);
  }

  /** `token` may be a function: asked each time, it can give a fresh one. */
  async _headers() {
    const { token } = this.options;
    const bearer = typeof token === 'function' ? await token() : token;
    this.#headers = { authorization: `Bearer ${bearer}` };
    return this.#headers;
  }

  /** Ends something on the gateway; with `keepalive` as the page goes, when nothing may wait. */
  async _delete(url, keepalive) {
    try {
      await fetch(url, { method: 'DELETE', headers: this.#headers, keepalive });
    } catch {
      // The gateway notices a silent session by itself.
    }
  }

  /** A fresh credential, and until when what is made with it lives. */
  async _ice(signal, query = '') {
    const headers = await this._headers();
    const answer = await request(`${this.options.origin}/v1/ice${query}`, { headers, signal });
    const { iceServers, lifetime } = await answer.json();
    return { iceServers: only(this.options.transport, iceServers), lifetime };
  }

  /** A connection that knows no path but the relay, whatever the gateway's answer said. */
  _connection(iceServers) {
    return new RTCPeerConnection({
      iceServers,
      iceTransportPolicy: 'relay',
      bundlePolicy: 'max-bundle',
      rtcpMuxPolicy: 'require',
    });
  }

  _connected(peer, signal, timeout = CONNECT_TIMEOUT_MS, words = NO_PATH) {
    return new Promise((resolve, reject) => {
      const finish = (settle, value) => {
        clearTimeout(timer);
        peer.removeEventListener('connectionstatechange', look);
        signal.removeEventListener('abort', stop);
        settle(value);
      };
      const fail = () => finish(reject, new VeilgateError('no_path', words));
      const look = () => {
        if (peer.connectionState === 'connected') finish(resolve);
        if (peer.connectionState === 'failed' || peer.connectionState === 'closed') fail();
      };
      const stop = () => finish(reject, stopped());
      const timer = setTimeout(fail, timeout);
      peer.addEventListener('connectionstatechange', look);
      signal.addEventListener('abort', stop);
      look();
      if (signal.aborted) stop();
    });
  }

  /**
   * Resolves with why the path needs mending: 'failed', 'disconnected', 'network', 'renew' (at
   * `renewAt`, ms on performance.now()), or 'stopped'.
   */
  _trouble(peers, signal, renewAt = Infinity, grace = DISCONNECT_GRACE_MS) {
    return new Promise((resolve) => {
      let waiting = 0;
      const network = navigator.connection;
      const finish = (why) => {
        clearTimeout(waiting);
        clearTimeout(renewing);
        for (const peer of peers) {
          peer.removeEventListener('connectionstatechange', look);
          peer.removeEventListener('iceconnectionstatechange', look);
        }
        signal.removeEventListener('abort', stop);
        removeEventListener('online', moved);
        network?.removeEventListener?.('change', changed);
        resolve(why);
      };
      const stop = () => finish('stopped');
      const moved = () => finish('network');
      // Chromium tells of every new estimate of the line here, too.
      const type = network?.type;
      const changed = () => {
        if (network.type !== type && navigator.onLine) finish('network');
      };
      const look = () => {
        clearTimeout(waiting);
        const states = peers.flatMap((peer) => [peer.connectionState, peer.iceConnectionState]);
        if (states.includes('failed') || states.includes('closed')) finish('failed');
        else if (states.includes('disconnected')) {
          waiting = setTimeout(() => finish('disconnected'), grace);
        }
      };
      const left = renewAt - performance.now();
      const renewing =
        left < LONGEST_TIMER_MS ? setTimeout(() => finish('renew'), Math.max(0, left)) : 0;
      for (const peer of peers) {
        peer.addEventListener('connectionstatechange', look);
        peer.addEventListener('iceconnectionstatechange', look);
      }
      signal.addEventListener('abort', stop);
      addEventListener('online', moved);
      network?.addEventListener?.('change', changed);
      look();
      if (signal.aborted) stop();
    });
  }
}

/** When to renew a credential of `lifetime` seconds, in ms on performance.now(). */
export function renewal(lifetime) {
  if (!Number.isFinite(lifetime)) return Infinity;
  return performance.now() + (lifetime - Math.min(RENEW_BEFORE_S, lifetime / 4)) * 1000;
}
