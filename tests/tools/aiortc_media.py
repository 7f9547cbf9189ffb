"""What aiortc publishes in the tests: a picture that moves, and a tone."""

import fractions

import av
import numpy
from aiortc import VideoStreamTrack
from aiortc.mediastreams import AudioStreamTrack


class Bars(VideoStreamTrack):
    """A bright bar that wanders over a grey ground."""

    count = 0

    async def recv(self):
        pts, time_base = await self.next_timestamp()
        picture = numpy.full((240, 320, 3), 90, dtype=numpy.uint8)
        left = (self.count * 4) % 280
        picture[:, left : left + 40] = (230, 200, 60)
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        frame.pts, frame.time_base = pts, time_base
        self.count += 1
        return frame


class Tone(AudioStreamTrack):
    """A tone instead of silence: 20 ms of 48 kHz mono at a time."""

    phase = 0

    async def recv(self):
        silence = await super().recv()
        rate, samples = silence.sample_rate, silence.samples
        steps = numpy.arange(self.phase, self.phase + samples)
        self.phase += samples
        wave = (8000 * numpy.sin(2 * numpy.pi * 440 * steps / rate)).astype(numpy.int16)
        frame = av.AudioFrame.from_ndarray(wave.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate = rate
        frame.pts, frame.time_base = silence.pts, fractions.Fraction(1, rate)
        return frame
