// One stream, published by WHIP (RFC 9725) or played by WHEP.

import { Encrypted } from './encrypted.js';
import { send } from './sending.js';
import { VeilgateError, pause, renewal, request, stopped } from './session.js';

// A session without checks ends after 30 s.
const KEPT_MS = 25_000;
const MEND_PAUSE_MS = 500;
const FRAGMENT = 'application/trickle-ice-sdpfrag';

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

/** One publication or one viewing, over as many connections as it takes. */
export class Stream extends Encrypted {
  #kind;
  #resource = null;
  #renewAt = Infinity;
  #everLive = false;
  /** What was wished for last, by kind of track: a new session knows nothing of it. */
  #wishes = new Map();

  constructor(kind, options) {
    super(options);
    this.#kind = kind;
  }

  /**
   * Of what is played: the highest layer wanted, {rid} ('auto' is any) or {spatial}, and
   * {temporal}; {paused: true} stops it. `track` is 'video' unless it says 'audio'.
   */
  async layer({ track = 'video', rid, ...wish } = {}) {
    const body = JSON.stringify({ track, rid: rid === 'auto' ? undefined : rid, ...wish });
    this.#wishes.set(track, body);
    if (this.state === 'live') await this.#wish(body);
  }

  async #wish(body) {
    await request(`${this.#resource}/layer`, {
      method: 'POST',
      headers: { ...(await this._headers()), 'content-type': 'application/json' },
      body,
      signal: this._signal,
    });
  }

  _worthRetrying(error) {
    // Our own dead session may hold the name until the gateway notices.
    return error.code === 'name_in_use' ? this.#everLive : super._worthRetrying(error);
  }

  async _open(signal) {
    const { name, stream, origin } = this.options;
    const keys = await this._keys();
    const ice = await this._ice(signal);
    this.#renewAt = renewal(ice.lifetime);
    const peer = this._connection(ice.iceServers);
    this.peer = peer;
    if (this.#kind === 'publish') {
      send(peer, stream, this.options, keys);
    } else {
      const target = new MediaStream();
      peer.addEventListener('track', ({ track }) => {
        target.addTrack(track);
        this._tell('track', { stream: target, track }, target, track);
      });
      for (const kind of ['video', 'audio']) {
        const transceiver = peer.addTransceiver(kind, { direction: 'recvonly' });
        // Without it Chromium decodes only the lowest spatial layer of AV1.
        const extensions = transceiver.getHeaderExtensionsToNegotiate?.() ?? [];
        const descriptor = extensions.find(({ uri }) => uri.includes('#dependency-descriptor'));
        if (descriptor) {
          descriptor.direction = 'sendrecv';
          transceiver.setHeaderExtensionsToNegotiate(extensions);
        }
        keys?.open(transceiver.receiver);
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
    // A layer that is not there any more is no reason to stop.
    for (const body of this.#wishes.values()) this.#wish(body).catch(() => {});
  }

  /** Mends the path for as long as it can be mended. */
  async _over(signal) {
    for (;;) {
      const why = await this._trouble([this.peer], signal, this.#renewAt);
      if (why === 'stopped') return stopped();
      this._become('restarting', { why });
      try {
        await this.#mend(signal);
      } catch {
        // Whatever it was, a session anew is the cure, and finds its own words.
        return new VeilgateError('lost', 'The connection was lost.');
      }
      this._become('live');
    }
  }

  /** Between two networks there is none: the gateway keeps the session for a while. */
  async #mend(signal) {
    const end = performance.now() + KEPT_MS;
    for (;;) {
      try {
        await this.#restart(signal);
        return;
      } catch (error) {
        if (error.code !== 'unreachable' || signal.aborted || performance.now() > end) throw error;
      }
      await pause(MEND_PAUSE_MS, signal);
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
    if (resource) await this._delete(resource, keepalive);
  }
}
