// The page of a room: join, tiles, mute, chat.

import { camera, cameraTrouble, testPicture } from './media.js';
import { VeilgateError, join } from './veilgate.js';

const find = (selector) => document.querySelector(selector);
const form = find('#who');
const button = find('#join');
const stateLine = find('.state');
const troubleLine = find('.trouble');
const tiles = find('.tiles');
const people = find('#people');
const chat = find('#chat');
const said = find('.said');
const switches = { audio: find('#sound'), video: find('#picture') };
const SWITCH_WORDS = { audio: ['Mute', 'Unmute'], video: ['Hide picture', 'Show picture'] };
const MOST_SAID = 200;

const STATES = {
  connecting: 'Connecting…',
  live: 'In the room.',
  stopped: 'You left.',
  failed: 'Not in the room.',
};

let room = null;
let source = null;
let key;

function trouble(text) {
  troubleLine.textContent = text;
  troubleLine.hidden = text === '';
}

/** Room, token and key from the fragment; the secrets then leave the address bar and the history. */
function readFragment() {
  const given = new URLSearchParams(location.hash.slice(1));
  if (given.get('room')) find('#room').value = given.get('room');
  if (given.get('token')) find('#token').value = given.get('token');
  key = given.get('key') ?? key;
  if (!given.has('token') && !given.has('key')) return;
  history.replaceState(null, '', `${location.pathname}#room=${given.get('room') ?? ''}`);
}

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

const nameOf = (stream) =>
  stream.own ? 'You' : (room.participants.get(stream.participant)?.name || stream.name);

function tileOf(name) {
  return [...tiles.children].find((tile) => tile.dataset.stream === name);
}

function showStream({ stream }) {
  const video = element('video', { autoplay: true, playsInline: true, muted: stream.own });
  video.srcObject = stream.media;
  video.setAttribute('aria-label', nameOf(stream));
  const screen = element('div', { className: 'screen' }, video);
  const label = element('p', { className: 'whose' });
  const tile = element('li', {}, screen, label);
  tile.dataset.stream = stream.name;
  tileOf(stream.name)?.remove();
  tiles.append(tile);
  describe(stream);
}

/** Whose tile it is, and what of it is muted. */
function describe(stream) {
  const label = tileOf(stream.name)?.querySelector('.whose');
  if (!label) return;
  const muted = stream.tracks?.filter((track) => track.muted).map(({ kind }) => kind) ?? [];
  const words = { audio: 'muted', video: 'picture hidden' };
  label.textContent = [nameOf(stream), ...muted.map((kind) => words[kind])].join(' · ');
}

function countPeople() {
  const names = [...room.participants.values()].map(({ name }) => name || 'somebody');
  people.hidden = false;
  people.textContent = names.length === 0 ? 'Nobody else is here.' : `Also here: ${names.join(', ')}.`;
}

function addLine(name, words) {
  said.append(element('li', {}, element('b', { textContent: name }), ` ${words}`));
  while (said.children.length > MOST_SAID) said.firstChild.remove();
  said.lastChild.scrollIntoView({ block: 'nearest' });
}

function onState({ state, error, retryInMs }) {
  stateLine.dataset.state = state;
  if (state === 'waiting') {
    stateLine.textContent = `Trying again in ${Math.max(1, Math.round(retryInMs / 1000))} s…`;
    return;
  }
  stateLine.textContent = STATES[state] ?? state;
  if (state === 'live') {
    trouble('');
    chat.hidden = !room.may.chat;
    countPeople();
  }
  if (state === 'failed') trouble(error.message);
  if (state === 'failed' || state === 'stopped') ended();
}

function ended() {
  room = null;
  button.textContent = 'Join';
  button.setAttribute('aria-pressed', 'false');
  tiles.replaceChildren();
  people.hidden = true;
  chat.hidden = true;
  find('#sealing').hidden = true;
  for (const one of Object.values(switches)) one.hidden = true;
  source?.stop?.();
  for (const track of source?.stream.getTracks() ?? []) track.stop();
  source = null;
}

async function findSource() {
  const wanted = find('input[name=source]:checked').value;
  if (wanted === 'none') return null;
  if (wanted === 'test') return testPicture({ width: 320, height: 180, framesPerSecond: 10 });
  return { stream: await camera() };
}

async function enter() {
  source = await findSource();
  const given = (id) => find(id).value.trim();
  room = join({ room: given('#room'), name: given('#nick'), token: given('#token'), key });
  const here = room;
  const on = (type, act) => here.addEventListener(type, ({ detail }) => act(detail));
  on('state', onState);
  on('streamadded', showStream);
  on('streamremoved', ({ stream }) => tileOf(stream.name)?.remove());
  on('participantjoined', countPeople);
  on('participantleft', countPeople);
  on('muted', ({ stream }) => describe(stream));
  on('speakers', ({ levels }) => {
    for (const { stream, speaking } of levels) tileOf(stream)?.toggleAttribute('data-speaking', speaking);
  });
  on('chat', ({ name, text, private: alone }) => addLine(alone ? `${name} (to you)` : name, text));
  on('unpublished', ({ error }) => trouble(error.message));
  on('closing', () => trouble('The gateway is about to stop.'));
  on('undecryptable', ({ reason }) =>
    trouble(reason === 'clear' ? 'Somebody here does not encrypt.' : 'Somebody here has another key.'),
  );
  button.textContent = 'Leave';
  button.setAttribute('aria-pressed', 'true');
  find('#sealing').hidden = key === undefined;
  await here.live;
  if (!source || !here.may.publish) return;
  // A name of one's own: two pages of one person are two streams.
  await here.publish(source.stream, { name: `p-${here.id}`, simulcast: true });
  for (const [kind, one] of Object.entries(switches)) {
    one.hidden = !source?.stream.getTracks().some((track) => track.kind === kind);
  }
}

button.addEventListener('click', async () => {
  button.disabled = true;
  try {
    if (room) await room.close();
    else if (form.reportValidity()) {
      trouble('');
      await enter();
    }
  } catch (error) {
    if (error.code !== 'stopped') {
      trouble(error instanceof VeilgateError ? error.message : cameraTrouble(error));
    }
    if (!room) ended();
  }
  button.disabled = false;
});

for (const [kind, one] of Object.entries(switches)) {
  one.addEventListener('click', async () => {
    const off = one.getAttribute('aria-pressed') !== 'true';
    one.setAttribute('aria-pressed', String(off));
    one.textContent = SWITCH_WORDS[kind][Number(off)];
    try {
      await room?.mute(kind, off);
    } catch (error) {
      // Muted it is all the same: at the source.
      if (error.code !== 'lost') trouble(error.message);
    }
  });
}

find('#say').addEventListener('submit', async (event) => {
  event.preventDefault();
  const words = find('#words');
  try {
    await room?.chat(words.value);
    addLine('You', words.value);
    words.value = '';
  } catch (error) {
    trouble(error.message);
  }
});
form.addEventListener('submit', (event) => event.preventDefault());
addEventListener('pagehide', () => room?.leave());
addEventListener('hashchange', readFragment);
readFragment();
