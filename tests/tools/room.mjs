// Browsers in one room, through the page's own module. The plan is {page, folder, ca, room, guests:
// [{who, browser, stream, token, key?}]}; each further line on stdin is a command, answered by one
// event:
//   {"do": "moving", "see": {who: [stream, …]}}  every picture named moves, and no other is there
//   {"do": "leave" | "reload" | "restart", "who": …}
// The end of stdin is goodbye. See README.md here.

import readline from 'node:readline';

import { LAUNCH_MS, closeAll, launch, say, within } from './browsers.mjs';

const STEP_MS = 60_000;

/** In the page: joins, publishes the fake camera, remembers what happens. */
async function enter(guest) {
  const base = document.querySelector('script[type=module][src]').src;
  const { join } = await import(new URL('veilgate.js', base).href);
  const media = await navigator.mediaDevices.getUserMedia({
    // Small and slow: five encoders and twenty decoders share two cores.
    video: { width: 320, height: 180, frameRate: 10 },
    audio: true,
  });
  const happened = [];
  const room = join({ room: guest.room, token: guest.token, name: guest.who, key: guest.key });
  const note = (event) => room.addEventListener(event, ({ detail }) => {
    happened.push([event, detail.error?.message ?? detail.state ?? detail.stream?.name ?? detail.reason ?? '']);
  });
  for (const event of ['state', 'streamadded', 'streamremoved', 'trouble', 'unpublished', 'participantleft']) note(event);
  room.addEventListener('streamadded', ({ detail: { stream } }) => {
    const video = document.createElement('video');
    Object.assign(video, { autoplay: true, playsInline: true, muted: true, srcObject: stream.media });
    video.play().catch(() => {});
    document.body.append(video);
  });
  window.veilgateTest = { room, happened, media };
  await room.live;
  await room.publish(media, { name: guest.stream });
}

/** In the page: frames decoded of each stream that is played, and the states. */
async function count() {
  const { room, happened } = window.veilgateTest;
  const frames = {};
  const reports = [...((await room.peer?.getStats())?.values() ?? [])];
  for (const { name, own, media } of room.streams.values()) {
    if (own) continue;
    const track = media.getVideoTracks()[0];
    const report = reports.find((one) => one.type === 'inbound-rtp' && one.trackIdentifier === track?.id);
    frames[name] = report?.framesDecoded ?? 0;
  }
  const pairs = [];
  for (const peer of [room.publisher, room.peer]) {
    const all = [...((await peer?.getStats())?.values() ?? [])];
    const candidates = all.filter((one) => one.type === 'local-candidate');
    pairs.push(...candidates.map((one) => one.candidateType));
  }
  return {
    frames,
    happened,
    candidates: [...new Set(pairs)],
    publishing: room.publisher?.connectionState ?? 'none',
    playing: room.peer?.connectionState ?? 'none',
  };
}

/** In the page: new ICE credentials on both connections, as after a change of network. */
async function restart() {
  const { room } = window.veilgateTest;
  const fragment = (peer) => /a=ice-ufrag:(\S+)/.exec(peer.remoteDescription.sdp)[1];
  const before = [room.publisher, room.peer].map(fragment);
  window.dispatchEvent(new Event('online'));
  for (;;) {
    const now = [room.publisher, room.peer].map((peer) => peer && fragment(peer));
    const steady = [room.publisher, room.peer].every((peer) => peer?.connectionState === 'connected');
    if (steady && now.every((one, i) => one !== before[i])) return { before, now };
    await new Promise((done) => setTimeout(done, 100));
  }
}

class Guests {
  constructor(plan) {
    this.plan = plan;
    this.pages = new Map();
    this.browsers = new Map();
  }

  async open(guest) {
    const { plan } = this;
    if (!this.browsers.has(guest.browser)) {
      this.browsers.set(guest.browser, await launch(guest.browser, plan.folder, { ca: plan.ca }));
    }
    const page = await this.browsers.get(guest.browser).newPage();
    page.on('pageerror', (error) => process.stderr.write(`${guest.who}: ${error.message}\n`));
    page.on('console', (message) => {
      if (message.type() === 'error') process.stderr.write(`${guest.who}: ${message.text()}\n`);
    });
    await page.goto(plan.page, { waitUntil: 'load', timeout: LAUNCH_MS });
    this.pages.set(guest.who, { page, guest });
    await this.enter(guest.who);
  }

  async enter(who) {
    const { page, guest } = this.pages.get(who);
    const all = { ...guest, room: this.plan.room };
    await within(STEP_MS, `${who} entering`, page.evaluate(enter, all));
  }

  count(who) {
    return within(STEP_MS, `measuring ${who}`, this.pages.get(who).page.evaluate(count));
  }

  /** Waits until what each sees is what it should see, and every picture has moved on. */
  async moving(see) {
    const first = {};
    const until = Date.now() + STEP_MS;
    for (;;) {
      const now = {};
      for (const who of Object.keys(see)) now[who] = await this.count(who);
      const settled = Object.entries(see).every(([who, wanted]) => {
        const { frames } = now[who];
        first[who] ??= {};
        const same = Object.keys(frames).length === wanted.length;
        return same && wanted.every((stream) => {
          if (!(stream in frames)) return false;
          // A connection made anew counts from nothing.
          if (!(frames[stream] >= first[who][stream])) first[who][stream] = frames[stream];
          return frames[stream] >= first[who][stream] + 10;
        });
      });
      if (settled) return now;
      if (Date.now() > until) throw new Error(`not all pictures move: ${JSON.stringify({ see, now })}`);
      await new Promise((done) => setTimeout(done, 500));
    }
  }

  async command({ do: what, who, see }) {
    if (what === 'moving') return { event: 'moving', now: await this.moving(see) };
    const { page } = this.pages.get(who);
    if (what === 'leave') {
      await within(STEP_MS, `${who} leaving`, page.evaluate(() => window.veilgateTest.room.close()));
      await page.close();
      this.pages.delete(who);
    } else if (what === 'reload') {
      await page.reload({ waitUntil: 'load', timeout: LAUNCH_MS });
      await this.enter(who);
    } else if (what === 'restart') {
      return { event: 'restart', ...(await within(STEP_MS, `${who} restarting ICE`, page.evaluate(restart))) };
    } else {
      throw new Error(`no such command: ${what}`);
    }
    return { event: what };
  }
}

const input = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const plan = JSON.parse((await input.next()).value);
process.on('SIGTERM', () => closeAll().then(() => process.exit(143)));
let code = 0;
let last = { event: 'result' };
try {
  const guests = new Guests(plan);
  // One after the other: browsers starting at once starve each other on two cores.
  for (const guest of plan.guests) await guests.open(guest);
  say({ event: 'flowing' });
  for (;;) {
    const { value, done } = await input.next();
    if (done) break;
    say(await guests.command(JSON.parse(value)));
  }
} catch (error) {
  last = { event: 'error', message: String(error?.stack ?? error) };
  code = 1;
}
await closeAll();
say(last);
process.exit(code);
