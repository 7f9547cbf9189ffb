// Sealed calls on the gateway's own page, joined by keyboard as a person would. The plan is
// {page, ca, folder, token, room, seconds?, callers: ["chromium", "firefox"], third: true?};
// "flowing" comes with the relayed addresses of each caller.

import { LAUNCH_MS, closeAll, launch, readPlan, say, within } from './browsers.mjs';
import { measurePlayer, waitForMedia } from './in_page.mjs';

const STEP_MS = 60_000;

/** Runs before the page's own scripts: remembers its connections, keeps the camera small. */
function instrument() {
  window.violations = [];
  document.addEventListener('securitypolicyviolation', (event) => {
    window.violations.push(`${event.violatedDirective}: ${event.blockedURI}`);
  });
  window.peers = [];
  const Original = window.RTCPeerConnection;
  window.RTCPeerConnection = class extends Original {
    constructor(...given) {
      super(...given);
      window.peers.push(this);
      window.policy = given[0].iceTransportPolicy;
    }
  };
  // Firefox opens about:blank first, which has no camera.
  const media = navigator.mediaDevices;
  if (!media) return;
  const camera = media.getUserMedia.bind(media);
  // Software encoders and decoders share two cores.
  media.getUserMedia = () =>
    camera({ video: { width: 320, height: 240, frameRate: 15 }, audio: true });
}

async function open(plan, kind) {
  const browser = await launch(kind, plan.folder, { ca: plan.ca });
  const page = await browser.newPage();
  const complaints = [];
  page.on('pageerror', (error) => complaints.push(error.message));
  await page.evaluateOnNewDocument(instrument);
  const link = `${plan.page}#sealed=${plan.room}&token=${plan.token}`;
  await page.goto(link, { waitUntil: 'load', timeout: LAUNCH_MS });
  return { page, kind, complaints };
}

async function join({ page }) {
  await page.focus('[data-side=sealed] .go');
  await page.keyboard.press('Enter');
}


async function reaches({ page, kind }, wanted) {
  const selector = '[data-side=sealed]';
  const there = page.waitForFunction(
    (s, w) => document.querySelector(`${s} .state`).dataset.state === w,
    { timeout: STEP_MS, polling: 100 },
    selector,
    wanted,
  );
  try {
    await within(STEP_MS, `${kind} being ${wanted}`, there);
  } catch (error) {
    const words = await page.$eval(selector, (card) => card.innerText);
    throw new Error(`${error.message}; the page says: ${words}`);
  }
}

/** Certificates as each side's DTLS saw them, or, where stats have none, as its SDP demands. */
async function certificates() {
  const peer = window.peers.at(-1);
  const reports = await peer.getStats();
  const transport = [...reports.values()].find((report) => report.type === 'transport') ?? {};
  const seen = (id) => reports.get(id)?.fingerprint?.toUpperCase() ?? null;
  const told = (description) =>
    [...description.sdp.matchAll(/^a=fingerprint:sha-256 (.*)$/gim)].map((m) => m[1].trim().toUpperCase());
  return {
    policy: window.policy,
    violations: window.violations,
    code: document.querySelector('[data-side=sealed] .code').textContent,
    role: peer.localDescription.type,
    localSdp: told(peer.localDescription),
    remoteSdp: told(peer.remoteDescription),
    localSeen: seen(transport.localCertificateId),
    remoteSeen: seen(transport.remoteCertificateId),
    heard: peer.remoteDescription.sdp,
  };
}

async function perform(plan, ended) {
  const callers = [];
  for (const kind of plan.callers) {
    callers.push(await within(2 * LAUNCH_MS, `${kind} opening the page`, open(plan, kind)));
  }
  // At the same moment: the gateway decides who offers.
  await Promise.all(callers.map(join));
  await Promise.all(callers.map((caller) => reaches(caller, 'live')));
  for (const { page } of callers) {
    await page.evaluate(() => {
      const peer = window.peers.at(-1);
      window.veilgateTest = {
        session: { peer, stats: () => peer.getStats() },
        states: [],
        video: document.querySelector('[data-side=sealed] video.theirs'),
      };
    });
  }
  await Promise.all(
    callers.map(({ page, kind }) =>
      within(STEP_MS, `media reaching ${kind}`, page.evaluate(waitForMedia)),
    ),
  );
  const first = await Promise.all(callers.map(({ page }) => page.evaluate(measurePlayer)));
  say({ event: 'flowing', relayed: first.map((seen) => seen.selected.local) });

  let third = null;
  if (plan.third) {
    const late = await open(plan, 'chromium');
    await join(late);
    await reaches(late, 'failed');
    third = await late.page.$eval('[data-side=sealed] .trouble', (line) => line.textContent);
  }
  const samples = callers.map(() => []);
  const until = plan.seconds ? Date.now() + plan.seconds * 1000 : Infinity;
  for (;;) {
    await Promise.all(
      callers.map(async ({ page }, i) => {
        samples[i].push(await within(STEP_MS, 'measuring', page.evaluate(measurePlayer)));
      }),
    );
    const left = until - Date.now();
    if (left <= 0 || ended.now) break;
    await Promise.race([new Promise((done) => setTimeout(done, Math.min(left, 1000))), ended.promise]);
  }
  const seen = [];
  for (const [i, { page, kind, complaints }] of callers.entries()) {
    const certs = await page.evaluate(certificates);
    seen.push({ browser: kind, complaints, certs, last: samples[i].at(-1), samples: samples[i] });
  }
  await callers[0].page.setViewport({ width: 360, height: 740 });
  const phoneOverflow = await callers[0].page.evaluate(
    () => document.documentElement.scrollWidth - document.documentElement.clientWidth,
  );
  if (plan.screenshot) await callers[0].page.screenshot({ path: plan.screenshot, fullPage: true });
  // One leaves, by keyboard again; the other is told.
  await join(callers[0]);
  await Promise.all(callers.map((caller) => reaches(caller, 'stopped')));
  const parting = await Promise.all(
    callers.map(({ page }) => page.$eval('[data-side=sealed] .state', (line) => line.textContent)),
  );
  return { event: 'result', callers: seen, third, phoneOverflow, parting };
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
