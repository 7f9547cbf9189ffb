// Two node-datachannel peers (libdatachannel, libjuice) in a sealed room. They find each other
// through /v1/sealed, as two strangers would. The plan is {page, ca, room, tokens: [one, other]}.

import https from 'node:https';
import { readFileSync } from 'node:fs';
import readline from 'node:readline';

import datachannel from 'node-datachannel';

const LIMIT_MS = 45_000;
const MESSAGES = 200;

function say(event) {
  process.stdout.write(`${JSON.stringify(event)}\n`);
}

/** One request; the answer's status, headers and text. */
function ask(plan, token, method, path, body, type = 'application/sdp') {
  const headers = { authorization: `Bearer ${token}` };
  if (body !== undefined) headers['content-type'] = type;
  return new Promise((resolve, reject) => {
    const url = new URL(path, plan.page);
    const sent = https.request(url, { method, headers, ca: readFileSync(plan.ca) }, (response) => {
      const parts = [];
      response.on('data', (part) => parts.push(part));
      response.on('end', () => {
        const text = Buffer.concat(parts).toString();
        const { statusCode: status } = response;
        if (status >= 400) reject(new Error(`${method} ${path}: ${status} ${text}`));
        else resolve({ status, headers: response.headers, text });
      });
    });
    sent.on('error', reject);
    sent.end(body);
  });
}

async function hear(plan, token, seat) {
  for (;;) {
    const { status, text } = await ask(plan, token, 'GET', seat);
    if (status === 200) return text;
  }
}

/** Joins, connects, and resolves with an open channel. */
async function join(plan, token) {
  const ice = await ask(plan, token, 'GET', `/v1/ice?class=room&room=${plan.room}`);
  const [server] = JSON.parse(ice.text).iceServers;
  const joined = await ask(plan, token, 'POST', `/v1/sealed/${plan.room}`);
  const seat = joined.headers.location;
  const { role } = JSON.parse(joined.text);
  const udp = server.urls.find((url) => url.endsWith('transport=udp'));
  const [, host, port] = /^turn:([^:]+):(\d+)/.exec(udp);
  const peer = new datachannel.PeerConnection(role, {
    iceServers: [
      {
        hostname: host,
        port: Number(port),
        username: server.username,
        password: server.credential,
        relayType: 'TurnUdp',
      },
    ],
    iceTransportPolicy: 'relay',
  });
  const gathered = new Promise((resolve) => {
    peer.onGatheringStateChange((state) => {
      if (state === 'complete') resolve();
    });
  });
  const tell = async () => {
    await gathered;
    await ask(plan, token, 'POST', seat, peer.localDescription().sdp);
  };
  const opened = new Promise((resolve) => {
    if (role === 'answerer') peer.onDataChannel(resolve);
  });
  let channel;
  let heard;
  if (role === 'offerer') {
    channel = peer.createDataChannel('sealed');
    await tell();
    heard = await hear(plan, token, seat);
    peer.setRemoteDescription(heard, 'answer');
    await new Promise((resolve) => {
      channel.onOpen(resolve);
    });
  } else {
    heard = await hear(plan, token, seat);
    peer.setRemoteDescription(heard, 'offer');
    await tell();
    channel = await opened;
  }
  const pair = peer.getSelectedCandidatePair();
  return { role, seat, token, peer, channel, heard, pair };
}

async function perform(plan) {
  const sides = await Promise.all(plan.tokens.map((token) => join(plan, token)));
  const offerer = sides.find(({ role }) => role === 'offerer');
  const answerer = sides.find(({ role }) => role === 'answerer');
  let echoed = 0;
  const done = new Promise((resolve) => {
    answerer.channel.onMessage((text) => answerer.channel.sendMessage(`${text}!`));
    offerer.channel.onMessage((text) => {
      if (text === `message ${echoed}!`) echoed += 1;
      if (echoed === MESSAGES) resolve();
      else offerer.channel.sendMessage(`message ${echoed}`);
    });
  });
  offerer.channel.sendMessage('message 0');
  await done;
  const seen = sides.map(({ role, heard, pair }) => ({ role, heard, pair }));
  for (const { peer, seat, token } of sides) {
    peer.close();
    await ask(plan, token, 'DELETE', seat);
  }
  return { event: 'result', echoed, of: MESSAGES, sides: seen };
}

const input = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const plan = JSON.parse((await input.next()).value);
let last;
let timer;
try {
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`more than ${LIMIT_MS} ms`)), LIMIT_MS);
  });
  last = await Promise.race([perform(plan), late]);
} catch (error) {
  last = { event: 'error', message: String(error?.stack ?? error) };
}
clearTimeout(timer);
say(last);
datachannel.cleanup();
process.exit(last.event === 'result' ? 0 : 1);
