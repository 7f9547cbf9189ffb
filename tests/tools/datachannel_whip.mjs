// libdatachannel, which is what OBS publishes with, through a bridge: host candidates in the offer,
// no TURN, no trickle. The plan is {bridge, name}; it sends RTP until stdin is closed.

import readline from 'node:readline';

import datachannel from 'node-datachannel';

const LIMIT_MS = 45_000;
const PACKET_MS = 20;

function say(event) {
  process.stdout.write(`${JSON.stringify(event)}\n`);
}

async function ask(method, url, body) {
  const headers = body === undefined ? {} : { 'content-type': 'application/sdp' };
  const response = await fetch(url, { method, headers, body });
  const text = await response.text();
  if (!response.ok) throw new Error(`${method} ${url}: ${response.status} ${text}`);
  return { headers: response.headers, text };
}

/** An RTP packet of a frame that no decoder will ever see. */
function packet(sequence, ssrc) {
  const bytes = Buffer.alloc(172);
  bytes[0] = 0x80;
  bytes[1] = 111;
  bytes.writeUInt16BE(sequence & 0xffff, 2);
  bytes.writeUInt32BE((sequence * 960) >>> 0, 4);
  bytes.writeUInt32BE(ssrc, 8);
  return bytes;
}

async function perform(plan, closed) {
  const peer = new datachannel.PeerConnection('obs', { iceServers: [] });
  const connected = new Promise((resolve, reject) => {
    peer.onStateChange((state) => {
      if (state === 'connected') resolve();
      if (state === 'failed') reject(new Error('the connection failed'));
    });
  });
  const gathered = new Promise((resolve) => {
    peer.onGatheringStateChange((state) => {
      if (state === 'complete') resolve();
    });
  });
  const audio = new datachannel.Audio('0', 'SendOnly');
  audio.addOpusCodec(111);
  audio.addSSRC(1235, 'c', 'm', 'a');
  const video = new datachannel.Video('1', 'SendOnly');
  video.addH264Codec(96);
  video.addSSRC(1234, 'c', 'm', 'v');
  const track = peer.addTrack(audio);
  // Held until the end: a track that is collected is closed.
  const other = peer.addTrack(video);
  peer.setLocalDescription();
  await gathered;
  const offer = peer.localDescription().sdp;
  const { headers, text: answer } = await ask('POST', `${plan.bridge}/whip/${plan.name}`, offer);
  peer.setRemoteDescription(answer, 'answer');
  await connected;
  say({ event: 'flowing' });
  let sent = 0;
  const sending = setInterval(() => {
    if (track.isOpen() && track.sendMessageBinary(packet(sent, 1235))) sent += 1;
  }, PACKET_MS);
  await closed;
  clearInterval(sending);
  const pair = peer.getSelectedCandidatePair();
  await ask('DELETE', new URL(headers.get('location'), plan.bridge));
  track.close();
  other.close();
  peer.close();
  return { event: 'result', offer, answer, sent, pair };
}

const input = readline.createInterface({ input: process.stdin });
const closed = new Promise((resolve) => input.once('close', resolve));
const plan = JSON.parse(await new Promise((resolve) => input.once('line', resolve)));
let last;
const late = setTimeout(() => {
  say({ event: 'error', message: `more than ${LIMIT_MS} ms` });
  process.exit(1);
}, LIMIT_MS);
try {
  last = await perform(plan, closed);
} catch (error) {
  last = { event: 'error', message: String(error?.stack ?? error) };
}
clearTimeout(late);
say(last);
datachannel.cleanup();
process.exit(last.event === 'result' ? 0 : 1);
