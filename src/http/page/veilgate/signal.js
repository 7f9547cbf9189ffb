// The WebSocket of a room: questions with their replies, and whatever else is said.

import { VeilgateError, pause, stopped } from './session.js';

const OPEN_MS = 10_000;
const REPLY_MS = 15_000;
const PING_EVERY_MS = 15_000;

// Close codes after which coming back is of no use, or takes another token.
const CLOSED = {
  1003: ['bad_message', 'The gateway did not understand a message.'],
  1009: ['bad_message', 'A message was too long.'],
  4400: ['bad_message', 'The gateway did not understand a message.'],
  4401: ['token', 'The token is missing, wrong or expired.'],
  4403: ['not_granted', 'The token does not open this room.'],
  4409: ['room_full', 'The room is full.'],
  4410: ['kicked', 'You were put out of the room.'],
  4411: ['replaced', 'You came back to this room from another page.'],
  4503: ['full', 'The gateway is full or closing.'],
};

/** An open socket. `closed` resolves with the VeilgateError that says why it is not any more. */
export class Signal {
  #socket;
  #hear;
  #asked = new Map();
  #count = 0;
  #gone = new AbortController();
  #end;
  #refusal = null;

  /** What the gateway asked for before it closed. */
  retryAfterMs = 0;
  closed;

  constructor(socket, hear) {
    this.#socket = socket;
    this.#hear = hear;
    this.closed = new Promise((resolve) => {
      this.#end = resolve;
    });
    socket.onmessage = ({ data }) => this.#onMessage(data);
    socket.onclose = ({ code }) => this.#over(this.#reason(code));
    this.#beat();
  }

  /** Opens one; `hear` is given every message that is no reply. */
  static open(url, signal, hear) {
    return new Promise((resolve, reject) => {
      const socket = new WebSocket(url);
      const settled = () => {
        clearTimeout(timer);
        signal.removeEventListener('abort', stop);
        socket.onopen = null;
        socket.onclose = null;
      };
      const refuse = (error) => {
        settled();
        socket.close();
        reject(error);
      };
      const stop = () => refuse(stopped());
      const words = 'The gateway cannot be reached.';
      const fail = () => refuse(new VeilgateError('unreachable', words));
      const timer = setTimeout(fail, OPEN_MS);
      socket.onopen = () => {
        settled();
        resolve(new Signal(socket, hear));
      };
      socket.onclose = fail;
      signal.addEventListener('abort', stop);
      if (signal.aborted) stop();
    });
  }

  /** Resolves with the reply, or rejects with the gateway's error or the end of the socket. */
  ask(message) {
    this.#count += 1;
    const id = this.#count;
    return new Promise((resolve, reject) => {
      if (this.#gone.signal.aborted) {
        reject(new VeilgateError('lost', 'The connection was lost.'));
        return;
      }
      const late = () => {
        this.#asked.delete(id);
        reject(new VeilgateError('lost', 'The gateway does not answer.'));
      };
      const timer = setTimeout(late, REPLY_MS);
      this.#asked.set(id, { resolve, reject, timer });
      // Fields that are undefined are left out.
      this.#socket.send(JSON.stringify({ ...message, id }));
    });
  }

  /** `leaving`: for good, so that nobody waits for us to come back. */
  async close(leaving) {
    if (leaving && this.#socket.readyState === WebSocket.OPEN) {
      this.#socket.send(JSON.stringify({ type: 'leave' }));
    }
    this.#over(stopped());
  }

  #onMessage(data) {
    let message;
    try {
      message = JSON.parse(data);
    } catch {
      return;
    }
    const { id, type } = message;
    const asked = this.#asked.get(id);
    if (type === 'error') {
      const error = new VeilgateError(message.code, message.detail);
      if (asked) this.#settle(id, 'reject', error);
      // What it was about is said by the close that follows, if one does.
      else this.#refusal = error;
    } else if (asked) {
      this.#settle(id, 'resolve', message);
    } else {
      this.#hear(message);
    }
  }

  #settle(id, how, value) {
    const asked = this.#asked.get(id);
    this.#asked.delete(id);
    clearTimeout(asked.timer);
    asked[how](value);
  }

  #reason(code) {
    const [known, words] = CLOSED[code] ?? ['lost', 'The connection to the room was lost.'];
    const error = new VeilgateError(known, words, { retryAfterMs: this.retryAfterMs });
    return known === 'lost' ? error : (this.#refusal ?? error);
  }

  #over(error) {
    if (this.#gone.signal.aborted) return;
    this.#gone.abort();
    this.#socket.onmessage = null;
    this.#socket.onclose = null;
    this.#socket.close();
    for (const id of [...this.#asked.keys()]) this.#settle(id, 'reject', error);
    this.#end(error);
  }

  /** A browser does not say when the line is dead: silence does. */
  async #beat() {
    const { signal } = this.#gone;
    for (;;) {
      await pause(PING_EVERY_MS, signal);
      if (signal.aborted) return;
      try {
        await this.ask({ type: 'ping' });
      } catch (error) {
        // Before the join there is no pong; that error is an answer too.
        if (error.code === 'lost') this.#over(error);
      }
    }
  }
}
