// Where the picture and the sound come from, and what to say when there is none.

const CAMERA_WORDS = {
  NotAllowedError:
    'The browser was not allowed to use the camera and microphone. Allow them for this page ' +
    '(the icon at the left of the address), then try again.',
  SecurityError: 'The browser keeps the camera from this page.',
  NotFoundError:
    'No camera or microphone was found. Plug one in, or publish the test picture instead.',
  NotReadableError:
    'The camera or microphone is in use by another program. Close that program, then try again.',
  AbortError: 'The camera stopped before it was ready. Try again.',
  OverconstrainedError: 'This camera cannot deliver the picture asked for.',
};

/** Says why getUserMedia failed, in words a person can act on. */
export function cameraTrouble(error) {
  return CAMERA_WORDS[error?.name] ?? `The camera could not be used (${error?.name ?? error}).`;
}

/** Camera and microphone; only one of them where the other is missing. */
export async function camera(video = { width: { ideal: 1280 }, height: { ideal: 720 } }) {
  if (!navigator.mediaDevices?.getUserMedia) {
    throw new DOMException('insecure context', 'SecurityError');
  }
  const audio = { echoCancellation: true };
  try {
    return await navigator.mediaDevices.getUserMedia({ video, audio });
  } catch (error) {
    if (error.name !== 'NotFoundError') throw error;
    // A desktop without a microphone (or a headset without a camera) can still publish.
    for (const half of [{ video }, { audio }]) {
      try {
        return await navigator.mediaDevices.getUserMedia(half);
      } catch {
        // Try the other half; the first error is the one to report.
      }
    }
    throw error;
  }
}

/** A moving test picture with a soft tone: no camera needed. `stop()` frees it. */
export function testPicture({ width = 640, height = 360, framesPerSecond = 15 } = {}) {
  const canvas = document.createElement('canvas');
  canvas.width = width;
  canvas.height = height;
  const paint = canvas.getContext('2d');
  const bars = ['#f4f4f4', '#e8d44d', '#4dc4d8', '#4fb86a', '#c45fc0', '#d95a4e', '#4a63c9'];
  let frame = 0;
  const draw = () => {
    bars.forEach((colour, i) => {
      paint.fillStyle = colour;
      paint.fillRect(Math.floor((i * width) / bars.length), 0, Math.ceil(width / 7), height);
    });
    const x = width / 2 + (width / 3) * Math.cos(frame / 12);
    const y = height / 2 + (height / 4) * Math.sin(frame / 9);
    paint.fillStyle = '#15181d';
    paint.beginPath();
    paint.arc(x, y, height / 9, 0, 2 * Math.PI);
    paint.fill();
    paint.fillStyle = '#ffffff';
    paint.font = `${Math.round(height / 10)}px monospace`;
    paint.textAlign = 'center';
    paint.textBaseline = 'middle';
    paint.fillText(String(frame % 1000), x, y);
    frame += 1;
  };
  draw();
  const timer = setInterval(draw, 1000 / framesPerSecond);
  const stream = canvas.captureStream(framesPerSecond);

  const sound = new AudioContext();
  const tone = new OscillatorNode(sound, { frequency: 330 });
  const volume = new GainNode(sound, { gain: 0.05 });
  const out = new MediaStreamAudioDestinationNode(sound);
  tone.connect(volume).connect(out);
  tone.start();
  for (const track of out.stream.getAudioTracks()) stream.addTrack(track);

  const stop = () => {
    clearInterval(timer);
    for (const track of stream.getTracks()) track.stop();
    sound.close();
  };
  return { stream, stop };
}
