// The worker that seals frames, frame by frame: its format as docs/e2ee.md has it, opened by Node's
// own crypto; and what it must never do. Prints one line of JSON for each behaviour.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { createDecipheriv, hkdfSync } from 'node:crypto';

const WORKER = await readFile(new URL('../../src/http/page/veilgate/e2ee-worker.js', import.meta.url));
const STEP_MS = 20_000;

// ---- a worker's surroundings; each page has one of its own

class RTCEncodedVideoFrame {
  constructor(bytes, mimeType) {
    this.data = Uint8Array.from(bytes).buffer;
    this.mimeType = mimeType;
  }
  getMetadata() {
    return { mimeType: this.mimeType };
  }
}
class RTCEncodedAudioFrame extends RTCEncodedVideoFrame {}
globalThis.RTCEncodedAudioFrame = RTCEncodedAudioFrame;
globalThis.self = globalThis;

let workers = 0;

/** One page's worker with its key, and a way to hand it frames. */
async function worker(secret, epoch = 0) {
  const told = [];
  globalThis.postMessage = (message) => told.push(message);
  workers += 1;
  // Each a module of its own, with keys of its own.
  await import(`data:text/javascript;base64,${WORKER.toString('base64')}#${workers}`);
  const { onmessage, onrtctransform, postMessage } = globalThis;
  const ask = async (question) => {
    // The module calls the global of this name: that of whoever asks now.
    globalThis.postMessage = postMessage;
    await onmessage({ data: { id: told.length + 1, ...question } });
    return told.at(-1);
  };
  await ask({ ask: 'key', secret: Uint8Array.from(secret), epoch });
  const transform = (options) => {
    const asked = [];
    const out = [];
    // The next frame is pulled when the last is through.
    let pulled = () => {};
    let free = new Promise((resolve) => {
      pulled = resolve;
    });
    const source = { pull: (controller) => pulled(controller) };
    onrtctransform({
      transformer: {
        options,
        readable: new ReadableStream(source, { highWaterMark: 0 }),
        writable: new WritableStream({ write: (frame) => out.push(frame) }),
        sendKeyFrameRequest: async () => asked.push(1),
      },
    });
    return {
      asked,
      /** What comes out for a frame; null: nothing. */
      async pass(frame) {
        globalThis.postMessage = postMessage;
        const controller = await free;
        free = new Promise((resolve) => {
          pulled = resolve;
        });
        controller.enqueue(frame);
        await free;
        await new Promise((done) => setImmediate(done));
        return out.shift() ?? null;
      },
    };
  };
  return { ask, told, transform };
}

const bytes = (frame) => Buffer.from(frame.data);
const video = (data, codec = 'VP8') => new RTCEncodedVideoFrame(data, `video/${codec}`);
const audio = (data) => new RTCEncodedAudioFrame(data, 'audio/opus');
const SECRET = Array.from({ length: 32 }, (_, i) => i + 1);
const OTHER = Array.from({ length: 32 }, (_, i) => 255 - i);
const KEYFRAME = [0x10, 0x02, 0x00, 0x9d, 0x01, 0x2a, 0x40, 0x01, 0xf0, 0x00, 7, 7, 7, 7];

/** Opens a frame with nothing but the document in hand. */
function byTheBook(sealed, secret) {
  const trailer = sealed.subarray(-15);
  const salt = trailer.subarray(0, 8);
  const counter = trailer.subarray(8, 12);
  const length = trailer[13];
  assert.equal(trailer[14], 0xe1);
  const info = 'veilgate e2ee 1 frame';
  const key = Buffer.from(hkdfSync('sha256', Buffer.from(secret), salt, info, 32));
  const cipher = createDecipheriv('aes-256-gcm', key, Buffer.concat([Buffer.alloc(8), counter]));
  const header = sealed.subarray(0, length);
  cipher.setAAD(Buffer.concat([header, trailer]));
  cipher.setAuthTag(sealed.subarray(-31, -15));
  const plain = Buffer.concat([cipher.update(sealed.subarray(length, -31)), cipher.final()]);
  return { header, plain, epoch: trailer[12], nonce: Buffer.concat([salt, counter]).toString('hex') };
}

