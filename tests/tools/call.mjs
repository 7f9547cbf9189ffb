// Real browsers on the gateway's own page. One line of JSON on stdin is the plan, lines of JSON
// on stdout are events; see README.md here.

import { CLOSE_MS, LAUNCH_MS, closeAll, launch, readPlan, say, within } from './browsers.mjs';
import { measurePlayer, measurePublisher, startPlayer, startPublisher, waitForMedia } from './in_page.mjs';

const FLOWING_MS = 60_000;

/** Pages of one plan: each in a browser of its own, or all of a kind in one (`share`). */
class Stage {
  constructor(plan) {
    this.plan = plan;
    this.shared = new Map();
  }

  async open(kind) {
    let browser = this.plan.share && this.shared.get(kind);
    if (!browser) {
      browser = launch(kind, this.plan.folder, { ca: this.plan.ca });
      if (this.plan.share) this.shared.set(kind, browser);
    }
    const page = await (await browser).newPage();
    page.on('pageerror', (error) => process.stderr.write(`${kind}: ${error.message}\n`));
    page.on('console', (message) => {
      if (message.type() === 'error') process.stderr.write(`${kind}: ${message.text()}\n`);
    });
    // Firefox resolves before subresources; "load" means the module ran.
    await page.goto(this.plan.page, { waitUntil: 'load', timeout: LAUNCH_MS });
    return page;
  }

  async start(role, who) {
    const page = await within(2 * LAUNCH_MS, `${who.browser} opening the page`, this.open(who.browser));
    const actor = { role, page, browser: who.browser, wants: who };
    const run = role === 'publisher' ? startPublisher : startPlayer;
    await within(FLOWING_MS, `${who.browser} starting as ${role}`, page.evaluate(run, who));
    return actor;
  }
}

async function perform(plan, ended) {
  const stage = new Stage(plan);
  const publishers = [];
  for (const who of plan.publishers ?? []) publishers.push(await stage.start('publisher', who));
  const players = [];
  // One after the other: four browsers starting at once starve each other on two cores.
  for (const who of plan.players ?? []) players.push(await stage.start('player', who));
  const receiving = players.filter((p) => !p.wants.direct);
  await Promise.all(
    receiving.map((p) =>
      within(FLOWING_MS, `media reaching ${p.browser}`, p.page.evaluate(waitForMedia)),
    ),
  );
  say({ event: 'flowing' });

  const actors = [...publishers, ...players];
  const samples = actors.map(() => []);
  const until = plan.seconds ? Date.now() + plan.seconds * 1000 : Infinity;
  for (;;) {
    await Promise.all(
      actors.map(async (actor, i) => {
        const measure = actor.role === 'publisher' ? measurePublisher : measurePlayer;
        samples[i].push(await within(FLOWING_MS, 'measuring', actor.page.evaluate(measure)));
      }),
    );
    const left = until - Date.now();
    if (left <= 0 || ended.now) break;
    await Promise.race([new Promise((done) => setTimeout(done, Math.min(left, 1000))), ended.promise]);
  }
  const report = (role) =>
    actors
      .map((actor, i) => ({ ...actor, samples: samples[i] }))
      .filter((actor) => actor.role === role)
      .map(({ browser, samples: taken }) => ({ browser, last: taken.at(-1), samples: taken }));
  // A page that goes says goodbye: the gateway must see sessions ending, not vanishing.
  await Promise.all(
    actors.map(({ page }) =>
      within(CLOSE_MS, 'saying goodbye', page.evaluate(() => window.veilgateTest.session?.close())).catch(() => {}),
    ),
  );
  return { event: 'result', publishers: report('publisher'), players: report('player') };
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
