// A room: everybody's streams on one connection, one's own on another, both kept up by one
// WebSocket (docs/signalling.md).

import { Encrypted } from './encrypted.js';
import { send } from './sending.js';
import { VeilgateError, only, pause, renewal, stopped } from './session.js';
import { Signal } from './signal.js';

/** Before a connection is mended once more. */
const MEND_PAUSE_MS = 1_000;
/** A minted credential is used for new connections this much of its time. */
const FRESH = 0.5;
const EVENTS = new Set(['speakers', 'estimate', 'chat', 'data']);
const LATER = new Set(['full', 'draining', 'too_many_sessions', 'name_in_use']);

/**
 * One participant's place in a room. While the socket is away media goes on; back within 30 s the
 * room is as it was, later it is joined anew and what was published is published again.
 *
 * Events, beside those of a session: 'participantjoined' {participant}, 'participantleft'
 * {participant, reason}, 'streamadded' and 'streamremoved' {stream}, 'muted' {stream, track,
 * muted}, 'speakers' {active, levels}, 'chat' {from, name, text, private, at}, 'data' {from, data,
 * private}, 'estimate' {bps}, 'closing' {retryInMs}, 'unpublished' {error}; 'track' {stream, track,
 * name}, where `stream` is the MediaStream of the stream called `name`.
 */
export class Room extends Encrypted {
  #signal = null;
  #resume;
  #ice = null;
  #keys = null;
  /** What we publish: {media, name, options, peer, gone}. */
  #sending = null;
  /** Ends with the playing connection. */
  #playing = null;
  /** The last of what a room joined anew must be told again. */
  #wanted = new Map();
  #placed = new Map();
  #offers = Promise.resolve();
  #everLive = false;

  /** Our id in the room. */
  id = null;
  /** What the token allows: {publish, play, chat, data, admin}. */
  may = null;
  /** The others by id: {id, name}. */
  participants = new Map();
  /** Streams by name: {name, participant, own, tracks, media}; `media` is a MediaStream to show. */
  streams = new Map();

  /** The connection that carries our own stream, or null. */
  get publisher() {
    return this.#sending?.peer ?? null;
  }

  /** The name of our own stream, or null. */
  get publishing() {
    return this.#sending?.name ?? null;
  }

