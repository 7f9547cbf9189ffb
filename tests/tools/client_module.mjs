// The client module against a gateway of this file's own making: what it asks, in which order,
// and what it makes of each answer. The browser's parts are stand-ins here; real browsers are in
// the other drivers. Prints one line of JSON for each behaviour; fails with the first that differs.

import assert from 'node:assert/strict';
import { writeSync } from 'node:fs';

const page = new URL('../../src/http/page/veilgate.js', import.meta.url);
const STEP_MS = 20_000;
const say = (event) => writeSync(1, `${JSON.stringify(event)}\n`);

// ---- the browser

const windowEvents = new EventTarget();
globalThis.addEventListener = windowEvents.addEventListener.bind(windowEvents);
globalThis.removeEventListener = windowEvents.removeEventListener.bind(windowEvents);
globalThis.location = { href: 'https://gw.example/' };
Object.defineProperty(globalThis, 'navigator', { value: { onLine: true }, configurable: true });

globalThis.MediaStream = class {
  #tracks = new Set();
  constructor(tracks = []) {
    for (const track of tracks) this.#tracks.add(track);
  }
  addTrack(track) {
    this.#tracks.add(track);
  }
  removeTrack(track) {
    this.#tracks.delete(track);
  }
  getTracks() {
    return [...this.#tracks];
  }
};

const track = (kind) => ({ kind, enabled: true, getSettings: () => ({ height: 720 }) });

const peers = [];
globalThis.RTCPeerConnection = class extends EventTarget {
  connectionState = 'new';
  iceConnectionState = 'new';
  generation = 0;
  localDescription = null;
  currentRemoteDescription = null;
  transceivers = [];
  constructor(configuration) {
    super();
    this.configuration = configuration;
    peers.push(this);
  }
  getConfiguration() {
    return this.configuration;
  }
  setConfiguration(configuration) {
    this.configuration = configuration;
  }
  addTransceiver(what, init) {
    const transceiver = { what, init, mid: null, sender: {}, receiver: { track: track(what.kind ?? what) } };
    this.transceivers.push(transceiver);
    return transceiver;
  }
  getTransceivers() {
    return this.transceivers;
  }
  async createOffer({ iceRestart } = {}) {
    if (iceRestart) this.generation += 1;
    return { type: 'offer', sdp: this.#sdp() };
  }
  #sdp() {
    const ice = `a=ice-ufrag:mine${this.generation}\r\na=ice-pwd:secret${this.generation}\r\n`;
    return `v=0\r\na=group:BUNDLE 0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\n${ice}`;
  }
  async setLocalDescription(description) {
    const type = this.remoteType === 'offer' ? 'answer' : 'offer';
    this.localDescription = description ?? { type, sdp: this.#sdp() };
    if (type === 'answer') this.becomes('connected');
  }
  async setRemoteDescription(description) {
    this.remoteType = description.type;
    this.currentRemoteDescription = description;
    if (description.type === 'answer') this.becomes('connected');
    // A gateway's offer names its sections in this play.
    for (const [, mid, kind] of description.sdp.matchAll(/^x-mid:(\S+) (\S+)$/gm)) {
      if (this.transceivers.some((one) => one.mid === mid)) continue;
      this.transceivers.push({ mid, receiver: { track: track(kind) } });
    }
  }
  becomes(state) {
    if (this.connectionState === 'closed') return;
    this.connectionState = state;
    this.iceConnectionState = state;
    this.dispatchEvent(new Event('connectionstatechange'));
  }
  close() {
    this.connectionState = 'closed';
  }
};
const reported = [];
globalThis.reportError = (error) => reported.push(error.message);

// ---- the gateway

const ANSWER = [
  'v=0', 'a=ice-lite', 'm=audio 9 UDP/TLS/RTP/SAVPF 111', 'a=mid:0', 'a=ice-ufrag:theirs0',
  'a=ice-pwd:password0', 'a=candidate:1 1 udp 1 192.0.2.1 20000 typ host', 'a=end-of-candidates', '',
].join('\r\n');
const ICE = {
  iceServers: [{ urls: ['turn:gw.example?transport=udp'], username: 'u', credential: 'c' }],
  iceTransportPolicy: 'relay',
  ttl: 600,
};

const http = { calls: [], lifetime: 43_200, restarted: 0, refuse: null, unreachable: 0 };
globalThis.fetch = async (url, { method = 'GET', headers = {}, body } = {}) => {
  if (http.unreachable > 0) {
    http.unreachable -= 1;
    throw new TypeError('network');
  }
  const { pathname } = new URL(url, location.href);
  http.calls.push({ method, path: pathname, headers, body });
  const answer = (status, text, more = {}) => {
    const response = new Response(text, { status, headers: more });
    Object.defineProperty(response, 'url', { value: new URL(url, location.href).href });
    return response;
  };
  if (pathname === '/v1/ice') {
    return answer(200, JSON.stringify({ ...ICE, lifetime: http.lifetime }));
  }
  if (method === 'POST') return answer(201, ANSWER, { location: '/whip/session/abc', etag: '"1"' });
  if (method === 'DELETE') return answer(200, '');
  if (http.refuse) return answer(http.refuse, '');
  http.restarted += 1;
  const fragment = `a=ice-ufrag:theirs${http.restarted}\r\na=ice-pwd:password${http.restarted}\r\n`;
  return answer(200, fragment, { etag: '"2"' });
};

/** The gateway's side of the sockets: `reply(message)` says what to answer. */
const room = { sockets: [], messages: [], told: [], reply: () => ({ type: 'ok' }) };
globalThis.WebSocket = class {
  static OPEN = 1;
  readyState = 0;
  constructor(url) {
    this.url = String(url);
    room.sockets.push(this);
    setImmediate(() => {
      this.readyState = 1;
      this.onopen?.();
    });
  }
  send(text) {
    assert.equal(this.readyState, 1, 'sent on an open socket');
    const message = JSON.parse(text);
    room.messages.push(message);
    const reply = room.reply(message);
    // What was said without an `id` gets no "ok".
    if (reply && message.id !== undefined) setImmediate(() => this.say({ ...reply, id: message.id }));
  }
  say(message) {
    room.told.push(message);
    this.onmessage?.({ data: JSON.stringify(message) });
  }
  break(code) {
    this.readyState = 3;
    this.onclose?.({ code });
  }
  close() {
    this.readyState = 3;
  }
};

// ---- helpers

const { join, play, publish } = await import(page);

async function until(what, test) {
  const end = Date.now() + STEP_MS;
  while (!test()) {
    assert.ok(Date.now() < end, `it never came to this: ${what}`);
    await new Promise((done) => setTimeout(done, 5));
  }
}

function watch(session) {
  const states = [];
  session.addEventListener('state', ({ detail }) => states.push(detail.error?.code ?? detail.state));
  return states;
}

function listen(session, ...types) {
  const events = [];
  for (const type of types) {
    session.addEventListener(type, ({ detail }) => events.push([type, detail]));
  }
  return events;
}

async function behaves(name, play) {
  peers.length = 0;
  Object.assign(http, { calls: [], lifetime: 43_200, restarted: 0, refuse: null });
  Object.assign(room, { sockets: [], messages: [], told: [] });
  await play();
  // The schema of the protocol is held against these by whoever started us.
  const { messages: said, told } = room;
  say({ event: 'passed', name, said, told });
}

const camera = () => new MediaStream([track('audio'), track('video')]);
const start = async () => {
  const session = publish({ name: 'lobby/cam1', token: async () => 'fresh', stream: camera(), simulcast: true });
  const states = watch(session);
  await session.live;
  return { session, states };
};

// ---- streams

await behaves('three sizes by rid, small to large, relay-only', async () => {
  const { session } = await start();
  const [peer] = peers;
  assert.equal(peer.configuration.iceTransportPolicy, 'relay');
  const { sendEncodings } = peer.transceivers[1].init;
  assert.deepEqual(sendEncodings.map(({ rid, scaleResolutionDownBy }) => [rid, scaleResolutionDownBy]), [
    ['q', 4], ['h', 2], ['f', 1],
  ]);
  assert.equal(peer.transceivers[0].init.sendEncodings, undefined, 'sound has one');
  assert.equal(http.calls[0].headers.authorization, 'Bearer fresh');
  await session.close();
  assert.equal(http.calls.at(-1).method, 'DELETE');
});

await behaves('another network restarts ICE in the same session', async () => {
  const { session, states } = await start();
  windowEvents.dispatchEvent(new Event('online'));
  await until('live again', () => states.at(-1) === 'live' && states.includes('restarting'));
  assert.deepEqual(states, ['connecting', 'live', 'restarting', 'live']);
  const patch = http.calls.find(({ method }) => method === 'PATCH');
  assert.equal(patch.path, '/whip/session/abc');
  assert.equal(patch.headers['content-type'], 'application/trickle-ice-sdpfrag');
  assert.equal(patch.headers['if-match'], '*');
  assert.equal(
    patch.body,
    'a=group:BUNDLE 0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\n' +
      'a=ice-ufrag:mine1\r\na=ice-pwd:secret1\r\n',
  );
  assert.equal(http.calls.filter(({ path: p }) => p === '/v1/ice').length, 2, 'a fresh credential');
  const { sdp } = peers[0].currentRemoteDescription;
  assert.equal(sdp, ANSWER.replace('theirs0', 'theirs1').replace('password0', 'password1'));
  assert.equal(peers.length, 1, 'the same connection');
  await session.close();
});

await behaves('while no network is there the session is kept', async () => {
  const { session, states } = await start();
  http.unreachable = 3;
  peers[0].becomes('failed');
  await until('mended', () => http.unreachable === 0 && states.at(-1) === 'live');
  assert.deepEqual(states, ['connecting', 'live', 'restarting', 'live']);
  assert.equal(http.restarted, 1);
  assert.equal(peers.length, 1);
  await session.close();
});

await behaves('a restart that is refused makes a new session', async () => {
  const { session, states } = await start();
  http.refuse = 412;
  peers[0].becomes('failed');
  await until('a new one', () => peers.length === 2 && states.at(-1) === 'live');
  assert.deepEqual(states, ['connecting', 'live', 'restarting', 'lost', 'connecting', 'live']);
  assert.ok(http.calls.some(({ method }) => method === 'DELETE'), 'the old one is given up');
  await session.close();
});

await behaves('a wish for a layer outlives its session', async () => {
  const session = play({ name: 'lobby/cam1', token: 'token' });
  await session.live;
  await session.layer({ rid: 'q' });
  http.refuse = 404;
  peers[0].becomes('failed');
  const wishes = () => http.calls.filter(({ path: p }) => p === '/whip/session/abc/layer');
  await until('wished again', () => wishes().length === 2);
  assert.deepEqual(JSON.parse(wishes()[1].body), { track: 'video', rid: 'q' });
  await session.close();
});

await behaves('a credential is renewed before what it made ends', async () => {
  http.lifetime = 0.4;
  const { session, states } = await start();
  http.lifetime = 43_200;
  await until('renewed', () => states.length === 4);
  assert.deepEqual(states, ['connecting', 'live', 'restarting', 'live']);
  assert.equal(http.restarted, 1);
  await session.close();
});

await behaves('pauses grow while sessions end as soon as they begin', async () => {
  const pauses = [];
  const onstate = (state, { retryInMs }) => {
    if (state === 'waiting') pauses.push(retryInMs);
  };
  http.refuse = 412;
  const session = publish({ name: 'lobby/cam1', token: 'token', stream: camera(), onstate });
  for (let i = 0; i < 3; i += 1) {
    await until('one more', () => peers.length === i + 1 && session.state === 'live');
    peers[i].becomes('failed');
    await until('a pause', () => pauses.length === i + 1);
  }
  assert.ok(pauses[0] < pauses[1] && pauses[1] < pauses[2], `${pauses}`);
  await session.close();
});

await behaves('a handler that throws is reported and ends nothing', async () => {
  const onstate = (state) => {
    throw new Error(state);
  };
  const session = publish({ name: 'lobby/cam1', token: 'token', stream: camera(), onstate });
  await session.live;
  await session.close();
  assert.deepEqual(reported, ['connecting', 'live', 'stopped']);
});

await behaves('a key that was not found is no stream in clear', async () => {
  for (const key of [null, '', 'short']) {
    const session = publish({ name: 'lobby/cam1', token: 'token', stream: camera(), key });
    await assert.rejects(session.live, ({ code }) => code.startsWith('e2ee_'));
    await session.close();
  }
  assert.ok(!http.calls.some(({ method }) => method === 'POST'));
});

// ---- rooms

const BO = { participant: '91ab91ab91ab91ab', name: 'Bo' };
const BOCAM = {
  stream: 'bocam',
  participant: BO.participant,
  tracks: [{ track: 0, kind: 'video', codec: 'VP8', rids: [], muted: false }],
};
let joins = 0;
function joined(more = {}) {
  joins += 1;
  const may = { publish: true, play: true, chat: true, data: true, admin: true };
  return {
    type: 'joined', protocol: 1, participant: '3f0c3f0c3f0c3f0c', name: 'Ada', room: 'lobby',
    resume: `resumptionsecret${joins}`, resumed: false, may, publishing: null, ice: { ...ICE, lifetime: 43_200 },
    participants: [BO], streams: [BOCAM], ...more,
  };
}
function answers(more = {}) {
  room.reply = (message) => {
    const made = more[message.type]?.(message);
    if (made !== undefined) return made;
    if (message.type === 'join') return joined({ resumed: message.resume !== undefined });
    if (message.type === 'publish') return { type: 'published', stream: message.stream, sdp: ANSWER };
    if (message.type === 'restart' && message.sdp) return { type: 'restarted', connection: 'publish', sdp: ANSWER };
    if (message.type === 'ice') return { type: 'ice', ice: { ...ICE, lifetime: 43_200 } };
    return { type: message.type === 'ping' ? 'pong' : 'ok' };
  };
}
const OFFER = {
  type: 'offer', revision: 1, fresh: true, sdp: 'v=0\nx-mid:0 video\nx-mid:1 video\n',
  tracks: [{ mid: '0', stream: 'bocam', track: 0, kind: 'video' }],
};
const enter = async () => {
  const here = join({ room: 'lobby', name: 'Ada', token: 'token' });
  const states = watch(here);
  await here.live;
  return { here, states, socket: room.sockets[0] };
};
const sent = (type) => room.messages.filter((message) => message.type === type);

await behaves('a room is joined, and its people and streams are there', async () => {
  answers();
  const here = join({ room: 'lobby', name: 'Ada', token: 'token' });
  const events = listen(here, 'participantjoined', 'streamadded');
  await here.live;
  assert.equal(room.sockets[0].url, 'wss://gw.example/v1/signal');
  assert.deepEqual(sent('join')[0], {
    type: 'join', id: 1, token: 'token', room: 'lobby', name: 'Ada', subscribe: 'all',
  });
  assert.deepEqual(events.map(([type]) => type), ['participantjoined', 'streamadded']);
  assert.equal(here.participants.get(BO.participant).name, 'Bo');
  assert.equal(here.streams.get('bocam').own, false);
  await here.close();
  assert.equal(room.messages.at(-1).type, 'leave');
});

await behaves('offers are answered, and tracks go where they belong', async () => {
  answers();
  const { here, socket } = await enter();
  socket.say(OFFER);
  await until('an answer', () => sent('answer').length === 1);
  assert.equal(sent('answer')[0].revision, 1);
  assert.match(sent('answer')[0].sdp, /a=ice-ufrag:mine0/);
  assert.equal(peers[0].configuration.iceTransportPolicy, 'relay');
  const bocam = here.streams.get('bocam').media;
  assert.deepEqual(bocam.getTracks(), [peers[0].transceivers[0].receiver.track]);
  // The section is taken over by another stream; Bo's comes by the other one.
  socket.say({ type: 'stream_added', stream: 'cy', participant: null, tracks: [] });
  const tracks = [
    { mid: '0', stream: 'cy', track: 0, kind: 'video' },
    { mid: '1', stream: 'bocam', track: 0, kind: 'video' },
  ];
  socket.say({ ...OFFER, revision: 2, fresh: false, tracks });
  await until('an answer', () => sent('answer').length === 2);
  assert.equal(peers.length, 1, 'the same connection');
  assert.deepEqual(bocam.getTracks(), [peers[0].transceivers[1].receiver.track]);
  assert.deepEqual(here.streams.get('cy').media.getTracks(), [peers[0].transceivers[0].receiver.track]);
  await here.close();
  assert.equal(peers[0].connectionState, 'closed');
});

await behaves('what is published is muted at its source, and told', async () => {
  answers();
  const { here } = await enter();
  const mine = camera();
  await here.publish(mine, { name: 'adacam' });
  assert.equal(here.publishing, 'adacam');
  assert.equal(sent('publish')[0].stream, 'adacam');
  await here.mute('video');
  assert.deepEqual(mine.getTracks().map((one) => one.enabled), [true, false]);
  const { id, ...told } = sent('mute')[0];
  assert.deepEqual(told, { type: 'mute', stream: 'adacam', track: 1, muted: true });
  await here.unpublish();
  assert.equal(sent('unpublish').length, 1);
  assert.equal(here.publisher, null);
  await here.close();
});

await behaves('a broken socket is resumed, and media goes on', async () => {
  answers();
  const { here, states, socket } = await enter();
  await here.publish(camera(), { name: 'adacam' });
  socket.say(OFFER);
  await until('an answer', () => sent('answer').length === 1);
  const events = listen(here, 'participantleft', 'streamremoved', 'participantjoined');
  answers({
    join: (message) =>
      joined({ resumed: message.resume !== undefined, publishing: 'adacam', participants: [], streams: [] }),
  });
  const before = sent('join').length;
  socket.break(1006);
  await until('back', () => states.at(-1) === 'live' && states.length > 3);
  assert.deepEqual(states, ['connecting', 'live', 'lost', 'connecting', 'live']);
  assert.equal(sent('join')[before].resume, `resumptionsecret${joins - 1}`);
  assert.deepEqual(events.map(([type]) => type), ['participantleft', 'streamremoved']);
  assert.deepEqual(peers.map((peer) => peer.connectionState), ['connected', 'connected']);
  assert.equal(sent('publish').length, 1, 'nothing is published twice');
  await here.close();
});

await behaves('a room that forgot us is joined anew and published in again', async () => {
  answers();
  const { here, states, socket } = await enter();
  await here.publish(camera(), { name: 'adacam' });
  await here.lastN(3);
  answers({
    join: (message) => (message.resume ? { type: 'error', code: 'resume_unknown', detail: 'gone' } : undefined),
  });
  socket.break(1006);
  await until('published again', () => sent('publish').length === 2 && peers[1]?.connectionState === 'connected');
  assert.deepEqual(states, ['connecting', 'live', 'lost', 'connecting', 'live']);
  assert.equal(peers[0].connectionState, 'closed');
  assert.equal(sent('last_n').length, 2, 'what was wanted is wanted still');
  await here.close();
});

await behaves('a silent path is mended by a restart', async () => {
  answers();
  const { here, socket } = await enter();
  await here.publish(camera(), { name: 'adacam' });
  socket.say(OFFER);
  await until('an answer', () => sent('answer').length === 1);
  for (const peer of peers) peer.becomes('failed');
  await until('restarts', () => sent('restart').length >= 2);
  const kinds = sent('restart').map(({ connection, sdp }) => [connection, sdp?.includes('mine1') ?? false]);
  assert.ok(kinds.some(([kind, fresh]) => kind === 'publish' && fresh), 'with new ICE credentials');
  assert.ok(kinds.some(([kind, fresh]) => kind === 'play' && !fresh));
  assert.ok(sent('ice').length >= 2, 'on fresh TURN credentials');
  await here.close();
});

await behaves('what is unpublished while it begins goes nowhere', async () => {
  const ice = { ...ICE, lifetime: 43_200 };
  answers({ join: () => joined({ ice: { ...ice, ttl: 0 } }), ice: () => null });
  const { here, socket } = await enter();
  const publishing = here.publish(camera(), { name: 'adacam' });
  await until('it asks for servers', () => sent('ice').length === 1);
  await here.unpublish();
  socket.say({ type: 'ice', ice, id: sent('ice')[0].id });
  await assert.rejects(publishing, { code: 'stopped' });
  assert.equal(sent('publish').length, 0);
  assert.equal(here.publishing, null);
  await here.close();
  assert.ok(peers.every((peer) => peer.connectionState === 'closed'));
});

await behaves('two reasons to publish again are one', async () => {
  answers();
  const { here, socket } = await enter();
  await here.publish(camera(), { name: 'adacam' });
  const events = listen(here, 'unpublished');
  socket.say({ type: 'connection_ended', connection: 'publish' });
  socket.say({ type: 'connection_ended', connection: 'publish' });
  await until('published again', () => here.publisher?.connectionState === 'connected' && peers.length > 1);
  await new Promise((done) => setTimeout(done, 50));
  assert.deepEqual(events, []);
  assert.equal(here.publishing, 'adacam');
  assert.deepEqual(peers.map((peer) => peer.connectionState), ['closed', 'connected']);
  await here.close();
});

await behaves('an offer at the end opens nothing', async () => {
  answers();
  const { here, socket } = await enter();
  socket.say(OFFER);
  await here.close();
  await new Promise((done) => setTimeout(done, 50));
  assert.ok(peers.every((peer) => peer.connectionState === 'closed'));
});

await behaves('every request is one that the protocol knows', async () => {
  answers();
  const { here } = await enter();
  await here.subscribe(['bocam']);
  await here.subscribe('all');
  await here.lastN(null);
  await here.layer('bocam');
  await here.layer('bocam', { spatial: 1, temporal: 0, track: 0 });
  await here.pause('bocam');
  await here.resume('bocam', 0);
  await here.chat('hello');
  await here.send({ any: ['thing'] }, BO.participant);
  await here.kick(BO.participant);
  await here.close();
});

await behaves('who is put out stays out', async () => {
  answers();
  const { here, states, socket } = await enter();
  socket.break(4410);
  await until('the end', () => here.state === 'failed');
  assert.deepEqual(states, ['connecting', 'live', 'kicked']);
  assert.equal(room.sockets.length, 1);
});

await behaves('a refused join says why', async () => {
  answers({ join: () => ({ type: 'error', code: 'room_full', detail: 'The room is full.' }) });
  const here = join({ room: 'lobby', token: 'token' });
  await assert.rejects(here.live, { code: 'room_full', message: 'The room is full.' });
});
say({ event: 'result' });
process.exit(0);
