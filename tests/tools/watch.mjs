// Chromium publishes a source of a known kind, or plays and is watched closely: every 100 ms its
// statistics are taken in the page. By WHIP and WHEP directly, so that what a test asks of a browser
// (encodings, a codec) is not what our own module makes of it. See README.md here.

import { CLOSE_MS, LAUNCH_MS, closeAll, launch, readPlan, say, within } from './browsers.mjs';

const FLOWING_MS = 90_000;
const PULL_MS = 500;

/** In the page: one connection, publishing or playing. */
async function connect(who) {
  const bearer = { authorization: `Bearer ${who.token}` };
  const { iceServers } = await (await fetch('/v1/ice', { headers: bearer })).json();
  const peer = new RTCPeerConnection({
    iceServers,
    iceTransportPolicy: 'relay',
    bundlePolicy: 'max-bundle',
  });
  const test = { peer, samples: [], video: null };
  window.veilgateTest = test;
  if (who.publish) {
    const { width, height, fps, canvas, noise, encodings, codec, profile } = who.publish;
    let stream;
    if (canvas) {
      const element = document.createElement('canvas');
      Object.assign(element, { width, height });
      document.body.append(element);
      const paint = element.getContext('2d');
      const grain = paint.createImageData(noise, noise);
      let frame = 0;
      // Noise cannot be predicted: the encoder spends whatever it is allowed to.
      const draw = () => {
        frame += 1;
        paint.fillStyle = `hsl(${(frame * 3) % 360} 60% 50%)`;
        paint.fillRect(0, 0, width, height);
        for (let i = 0; i < grain.data.length; i += 1) grain.data[i] = Math.random() * 256;
        paint.putImageData(grain, (frame * 5) % (width - noise + 1), (frame * 2) % (height - noise + 1));
      };
      setInterval(draw, 1000 / fps);
      // A frame for each time it is painted: a rate of its own would beat against that.
      stream = element.captureStream();
      const microphone = await navigator.mediaDevices.getUserMedia({ audio: true });
      for (const track of microphone.getTracks()) stream.addTrack(track);
    } else {
      const video = { width, height, frameRate: fps };
      stream = await navigator.mediaDevices.getUserMedia({ video, audio: true });
    }
    for (const track of stream.getTracks()) {
      const video = track.kind === 'video';
      const transceiver = peer.addTransceiver(track, {
        direction: 'sendonly',
        streams: [stream],
        ...(video && encodings ? { sendEncodings: encodings } : {}),
      });
      if (video && codec) {
        const all = RTCRtpSender.getCapabilities('video').codecs;
        const wanted = all.filter(
          (c) => c.mimeType === `video/${codec}` && (c.sdpFmtpLine ?? '').includes(profile ?? ''),
        );
        if (!wanted.length) throw new Error(`this browser has no ${codec} ${profile ?? ''}`);
        const rest = all.filter((c) => ['video/rtx', 'video/red', 'video/ulpfec'].includes(c.mimeType));
        transceiver.setCodecPreferences([...wanted, ...rest]);
      }
    }
  } else {
    test.video = document.createElement('video');
    Object.assign(test.video, { autoplay: true, playsInline: true, muted: true });
    document.body.append(test.video);
    const target = new MediaStream();
    peer.addEventListener('track', ({ track }) => {
      target.addTrack(track);
      test.video.srcObject ??= target;
    });
    peer.addTransceiver('video', { direction: 'recvonly' });
    peer.addTransceiver('audio', { direction: 'recvonly' });
  }
  await peer.setLocalDescription();
  const response = await fetch(`/${who.publish ? 'whip' : 'whep'}/${who.name}`, {
    method: 'POST',
    headers: { ...bearer, 'content-type': 'application/sdp' },
    body: peer.localDescription.sdp,
  });
  const text = await response.text();
  if (!response.ok) throw new Error(`${response.status}: ${text}`);
  test.resource = response.headers.get('location');
  test.close = async () => {
    peer.close();
    await fetch(test.resource, { method: 'DELETE', headers: bearer, keepalive: true });
  };
  await peer.setRemoteDescription({ type: 'answer', sdp: text });
  const kind = who.publish ? 'outbound-rtp' : 'inbound-rtp';
  const number = who.publish ? 'framesEncoded' : 'framesDecoded';
  const take = async () => {
    const reports = [...(await peer.getStats()).values()];
    const codecs = new Map(reports.filter((r) => r.type === 'codec').map((r) => [r.id, r]));
    const all = reports
      .filter((report) => report.type === kind && report.kind === 'video')
      .map((report) => {
        const { mimeType, sdpFmtpLine } = codecs.get(report.codecId) ?? {};
        return { ...report, codec: mimeType ?? null, fmtp: sdpFmtpLine ?? '' };
      });
    const audio = reports.find((report) => report.type === kind && report.kind === 'audio') ?? {};
    // The sum over the layers of a simulcast publisher; a player has one.
    const frames = all.reduce((sum, report) => sum + (report[number] ?? 0), 0);
    return { at: Date.now(), frames, video: all, audio };
  };
  let busy = false;
  setInterval(async () => {
    if (busy) return;
    busy = true;
    try {
      test.samples.push(await take());
    } finally {
      busy = false;
    }
  }, 100);
  while (!test.samples.some((sample) => sample.frames > 0)) {
    if (peer.connectionState === 'failed') throw new Error('no path to the gateway');
    await new Promise((done) => setTimeout(done, 100));
  }
}

async function perform(plan, ended) {
  const pages = [];
  let browser;
  for (const who of plan.pages) {
    if (!browser || !plan.share) browser = await launch('chromium', plan.folder, { ca: plan.ca });
    const page = await browser.newPage();
    page.on('pageerror', (error) => process.stderr.write(`${who.as}: ${error.message}\n`));
    await page.goto(plan.page, { waitUntil: 'load', timeout: LAUNCH_MS });
    pages.push({ page, who });
    await within(FLOWING_MS, `${who.as} starting`, page.evaluate(connect, who));
  }
  say({ event: 'flowing' });
  while (!ended.now) {
    for (const { page, who } of pages) {
      const pull = page.evaluate(() => window.veilgateTest.samples.splice(0));
      for (const sample of await within(FLOWING_MS, 'measuring', pull)) {
        say({ event: 'sample', as: who.as, ...sample });
      }
    }
    await Promise.race([new Promise((done) => setTimeout(done, PULL_MS)), ended.promise]);
  }
  for (const { page } of pages) {
    await within(CLOSE_MS, 'saying goodbye', page.evaluate(() => window.veilgateTest.close())).catch(() => {});
  }
  return { event: 'result' };
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
