// Frames of end-to-end encrypted streams, sealed after the encoder and opened before the decoder.
// The gateway sees what leaves here and never the key. docs/e2ee.md has the format.
//
//   frame  = clear header | AES-GCM ciphertext and tag | trailer
//   trailer = salt (8) | counter (4) | epoch (1) | header length (1) | mark (1)
//
// Each sender draws a salt of its own for each epoch, HKDF makes the frame key of both, and the
// counter is the nonce: no nonce is ever used twice under one key. Header and trailer are
// authenticated. The ratchet goes one way: from an epoch's secret follows the next, not the last.

const SALT = 8;
const TRAILER = SALT + 4 + 3;
const TAG = 16;
const MARK = 0xe1;
const LAST_COUNT = 0xffff_ffff;
// How far a sender may be ahead of us, and how many epochs of slower ones are kept.
const AHEAD = 128;
const BEHIND = 15;
const MOST_FRAME_KEYS = 64;
// How long, and how many, keys open after a new one was given.
const OLD_KEY_MS = 60_000;
const MOST_CHAINS = 4;
const TELL_EVERY_MS = 1_000;

// What stays readable. VP8: the lowest bit of the first byte says "keyframe" to whoever forwards
// it (RFC 7741 section 4.3). VP9: the payload descriptor says all, nothing. A player without the
// key must see nothing rather than garbage: behind these no decoder finds a frame.
const HEADERS = { 'video/vp8': 1, 'video/vp9': 0 };
// Opus has nothing that a forwarder reads. The header is ours: code 3 with no frames, which RFC
// 6716 section 3.2.5 calls invalid, so that without the key there is silence, not noise.
const NO_SOUND = Uint8Array.of(0x03, 0x00);

const text = new TextEncoder();
const FRAME = text.encode('veilgate e2ee 1 frame');
const RATCHET = text.encode('veilgate e2ee 1 ratchet');
const hkdf = (salt, info) => ({ name: 'HKDF', hash: 'SHA-256', salt, info });

/** The secret of one epoch and the frame keys made of it. */
class Epoch {
  #base;
  #frameKeys = new Map();

  static async of(number, secret) {
    const epoch = new Epoch();
    epoch.number = number;
    epoch.secret = secret;
    epoch.#base = await crypto.subtle.importKey('raw', secret, 'HKDF', false, ['deriveKey', 'deriveBits']);
    return epoch;
  }