async function behaves(name, play) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${name}: took too long`)), STEP_MS);
  });
  await Promise.race([play(), late]);
  clearTimeout(timer);
  process.stdout.write(`${JSON.stringify({ event: 'passed', name })}\n`);
}

await behaves('frames are sealed as the document says', async () => {
  const { transform } = await worker(SECRET);
  const sender = transform({ work: 'seal', codec: 'vp8' });
  const vp8 = byTheBook(bytes(await sender.pass(video(KEYFRAME))), SECRET);
  assert.deepEqual([...vp8.header], [0x10], 'the keyframe bit, and no more');
  assert.deepEqual([...vp8.plain], KEYFRAME.slice(1));
  const vp9 = byTheBook(bytes(await sender.pass(video([0x82, 1, 2], 'VP9'))), SECRET);
  assert.deepEqual([[...vp9.header], [...vp9.plain]], [[], [0x82, 1, 2]]);
  const opus = byTheBook(bytes(await sender.pass(audio([0x78, 5]))), SECRET);
  assert.deepEqual([[...opus.header], [...opus.plain]], [[0x03, 0x00], [0x78, 5]]);
});

await behaves('no nonce is used twice under one key', async () => {
  const { ask, transform } = await worker(SECRET);
  const senders = [transform({ work: 'seal', codec: 'vp8' }), transform({ work: 'seal', codec: 'vp8' })];
  const nonces = new Set();
  let frames = 0;
  for (let round = 0; round < 3; round += 1) {
    for (let i = 0; i < 50; i += 1) {
      for (const sender of senders) {
        const sealed = bytes(await sender.pass(video(KEYFRAME)));
        // Salt and counter: the salt makes the key.
        nonces.add(sealed.subarray(-15, -3).toString('hex'));
        assert.equal(sealed.at(-3), round, 'the epoch');
        frames += 1;
      }
    }
    await ask({ ask: 'rotate' });
  }
  assert.equal(nonces.size, frames);
});

await behaves('what is sealed opens with the key, whole', async () => {
  const one = await worker(SECRET);
  const sender = one.transform({ work: 'seal', codec: 'vp8' });
  const other = await worker(SECRET);
  const player = other.transform({ work: 'open' });
  for (const frame of [video(KEYFRAME), video([0x82, 1], 'VP9'), audio([0x78, 5, 6])]) {
    const plain = bytes(frame);
    assert.deepEqual(bytes(await player.pass(await sender.pass(frame))), plain);
  }
});

await behaves('a changed bit, another key, and no key at all are dropped and told', async () => {
  const one = await worker(SECRET);
  const sender = one.transform({ work: 'seal', codec: 'vp8' });
  const sealed = bytes(await sender.pass(video(KEYFRAME)));
  for (let at = 0; at < sealed.length; at += 1) {
    const { transform } = await worker(SECRET);
    const changed = [...sealed];
    changed[at] ^= 1;
    assert.equal(await transform({ work: 'open' }).pass(video(changed)), null, `byte ${at}`);
  }
  for (const [secret, data, reason] of [
    [OTHER, [...sealed], 'key'],
    [SECRET, KEYFRAME, 'clear'],
    [SECRET, [...sealed.subarray(-15)], 'damaged'],
    [SECRET, [0xe1], 'clear'],
  ]) {
    const { told, transform } = await worker(secret);
    assert.equal(await transform({ work: 'open' }).pass(video(data)), null, reason);
    assert.deepEqual(told.at(-1), { reason, frames: 1 });
  }
});

await behaves('a codec that cannot be sealed is never sent', async () => {
  const { transform } = await worker(SECRET);
  const sender = transform({ work: 'seal', codec: 'vp8' });
  assert.equal(await sender.pass(video([0, 0, 0, 1, 0x65, 1], 'H264')), null);
  // Firefox does not say what it is: then what was promised counts.
  assert.ok(await sender.pass(new RTCEncodedVideoFrame(KEYFRAME)));
});

await behaves('players follow the ratchet, which has no way back', async () => {
  const one = await worker(SECRET);
  const sender = one.transform({ work: 'seal', codec: 'vp8' });
  const before = bytes(await sender.pass(video(KEYFRAME)));
  const other = await worker(SECRET);
  const player = other.transform({ work: 'open' });
  for (let i = 0; i < 5; i += 1) await one.ask({ ask: 'rotate' });
  const after = bytes(await sender.pass(video(KEYFRAME)));
  assert.deepEqual(bytes(await player.pass(video([...after]))), Buffer.from(KEYFRAME));
  const { secret, epoch } = await other.ask({ ask: 'current' });
  assert.equal(epoch, 5);
  let expected = Buffer.from(SECRET);
  for (let i = 0; i < 5; i += 1) {
    expected = Buffer.from(hkdfSync('sha256', expected, '', 'veilgate e2ee 1 ratchet', 32));
  }
  assert.deepEqual(Buffer.from(secret), expected, 'as the document says');
  // A slower sender's frame still opens here, and not for who was given the present key alone.
  assert.ok(await player.pass(video([...before])));
  const late = await worker([...secret], epoch);
  const newcomer = late.transform({ work: 'open' });
  assert.equal(await newcomer.pass(video([...before])), null);
  assert.ok(await newcomer.pass(video([...after])));
});

await behaves('forged frames of a later epoch move nobody', async () => {
  const one = await worker(SECRET);
  const sender = one.transform({ work: 'seal', codec: 'vp8' });
  const sealed = bytes(await sender.pass(video(KEYFRAME)));
  const other = await worker(SECRET);
  const player = other.transform({ work: 'open' });
  const forged = [...sealed];
  forged[forged.length - 3] = 60;
  assert.equal(await player.pass(video(forged)), null);
  assert.equal((await other.ask({ ask: 'current' })).epoch, 0);
  assert.ok(await player.pass(video([...sealed])));
});

await behaves('another secret is taken up with a keyframe', async () => {
  const one = await worker(SECRET);
  const sender = one.transform({ work: 'seal', codec: 'vp8' });
  const { epoch } = await one.ask({ ask: 'rotate', secret: Uint8Array.from(OTHER), epoch: 0 });
  assert.equal(epoch, 0);
  const sealed = bytes(await sender.pass(video(KEYFRAME)));
  assert.deepEqual([...byTheBook(sealed, OTHER).plain], KEYFRAME.slice(1));
  const other = await worker(SECRET);
  const player = other.transform({ work: 'open' });
  assert.equal(await player.pass(video([...sealed])), null, 'not from the old one');
  await other.ask({ ask: 'rotate', secret: Uint8Array.from(OTHER), epoch: 0 });
  assert.equal(player.asked.length, 1);
  assert.ok(await player.pass(video([...sealed])));
});
process.stdout.write(`${JSON.stringify({ event: 'result' })}\n`);
process.exit(0);
