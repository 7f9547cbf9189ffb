// Sessions encrypted end to end: the page's end of e2ee-worker.js, and what may be encrypted.

import { Session, VeilgateError } from './session.js';

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
  const [, secret, epoch] = /^([A-Za-z0-9_-]{22,})(?:\.(\d{1,9}))?$/.exec(String(text)) ?? [];
  if (!secret || secret.length % 4 === 1) {
    const words = 'The end-to-end key is damaged: it is 22 or more letters, digits, "-" and "_".';
    throw new VeilgateError('e2ee_key', words);
  }
  const raw = atob(secret.replaceAll('-', '+').replaceAll('_', '/'));
  return { secret: Uint8Array.from(raw, (c) => c.charCodeAt(0)), epoch: Number(epoch ?? 0) };
}

/** Before anything is sent: a codec that cannot be encrypted is none at all. */
function sealable(codec = 'vp8') {
  if (SEALABLE.includes(codec)) return;
  const words = `${codec} cannot be encrypted end to end; ${SEALABLE.join(' and ')} can.`;
  throw new VeilgateError('e2ee_codec', words);
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
    sealable(codec);
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
    sealable(codec);
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
    const error = new VeilgateError('stopped', 'Stopped.');
    for (const { reject } of this.#asked.values()) reject(error);
    this.#asked.clear();
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
export class Encrypted extends Session {
  #keys = null;

  /**
   * The keys, once the worker has them; null without `options.key`. A key that is null or empty was
   * looked for and not found: an error, not a stream in clear.
   */
  async _keys() {
    const { key, codec } = this.options;
    if (key === undefined) return null;
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
