// What goes out, and how: codecs, simulcast, layers.

import { VeilgateError } from './session.js';

const CODECS = { vp8: 'video/vp8', vp9: 'video/vp9', av1: 'video/av1', h264: 'video/h264', h265: 'video/h265' };

/** Puts a codec first; `alone` leaves it no company but retransmission. */
function prefer(transceiver, codec, alone) {
  const { codecs } = RTCRtpSender.getCapabilities('video');
  const named = (kind) => codecs.filter(({ mimeType }) => mimeType.toLowerCase() === kind);
  const wanted = named(CODECS[codec] ?? codec);
  if (wanted.length === 0) {
    throw new VeilgateError('codec_missing', `This browser cannot send ${codec}.`);
  }
  const rest = alone ? named('video/rtx') : codecs.filter((other) => !wanted.includes(other));
  transceiver.setCodecPreferences([...wanted, ...rest]);
}

/** Bits per second that do a picture of this height justice. */
function rate(height) {
  const steps = [[1080, 3e6], [720, 1.7e6], [480, 9e5], [360, 6e5], [180, 2e5]];
  return steps.find(([from]) => height >= from)?.[1] ?? 1e5;
}

/** What to send of a video track: one encoding, three by rid (RFC 8853), or one in layers. */
function encodings(track, { simulcast, scalability, codec }) {
  if (Array.isArray(simulcast)) return simulcast;
  if (scalability) return [{ scalabilityMode: scalability }];
  if (!simulcast) return undefined;
  const height = track.getSettings().height ?? 720;
  // VP9 and AV1 would make spatial layers of one stream of it.
  const flat = codec === 'vp9' || codec === 'av1' ? { scalabilityMode: 'L1T1' } : {};
  return [4, 2, 1].map((scale, i) => ({
    rid: 'qhf'[i],
    scaleResolutionDownBy: scale,
    maxBitrate: rate(height / scale),
    ...flat,
  }));
}

/** Sends a MediaStream's tracks on `peer`, each by a transceiver of its own. */
export function send(peer, stream, options, keys) {
  return stream.getTracks().map((track) => {
    const init = { direction: 'sendonly', streams: [stream] };
    const layers = track.kind === 'video' ? encodings(track, options) : undefined;
    if (layers) init.sendEncodings = layers;
    const transceiver = peer.addTransceiver(track, init);
    const codec = options.codec ?? (keys ? 'vp8' : undefined);
    if (track.kind === 'video' && codec) prefer(transceiver, codec, Boolean(keys));
    keys?.seal(transceiver.sender, codec);
    return transceiver;
  });
}
