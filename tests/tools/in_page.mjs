// Functions that run inside the page (each must stand alone: its text is sent to the browser).
// They publish and play through the page's own module, so that the module is what is tested.

/** Publishes the fake camera and microphone. */
export async function startPublisher(who) {
  const base = document.querySelector('script[type=module][src]').src;
  const { publish } = await import(new URL('veilgate.js', base).href);
  const stream = await navigator.mediaDevices.getUserMedia({
    // Small and slow: software encoders and decoders share two cores.
    video: { width: 320, height: 240, frameRate: 15 },
    audio: true,
  });
  const states = [];
  const session = publish({
    name: who.name,
    token: who.token,
    transport: who.transport,
    stream,
    onstate: (state, detail) => states.push([state, detail?.error?.message ?? '']),
  });
  window.veilgateTest = { session, states };
  await session.live;
}

/** Plays a stream into a <video>; `direct` tries it without a relay, as nobody should. */
export async function startPlayer(who) {
  const base = document.querySelector('script[type=module][src]').src;
  const video = document.createElement('video');
  video.autoplay = true;
  video.playsInline = true;
  document.body.append(video);
  const show = (stream) => {
    if (video.srcObject !== stream) {
      video.srcObject = stream;
      video.play().catch(() => {});
    }
  };
  const states = [];
  if (who.direct) {
    const peer = new RTCPeerConnection({ iceServers: [], iceTransportPolicy: 'all' });
    peer.addTransceiver('video', { direction: 'recvonly' });
    peer.addTransceiver('audio', { direction: 'recvonly' });
    const target = new MediaStream();
    peer.ontrack = ({ track }) => {
      target.addTrack(track);
      show(target);
    };
    await peer.setLocalDescription();
    const response = await fetch(`/whep/${who.name}`, {
      method: 'POST',
      headers: { authorization: `Bearer ${who.token}`, 'content-type': 'application/sdp' },
      body: peer.localDescription.sdp,
    });
    states.push(['answered', String(response.status)]);
    if (response.ok) await peer.setRemoteDescription({ type: 'answer', sdp: await response.text() });
    const session = { peer, stats: () => peer.getStats(), close: async () => peer.close() };
    window.veilgateTest = { session, states, video };
    return;
  }
  const { play } = await import(new URL('veilgate.js', base).href);
  const session = play({
    name: who.name,
    token: who.token,
    transport: who.transport,
    ontrack: show,
    onstate: (state, detail) => states.push([state, detail?.error?.message ?? '']),
  });
  window.veilgateTest = { session, states, video };
  await session.live;
}

/** Resolves once pictures are decoded and audio packets arrive; the driver bounds the wait. */
export async function waitForMedia() {
  const { session } = window.veilgateTest;
  for (;;) {
    let frames = 0;
    let audio = 0;
    for (const report of (await session.stats())?.values() ?? []) {
      if (report.type !== 'inbound-rtp') continue;
      if (report.kind === 'video') frames = report.framesDecoded ?? 0;
      if (report.kind === 'audio') audio = report.packetsReceived ?? 0;
    }
    if (frames > 0 && audio > 0) return;
    await new Promise((done) => setTimeout(done, 100));
  }
}

/** What a player has received so far: counters, pixels, transport. */
export async function measurePlayer() {
  const { session, states, video } = window.veilgateTest;
  const reports = [...((await session.stats())?.values() ?? [])];
  const of = (type) => reports.filter((report) => report.type === type);
  const inbound = (kind) => of('inbound-rtp').find((report) => report.kind === kind) ?? {};
  const canvas = document.createElement('canvas');
  canvas.width = 40;
  canvas.height = 30;
  const paint = canvas.getContext('2d', { willReadFrequently: true });
  let brightness = 0;
  let picture = '';
  if (video.videoWidth > 0) {
    paint.drawImage(video, 0, 0, canvas.width, canvas.height);
    const { data } = paint.getImageData(0, 0, canvas.width, canvas.height);
    let sum = 0;
    let hash = 0;
    for (let i = 0; i < data.length; i += 4) {
      const light = 0.3 * data[i] + 0.59 * data[i + 1] + 0.11 * data[i + 2];
      sum += light;
      hash = (Math.imul(hash, 31) + Math.round(light / 4)) | 0;
    }
    brightness = sum / (data.length / 4);
    picture = String(hash);
  }
  const pairs = of('candidate-pair');
  const transport = of('transport')[0] ?? {};
  const pair =
    pairs.find((p) => p.id === transport.selectedCandidatePairId) ?? pairs.find((p) => p.selected);
  const pick = (c) =>
    c && {
      type: c.candidateType,
      address: c.address ?? c.ip,
      port: c.port,
      protocol: c.protocol,
      relayProtocol: c.relayProtocol,
    };
  const byId = (id) => pick(reports.find((report) => report.id === id));
  return {
    states,
    connection: session.peer?.connectionState ?? 'none',
    framesDecoded: inbound('video').framesDecoded ?? 0,
    videoPackets: inbound('video').packetsReceived ?? 0,
    audioPackets: inbound('audio').packetsReceived ?? 0,
    audioEnergy: inbound('audio').totalAudioEnergy ?? null,
    packetsLost: inbound('video').packetsLost ?? 0,
    width: video.videoWidth,
    height: video.videoHeight,
    brightness,
    picture,
    local: of('local-candidate').map(pick),
    remote: of('remote-candidate').map(pick),
    selected: pair && { local: byId(pair.localCandidateId), remote: byId(pair.remoteCandidateId) },
    tlsVersion: transport.tlsVersion ?? null,
    dtlsCipher: transport.dtlsCipher ?? null,
    srtpCipher: transport.srtpCipher ?? null,
  };
}

/** What a publisher has sent so far. */
export async function measurePublisher() {
  const { session, states } = window.veilgateTest;
  const reports = [...((await session.stats())?.values() ?? [])];
  const of = (type) => reports.filter((report) => report.type === type);
  const outbound = (kind) => of('outbound-rtp').find((report) => report.kind === kind) ?? {};
  const transport = of('transport')[0] ?? {};
  const pairs = of('candidate-pair');
  const pair =
    pairs.find((p) => p.id === transport.selectedCandidatePairId) ?? pairs.find((p) => p.selected);
  const pick = (c) =>
    c && {
      type: c.candidateType,
      address: c.address ?? c.ip,
      port: c.port,
      protocol: c.protocol,
      relayProtocol: c.relayProtocol,
    };
  const byId = (id) => pick(reports.find((report) => report.id === id));
  return {
    states,
    connection: session.peer?.connectionState ?? 'none',
    framesEncoded: outbound('video').framesEncoded ?? 0,
    videoPackets: outbound('video').packetsSent ?? 0,
    audioPackets: outbound('audio').packetsSent ?? 0,
    local: of('local-candidate').map(pick),
    remote: of('remote-candidate').map(pick),
    selected: pair && { local: byId(pair.localCandidateId), remote: byId(pair.remoteCandidateId) },
    tlsVersion: transport.tlsVersion ?? null,
    dtlsCipher: transport.dtlsCipher ?? null,
    srtpCipher: transport.srtpCipher ?? null,
  };
}
