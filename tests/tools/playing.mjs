// A browser on playing connections: the gateway offers, the page answers. Requests come as lines of
// JSON on stdin (the first is the plan), their answers go to stdout in the same order; the test
// carries the SDP in between.

import { closeAll, launch, readLines, say, within } from './browsers.mjs';

const STEP_MS = 60_000;

/** What a page can be asked; each function runs inside it. */
const STEPS = {
  /** A publisher's offer; its picture is of one colour. */
  async publish({ ice, width, codec }) {
    const canvas = document.createElement('canvas');
    [canvas.width, canvas.height] = [width, 120];
    const context = canvas.getContext('2d');
    let n = 0;
    setInterval(() => {
      context.fillStyle = `hsl(${(n += 10) % 360} 80% 50%)`;
      context.fillRect(0, 0, canvas.width, canvas.height);
    }, 100);
    const pc = new RTCPeerConnection({ iceServers: [ice], iceTransportPolicy: 'relay' });
    const sound = await navigator.mediaDevices.getUserMedia({ audio: true });
    pc.addTransceiver(sound.getAudioTracks()[0], { direction: 'sendonly' });
    const video = pc.addTransceiver(canvas.captureStream(10).getVideoTracks()[0], {
      direction: 'sendonly',
    });
    const all = RTCRtpSender.getCapabilities('video').codecs;
    const wanted = all.filter((it) => it.mimeType === codec || it.mimeType === 'video/rtx');
    video.setCodecPreferences(wanted);
    await pc.setLocalDescription();
    window.pc = pc;
    return { sdp: pc.localDescription.sdp };
  },
  async answered({ sdp }) {
    await window.pc.setRemoteDescription({ type: 'answer', sdp });
    return {};
  },
  /** Takes an offer of the gateway and answers it. */
  async offered({ ice, sdp }) {
    if (!window.pc) {
      window.pc = new RTCPeerConnection({ iceServers: [ice], iceTransportPolicy: 'relay' });
      window.pc.ontrack = ({ track, streams }) => {
        const element = document.createElement(track.kind);
        element.autoplay = true;
        element.muted = true;
        element.srcObject = new MediaStream([track]);
        document.body.append(element);
        window.streams = [...(window.streams ?? []), streams.map((it) => it.id)];
      };
    }
    await window.pc.setRemoteDescription({ type: 'offer', sdp });
    await window.pc.setLocalDescription();
    return { sdp: window.pc.localDescription.sdp };
  },
  /** What has been decoded, by mid. */
  async stats() {
    const stats = [...(await window.pc.getStats()).values()];
    const inbound = stats.filter((it) => it.type === 'inbound-rtp');
    const tracks = inbound.map((it) => ({
      mid: it.mid,
      kind: it.kind,
      ssrc: it.ssrc,
      packets: it.packetsReceived ?? 0,
      frames: it.framesDecoded ?? 0,
      width: it.frameWidth ?? 0,
    }));
    const { connectionState: state } = window.pc;
    const transceivers = window.pc.getTransceivers().map((it) => [it.mid, it.currentDirection]);
    return { state, tracks, transceivers, streams: window.streams ?? [] };
  },
};

const lines = readLines();
const plan = JSON.parse((await lines.next()).value);
let code = 0;
try {
  const browser = await launch(plan.browser, plan.folder);
  const pages = new Map();
  // Capture needs a secure context: localhost is one, and nobody answers there but the test.
  for (;;) {
    const { value, done } = await lines.next();
    if (done) break;
    const { page: name, step, ...more } = JSON.parse(value);
    if (!pages.has(name)) {
      const page = await browser.newPage();
      await page.goto(plan.page);
      pages.set(name, page);
    }
    say(await within(STEP_MS, step, pages.get(name).evaluate(STEPS[step], more)));
  }
} catch (error) {
  say({ error: String(error?.stack ?? error) });
  code = 1;
}
await closeAll();
process.exit(code);
