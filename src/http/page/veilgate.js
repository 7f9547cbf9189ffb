// The client: publish() and play() over WHIP (RFC 9725) and WHEP, join() for rooms over WSS,
// always through the relay. One module, no dependencies; only end-to-end encryption needs a
// second file, e2ee-worker.js, beside it.
//
//   import { publish, play } from './veilgate.js';
//   const session = publish({ name: 'lobby/cam1', token, stream });
//   session.addEventListener('state', ({ detail }) => console.log(detail.state));
//   await session.live;            // media flows, or it rejects with a VeilgateError
//   await session.close();
//
// A session mends itself: after a change of network it restarts ICE on a fresh credential, and
// where that does not help it starts anew, with growing pauses, until close() or until the gateway
// says that trying again cannot help (a bad token, an offer without a usable codec, ...).
//
// Every event is told twice: to listeners, with a `detail`, and to the option `on<event>`.

const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 15_000;
const CONNECT_TIMEOUT_MS = 20_000;
// A short radio gap heals by itself; longer than this is a lost path.
const DISCONNECT_GRACE_MS = 3_000;
// Renewed this long before the allocations end, or after three quarters of a short life.
const RENEW_BEFORE_S = 300;
const LONGEST_TIMER_MS = 2 ** 31 - 1;
const FRAGMENT = 'application/trickle-ice-sdpfrag';

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
function only(transport, servers) {
  if (!transport) return servers;
  const scheme = transport === 'tls' ? 'turns:' : 'turn:';
  const protocol = transport === 'udp' ? 'udp' : 'tcp';
  const fits = (url) => url.startsWith(scheme) && url.endsWith(`transport=${protocol}`);
  return servers.map((server) => ({ ...server, urls: server.urls.filter(fits) }));
}

const NO_PATH = 'No way through to the gateway: is its UDP port open?';
const stopped = () => new VeilgateError('stopped', 'Stopped.');

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

  _tell(type, detail, ...said) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
    this.options[`on${type}`]?.(...(said.length > 0 ? said : [detail]));
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
        wait = FIRST_PAUSE_MS;
        error = await this._over(signal);
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
      const after = Math.max(error.retryAfterMs ?? 0, wait * (0.75 + Math.random() / 2));
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
    return { authorization: `Bearer ${typeof token === 'function' ? await token() : token}` };
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
    const peer = new RTCPeerConnection({
      iceServers,
      iceTransportPolicy: 'relay',
      bundlePolicy: 'max-bundle',
      rtcpMuxPolicy: 'require',
    });
    this.peer = peer;
    return peer;
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
        network?.removeEventListener?.('change', moved);
        resolve(why);
      };
      const stop = () => finish('stopped');
      const moved = () => {
        if (navigator.onLine) finish('network');
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
      network?.addEventListener?.('change', moved);
      look();
      if (signal.aborted) stop();
    });
  }
}

/** When to renew a credential of `lifetime` seconds, in ms on performance.now(). */
function renewal(lifetime) {
  if (!Number.isFinite(lifetime)) return Infinity;
  return performance.now() + (lifetime - Math.min(RENEW_BEFORE_S, lifetime / 4)) * 1000;
}

const attribute = (sdp, name) => sdp.match(new RegExp(`^a=${name}:(.*?)\\r?$`, 'm'))?.[1];

/** RFC 9725 section 4.3.3: the new user fragment and password, and of which m-section. */
function fragmentOf(sdp) {
  const media = sdp.match(/^m=.*$/m)[0].trim();
  const lines = ['group', 'ice-options'].map((name) => [name, attribute(sdp, name)]);
  const inside = ['mid', 'ice-ufrag', 'ice-pwd'].map((name) => [name, attribute(sdp, name)]);
  const write = (pairs) => pairs.filter(([, v]) => v).map(([name, v]) => `a=${name}:${v}`);
  return [...write(lines), media, ...write(inside), ''].join('\r\n');
}

