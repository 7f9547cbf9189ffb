// One page that publishes with simulcast and plays its stream three times, each pinned to another
// layer, over raw peer connections; then players change layers. The plan is {page, folder, ca,
// browser, name, token, encodings, pins, moves}; the result says what each player saw, when.

import { LAUNCH_MS, closeAll, launch, readPlan, say, within } from './browsers.mjs';

const STEP_MS = 60_000;

/** In the page: the tools of the scenario, under `window.scene`. */
function prepare({ name, token, encodings, codec, video }) {
  const headers = { authorization: `Bearer ${token}` };

  async function connect(path, peer) {
    await peer.setLocalDescription();
    // The gateway needs no candidates of ours: it hears from them.
    const response = await fetch(path, {
      method: 'POST',
      headers: { ...headers, 'content-type': 'application/sdp' },
      body: peer.localDescription.sdp,
    });
    if (!response.ok) throw new Error(`${path}: ${response.status} ${await response.text()}`);
    await peer.setRemoteDescription({ type: 'answer', sdp: await response.text() });
    const connected = () => peer.connectionState === 'connected';
    while (!connected()) await new Promise((done) => setTimeout(done, 50));
    return response.headers.get('location');
  }

  async function peer() {
    const response = await fetch('/v1/ice', { headers });
    return new RTCPeerConnection(await response.json());
  }

  const prefer = (transceiver, kind) => {
    if (!codec) return;
    const all = kind.getCapabilities('video').codecs;
    const wanted = all.filter((c) => c.mimeType.toLowerCase() === `video/${codec}`);
    transceiver.setCodecPreferences([...wanted, ...all.filter((c) => /rtx/.test(c.mimeType))]);
  };

  const players = [];
  let publisher;
  let sender;

  window.scene = {
    async publish() {
      publisher = await peer();
      const stream = await navigator.mediaDevices.getUserMedia({ video, audio: true });
      publisher.addTrack(stream.getAudioTracks()[0], stream);
      const [track] = stream.getVideoTracks();
      const transceiver = publisher.addTransceiver(track, {
        direction: 'sendonly',
        streams: [stream],
        sendEncodings: encodings,
      });
      prefer(transceiver, RTCRtpSender);
      sender = transceiver.sender;
      await connect(`/whip/${name}`, publisher);
    },

    /** Turns an encoding of the publisher on or off. */
    async encode(rid, active) {
      const parameters = sender.getParameters();
      for (const encoding of parameters.encodings) {
        if (encoding.rid === rid) encoding.active = active;
      }
      await sender.setParameters(parameters);
    },

    async play() {
      const link = await peer();
      const video = document.createElement('video');
      Object.assign(video, { autoplay: true, muted: true, playsInline: true });
      document.body.append(video);
      const target = new MediaStream();
      link.addTransceiver('audio', { direction: 'recvonly' });
      const receiving = link.addTransceiver('video', { direction: 'recvonly' });
      prefer(receiving, RTCRtpReceiver);
      // Without it Chromium decodes only the lowest spatial layer of AV1.
      const extensions = receiving.getHeaderExtensionsToNegotiate?.() ?? [];
      const descriptor = extensions.find((e) => /dependency-descriptor/.test(e.uri));
      if (descriptor && codec === 'av1') {
        descriptor.direction = 'sendrecv';
        receiving.setHeaderExtensionsToNegotiate(extensions);
      }
      link.ontrack = ({ track }) => {
        target.addTrack(track);
        video.srcObject = target;
        video.play().catch(() => {});
      };
      const player = { link, video, frames: [] };
      const frame = (now) => {
        player.frames.push([now, video.videoWidth]);
        video.requestVideoFrameCallback(frame);
      };
      video.requestVideoFrameCallback?.(frame);
      player.resource = await connect(`/whep/${name}`, link);
      players.push(player);
    },

    /** What the player of this number wishes; the status of the answer. */
    async wish(number, wish) {
      const response = await fetch(`${players[number].resource}/layer`, {
        method: 'POST',
        headers: { ...headers, 'content-type': 'application/json' },
        body: JSON.stringify(wish),
      });
      return response.status;
    },

    /** Resolves once a player shows this width. */
    async shows(number, width) {
      const { video } = players[number];
      while (video.videoWidth !== width) await new Promise((done) => setTimeout(done, 20));
    },

    async stays(ms) {
      await new Promise((done) => setTimeout(done, ms));
    },

    /** Counters of a player's video, and the longest time without a new frame since `from`. */
    async measure(number, from) {
      const { link, video, frames } = players[number];
      const reports = [...(await link.getStats()).values()];
      const inbound = reports.find((r) => r.type === 'inbound-rtp' && r.kind === 'video') ?? {};
      const times = frames.map(([at]) => at);
      const first = times.findIndex((at) => at >= from);
      const shown = first < 0 ? [] : times.slice(first);
      // With the wait for the first of them.
      const gaps = shown.map((at, i) => at - times[Math.max(0, first + i - 1)]);
      return {
        width: video.videoWidth,
        framesDecoded: inbound.framesDecoded,
        framesDropped: inbound.framesDropped,
        keyFramesDecoded: inbound.keyFramesDecoded,
        freezes: inbound.freezeCount,
        plis: inbound.pliCount,
        nacks: inbound.nackCount,
        lost: inbound.packetsLost,
        retransmitted: inbound.retransmittedPacketsReceived,
        longestGap: Math.max(0, ...gaps),
        frames: shown.length,
      };
    },

    async sent() {
      const reports = [...(await publisher.getStats()).values()];
      const outbound = reports.filter((r) => r.type === 'outbound-rtp' && r.kind === 'video');
      return outbound.map((r) => ({
        rid: r.rid,
        mode: r.scalabilityMode,
        width: r.frameWidth,
        framesEncoded: r.framesEncoded,
        bytes: r.bytesSent,
        fps: r.framesPerSecond,
        plis: r.pliCount,
        limited: r.qualityLimitationReason,
      }));
    },

    now: () => performance.now(),

    async close() {
      for (const { link, resource } of players) {
        await fetch(resource, { method: 'DELETE', headers });
        link.close();
      }
      publisher.close();
    },
  };
}

