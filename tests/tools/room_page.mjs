// The page of a room as people use it: two (or more) come by the same link, see each other, mute,
// chat, and leave. The plan is {page, ca, folder, token, room, browsers: [browser, …], key?,
// screenshot?}; no "flowing".

import { LAUNCH_MS, closeAll, launch, readPlan, say, within } from './browsers.mjs';

const STEP_MS = 60_000;

async function open(plan, kind, nick) {
  const browser = await launch(kind, plan.folder, { ca: plan.ca });
  const page = await browser.newPage();
  const complaints = [];
  page.on('pageerror', (error) => complaints.push(error.message));
  await page.evaluateOnNewDocument(() => {
    window.violations = [];
    document.addEventListener('securitypolicyviolation', (event) => {
      window.violations.push(`${event.violatedDirective}: ${event.blockedURI}`);
    });
  });
  const key = plan.key ? `&key=${plan.key}` : '';
  const link = `${plan.page}room.html#room=${plan.room}&token=${plan.token}${key}`;
  await page.goto(link, { waitUntil: 'load', timeout: LAUNCH_MS });
  await page.type('#nick', nick);
  await page.click('input[name=source][value=test]');
  await page.click('#join');
  return { page, kind, nick, complaints };
}

const until = ({ page, nick }, what, test, ...args) =>
  within(STEP_MS, `${nick}: ${what}`, page.waitForFunction(test, { timeout: STEP_MS, polling: 100 }, ...args));

/** Tiles of others whose picture moves. */
const seesOthers = (caller, count) =>
  until(
    caller,
    `${count} others in moving pictures`,
    (wanted) => {
      window.seen ??= new Map();
      let moving = 0;
      for (const video of document.querySelectorAll('.tiles video')) {
        if (video.muted || video.videoWidth === 0) continue;
        // By what is painted: Firefox counts no frames of a MediaStream.
        const canvas = document.createElement('canvas');
        canvas.width = 40;
        canvas.height = 30;
        const paint = canvas.getContext('2d');
        paint.drawImage(video, 0, 0, canvas.width, canvas.height);
        const picture = paint.getImageData(0, 0, canvas.width, canvas.height).data.join();
        const pictures = window.seen.get(video) ?? new Set();
        window.seen.set(video, pictures.add(picture));
        if (pictures.size > 5) moving += 1;
      }
      return moving === wanted;
    },
    count,
  );

async function perform(plan) {
  const names = ['Ada', 'Bo', 'Cy', 'Di'];
  const callers = [];
  for (const [i, kind] of plan.browsers.entries()) {
    callers.push(await within(2 * LAUNCH_MS, `${kind} opening the page`, open(plan, kind, names[i])));
  }
  const others = callers.length - 1;
  await Promise.all(callers.map((caller) => seesOthers(caller, others)));
  const [ada, bo] = callers;
  const seen = { fragmentAfter: await ada.page.evaluate(() => location.hash) };
  seen.people = await bo.page.$eval('#people', (line) => line.textContent);

  await ada.page.click('#picture');
  await until(bo, 'that Ada hides her picture', () =>
    [...document.querySelectorAll('.whose')].some((line) => line.textContent === 'Ada · picture hidden'),
  );
  await ada.page.type('#words', 'hello, everybody');
  await ada.page.keyboard.press('Enter');
  await until(bo, "Ada's words", () => document.querySelector('.said').textContent.includes('Ada hello, everybody'));
  if (plan.screenshot) await bo.page.screenshot({ path: plan.screenshot, fullPage: true });
  await bo.page.setViewport({ width: 360, height: 740 });
  seen.phoneOverflow = await bo.page.evaluate(
    () => document.documentElement.scrollWidth - document.documentElement.clientWidth,
  );
  await ada.page.click('#join');
  await until(bo, 'that Ada is gone', (count) => document.querySelectorAll('.tiles li').length === count, callers.length - 1);
  seen.left = await ada.page.$eval('.state', (line) => line.textContent);
  seen.trouble = await bo.page.$eval('.trouble', (line) => line.textContent);
  seen.violations = await bo.page.evaluate(() => window.violations);
  seen.complaints = callers.flatMap(({ complaints }) => complaints);
  return seen;
}

const { plan } = await readPlan();
let code = 0;
let last;
try {
  last = { event: 'result', ...(await perform(plan)) };
} catch (error) {
  last = { event: 'error', message: String(error?.stack ?? error) };
  code = 1;
}
await closeAll();
say(last);
process.exit(code);