  async next() {
    const none = new Uint8Array();
    const bits = await crypto.subtle.deriveBits(hkdf(none, RATCHET), this.#base, 256);
    return Epoch.of(this.number + 1, new Uint8Array(bits));
  }

  frameKey(salt) {
    const name = String(salt);
    let key = this.#frameKeys.get(name);
    if (!key) {
      const kind = { name: 'AES-GCM', length: 256 };
      const uses = ['encrypt', 'decrypt'];
      key = crypto.subtle.deriveKey(hkdf(salt, FRAME), this.#base, kind, false, uses);
      // Made-up salts must not fill the memory.
      if (this.#frameKeys.size >= MOST_FRAME_KEYS) {
        this.#frameKeys.delete(this.#frameKeys.keys().next().value);
      }
      this.#frameKeys.set(name, key);
    }
    return key;
  }
}

/** The epochs of one given key: the newest, a few before it, and those looked ahead at. */
class Chain {
  #epochs;
  #ahead = [];

  constructor(epoch) {
    this.#epochs = [epoch];
  }

  get newest() {
    return this.#epochs[0];
  }

  /** The epoch that a trailer's byte means, or null. Made-up ones are derived once at most. */
  async find(byte) {
    const known = this.#epochs.find(({ number }) => (number & 0xff) === byte);
    if (known) return known;
    const steps = (byte - this.newest.number) & 0xff;
    return steps > AHEAD ? null : this.#after(steps);
  }

  #after(steps) {
    while (this.#ahead.length < steps) {
      const last = this.#ahead.at(-1) ?? Promise.resolve(this.newest);
      this.#ahead.push(last.then((epoch) => epoch.next()));
    }
    return this.#ahead[steps - 1];
  }

  /** Goes on to an epoch that was found. */
  async follow(epoch) {
    while (epoch.number > this.newest.number) {
      const [next] = this.#ahead;
      const fresh = await next;
      // Two frames at once may have found the way.
      if (this.#ahead[0] !== next) continue;
      this.#ahead.shift();
      this.#epochs = [fresh, ...this.#epochs.slice(0, BEHIND)];
    }
  }

  async ratchet() {
    await this.follow(await this.#after(1));
  }
}

/** The present key's epochs, and for a while those of the key before it: each of us changes it at
 * a moment of their own, and had gone on as far as they had. */
class Ring {
  #chains = [];

  get newest() {
    return this.#chains[0].newest;
  }

  get chains() {
    return [...this.#chains];
  }

  /** The first key; of none before. */
  start(epoch) {
    this.#chains = [new Chain(epoch)];
  }

  /** Another key. */
  renew(epoch) {
    const before = this.#chains.slice(0, MOST_CHAINS - 1);
    this.#chains = [new Chain(epoch), ...before];
    // Who left with it is not to be heard by it for ever.
    setTimeout(() => this.#forget(before), OLD_KEY_MS);
  }

  #forget(chains) {
    this.#chains = this.#chains.filter((chain) => !chains.includes(chain));
  }

  ratchet() {
    return this.#chains[0].ratchet();
  }
}

const ring = new Ring();
let started;
const start = new Promise((resolve) => {
  started = resolve;
});
const openers = new Set();

/** Nonces under one salt: 96 bits, the last 32 count. */
function nonce(counter) {
  const bytes = new Uint8Array(12);
  new DataView(bytes.buffer).setUint32(8, counter);
  return bytes;
}

const isSound = (frame) => frame instanceof RTCEncodedAudioFrame;

/** `header` is what goes first; of the frame itself the first `skipped` bytes are in it. */
function headerOf(frame, codec) {
  const data = new Uint8Array(frame.data);
  if (isSound(frame)) return { data, header: NO_SOUND, skipped: 0 };
  // Firefox does not say the type.
  const mime = frame.getMetadata().mimeType ?? `video/${codec}`;
  const length = HEADERS[mime.toLowerCase()];
  if (length === undefined) return null;
  return { data, header: data.subarray(0, length), skipped: length };
}

function sealer(codec) {
  let epoch = null;
  let salt = null;
  let counter = 0;
  return async (frame, out) => {
    await start;
    if (frame.data.byteLength === 0) return;
    const parts = headerOf(frame, codec);
    // Another codec than promised: never in clear.
    if (!parts) return;
    if (epoch !== ring.newest || counter === LAST_COUNT) {
      epoch = ring.newest;
      salt = crypto.getRandomValues(new Uint8Array(SALT));
      counter = 0;
    }
    counter += 1;
    const { data, header, skipped } = parts;
    const trailer = new Uint8Array(TRAILER);
    trailer.set(salt);
    new DataView(trailer.buffer).setUint32(SALT, counter);
    trailer.set([epoch.number & 0xff, header.length, MARK], SALT + 4);
    const additionalData = joined(header, trailer);
    const given = { name: 'AES-GCM', iv: nonce(counter), additionalData };
    const key = await epoch.frameKey(salt);
    const sealed = await crypto.subtle.encrypt(given, key, data.subarray(skipped));
    frame.data = joined(header, new Uint8Array(sealed), trailer).buffer;
    out.enqueue(frame);
  };
}

function joined(...parts) {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** Opens a frame: its bytes, or why not. */
async function opened(frame) {
  const data = new Uint8Array(frame.data);
  const trailer = data.subarray(data.length - TRAILER);
  const [byte, length, mark] = trailer.subarray(SALT + 4);
  if (mark !== MARK) return 'clear';
  if (data.length < length + TAG + TRAILER) return 'damaged';
  const counter = new DataView(trailer.slice().buffer).getUint32(SALT);
  const header = data.subarray(0, length);
  const given = { name: 'AES-GCM', iv: nonce(counter), additionalData: joined(header, trailer) };
  const body = data.subarray(length, data.length - TRAILER);
  for (const chain of ring.chains) {
    const epoch = await chain.find(byte);
    if (!epoch) continue;
    try {
      const key = await epoch.frameKey(trailer.slice(0, SALT));
      const plain = new Uint8Array(await crypto.subtle.decrypt(given, key, body));
      // Only what opened proves that the others have gone on.
      await chain.follow(epoch);
      return (isSound(frame) ? plain : joined(header, plain)).buffer;
    } catch {
      // Perhaps with the key before.
    }
  }
  return 'key';
}

function opener(transformer) {
  let lost = 0;
  let told = -Infinity;
  openers.add(transformer);
  return async (frame, out) => {
    await start;
    if (frame.data.byteLength === 0) return;
    const result = await opened(frame);
    if (typeof result !== 'string') {
      frame.data = result;
      out.enqueue(frame);
      return;
    }
    lost += 1;
    if (performance.now() - told < TELL_EVERY_MS) return;
    told = performance.now();
    postMessage({ reason: result, frames: lost });
    lost = 0;
  };
}

self.onrtctransform = ({ transformer }) => {
  const { work, codec } = transformer.options;
  const transform = work === 'seal' ? sealer(codec) : opener(transformer);
  transformer.readable
    .pipeThrough(new TransformStream({ transform }))
    .pipeTo(transformer.writable)
    // The connection was closed.
    .catch(() => {})
    .finally(() => openers.delete(transformer));
};

/** After a change of key a picture can begin only with a keyframe. */
function askForKeyframes() {
  for (const transformer of openers) transformer.sendKeyFrameRequest?.().catch(() => {});
}

self.onmessage = async ({ data: { ask, id, secret, epoch } }) => {
  if (ask === 'key') {
    ring.start(await Epoch.of(epoch, secret));
    started();
  }
  await start;
  if (ask === 'rotate') {
    if (secret) {
      ring.renew(await Epoch.of(epoch, secret));
      askForKeyframes();
    } else {
      await ring.ratchet();
    }
  }
  postMessage({ id, secret: ring.newest.secret, epoch: ring.newest.number });
};
