// The card of a sealed call: a button, two pictures, the state in words, the code to compare.

import { camera, cameraTrouble, testPicture } from './media.js';
import { sealedCall } from './sealed.js';

const WORDS = {
  connecting: 'Connecting…',
  alone: 'Waiting for the other person. Send them the link of this room.',
  live: 'Live, sealed from end to end.',
  failed: 'The call could not be made.',
};

/** Wires the card up; `values()` gives `{room, token}`, or null when the form is not complete. */
export function sealedCard(root, values) {
  const button = root.querySelector('.go');
  const state = root.querySelector('.state');
  const troubleLine = root.querySelector('.trouble');
  const code = root.querySelector('.code');
  const mine = root.querySelector('video.mine');
  const theirs = root.querySelector('video.theirs');
  let call = null;
  let source = null;

  const trouble = (text) => {
    troubleLine.textContent = text;
    troubleLine.hidden = text === '';
  };
  const pressed = (on) => {
    button.setAttribute('aria-pressed', String(on));
    button.textContent = on ? 'Leave' : 'Join';
  };
  const over = () => {
    call = null;
    pressed(false);
    code.closest('p').hidden = true;
    mine.srcObject = null;
    theirs.srcObject = null;
    source?.stop?.();
    for (const track of source?.stream.getTracks() ?? []) track.stop();
    source = null;
  };
  const onstate = (name, { code: digits, error, byOther } = {}) => {
    state.dataset.state = name;
    state.textContent = WORDS[name] ?? (byOther ? 'The other person left.' : 'You left.');
    if (name === 'live') {
      code.textContent = digits;
      code.closest('p').hidden = false;
      trouble('');
    }
    if (name === 'failed') trouble(error?.message ?? String(error));
    if (name === 'failed' || name === 'stopped') over();
  };

  button.addEventListener('click', async () => {
    button.disabled = true;
    try {
      if (call) {
        await call.close();
      } else {
        trouble('');
        const given = values();
        if (given) {
          const test = root.querySelector('input[value=test]').checked;
          source = test ? testPicture() : { stream: await camera() };
          mine.srcObject = source.stream;
          const ontrack = (stream) => {
            theirs.srcObject = stream;
          };
          call = sealedCall({ ...given, stream: source.stream, onstate, ontrack });
          pressed(true);
        }
      }
    } catch (error) {
      trouble(cameraTrouble(error));
    }
    button.disabled = false;
  });
  addEventListener('pagehide', () => call?.leave());
}
