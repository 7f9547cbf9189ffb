// libwebrtc without a browser (@roamhq/wrtc), publishing through the relay over WHIP. One line of
// JSON on stdin is the plan, lines of JSON on stdout are events; see README.md here.

import { readFileSync } from 'node:fs';
import { request } from 'node:https';
import { createInterface } from 'node:readline';

import wrtc from '@roamhq/wrtc';

const { MediaStream, RTCPeerConnection } = wrtc;
const { RTCAudioSource, RTCVideoSource, rgbaToI420 } = wrtc.nonstandard;

const CONNECT_MS = 60_000;
const WIDTH = 320;
const HEIGHT = 240;
const FRAME_MS = 66;
const RATE = 48_000;
const SAMPLES = RATE / 100;

const say = (event) => process.stdout.write(`${JSON.stringify(event)}\n`);

/** A bright bar that wanders over a grey ground. */
function bars(source) {
  const rgba = new Uint8ClampedArray(WIDTH * HEIGHT * 4);
  const data = new Uint8ClampedArray((WIDTH * HEIGHT * 3) / 2);
  let count = 0;
  return setInterval(() => {
    const left = (count * 4) % (WIDTH - 40);
    count += 1;
    for (let at = 0; at < rgba.length; at += 4) {
      const x = (at / 4) % WIDTH;
      const bar = x >= left && x < left + 40;
      rgba[at] = bar ? 230 : 90;
      rgba[at + 1] = bar ? 200 : 90;
      rgba[at + 2] = bar ? 60 : 90;
      rgba[at + 3] = 255;
    }
    rgbaToI420({ width: WIDTH, height: HEIGHT, data: rgba }, { width: WIDTH, height: HEIGHT, data });
    source.onFrame({ width: WIDTH, height: HEIGHT, data });
  }, FRAME_MS);
}

/** A tone: 10 ms of mono at a time, as many as are due. */
function tone(source) {
  const began = Date.now();
  let phase = 0;
  return setInterval(() => {
    while (phase < ((Date.now() - began) / 1000) * RATE) {
      const samples = new Int16Array(SAMPLES);
      for (let i = 0; i < SAMPLES; i += 1) {
        samples[i] = 8000 * Math.sin((2 * Math.PI * 440 * (phase + i)) / RATE);
      }
      phase += SAMPLES;
      source.onData({
        samples,
        sampleRate: RATE,
        bitsPerSample: 16,
        channelCount: 1,
        numberOfFrames: SAMPLES,
      });
    }
  }, 10);
}

function call(plan, method, path, body) {
  const url = new URL(path, plan.page);
  const headers = { authorization: `Bearer ${plan.token}` };
  if (body !== undefined) headers['content-type'] = 'application/sdp';
  return new Promise((resolve, reject) => {
    const options = { method, headers, ca: readFileSync(plan.ca), timeout: 20_000 };
    const asked = request(url, options, (response) => {
      let text = '';
      response.setEncoding('utf8');
      response.on('data', (piece) => { text += piece; });
      response.on('end', () => {
        const { statusCode: status } = response;
        if (status >= 300) reject(new Error(`${method} ${path}: ${status} ${text}`));
        else resolve({ headers: response.headers, text });
      });
    });
    asked.on('timeout', () => asked.destroy(new Error(`${method} ${path}: no answer in time`)));
    asked.on('error', reject);
    asked.end(body);
  });
}

function connected(peer) {
  return new Promise((resolve, reject) => {
    const late = setTimeout(() => reject(new Error('not connected in time')), CONNECT_MS);
    const look = () => {
      if (peer.connectionState === 'connected') {
        clearTimeout(late);
        resolve();
      } else if (peer.connectionState === 'failed') {
        clearTimeout(late);
        reject(new Error('the connection failed'));
      }
    };
    peer.addEventListener('connectionstatechange', look);
    look();
  });
}

async function perform(plan, ended) {
  const { text } = await call(plan, 'GET', '/v1/ice');
  const { iceServers } = JSON.parse(text);
  const transport = plan.transport ?? 'udp';
  for (const server of iceServers) {
    server.urls = server.urls.filter((url) => url.endsWith(`transport=${transport}`));
  }
  const peer = new RTCPeerConnection({ iceServers, iceTransportPolicy: 'relay' });
  const candidates = [];
  peer.addEventListener('icecandidate', ({ candidate }) => {
    if (candidate?.candidate) candidates.push(`a=${candidate.candidate}`);
  });
  const video = new RTCVideoSource();
  const audio = new RTCAudioSource();
  const stream = new MediaStream([video.createTrack(), audio.createTrack()]);
  for (const track of stream.getTracks()) peer.addTrack(track, stream);
  const timers = [bars(video), tone(audio)];

  await peer.setLocalDescription(await peer.createOffer());
  const offer = peer.localDescription.sdp;
  const { headers, text: answer } = await call(plan, 'POST', `/whip/${plan.name}`, offer);
  await peer.setRemoteDescription({ type: 'answer', sdp: answer });
  await connected(peer);
  say({ event: 'flowing' });
  await ended;
  const { connectionState: connection } = peer;
  await call(plan, 'DELETE', headers.location);
  timers.forEach(clearInterval);
  stream.getTracks().forEach((track) => track.stop());
  peer.close();
  say({ event: 'result', candidates, offer, answer, connection });
}

const lines = createInterface({ input: process.stdin });
const ended = new Promise((resolve) => { lines.on('close', resolve); });
lines.once('line', (line) => {
  perform(JSON.parse(line), ended).then(
    () => process.exit(0),
    (error) => {
      say({ event: 'error', message: String(error?.stack ?? error) });
      process.exit(1);
    },
  );
});
