// A Chromium page publishes by the page's module; another plays by WHEP in its own words and restarts
// ICE with PATCH while it watches.

import { LAUNCH_MS, closeAll, launch, readPlan, say, within } from './browsers.mjs';
import { startPublisher } from './in_page.mjs';

const STEP_MS = 60_000;

async function open(plan) {
  const browser = await launch('chromium', plan.folder, { ca: plan.ca });
  const page = await browser.newPage();
  page.on('pageerror', (error) => process.stderr.write(`${error.message}\n`));
  await page.goto(plan.page, { waitUntil: 'load', timeout: LAUNCH_MS });
  return page;
}

/** Plays until pictures move. Runs in the page. */
async function watch(who) {
  const authorization = `Bearer ${who.token}`;
  const config = await (await fetch('/v1/ice', { headers: { authorization } })).json();
  const { iceServers } = config;
  const peer = new RTCPeerConnection({ iceServers, iceTransportPolicy: 'relay' });
  peer.addTransceiver('video', { direction: 'recvonly' });
  peer.addTransceiver('audio', { direction: 'recvonly' });
  const video = document.createElement('video');
  video.autoplay = video.muted = video.playsInline = true;
  video.srcObject = new MediaStream();
  peer.ontrack = ({ track }) => video.srcObject.addTrack(track);
  document.body.append(video);
  await peer.setLocalDescription();
  const response = await fetch(`/whep/${who.name}`, {
    method: 'POST',
    headers: { authorization, 'content-type': 'application/sdp' },
    body: peer.localDescription.sdp,
  });
  if (response.status !== 201) throw new Error(`WHEP answered ${response.status}`);
  const answer = await response.text();
  await peer.setRemoteDescription({ type: 'answer', sdp: answer });
  const seen = async () => {
    const all = [...(await peer.getStats()).values()];
    const of = (type) => all.filter((report) => report.type === type);
    const inbound = of('inbound-rtp').find((report) => report.kind === 'video');
    const [transport] = of('transport');
    const pair = all.find((report) => report.id === transport?.selectedCandidatePairId);
    return {
      frames: inbound?.framesDecoded ?? 0,
      ssrc: inbound?.ssrc,
      pair: pair?.id,
      ufrag: transport?.iceLocalUsernameFragment,
      state: peer.connectionState,
    };
  };
  window.watching = {
    authorization, peer, answer, seen,
    location: response.headers.get('location'),
    tag: response.headers.get('etag'),
  };
  await window.moving(await seen());
  return seen();
}

/** Restarts ICE until pictures move over the new path. Runs in the page. */
async function restart() {
  const { authorization, peer, answer, location, tag, seen } = window.watching;
  const states = [];
  peer.onconnectionstatechange = () => states.push(peer.connectionState);
  const before = await seen();
  peer.restartIce();
  await peer.setLocalDescription();
  const line = (sdp, key) => sdp.match(new RegExp(`^a=${key}:.*$`, 'm'))[0].trim();
  const { sdp } = peer.localDescription;
  const ask = (ifMatch, ...lines) =>
    fetch(location, {
      method: 'PATCH',
      headers: {
        authorization,
        'content-type': 'application/trickle-ice-sdpfrag',
        ...(ifMatch && { 'if-match': ifMatch }),
      },
      body: `${lines.join('\r\n')}\r\n`,
    });
  const credentials = [line(sdp, 'ice-ufrag'), line(sdp, 'ice-pwd')];
  const missing = (await ask(null, ...credentials)).status;
  const response = await ask('*', ...credentials, 'm=video 9 UDP/TLS/RTP/SAVPF 0', line(sdp, 'mid'));
  const fragment = await response.text();
  const fresh = ['ice-ufrag', 'ice-pwd'].reduce(
    (text, key) => text.replace(new RegExp(`^a=${key}:.*\\r$`, 'gm'), `${line(fragment, key)}\r`),
    answer,
  );
  await peer.setRemoteDescription({ type: 'answer', sdp: fresh });
  const candidate = 'a=candidate:1 1 udp 1 192.0.2.1 9 typ host';
  const newTag = response.headers.get('etag');
  const trickled = (await ask(newTag, ...credentials, candidate)).status;
  const stale = (await ask(tag, ...credentials, candidate)).status;
  for (;;) {
    const now = await seen();
    if (now.pair !== before.pair && now.ufrag !== before.ufrag) break;
    await new Promise((done) => setTimeout(done, 100));
  }
  await window.moving(await seen());
  return { status: response.status, missing, trickled, stale, tag, newTag, before, states, after: await seen() };
}

/** Makes `window.moving`: resolves when 30 more frames are decoded. Runs in the page. */
function prepare() {
  window.moving = async ({ frames }) => {
    while ((await window.watching.seen()).frames < frames + 30) {
      await new Promise((done) => setTimeout(done, 100));
    }
  };
}

const { plan } = await readPlan();
let code = 0;
let last;
try {
  const publisher = await open(plan);
  await within(STEP_MS, 'publishing', publisher.evaluate(startPublisher, plan));
  const player = await open(plan);
  await player.evaluate(prepare);
  await within(STEP_MS, 'watching', player.evaluate(watch, plan));
  say({ event: 'flowing' });
  last = { event: 'result', ...(await within(STEP_MS, 'restarting', player.evaluate(restart))) };
} catch (error) {
  last = { event: 'error', message: String(error?.stack ?? error) };
  code = 1;
}
await closeAll();
say(last);
process.exit(code);