/** The answer we have, with the gateway's new user fragment, password and candidates. */
function spliced(answer, fragment) {
  const [ufrag, pwd] = ['ice-ufrag', 'ice-pwd'].map((name) => attribute(fragment, name));
  if (!ufrag || !pwd) throw new VeilgateError('lost', 'The gateway did not restart ICE.');
  const candidates = fragment.match(/^a=candidate:.*$/gm)?.map((line) => line.trim());
  const kept = candidates ? answer.replace(/^a=(candidate:.*|end-of-candidates)\r?\n/gm, '') : answer;
  const more = candidates ? [...new Set(candidates)].map((line) => `\r\n${line}`).join('') : '';
  return kept
    .replace(/^a=ice-ufrag:.*?(?=\r?$)/gm, `a=ice-ufrag:${ufrag}`)
    .replace(/^a=ice-pwd:.*?(?=\r?$)/gm, `a=ice-pwd:${pwd}${more}`);
}

const CODECS = { vp8: 'video/vp8', vp9: 'video/vp9', av1: 'video/av1', h264: 'video/h264', h265: 'video/h265' };

/** Puts a codec first; `alone` leaves it no company but retransmission. */
function prefer(transceiver, codec, alone) {
  const { codecs } = RTCRtpSender.getCapabilities('video');
  const named = (kind) => codecs.filter(({ mimeType }) => mimeType.toLowerCase() === kind);
  const wanted = named(CODECS[codec] ?? codec);
  if (wanted.length === 0) {
    throw new VeilgateError('codec_missing', `This browser cannot send ${codec}.`);
  }
  const rest = alone ? named('video/rtx') : codecs.filter((other) => !wanted.includes(other));
  transceiver.setCodecPreferences([...wanted, ...rest]);
}

/** Bits per second that do a picture of this height justice. */
function rate(height) {
  const steps = [[1080, 3e6], [720, 1.7e6], [480, 9e5], [360, 6e5], [180, 2e5]];
  return steps.find(([from]) => height >= from)?.[1] ?? 1e5;
}

/** What to send of a video track: one encoding, three by rid (RFC 8853), or one in layers. */
function encodings(track, { simulcast, scalability, codec }) {
  if (Array.isArray(simulcast)) return simulcast;
  if (scalability) return [{ scalabilityMode: scalability }];
  if (!simulcast) return undefined;
  const height = track.getSettings().height ?? 720;
  // VP9 and AV1 would make spatial layers of one stream of it.
  const flat = codec === 'vp9' || codec === 'av1' ? { scalabilityMode: 'L1T1' } : {};
  return [4, 2, 1].map((scale, i) => ({
    rid: 'qhf'[i],
    scaleResolutionDownBy: scale,
    maxBitrate: rate(height / scale),
    ...flat,
  }));
}

/** Sends a MediaStream's tracks on `peer`, each by a transceiver of its own. */
function send(peer, stream, options, keys) {
  return stream.getTracks().map((track) => {
    const init = { direction: 'sendonly', streams: [stream] };
    const layers = track.kind === 'video' ? encodings(track, options) : undefined;
    if (layers) init.sendEncodings = layers;
    const transceiver = peer.addTransceiver(track, init);
    const codec = options.codec ?? (keys ? 'vp8' : undefined);
    if (track.kind === 'video' && codec) prefer(transceiver, codec, Boolean(keys));
    keys?.seal(transceiver.sender, codec);
    return transceiver;
  });
}

// ---- End-to-end encryption -------------------------------------------------------------------

/** What the packetisers can still cut into packets once it is encrypted. */
const SEALABLE = ['vp8', 'vp9'];

/** Whether this browser can encrypt end to end. */
export function canEncrypt() {
  return typeof RTCRtpScriptTransform === 'function' && typeof Worker === 'function';
}

/** A new key, as text for the part of a link after the '#'. */
export function newKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(32));
  return base64url(bytes);
}

function base64url(bytes) {
  const text = btoa(String.fromCharCode(...bytes));
  return text.replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '');
}

/** A key is `secret` or `secret.epoch`: at least 128 bits in base64url. */
function parseKey(text) {
  const [, secret, epoch] = /^([A-Za-z0-9_-]{22,})(?:\.(\d{1,9}))?$/.exec(text ?? '') ?? [];
  if (!secret || secret.length % 4 === 1) {
    const words = 'The end-to-end key is damaged: it is 22 or more letters, digits, "-" and "_".';
    throw new VeilgateError('e2ee_key', words);
  }
  const raw = atob(secret.replaceAll('-', '+').replaceAll('_', '/'));
  return { secret: Uint8Array.from(raw, (c) => c.charCodeAt(0)), epoch: Number(epoch ?? 0) };
}

