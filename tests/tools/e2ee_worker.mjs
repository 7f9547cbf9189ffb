// The worker that seals and opens frames, several of it in one process. The browser's parts are
// stand-ins. Prints one line of JSON for each behaviour; fails with the first that differs.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';

const source = await readFile(new URL('../../src/http/page/veilgate/e2ee-worker.js', import.meta.url));

globalThis.self = globalThis;
globalThis.RTCEncodedAudioFrame = class {};
const replies = new Map();
const lost = [];
globalThis.postMessage = (message) => {
  if (message.id === undefined) lost.push(message.reason);
  else replies.get(message.id)?.(message);
};
const timers = [];
const realTimeout = globalThis.setTimeout;
globalThis.setTimeout = (act, ms) => (ms >= 1000 ? timers.push(act) : realTimeout(act, ms));

let derived = 0;
const deriveBits = crypto.subtle.deriveBits.bind(crypto.subtle);
crypto.subtle.deriveBits = (...asked) => {
  derived += 1;
  return deriveBits(...asked);
};

class Frame {
  constructor(bytes) {
    this.data = Uint8Array.from(bytes).buffer;
  }
  getMetadata() {
    return { mimeType: 'video/VP8' };
  }
}

let count = 0;
/** One worker: {ask, seal, open}. */
async function worker(secret, epoch = 0) {
  count += 1;
  // Each a module of its own, with a ring of its own.
  await import(`data:text/javascript;base64,${source.toString('base64')}#${count}`);
  const { onmessage, onrtctransform } = globalThis;
  const ask = (question) => {
    count += 1;
    const id = count;
    const answered = new Promise((resolve) => replies.set(id, resolve));
    onmessage({ data: { ...question, id } });
    return answered;
  };
  const pipe = (work) => {
    const into = new TransformStream();
    const from = new TransformStream({}, undefined, { highWaterMark: 1e6 });
    const options = { work, codec: 'vp8' };
    onrtctransform({ transformer: { options, readable: into.readable, writable: from.writable } });
    const writer = into.writable.getWriter();
    const reader = from.readable.getReader();
    return { writer, reader };
  };
  const sealing = pipe('seal');
  const opening = pipe('open');
  const seal = async (bytes) => {
    sealing.writer.write(new Frame(bytes));
    return new Uint8Array((await sealing.reader.read()).value.data);
  };
  const shown = [];
  (async () => {
    for (;;) shown.push([...new Uint8Array((await opening.reader.read()).value.data)]);
  })();
  // What was written has been dealt with once the last write is done.
  const open = async (...frames) => {
    shown.length = 0;
    for (const frame of frames) await opening.writer.write(new Frame(frame));
    await new Promise((done) => realTimeout(done, 20));
    return [...shown];
  };
  await ask({ ask: 'key', secret, epoch });
  return { ask, seal, open };
}

async function behaves(name, play) {
  timers.length = 0;
  lost.length = 0;
  await play();
  process.stdout.write(`${JSON.stringify({ event: 'passed', name })}\n`);
}

const secret = (n) => new Uint8Array(32).fill(n);
const FRAME = [1, 2, 3, 4];

await behaves('what is sealed opens, and nothing in clear is shown', async () => {
  const [ada, bo] = [await worker(secret(1)), await worker(secret(1))];
  const sealed = await ada.seal(FRAME);
  assert.deepEqual(await bo.open(FRAME, sealed.subarray(0, sealed.length - 1), sealed), [FRAME]);
  assert.equal(lost[0], 'clear');
});

await behaves('a new key is the same to those who had gone on unequally far', async () => {
  const [ada, bo] = [await worker(secret(1)), await worker(secret(1))];
  for (let i = 0; i < 3; i += 1) await ada.ask({ ask: 'rotate' });
  await ada.ask({ ask: 'rotate', secret: secret(2), epoch: 0 });
  await bo.ask({ ask: 'rotate', secret: secret(2), epoch: 0 });
  assert.deepEqual(await bo.open(await ada.seal(FRAME)), [FRAME]);
});

await behaves('who is given the text of a key that has gone on finds the others', async () => {
  const [ada, bo] = [await worker(secret(1)), await worker(secret(1))];
  await bo.ask({ ask: 'rotate' });
  await bo.ask({ ask: 'rotate' });
  const given = await ada.ask({ ask: 'rotate', secret: secret(2), epoch: 0 });
  await bo.ask({ ask: 'rotate', secret: given.secret, epoch: given.epoch });
  assert.deepEqual(await ada.open(await bo.seal(FRAME)), [FRAME]);
});

await behaves('the key before a new one opens for a while only', async () => {
  const [left, bo] = [await worker(secret(1)), await worker(secret(1))];
  await bo.ask({ ask: 'rotate', secret: secret(2), epoch: 0 });
  const frames = [await left.seal(FRAME), await left.seal(FRAME)];
  assert.equal(timers.length, 1);
  timers.pop()();
  assert.deepEqual(await bo.open(frames[0]), []);
});

await behaves('made-up epochs cost their derivation once', async () => {
  const [ada, bo] = [await worker(secret(1)), await worker(secret(1))];
  const sealed = await ada.seal(FRAME);
  derived = 0;
  const forged = sealed.slice();
  forged[forged.length - 3] = 120;
  await bo.open(...Array.from({ length: 50 }, () => forged));
  assert.ok(derived <= 130, `${derived} derivations`);
  const next = await worker(secret(1));
  await next.ask({ ask: 'rotate' });
  assert.equal((await bo.ask({ ask: 'current' })).epoch, 0, 'nobody was followed');
});

process.exit(0);
