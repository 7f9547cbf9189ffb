// Browsers in one room with data channels and no media. The
// plan is {page, folder, ca, room, guests: [{who, browser, token}]}; prints what each has heard.
// See README.md here.

import { LAUNCH_MS, closeAll, launch, readPlan, say, within } from './browsers.mjs';

const STEP_MS = 60_000;

/** In the page: joins by hand, and opens channels on the publishing connection. */
async function enter({ room, token, who }) {
  const socket = new WebSocket(`${location.origin.replace('http', 'ws')}/v1/signal`);
  await new Promise((resolve, reject) => {
    socket.onopen = resolve;
    socket.onerror = reject;
  });
  let count = 0;
  const asked = new Map();
  socket.onmessage = ({ data }) => {
    const message = JSON.parse(data);
    asked.get(message.id)?.(message);
  };
  const ask = (message) => {
    count += 1;
    const id = count;
    socket.send(JSON.stringify({ ...message, id }));
    return new Promise((resolve) => asked.set(id, resolve));
  };
  const joined = await ask({ type: 'join', room, token, name: who, subscribe: 'none' });
  if (joined.type !== 'joined') throw new Error(JSON.stringify(joined));
  const { iceServers } = joined.ice;
  const peer = new RTCPeerConnection({ iceServers, iceTransportPolicy: 'relay' });
  const test = { peer, ask, socket, id: joined.participant, heard: [], closed: [], channels: new Map() };
  window.dataTest = test;
  peer.ondatachannel = ({ channel }) => {
    channel.binaryType = 'arraybuffer';
    channel.onmessage = ({ data }) => {
      const size = typeof data === 'string' ? data : data.byteLength;
      test.heard.push([channel.label, size]);
    };
    channel.onclose = () => test.closed.push(channel.label);
  };
  const open = (label) => {
    const channel = peer.createDataChannel(label);
    test.channels.set(label, channel);
    return new Promise((resolve) => {
      channel.onopen = resolve;
    });
  };
  const chat = open('chat');
  await peer.setLocalDescription();
  const { sdp, detail } = await ask({ type: 'publish', stream: who, sdp: peer.localDescription.sdp });
  if (!sdp) throw new Error(detail);
  await peer.setRemoteDescription({ type: 'answer', sdp });
  await chat;
  await open('files');
  return test.id;
}

const { plan } = await readPlan();
const pages = new Map();
const ids = {};
try {
  for (const guest of plan.guests) {
    const browser = await launch(guest.browser, plan.folder, { ca: plan.ca });
    const page = await browser.newPage();
    await page.goto(plan.page, { waitUntil: 'load', timeout: LAUNCH_MS });
    const given = { ...guest, room: plan.room };
    ids[guest.who] = await within(STEP_MS, `${guest.who} entering`, page.evaluate(enter, given));
    pages.set(guest.who, page);
  }
  say({ event: 'flowing' });
  const run = (who, act, ...given) => within(STEP_MS, who, pages.get(who).evaluate(act, ...given));
  for (const who of pages.keys()) {
    await run(who, () => {
      const { channels } = window.dataTest;
      channels.get('chat').send('hello');
      for (const size of [60_000, 1, 30_000]) channels.get('files').send(new Uint8Array(size));
      // The last word, and gone.
      channels.get('files').close();
    });
  }
  const heard = {};
  const closed = {};
  for (const who of pages.keys()) {
    const others = pages.size - 1;
    const all = await run(who, async (wanted) => {
      const { dataTest } = window;
      while (dataTest.heard.length < 4 * wanted || dataTest.closed.length < wanted) {
        await new Promise((done) => setTimeout(done, 50));
      }
      return { heard: dataTest.heard, closed: dataTest.closed };
    }, others).catch(async (error) => {
      const so = await pages.get(who).evaluate(() => [window.dataTest.heard, window.dataTest.closed]);
      throw new Error(`${error.message}: ${JSON.stringify(so)}`);
    });
    heard[who] = all.heard;
    closed[who] = all.closed;
  }
  say({ event: 'result', ids, heard, closed });
} finally {
  await closeAll();
}
process.exit(0);