  /**
   * Publishes a MediaStream as `name`, in place of what was published before; the other options
   * are those of publish(). Resolves once media flows.
   */
  async publish(media, { name = 'camera', ...options } = {}) {
    await this.live;
    await this.unpublish();
    const sending = { media, name, options, peer: null, gone: null };
    this.#sending = sending;
    try {
      await this.#send(sending);
    } catch (error) {
      if (this.#sending === sending) this.#dropSending();
      throw error;
    }
  }

  async unpublish() {
    if (!this.#sending) return;
    this.#dropSending();
    try {
      await this.#ask({ type: 'unpublish' });
    } catch (error) {
      if (error.code !== 'not_publishing') throw error;
    }
  }

  /** Silences our own 'audio' or 'video' at its source, and tells the others; or the opposite. */
  async mute(kind, muted = true) {
    const sending = this.#sending;
    for (const track of sending?.media.getTracks() ?? []) {
      if (track.kind === kind) track.enabled = !muted;
    }
    if (sending?.peer) await this.#tellMutes(kind);
  }

  /** Which streams to play: 'all', or a list of names. */
  subscribe(streams) {
    return this.#want({ type: 'subscribe', streams });
  }

  /** Pictures of the `n` who spoke last only; null: of everybody. */
  lastN(n) {
    return this.#want({ type: 'last_n', n });
  }

  /** The highest layer wanted of a stream: {rid} ('auto' is any) or {spatial}, {temporal}, {track}. */
  layer(stream, wish = { rid: 'auto' }) {
    return this.#ask({ type: 'layer', stream, ...wish });
  }

  /** Stops receiving a stream, or one track of it, without a new negotiation. */
  pause(stream, track) {
    return this.#ask({ type: 'pause', stream, track });
  }

  resume(stream, track) {
    return this.#ask({ type: 'resume', stream, track });
  }

  /** To all others, or to one participant's id. */
  chat(text, to) {
    return this.#ask({ type: 'chat', text, to });
  }

  /** Any JSON, to all others or to one. */
  send(data, to) {
    return this.#ask({ type: 'data', data, to });
  }

  /** Puts a participant out. */
  kick(participant) {
    return this.#ask({ type: 'kick', participant });
  }

  async #ask(message) {
    if (!this.#signal) throw new VeilgateError('lost', 'The room is being joined again.');
    return this.#signal.ask(message);
  }

  async #want(message) {
    this.#wanted.set(message.type, message);
    await this.#ask(message);
  }

  // -- joining

  _worthRetrying(error) {
    if (LATER.has(error.code)) return true;
    // A room that was full at the first knock is told so; one that we were in may have a place.
    return error.code === 'room_full' ? this.#everLive : super._worthRetrying(error);
  }

  async _open(signal) {
    const { origin, room, name, subscribe, token } = this.options;
    this.#keys = await this._keys();
    const url = new URL(`${origin}/v1/signal`, location.href);
    url.protocol = url.protocol.replace('http', 'ws');
    this.#signal = await Signal.open(url, signal, (message) => this.#hear(message));
    const ask = {
      type: 'join',
      token: typeof token === 'function' ? await token() : token,
      room,
      name: name ?? '',
      subscribe: subscribe ?? 'all',
    };
    let joined;
    try {
      joined = await this.#signal.ask({ ...ask, resume: this.#resume });
    } catch (error) {
      if (error.code !== 'resume_unknown') throw error;
      joined = await this.#signal.ask(ask);
    }
    this.#resume = joined.resume;
    this.id = joined.participant;
    this.may = joined.may;
    this.#take(joined.ice);
    if (!joined.resumed) this.#dropPlaying();
    this.#compare(joined);
    this.#everLive = true;
    this._isLive({ resumed: joined.resumed });
    if (!joined.resumed) {
      for (const message of this.#wanted.values()) this.#ask(message).catch(() => {});
    }
    if (this.#sending?.peer && joined.publishing !== this.#sending.name) this.#sendAgain();
  }

  _over(signal) {
    const left = new Promise((resolve) => {
      const leave = () => resolve(stopped());
      signal.addEventListener('abort', leave, { once: true });
      if (signal.aborted) leave();
    });
    return Promise.race([this.#signal.closed, left]);
  }

  /** Only the socket goes: media may outlive it. */
  async _release() {
    const signal = this.#signal;
    this.#signal = null;
    await signal?.close(this._signal.aborted);
  }

  _end() {
    this.#dropPlaying();
    this.#dropSending();
    super._end();
  }

  /** What changed while nobody listened. */
  #compare({ participants, streams }) {
    const here = new Set(participants.map(({ participant }) => participant));
    for (const id of this.participants.keys()) {
      if (!here.has(id)) this.#hear({ type: 'participant_left', participant: id, reason: 'lost' });
    }
    const there = new Map(streams.map((stream) => [stream.stream, stream]));
    for (const { name, participant } of this.streams.values()) {
      if (there.get(name)?.participant !== participant) {
        this.#hear({ type: 'stream_removed', stream: name });
      }
    }
    for (const one of participants) this.#hear({ type: 'participant_joined', ...one });
    for (const stream of streams) this.#hear({ type: 'stream_added', ...stream });
  }

  // -- what the gateway says

  #hear(message) {
    const { type, ...detail } = message;
    if (EVENTS.has(type)) this._tell(type, detail);
    else this.#handlers[type]?.(detail);
  }

  #handlers = {
    participant_joined: ({ participant: id, name }) => {
      if (this.participants.has(id)) return;
      const participant = { id, name };
      this.participants.set(id, participant);
      this._tell('participantjoined', { participant });
      this.#ratchet();
    },
    participant_left: ({ participant: id, reason }) => {
      const participant = this.participants.get(id);
      if (!participant) return;
      this.participants.delete(id);
      this._tell('participantleft', { participant, reason });
      this.#ratchet();
    },
    stream_added: ({ stream: name, participant, tracks }) => {
      const known = this.streams.get(name);
      const own = participant === this.id;
      const ours = own && this.#sending?.name === name ? this.#sending.media : null;
      const stream = known ?? { name, media: ours ?? new MediaStream() };
      const fresh = stream.tracks === undefined;
      Object.assign(stream, { participant, tracks, own });
      this.streams.set(name, stream);
      if (fresh) this._tell('streamadded', { stream });
    },
    stream_removed: ({ stream: name }) => {
      const stream = this.streams.get(name);
      if (!stream) return;
      this.streams.delete(name);
      this._tell('streamremoved', { stream });
    },
    muted: ({ stream: name, track, muted }) => {
      const stream = this.streams.get(name);
      const known = stream?.tracks?.find((one) => one.track === track);
      if (!known) return;
      known.muted = muted;
      this._tell('muted', { stream, track: known, muted });
    },
    offer: (offer) => {
      // One after the other; one that cannot be answered must not stop the next.
      this.#offers = this.#offers.then(() => this.#answer(offer)).catch((error) => {
        if (this.#signal) this._tell('trouble', { error });
      });
    },
    connection_ended: ({ connection }) => {
      if (connection === 'publish') this.#sendAgain();
      else this.#ask({ type: 'restart', connection }).catch(() => {});
    },
    closing: ({ retry_after: seconds }) => {
      const retryInMs = seconds * 1000;
      if (this.#signal) this.#signal.retryAfterMs = retryInMs;
      this._tell('closing', { retryInMs });
    },
  };

  /** Who comes gets no key of before, if the link they came by has the present one. */
  #ratchet() {
    if (this.#sending?.peer) this.#keys?.rotate().catch(() => {});
  }

  // -- connections

  #take(ice) {
    this.#ice = { ...ice, iceServers: only(this.options.transport, ice.iceServers) };
    this.#ice.freshUntil = performance.now() + ice.ttl * 1000 * FRESH;
    this.#ice.renewAt = renewal(ice.lifetime);
  }

  async #servers({ fresh } = {}) {
    if (fresh || performance.now() > this.#ice.freshUntil) {
      this.#take((await this.#ask({ type: 'ice' })).ice);
    }
    return this.#ice.iceServers;
  }

