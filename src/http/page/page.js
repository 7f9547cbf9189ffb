// The page: two buttons, two pictures, and the numbers below them.

import { camera, cameraTrouble, testPicture } from './media.js';
import { sealedCard } from './sealed-card.js';
import { Meter } from './stats.js';
import { canEncrypt, newKey, play, publish } from './veilgate.js';

const form = document.querySelector('#who');
const nameField = document.querySelector('#name');
const roomField = document.querySelector('#room');
const tokenField = document.querySelector('#token');
const sealBox = document.querySelector('#seal');
const invitation = document.querySelector('#invitation');

/** The key of the link, or the one made here; it stays in this page and in the link. */
let key = null;

/** Shows the streams or the sealed call. */
function show(mode) {
  for (const part of document.querySelectorAll('[data-mode]')) part.hidden = part.dataset.mode !== mode;
  for (const link of document.querySelectorAll('[data-shows]')) {
    if (link.dataset.shows === mode) link.setAttribute('aria-current', 'page');
    else link.removeAttribute('aria-current');
  }
  // A field that is not shown must not keep the form from being complete.
  nameField.disabled = mode !== 'streams';
  roomField.disabled = mode !== 'sealed';
}

/** The link for viewers, under what is published end to end encrypted. */
function invite() {
  const on = sealBox.checked && key !== null;
  invitation.hidden = !on;
  const name = nameField.value.trim();
  const link = `${location.origin}${location.pathname}#stream=${name}&key=${key}`;
  invitation.querySelector('output').textContent = on ? link : '';
}

/** Names, token and key from the fragment; the secrets then leave the address bar and the history. */
function readFragment() {
  const given = new URLSearchParams(location.hash.slice(1));
  show(given.has('sealed') ? 'sealed' : 'streams');
  if (given.get('sealed')) roomField.value = given.get('sealed');
  if (given.get('stream')) nameField.value = given.get('stream');
  if (given.get('key')) {
    key = given.get('key');
    sealBox.checked = true;
    document.querySelector('#keyed').hidden = false;
    invite();
  }
  if (!given.has('token') && !given.has('key')) return;
  if (given.has('token')) tokenField.value = given.get('token');
  given.delete('token');
  given.delete('key');
  const rest = given.toString().replaceAll('%2F', '/');
  history.replaceState(null, '', rest ? `#${rest}` : location.pathname);
}

function bits(perSecond) {
  if (perSecond >= 1e6) return `${(perSecond / 1e6).toFixed(2)} Mbit/s`;
  return `${Math.round(perSecond / 1e3)} kbit/s`;
}

function rows(numbers, lossMatters) {
  const list = [
    ['Path', numbers.path, !numbers.relayed],
    ['Bitrate', bits(numbers.bitsPerSecond)],
    ['Audio', bits(numbers.audioBitsPerSecond)],
    ['Frames', `${numbers.frames} (${Math.round(numbers.framesPerSecond)} a second)`],
    ['Picture', numbers.width ? `${numbers.width} × ${numbers.height}` : '–'],
    ['Round trip', numbers.rttMs === null ? '–' : `${numbers.rttMs.toFixed(1)} ms`],
  ];
  if (lossMatters) list.push(['Lost packets', String(numbers.lost)]);
  return list;
}

const STATES = {
  connecting: 'Connecting…',
  live: 'Live.',
  restarting: 'Looking for another way…',
  stopped: 'Stopped.',
  failed: 'Stopped.',
};

const UNDECRYPTABLE = {
  key: 'This link has another key than the stream: it cannot be shown.',
  clear: 'This stream is not encrypted, but the link has a key: it is not shown.',
  damaged: 'The stream is damaged on its way.',
};

/** One half of the page: a button that starts and stops one session. */
class Side {
  constructor(root, { words, start }) {
    this.video = root.querySelector('video');
    this.button = root.querySelector('.go');
    this.stateLine = root.querySelector('.state');
    this.troubleLine = root.querySelector('.trouble');
    this.table = root.querySelector('.numbers');
    this.words = words;
    this.start = start;
    this.session = null;
    this.lossMatters = root.dataset.side === 'watch';
    this.button.addEventListener('click', () => this.toggle());
  }

  trouble(text) {
    this.troubleLine.textContent = text;
    this.troubleLine.hidden = text === '';
  }