async function perform(plan) {
  const browser = await launch(plan.browser ?? 'chromium', plan.folder, { ca: plan.ca });
  const page = await browser.newPage();
  page.on('pageerror', (error) => process.stderr.write(`page: ${error.message}\n`));
  await page.goto(plan.page, { waitUntil: 'load', timeout: LAUNCH_MS });
  await page.evaluate(prepare, plan);
  const call = async (what, ...args) => {
    const run = page.evaluate((name, given) => window.scene[name](...given), what, args);
    try {
      return await within(STEP_MS, `${what} ${JSON.stringify(args)}`, run);
    } catch (error) {
      const seen = await page.evaluate(() => window.scene.sent()).catch(() => 'nothing');
      throw new Error(`${error.message}; sent ${JSON.stringify(seen)}`);
    }
  };
  const steps = [];
  await call('publish');
  for (let i = 0; i < plan.players; i++) await call('play');
  for (const step of plan.steps) {
    const from = await call('now');
    const [what, ...args] = step;
    const answer = await call(what, ...args);
    const took = (await call('now')) - from;
    const seen = [];
    for (let i = 0; i < plan.players; i++) seen.push(await call('measure', i, from));
    steps.push({ step, answer, took, seen });
    if (plan.trace) process.stderr.write(`${JSON.stringify({ step, answer, took, seen })}\n`);
  }
  const sent = await call('sent');
  await call('close');
  return { event: 'result', steps, sent };
}

const { plan } = await readPlan();
let code = 0;
let last;
try {
  last = await perform(plan);
} catch (error) {
  last = { event: 'error', message: String(error?.stack ?? error) };
  code = 1;
}
await closeAll();
say(last);
process.exit(code);
