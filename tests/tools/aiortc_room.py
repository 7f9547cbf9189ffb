"""aiortc as a participant of a room: publishes and plays everybody, over /v1/signal.

One line of JSON on stdin is the plan ({page, ca, token, room, name, stream}), lines of JSON on
stdout are events; see README.md here. Each further line on stdin is a command: "look" prints what
has arrived of each stream so far; the end of stdin is goodbye.
"""

import asyncio
import json
import ssl
import sys
import threading

import websockets
from aiortc import (
    RTCConfiguration,
    RTCIceServer,
    RTCIceTransportPolicy,
    RTCPeerConnection,
    RTCSessionDescription,
)

from aiortc_media import Bars, Tone

STEP_SECONDS = 60


def say(event, **more):
    print(json.dumps({"event": event, **more}), flush=True)


def lines():
    """Lines of stdin as a queue; None at its end. A daemon thread: it must not outlive the loop."""
    loop = asyncio.get_running_loop()
    queue = asyncio.Queue()

    def read():
        for line in sys.stdin:
            loop.call_soon_threadsafe(queue.put_nowait, line.strip())
        loop.call_soon_threadsafe(queue.put_nowait, None)

    threading.Thread(target=read, daemon=True).start()
    return queue


class Room:
    def __init__(self, plan):
        self.plan = plan
        self.socket = None
        self.last_id = 0
        self.replies = {}
        self.config = None
        self.publishing = None
        self.playing = None
        self.by_mid = {}
        self.frames = {}
        self.draining = {}
        self.joined = None
        self.trouble = []

    async def open(self):
        trust = ssl.create_default_context(cafile=self.plan["ca"])
        url = self.plan["page"].rstrip("/").replace("https:", "wss:") + "/v1/signal"
        self.socket = await websockets.connect(url, ssl=trust, max_size=None)
        asyncio.create_task(self.listen())
        self.joined = await self.ask(
            "join",
            token=self.plan["token"],
            room=self.plan["room"],
            name=self.plan["name"],
        )
        ice = self.joined["ice"]
        servers = [
            RTCIceServer(urls=s["urls"], username=s["username"], credential=s["credential"])
            for s in ice["iceServers"]
        ]
        self.config = RTCConfiguration(
            iceServers=servers, iceTransportPolicy=RTCIceTransportPolicy.RELAY
        )

    async def ask(self, kind, **fields):
        self.last_id += 1
        number = self.last_id
        self.replies[number] = asyncio.get_running_loop().create_future()
        await self.socket.send(json.dumps({"type": kind, "id": number, **fields}))
        reply = await asyncio.wait_for(self.replies[number], STEP_SECONDS)
        if reply["type"] == "error":
            raise RuntimeError(f"{kind}: {reply['code']}: {reply['detail']}")
        return reply

    async def listen(self):
        offers = asyncio.Queue()
        asyncio.create_task(self.answer_all(offers))
        async for text in self.socket:
            message = json.loads(text)
            waiting = self.replies.pop(message.get("id"), None)
            if waiting is not None:
                waiting.set_result(message)
            elif message["type"] == "offer":
                offers.put_nowait(message)
            elif message["type"] in ("error", "connection_ended", "kicked"):
                self.trouble.append(message)

    async def answer_all(self, offers):
        while True:
            offer = await offers.get()
            try:
                await self.answer(offer)
            except Exception as error:  # the test reads it
                self.trouble.append({"type": "answering", "detail": repr(error)})

    async def answer(self, offer):
        while self.config is None:
            await asyncio.sleep(0.01)
        if offer["fresh"] or self.playing is None:
            if self.playing is not None:
                await self.playing.close()
            self.playing = RTCPeerConnection(self.config)
            self.draining = {}
        peer = self.playing
        await peer.setRemoteDescription(RTCSessionDescription(sdp=offer["sdp"], type="offer"))
        self.by_mid = {track["mid"]: track for track in offer["tracks"]}
        for transceiver in peer.getTransceivers():
            track = transceiver.receiver.track
            if transceiver.mid not in self.draining and track is not None:
                self.draining[transceiver.mid] = asyncio.create_task(
                    self.drain(transceiver.mid, track)
                )
        await peer.setLocalDescription(await peer.createAnswer())
        await self.ask("answer", revision=offer["revision"], sdp=peer.localDescription.sdp)

    async def drain(self, mid, track):
        while True:
            try:
                await track.recv()
            except Exception:  # the track ended: aiortc says so by its own exception
                self.draining.pop(mid, None)
                return
            now = self.by_mid.get(mid)
            if now is not None:
                key = (now["stream"], now["kind"])
                self.frames[key] = self.frames.get(key, 0) + 1

    async def publish(self):
        peer = RTCPeerConnection(self.config)
        self.publishing = peer
        peer.addTrack(Bars())
        peer.addTrack(Tone())
        await peer.setLocalDescription(await peer.createOffer())
        reply = await self.ask(
            "publish", stream=self.plan["stream"], sdp=peer.localDescription.sdp
        )
        await peer.setRemoteDescription(RTCSessionDescription(sdp=reply["sdp"], type="answer"))

    def look(self):
        streams = {}
        for (stream, kind), count in self.frames.items():
            streams.setdefault(stream, {})[kind] = count
        say(
            "look",
            streams=streams,
            publishing=self.publishing.connectionState if self.publishing else "none",
            playing=self.playing.connectionState if self.playing else "none",
            trouble=self.trouble,
        )

    async def leave(self):
        await self.ask("leave")
        for peer in (self.publishing, self.playing):
            if peer is not None:
                await peer.close()
        await self.socket.close()


async def perform(plan):
    commands = lines()
    room = Room(plan)
    await room.open()
    await room.publish()
    say("flowing")
    while (command := await commands.get()) is not None:
        if command == "look":
            room.look()
    await room.leave()
    say("result", trouble=room.trouble)


def main():
    plan = json.loads(sys.stdin.readline())
    try:
        asyncio.run(perform(plan))
    except Exception as error:  # the caller reads one line, whatever went wrong
        say("error", message=f"{type(error).__name__}: {error}")
        sys.exit(1)


main()