  /** Keeps the path of a connection up until `gone`. */
  async #tend(peer, gone, restart) {
    const signal = AbortSignal.any([this._signal, gone]);
    while (!signal.aborted) {
      const why = await this._trouble([peer], signal, this.#ice.renewAt);
      if (signal.aborted) return;
      try {
        const iceServers = await this.#servers({ fresh: true });
        peer.setConfiguration({ ...peer.getConfiguration(), iceServers });
        await restart();
        await this._connected(peer, signal);
      } catch (error) {
        if (error.code === 'not_publishing') this.#sendAgain();
        // Without the socket nothing can be mended yet.
        await pause(why === 'renew' ? 10 * MEND_PAUSE_MS : MEND_PAUSE_MS, signal);
      }
    }
  }

  async #send(sending) {
    try {
      await this.#sendOn(sending);
    } catch (error) {
      this.#closeSending(sending);
      throw error;
    }
  }

  async #sendOn(sending) {
    const iceServers = await this.#servers();
    // Given up meanwhile: nothing of it may go out.
    if (this.#sending !== sending) throw stopped();
    const gone = new AbortController();
    const peer = this._connection(iceServers);
    Object.assign(sending, { peer, gone });
    send(peer, sending.media, sending.options, this.#keys);
    await peer.setLocalDescription();
    const { sdp } = await this.#ask({
      type: 'publish',
      stream: sending.name,
      sdp: peer.localDescription.sdp,
    });
    if (gone.signal.aborted) throw stopped();
    await peer.setRemoteDescription({ type: 'answer', sdp });
    await this._connected(peer, AbortSignal.any([this._signal, gone.signal]));
    this.#tend(peer, gone.signal, async () => {
      await peer.setLocalDescription(await peer.createOffer({ iceRestart: true }));
      const offer = peer.localDescription.sdp;
      const answer = await this.#ask({ type: 'restart', connection: 'publish', sdp: offer });
      await peer.setRemoteDescription({ type: 'answer', sdp: answer.sdp });
    });
    for (const kind of ['audio', 'video']) await this.#tellMutes(kind, true).catch(() => {});
  }

  /** Publishes the same again, for as long as that may succeed. */
  async #sendAgain() {
    const sending = this.#sending;
    // Several reasons to are one.
    if (!sending || sending.again) return;
    sending.again = true;
    try {
      await this.#sendUntilSent(sending);
    } finally {
      sending.again = false;
    }
  }

  async #sendUntilSent(sending) {
    while (this.#sending === sending && this.#signal) {
      try {
        this.#closeSending(sending);
        await this.#send(sending);
        return;
      } catch (error) {
        // Without the socket: the next join sees to it.
        if (!this.#signal || this.#sending !== sending) return;
        if (!this._worthRetrying(error)) {
          this.#dropSending();
          this._tell('unpublished', { error });
          return;
        }
        await pause(2 * MEND_PAUSE_MS, this._signal);
      }
    }
  }

  #closeSending({ peer, gone }) {
    gone?.abort();
    peer?.close();
  }

  #dropSending() {
    if (this.#sending) this.#closeSending(this.#sending);
    this.#sending = null;
  }

  /** `silentOnly`: a new connection has nothing muted yet. */
  async #tellMutes(kind, silentOnly = false) {
    const { media, name } = this.#sending;
    const own = this.streams.get(name)?.tracks;
    for (const [i, track] of media.getTracks().entries()) {
      if (track.kind !== kind || (silentOnly && track.enabled)) continue;
      const number = own?.find((one) => one.kind === kind)?.track ?? i;
      const muted = !track.enabled;
      await this.#ask({ type: 'mute', stream: name, track: number, muted });
    }
  }

  async #answer({ revision, fresh, sdp, tracks }) {
    if (fresh || !this.peer) {
      const iceServers = await this.#servers();
      if (this._signal.aborted) throw stopped();
      this.#dropPlaying();
      const gone = new AbortController();
      this.#playing = gone;
      const peer = this._connection(iceServers);
      this.peer = peer;
      this._connected(peer, AbortSignal.any([this._signal, gone.signal]))
        .catch(() => {})
        .then(() => this.#tend(peer, gone.signal, () => this.#ask({ type: 'restart', connection: 'play' })));
    }
    const { peer } = this;
    await peer.setRemoteDescription({ type: 'offer', sdp });
    for (const { receiver } of peer.getTransceivers()) {
      if (this.#keys && !receiver.transform) this.#keys.open(receiver);
    }
    await peer.setLocalDescription();
    this.#place(tracks);
    await this.#ask({ type: 'answer', revision, sdp: peer.localDescription.sdp });
  }

  /** Puts each received track into its stream's MediaStream, and takes out what went. */
  #place(tracks) {
    const wanted = new Map(tracks.map((track) => [track.mid, track]));
    for (const [mid, { name, media, track }] of this.#placed) {
      if (wanted.get(mid)?.stream === name) continue;
      media.removeTrack(track);
      this.#placed.delete(mid);
    }
    for (const { mid, receiver } of this.peer.getTransceivers()) {
      const given = wanted.get(mid);
      if (!given || this.#placed.has(mid)) continue;
      const name = given.stream;
      if (!this.streams.has(name)) this.streams.set(name, { name, media: new MediaStream() });
      const { media } = this.streams.get(name);
      const { track } = receiver;
      media.addTrack(track);
      this.#placed.set(mid, { name, media, track });
      this._tell('track', { stream: media, track, name }, media, track, name);
    }
  }

  #dropPlaying() {
    this.#playing?.abort();
    this.#playing = null;
    this.peer?.close();
    this.peer = null;
    for (const { media, track } of this.#placed.values()) media.removeTrack(track);
    this.#placed.clear();
  }
}
