// The page as a person uses it: fields, buttons, numbers, and the words when something is wrong.
// The plan is {page, folder, token}; the result says what was seen.

import { LAUNCH_MS, closeAll, launch, readPlan, say, within } from './browsers.mjs';

const STEP_MS = 30_000;
const FAKE = ['--use-fake-device-for-media-stream', '--use-fake-ui-for-media-stream'];

async function open(browser, url) {
  const page = await browser.newPage();
  const complaints = [];
  page.on('pageerror', (error) => complaints.push(error.message));
  page.on('console', (message) => {
    if (message.type() === 'error') complaints.push(message.text());
  });
  await page.evaluateOnNewDocument(() => {
    window.violations = [];
    document.addEventListener('securitypolicyviolation', (event) => {
      window.violations.push(`${event.violatedDirective}: ${event.blockedURI}`);
    });
  });
  await page.goto(url, { waitUntil: 'load', timeout: LAUNCH_MS });
  return { page, complaints };
}

const text = (page, selector) => page.$eval(selector, (element) => element.textContent.trim());
const until = (page, what, test, ...args) =>
  within(STEP_MS, what, page.waitForFunction(test, { timeout: STEP_MS, polling: 100 }, ...args));
const stateIs = (page, side, words) =>
  until(
    page,
    `${side}: ${words}`,
    (s, w) => document.querySelector(`[data-side=${s}] .state`).textContent === w,
    side,
    words,
  );
const troubleOf = async (page, side) => {
  await until(
    page,
    `trouble on ${side}`,
    (s) => !document.querySelector(`[data-side=${s}] .trouble`).hidden,
    side,
  );
  return text(page, `[data-side=${side}] .trouble`);
};

/** Publish the test picture and watch it, by keyboard alone; then look at the numbers. */
async function useIt(plan) {
  const browser = await launch('chromium', plan.folder);
  const { page, complaints } = await open(browser, `${plan.page}#stream=lobby/page&token=${plan.token}`);
  const seen = { fragmentAfter: await page.evaluate(() => location.hash) };
  seen.name = await page.$eval('#name', (field) => field.value);
  seen.tokenFilled = await page.$eval('#token', (field) => field.value.length > 20);

  await page.focus('input[name=source][value=camera]');
  await page.keyboard.press('ArrowDown');
  // Past "End-to-end encrypted".
  await page.keyboard.press('Tab');
  await page.keyboard.press('Tab');
  await page.keyboard.press('Enter');
  await stateIs(page, 'publish', 'Live.');
  await page.focus('[data-side=watch] .go');
  await page.keyboard.press('Enter');
  await stateIs(page, 'watch', 'Live.');
  await until(page, 'numbers', () =>
    ['publish', 'watch'].every((side) => {
      const numbers = document.querySelector(`[data-side=${side}] .numbers`).textContent;
      const shown = [/relay over udp/, /Bitrate[1-9]/, /Audio[1-9]/, /Frames[1-9]/, /Round trip[0-9.]+ ms/];
      return shown.every((number) => number.test(numbers));
    }),
  );
  seen.watching = await text(page, '[data-side=watch] .numbers');
  seen.publishing = await text(page, '[data-side=publish] .numbers');
  if (plan.screenshot) await page.screenshot({ path: plan.screenshot, fullPage: true });

  await page.setViewport({ width: 360, height: 740 });
  seen.phoneOverflow = await page.evaluate(
    () => document.documentElement.scrollWidth - document.documentElement.clientWidth,
  );
  if (plan.screenshot) {
    await page.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: 'dark' }]);
    await page.screenshot({ path: plan.screenshot.replace('.png', '-phone.png'), fullPage: true });
  }
  await page.click('[data-side=publish] .go');
  await stateIs(page, 'publish', 'Stopped.');
  await page.click('[data-side=watch] .go');
  await stateIs(page, 'watch', 'Stopped.');
  seen.violations = await page.evaluate(() => window.violations);
  seen.complaints = [...complaints];

  await page.$eval('#token', (field) => {
    field.value = 'not.a.token';
  });
  await page.click('[data-side=watch] .go');
  seen.badToken = await troubleOf(page, 'watch');
  return seen;
}

/** Publish end to end encrypted, and open the link that the page makes of it. */
async function sealIt(plan) {
  const browser = await launch('chromium', plan.folder);
  const token = `&token=${plan.token}`;
  const { page } = await open(browser, `${plan.page}#stream=lobby/veiled${token}`);
  await page.click('input[name=source][value=test]');
  await page.click('#seal');
  const link = await text(page, '#invitation output');
  await page.click('[data-side=publish] .go');
  await stateIs(page, 'publish', 'Live.');
  const seen = { link, lockedWhileLive: await page.$eval('#seal', (box) => box.disabled) };

  const viewer = await open(browser, link + token);
  seen.fragmentAfter = await viewer.page.evaluate(() => location.hash);
  await viewer.page.click('[data-side=watch] .go');
  await stateIs(viewer.page, 'watch', 'Live.');
  await until(viewer.page, 'pictures with the key', () =>
    /Frames[1-9]/.test(document.querySelector('[data-side=watch] .numbers').textContent),
  );
  const other = link.replace(/key=..../, 'key=AAAA');
  const stranger = await open(browser, other + token);
  await stranger.page.click('[data-side=watch] .go');
  seen.anotherKey = await troubleOf(stranger.page, 'watch');
  seen.violations = await viewer.page.evaluate(() => window.violations);
  seen.complaints = viewer.complaints;
  return seen;
}

/** What the page says when the camera cannot be had. */
async function cameraTroubles(plan) {
  const seen = {};
  const url = `${plan.page}#stream=lobby/page&token=${plan.token}`;
  const attempt = async (browser, before) => {
    const { page } = await open(browser, url);
    if (before) await page.evaluate(before);
    await page.click('[data-side=publish] .go');
    return troubleOf(page, 'publish');
  };
  const refusing = await launch('chromium', plan.folder, {
    without: ['--use-fake-ui-for-media-stream'],
    args: ['--deny-permission-prompts'],
  });
  seen.refused = await attempt(refusing);
  const bare = await launch('chromium', plan.folder, {
    without: FAKE,
    args: ['--use-fake-ui-for-media-stream'],
  });
  seen.absent = await attempt(bare);
  seen.inUse = await attempt(bare, () => {
    navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException('', 'NotReadableError'));
  });
  return seen;
}

const { plan } = await readPlan();
let code = 0;
let last;
try {
  last = {
    event: 'result',
    used: await useIt(plan),
    sealed: await sealIt(plan),
    camera: await cameraTroubles(plan),
  };
} catch (error) {
  last = { event: 'error', message: String(error?.stack ?? error) };
  code = 1;
}
await closeAll();
say(last);
process.exit(code);