  say(state, text) {
    this.stateLine.textContent = text;
    this.stateLine.dataset.state = state;
  }

  pressed(on) {
    this.button.setAttribute('aria-pressed', String(on));
    this.button.textContent = on ? 'Stop' : this.words;
  }

  async toggle() {
    if (this.session) {
      this.button.disabled = true;
      await this.session.close();
      this.button.disabled = false;
      return;
    }
    this.trouble('');
    if (!form.reportValidity()) return;
    this.button.disabled = true;
    try {
      const onstate = (state, detail) => this.onState(state, detail);
      this.session = await this.start({
        name: nameField.value.trim(),
        token: tokenField.value.trim(),
        onstate,
      });
      this.pressed(true);
      this.measure();
    } catch (error) {
      this.trouble(cameraTrouble(error));
    }
    this.button.disabled = false;
  }

  onState(state, { error, retryInMs } = {}) {
    if (state === 'waiting') {
      this.say(state, `Trying again in ${Math.max(1, Math.round(retryInMs / 1000))} s…`);
      this.trouble(error.message);
      return;
    }
    this.say(state, STATES[state]);
    if (state === 'live') this.trouble('');
    if (state === 'failed') this.trouble(error?.message ?? String(error));
    if (state === 'failed' || state === 'stopped') this.ended();
  }

  ended() {
    this.session = null;
    this.pressed(false);
    this.video.srcObject = null;
    this.table.replaceChildren();
    this.onended?.();
  }

  async measure() {
    const { session } = this;
    const meter = new Meter();
    while (this.session === session) {
      const reports = await session.stats();
      if (this.session !== session) return;
      this.show(rows(meter.read(reports), this.lossMatters));
      await new Promise((resolve) => setTimeout(resolve, 1000));
    }
  }

  show(list) {
    if (this.table.children.length !== list.length) {
      this.table.replaceChildren(
        ...list.map(([title]) => {
          const cell = document.createElement('div');
          const term = document.createElement('dt');
          term.textContent = title;
          cell.append(term, document.createElement('dd'));
          return cell;
        }),
      );
    }
    list.forEach(([, text, bad], i) => {
      const value = this.table.children[i].lastElementChild;
      if (value.textContent !== text) value.textContent = text;
      value.toggleAttribute('data-bad', Boolean(bad));
    });
  }
}

const sender = new Side(document.querySelector('[data-side=publish]'), {
  words: 'Publish',
  async start(options) {
    const test = document.querySelector('input[name=source]:checked').value === 'test';
    const source = test ? testPicture() : { stream: await camera() };
    // What the box says must be what is sent.
    sealBox.disabled = true;
    sender.onended = () => {
      sealBox.disabled = !canEncrypt();
      source.stop?.();
      for (const track of source.stream.getTracks()) track.stop();
    };
    for (const track of source.stream.getTracks()) {
      track.addEventListener('ended', () => sender.trouble(`The ${track.kind} source is gone.`));
    }
    sender.video.srcObject = source.stream;
    // Never undefined where the box says otherwise: null is refused.
    return publish({ ...options, stream: source.stream, key: sealBox.checked ? key : undefined });
  },
});

const watcher = new Side(document.querySelector('[data-side=watch]'), {
  words: 'Watch',
  async start(options) {
    return play({
      ...options,
      key: sealBox.checked ? key : undefined,
      onundecryptable: ({ reason }) => watcher.trouble(UNDECRYPTABLE[reason]),
      ontrack(stream) {
        watcher.video.srcObject = stream;
      },
    });
  },
});

sealedCard(document.querySelector('[data-side=sealed]'), () =>
  form.reportValidity()
    ? { room: roomField.value.trim(), token: tokenField.value.trim() }
    : null,
);

sealBox.disabled = !canEncrypt();
// A browser may have ticked it again after a reload, when the key is gone.
sealBox.checked = key !== null;
sealBox.addEventListener('change', () => {
  if (sealBox.checked) key ??= newKey();
  invite();
});
nameField.addEventListener('input', invite);
form.addEventListener('submit', (event) => event.preventDefault());
addEventListener('pagehide', () => {
  sender.session?.leave();
  watcher.session?.leave();
});
addEventListener('hashchange', readFragment);
readFragment();
