// Streams encrypted end to end, through the page's own module. The plan is {page, ca, folder,
// seconds, token, name, key, codec?, publisher: browser, players: [{browser, key?}]}; "flowing"
// comes with the ICE user fragments of the sessions, once every player with the right key plays
// and every other one has had as many packets.

import { LAUNCH_MS, closeAll, launch, readPlan, say, within } from './browsers.mjs';
import { measurePlayer, measurePublisher, waitForMedia } from './in_page.mjs';

const STEP_MS = 60_000;

/** Publishes or plays by the module; runs in the page. */
async function start(role, who) {
  const base = document.querySelector('script[type=module][src]').src;
  const veilgate = await import(new URL('veilgate.js', base).href);
  const states = [];
  const undecryptable = [];
  const video = document.createElement('video');
  video.autoplay = true;
  video.playsInline = true;
  document.body.append(video);
  const options = {
    name: who.name,
    token: who.token,
    key: who.key,
    codec: who.codec,
    onstate: (state, detail) => states.push([state, detail?.error?.message ?? '']),
    onundecryptable: (detail) => undecryptable.push(detail),
  };
  let session;
  if (role === 'publish') {
    const small = { video: { width: 320, height: 240, frameRate: 15 }, audio: true };
    const stream = await navigator.mediaDevices.getUserMedia(small);
    session = veilgate.publish({ ...options, stream });
  } else {
    session = veilgate.play({ ...options });
    session.addEventListener('track', ({ detail: { stream } }) => {
      if (video.srcObject === stream) return;
      video.srcObject = stream;
      video.play().catch(() => {});
    });
  }
  window.veilgateTest = { session, states, undecryptable, video };
  await session.live;
  const ufrag = (sdp) => /^a=ice-ufrag:(.*?)\r?$/m.exec(sdp)[1];
  return ufrag(session.peer.currentRemoteDescription.sdp);
}

/** Resolves once pictures and sound have arrived in numbers, opened or not; runs in the page. */
async function waitForPackets() {
  const { session } = window.veilgateTest;
  for (;;) {
    const received = { video: 0, audio: 0 };
    for (const report of (await session.stats())?.values() ?? []) {
      if (report.type === 'inbound-rtp') received[report.kind] = report.packetsReceived;
    }
    if (received.video > 100 && received.audio > 100) return;
    await new Promise((done) => setTimeout(done, 100));
  }
}

/** What a codec that cannot be encrypted is told; runs in the page. */
async function refusals(who) {
  const base = document.querySelector('script[type=module][src]').src;
  const { play, publish } = await import(new URL('veilgate.js', base).href);
  const { name, token, key } = who;
  const code = async (session) => {
    try {
      await session.live;
      return 'live';
    } catch (error) {
      return error.code;
    }
  };
  const stream = new MediaStream();
  const codes = {
    codec: await code(publish({ name, token, stream, key, codec: 'h264' })),
    key: await code(play({ name, token, key: 'short' })),
  };
  const kept = window.RTCRtpScriptTransform;
  window.RTCRtpScriptTransform = undefined;
  codes.unsupported = await code(play({ name, token, key }));
  window.RTCRtpScriptTransform = kept;
  return codes;
}

async function perform(plan, ended) {
  const heard = { requests: 0, withToken: 0, withOffer: 0, withKey: [] };
  const note = (url, ...rest) => {
    const whole = JSON.stringify([url, ...rest]);
    heard.requests += 1;
    if (whole.includes(plan.token)) heard.withToken += 1;
    if (whole.includes('a=ice-ufrag')) heard.withOffer += 1;
    if (whole.includes(plan.key)) heard.withKey.push(url);
  };
  const open = async (kind) => {
    const browser = await launch(kind, plan.folder, { ca: plan.ca });
    const page = await browser.newPage();
    page.on('pageerror', (error) => process.stderr.write(`${kind}: ${error.message}\n`));
    page.on('request', (sent) => note(sent.url(), sent.headers()));
    // Firefox's driver does not show bodies: what the module hands over tells.
    await page.exposeFunction('noteRequest', note);
    await page.evaluateOnNewDocument(() => {
      const real = window.fetch;
      window.fetch = (url, init) => {
        window.noteRequest(String(url), init?.headers, String(init?.body));
        return real(url, init);
      };
    });
    await page.goto(plan.page, { waitUntil: 'load', timeout: LAUNCH_MS });
    return page;
  };
  const { name, token, codec } = plan;
  const ufrags = [];
  const begin = async (browser, role, who) => {
    const page = await within(2 * LAUNCH_MS, `${browser} opening the page`, open(browser));
    const given = { name, token, codec, ...who };
    const words = `${browser} starting to ${role}`;
    ufrags.push(await within(STEP_MS, words, page.evaluate(start, role, given)));
    return { page, browser, key: who.key };
  };
  const publisher = await begin(plan.publisher, 'publish', { key: plan.key });
  const codes = await within(STEP_MS, 'refusals', publisher.page.evaluate(refusals, { name, token, key: plan.key }));
  const players = [];
  for (const { browser, key } of plan.players) players.push(await begin(browser, 'play', { key }));
  await Promise.all(
    players.map(({ page, browser, key }) =>
      within(
        STEP_MS,
        `media reaching ${browser} with ${key === plan.key ? 'the key' : 'another key or none'}`,
        page.evaluate(key === plan.key ? waitForMedia : waitForPackets),
      ),
    ),
  );
  say({ event: 'flowing', ufrags });

  const samples = players.map(() => []);
  const measure = () =>
    Promise.all(
      players.map(async ({ page }, i) => {
        samples[i].push(await within(STEP_MS, 'measuring', page.evaluate(measurePlayer)));
      }),
    );
  const until = Date.now() + plan.seconds * 1000;
  const half = Date.now() + plan.seconds * 500;
  let rotated = null;
  while (Date.now() < until && !ended.now) {
    await measure();
    if (!rotated && Date.now() >= half) {
      rotated = await publisher.page.evaluate(() => window.veilgateTest.session.rotate());
    }
    await Promise.race([new Promise((done) => setTimeout(done, 1000)), ended.promise]);
  }
  await measure();
  const seen = [];
  for (const [i, { page, browser }] of players.entries()) {
    const more = await page.evaluate(async () => ({
      undecryptable: window.veilgateTest.undecryptable,
      currentKey: await window.veilgateTest.session.currentKey(),
    }));
    seen.push({ browser, ...more, last: samples[i].at(-1), samples: samples[i] });
  }
  const sent = await publisher.page.evaluate(measurePublisher);
  await Promise.all(
    [publisher, ...players].map(({ page }) => page.evaluate(() => window.veilgateTest.session.close())),
  );
  return { event: 'result', codes, heard, rotated, publisher: sent, players: seen };
}

const { plan, ended } = await readPlan();
let code = 0;
let last;
try {
  last = await perform(plan, ended);
} catch (error) {
  last = { event: 'error', message: String(error?.stack ?? error) };
  code = 1;
}
await closeAll();
say(last);
process.exit(code);