/** The page's end of the worker that holds the keys. */
class Keys {
  #worker;
  #asked = new Map();
  #count = 0;

  /** `tell` hears of frames that could not be opened: {reason, frames}. */
  constructor(key, { codec, tell }) {
    if (!canEncrypt()) {
      const words = 'This browser cannot encrypt streams end to end (no RTCRtpScriptTransform).';
      throw new VeilgateError('e2ee_unsupported', words);
    }
    if (codec && !SEALABLE.includes(codec)) {
      const words = `${codec} cannot be encrypted end to end; ${SEALABLE.join(' and ')} can.`;
      throw new VeilgateError('e2ee_codec', words);
    }
    const given = parseKey(key);
    this.#worker = new Worker(new URL('./e2ee-worker.js', import.meta.url), { type: 'module' });
    this.#worker.onmessage = ({ data }) => {
      if (data.id === undefined) tell(data);
      else this.#asked.get(data.id)?.resolve(data);
    };
    this.#worker.onerror = () => {
      const error = new VeilgateError('e2ee_unsupported', 'e2ee-worker.js could not be started.');
      for (const { reject } of this.#asked.values()) reject(error);
    };
    /** Resolves when the worker has the key. */
    this.ready = this.#ask({ ask: 'key', ...given });
  }

  seal(sender, codec) {
    sender.transform = new RTCRtpScriptTransform(this.#worker, { work: 'seal', codec });
  }

  open(receiver) {
    receiver.transform = new RTCRtpScriptTransform(this.#worker, { work: 'open' });
  }

  /** The next key: derived from the present one, or one from elsewhere. Returns its text. */
  rotate(key) {
    return this.#ask({ ask: 'rotate', ...(key === undefined ? {} : parseKey(key)) });
  }

  /** The present key's text: for whoever joins now; it opens nothing from before. */
  current() {
    return this.#ask({ ask: 'current' });
  }

  end() {
    this.#worker.terminate();
  }

  async #ask(question) {
    this.#count += 1;
    const id = this.#count;
    try {
      const { secret, epoch } = await new Promise((resolve, reject) => {
        this.#asked.set(id, { resolve, reject });
        this.#worker.postMessage({ ...question, id });
      });
      return epoch === 0 ? base64url(secret) : `${base64url(secret)}.${epoch}`;
    } finally {
      this.#asked.delete(id);
    }
  }
}

/** A session that may be encrypted end to end. Event: 'undecryptable' {reason, frames}. */
class Encrypted extends Session {
  #keys = null;

  /** The keys, once the worker has them; null without `options.key`. */
  async _keys() {
    const { key, codec } = this.options;
    if (key === undefined || key === null || key === '') return null;
    this.#keys ??= new Keys(key, { codec, tell: (lost) => this._tell('undecryptable', lost) });
    await this.#keys.ready;
    return this.#keys;
  }

  /**
   * Changes the key for what is sent from now on: to the next one of its ratchet, which every
   * holder of the present key follows by itself, or to `key`, which the others must be given.
   * Resolves with its text.
   */
  async rotate(key) {
    return (await this._keys())?.rotate(key) ?? null;
  }

  /** The present key's text, or null. */
  async currentKey() {
    return (await this._keys())?.current() ?? null;
  }

  _end() {
    this.#keys?.end();
  }
}

// ---- Streams ---------------------------------------------------------------------------------

/** One publication or one viewing, over as many connections as it takes. */
class Stream extends Encrypted {
  #kind;
  #resource = null;
  #renewAt = Infinity;
  #everLive = false;

  constructor(kind, options) {
    super(options);
    this.#kind = kind;
  }

  _worthRetrying(error) {
    // Our own dead session may hold the name until the gateway notices.
    return error.status === 409 ? this.#everLive : super._worthRetrying(error);
  }

