// Launching browsers and talking to the test that asked for them.

import { execFile } from 'node:child_process';
import { writeSync } from 'node:fs';
import { mkdir, mkdtemp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import readline from 'node:readline';
import { promisify } from 'node:util';

import puppeteer from 'puppeteer-core';

export const LAUNCH_MS = 60_000;
export const CLOSE_MS = 10_000;

const CHROMIUM = {
  browser: 'chrome',
  executablePath: '/usr/bin/chromium',
  args: [
    '--headless=new',
    '--no-sandbox',
    '--use-fake-device-for-media-stream',
    '--use-fake-ui-for-media-stream',
    '--ignore-certificate-errors',
    '--allow-loopback-in-peer-connection',
    '--autoplay-policy=no-user-gesture-required',
    '--disable-gpu',
    '--disable-quic',
    '--disable-renderer-backgrounding',
    '--disable-background-timer-throttling',
    '--disable-backgrounding-occluded-windows',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
    '--disable-dev-shm-usage',
    '--no-first-run',
    '--no-default-browser-check',
  ],
};

const FIREFOX = {
  browser: 'firefox',
  executablePath: '/usr/bin/firefox-esr',
  extraPrefsFirefox: {
    'media.navigator.permission.disabled': true,
    'media.navigator.streams.fake': true,
    'media.peerconnection.ice.loopback': true,
    'media.autoplay.default': 0,
    'media.autoplay.blocking_policy': 0,
    'app.update.enabled': false,
    'datareporting.policy.dataSubmissionEnabled': false,
    'network.captive-portal-service.enabled': false,
    'network.connectivity-service.enabled': false,
    // OpenH264 would be a download.
    'media.gmp-manager.updateEnabled': false,
  },
};

const browsers = [];

/** One event for whoever started us: whole, even if the process ends at once and the pipe is full. */
export function say(event) {
  const bytes = Buffer.from(`${JSON.stringify(event)}\n`);
  let at = 0;
  while (at < bytes.length) {
    try {
      at += writeSync(1, bytes, at);
    } catch (error) {
      if (error.code !== 'EAGAIN') throw error;
    }
  }
}

/** `promise`, or an error that names what took too long. */
export function within(ms, what, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what} took more than ${ms} ms`)), ms);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** Firefox checks certificates of TURN over TLS whatever it was told about those of pages. */
async function trust(ca, profile) {
  await mkdir(profile, { recursive: true });
  const run = promisify(execFile);
  await run('certutil', ['-N', '--empty-password', '-d', `sql:${profile}`]);
  await run('certutil', ['-A', '-n', 'gateway', '-t', 'C,,', '-i', ca, '-d', `sql:${profile}`]);
}

/** A browser with a fresh profile; `args` come on top, `without` are left out. */
export async function launch(kind, folder, { args = [], without = [], ca } = {}) {
  const recipe = { chromium: CHROMIUM, firefox: FIREFOX }[kind];
  if (!recipe) throw new Error(`no such browser: ${kind}`);
  const home = await mkdtemp(path.join(folder ?? tmpdir(), `${kind}-`));
  const profile = path.join(home, 'profile');
  if (kind === 'firefox' && ca) await trust(ca, profile);
  const browser = await puppeteer.launch({
    ...recipe,
    args: [...(recipe.args ?? []).filter((arg) => !without.includes(arg)), ...args],
    headless: true,
    acceptInsecureCerts: true,
    // Neither the caller's profile nor its certificate store.
    env: { ...process.env, HOME: home, XDG_CONFIG_HOME: home, XDG_CACHE_HOME: home },
    userDataDir: profile,
    timeout: LAUNCH_MS,
    protocolTimeout: LAUNCH_MS,
  });
  browsers.push(browser);
  return browser;
}

/** Closes what was launched: by its own handle, never by name. */
export async function closeAll() {
  await Promise.all(
    browsers.splice(0).map(async (browser) => {
      try {
        await within(CLOSE_MS, 'closing', browser.close());
      } catch {
        browser.process()?.kill('SIGKILL');
      }
    }),
  );
}

/** Lines of stdin, one by one. */
export function readLines() {
  process.on('SIGTERM', () => closeAll().then(() => process.exit(143)));
  return readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]();
}

/** The plan, and a promise (with a flag) of the end of stdin: time to finish. */
export async function readPlan() {
  const input = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]();
  const plan = JSON.parse((await input.next()).value);
  const ended = { now: false };
  ended.promise = input.next().then(() => {
    ended.now = true;
  });
  process.on('SIGTERM', () => closeAll().then(() => process.exit(143)));
  return { plan, ended };
}
