"""aiortc on a playing connection: the gateway offers, this answers.

As playing.mjs: requests are lines of JSON on stdin (the first is the plan, which says nothing
here), their answers go to stdout in the same order; the test carries the SDP in between.
"""

import asyncio
import json
import sys

from aiortc import (
    RTCConfiguration,
    RTCIceServer,
    RTCIceTransportPolicy,
    RTCPeerConnection,
    RTCSessionDescription,
)


class Viewer:
    def __init__(self):
        self.pc = None
        self.seen = {}

    async def drain(self, receiver, track):
        while True:
            try:
                frame = await track.recv()
            except Exception:  # the track ended: aiortc says so by its own exception
                return
            seen = self.seen.setdefault(receiver, {"frames": 0, "width": 0})
            seen["frames"] += 1
            seen["width"] = getattr(frame, "width", 0)

    def on_track(self, track):
        receiver = next(t.receiver for t in self.pc.getTransceivers() if t.receiver.track is track)
        asyncio.ensure_future(self.drain(receiver, track))

    async def offered(self, ice, sdp):
        if self.pc is None:
            server = RTCIceServer(
                urls=ice["urls"], username=ice["username"], credential=ice["credential"]
            )
            self.pc = RTCPeerConnection(
                RTCConfiguration(
                    iceServers=[server], iceTransportPolicy=RTCIceTransportPolicy.RELAY
                )
            )
            self.pc.on("track", self.on_track)
        await self.pc.setRemoteDescription(RTCSessionDescription(type="offer", sdp=sdp))
        await self.pc.setLocalDescription(await self.pc.createAnswer())
        return {"sdp": self.pc.localDescription.sdp}

    async def stats(self):
        tracks = [
            {"mid": t.mid, "kind": t.kind, **self.seen.get(t.receiver, {"frames": 0, "width": 0})}
            for t in self.pc.getTransceivers()
        ]
        return {"state": self.pc.connectionState, "tracks": tracks}


async def main():
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    await reader.readline()
    viewer = Viewer()
    while line := await reader.readline():
        request = json.loads(line)
        request.pop("page")
        try:
            answer = await getattr(viewer, request.pop("step"))(**request)
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)
    if viewer.pc:
        await viewer.pc.close()


asyncio.run(main())