  async _open(signal) {
    const { name, stream, origin } = this.options;
    const keys = await this._keys();
    const ice = await this._ice(signal);
    this.#renewAt = renewal(ice.lifetime);
    const peer = this._connection(ice.iceServers);
    if (this.#kind === 'publish') {
      send(peer, stream, this.options, keys);
    } else {
      const target = new MediaStream();
      peer.addEventListener('track', ({ track }) => {
        target.addTrack(track);
        this._tell('track', { stream: target, track }, target, track);
      });
      for (const kind of ['video', 'audio']) {
        const { receiver } = peer.addTransceiver(kind, { direction: 'recvonly' });
        keys?.open(receiver);
      }
    }

    // The offer goes out at once: the gateway learns the relayed address from the first check,
    // so no candidate of ours is needed.
    await peer.setLocalDescription();
    const path = name.split('/').map(encodeURIComponent).join('/');
    const response = await request(`${origin}/${this.#kind === 'publish' ? 'whip' : 'whep'}/${path}`, {
      method: 'POST',
      headers: { ...(await this._headers()), 'content-type': 'application/sdp' },
      body: peer.localDescription.sdp,
      signal,
    });
    const location = response.headers.get('location');
    if (location) this.#resource = new URL(location, response.url).href;
    await peer.setRemoteDescription({ type: 'answer', sdp: await response.text() });
    await this._connected(peer, signal);
    this.#everLive = true;
    this._isLive();
  }

  /** Mends the path for as long as it can be mended. */
  async _over(signal) {
    for (;;) {
      const why = await this._trouble([this.peer], signal, this.#renewAt);
      if (why === 'stopped') return stopped();
      this._become('restarting', { why });
      try {
        await this.#restart(signal);
      } catch {
        // Whatever it was, a session anew is the cure, and finds its own words.
        return new VeilgateError('lost', 'The connection was lost.');
      }
      this._become('live');
    }
  }

  /** Another path for the same session: RFC 9725 section 4.3.3. */
  async #restart(signal) {
    const { peer } = this;
    if (!this.#resource || peer.connectionState === 'closed') throw stopped();
    const ice = await this._ice(signal);
    this.#renewAt = renewal(ice.lifetime);
    peer.setConfiguration({ ...peer.getConfiguration(), iceServers: ice.iceServers });
    await peer.setLocalDescription(await peer.createOffer({ iceRestart: true }));
    const response = await request(this.#resource, {
      method: 'PATCH',
      headers: { ...(await this._headers()), 'content-type': FRAGMENT, 'if-match': '*' },
      body: fragmentOf(peer.localDescription.sdp),
      signal,
    });
    const sdp = spliced(peer.currentRemoteDescription.sdp, await response.text());
    await peer.setRemoteDescription({ type: 'answer', sdp });
    await this._connected(peer, signal);
  }

  async _release(keepalive = false) {
    const { peer } = this;
    const resource = this.#resource;
    this.peer = null;
    this.#resource = null;
    peer?.close();
    if (!resource) return;
    try {
      await fetch(resource, { method: 'DELETE', headers: await this._headers(), keepalive });
    } catch {
      // The gateway notices a silent session by itself.
    }
  }
}

/**
 * Publishes `stream` (a MediaStream) as `name` ("room/stream").
 *
 * `simulcast: true` sends the picture in three sizes (rids q, h, f), or in those of a list of
 * RTCRtpEncodingParameters; `scalability` in the layers of a mode ('L3T3_KEY'); `codec` ('vp8',
 * 'vp9', 'av1', 'h264', 'h265') is offered first; `key` (see newKey) encrypts end to end, with
 * vp8 or vp9; `transport` ('udp', 'tcp', 'tls') allows one way to the relay only.
 * @param {{name: string, token: string | (() => string | Promise<string>), stream: MediaStream,
 *   origin?: string, simulcast?: boolean | RTCRtpEncodingParameters[], scalability?: string,
 *   codec?: string, key?: string, transport?: string,
 *   onstate?: (state: string, detail: {error?: Error, retryInMs?: number}) => void}} options
 */
export function publish(options) {
  return new Stream('publish', options);
}

/**
 * Plays `name`; 'track' comes for each track, with one MediaStream a connection. With `key` only
 * what that key opens is shown; 'undecryptable' tells of the rest.
 * @param {{name: string, token: string | (() => string | Promise<string>), origin?: string,
 *   key?: string, transport?: string,
 *   ontrack?: (stream: MediaStream, track: MediaStreamTrack) => void,
 *   onundecryptable?: (detail: {reason: 'key' | 'clear' | 'damaged', frames: number}) => void,
 *   onstate?: (state: string, detail: {error?: Error, retryInMs?: number}) => void}} options
 */
export function play(options) {
  return new Stream('play', options);
}
