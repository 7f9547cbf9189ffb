// The client: publish() and play() over WHIP (RFC 9725) and WHEP, join() for rooms over WSS,
// always through the relay. The one module to import, without dependencies: its parts are in the
// folder `veilgate` beside it.
//
//   import { publish, play } from './veilgate.js';
//   const session = publish({ name: 'lobby/cam1', token, stream });
//   session.addEventListener('state', ({ detail }) => console.log(detail.state));
//   await session.live;            // media flows, or it rejects with a VeilgateError
//   await session.close();
//
// A session mends itself: after a change of network it restarts ICE on a fresh credential, and
// where that does not help it starts anew, with growing pauses, until close() or until the gateway
// says that trying again cannot help (a bad token, an offer without a usable codec, ...).
//
// Every event is told twice: to listeners, with a `detail`, and to the option `on<event>`.

import { Room } from './veilgate/room.js';
import { Stream } from './veilgate/stream.js';

export { canEncrypt, newKey } from './veilgate/encrypted.js';
export { VeilgateError } from './veilgate/session.js';

/**
 * Publishes `stream` (a MediaStream) as `name` ("room/stream").
 *
 * `simulcast: true` sends the picture in three sizes (rids q, h, f), or in those of a list of
 * RTCRtpEncodingParameters; `scalability` in the layers of a mode ('L3T3_KEY'); `codec` ('vp8',
 * 'vp9', 'av1', 'h264', 'h265') is offered first; `key` (see newKey) encrypts end to end, with
 * vp8 or vp9; `transport` ('udp', 'tcp', 'tls') allows one way to the relay only.
 * @param {{name: string, token: string | (() => string | Promise<string>), stream: MediaStream,
 *   origin?: string, simulcast?: boolean | RTCRtpEncodingParameters[], scalability?: string,
 *   codec?: string, key?: string, transport?: string,
 *   onstate?: (state: string, detail: {error?: Error, retryInMs?: number}) => void}} options
 */
export function publish(options) {
  return new Stream('publish', options);
}

/**
 * Plays `name`; 'track' comes for each track, with one MediaStream a connection. With `key` only
 * what that key opens is shown; 'undecryptable' tells of the rest.
 * @param {{name: string, token: string | (() => string | Promise<string>), origin?: string,
 *   key?: string, transport?: string,
 *   ontrack?: (stream: MediaStream, track: MediaStreamTrack) => void,
 *   onundecryptable?: (detail: {reason: 'key' | 'clear' | 'damaged', frames: number}) => void,
 *   onstate?: (state: string, detail: {error?: Error, retryInMs?: number}) => void}} options
 */
export function play(options) {
  return new Stream('play', options);
}

/**
 * Joins `room` and plays what is in it; `subscribe: 'none'` plays nothing until subscribe() is
 * called. The methods and events are those of Room in veilgate/room.js; with `key` everything one
 * publishes and plays is encrypted end to end.
 * @param {{room: string, token: string | (() => string | Promise<string>), name?: string,
 *   origin?: string, subscribe?: 'all' | 'none', key?: string, transport?: string}} options
 */
export function join(options) {
  return new Room(options);
}
