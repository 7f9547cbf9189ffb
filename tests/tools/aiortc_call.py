"""aiortc through the relay, publishing or playing over WHIP and WHEP.

One line of JSON on stdin is the plan, lines of JSON on stdout are events; see README.md here.
"""

import asyncio
import json
import ssl
import sys
import threading
import urllib.request

from aiortc import (
    MediaStreamTrack,
    RTCConfiguration,
    RTCIceServer,
    RTCIceTransportPolicy,
    RTCPeerConnection,
    RTCSessionDescription,
)

from aiortc_media import Bars, Tone

CONNECT_SECONDS = 60
FRAMES_BEFORE_FLOWING = 5


def say(event, **more):
    print(json.dumps({"event": event, **more}), flush=True)


class Gateway:
    def __init__(self, plan):
        # A bridge has a token, and is plain HTTP on loopback.
        self.base = plan.get("bridge", plan["page"]).rstrip("/")
        self.token = None if "bridge" in plan else plan["token"]
        self.trust = ssl.create_default_context(cafile=plan["ca"])

    def call(self, method, path, body=None):
        url = path if path.startswith("https:") else self.base + path
        request = urllib.request.Request(url, data=body, method=method)
        if self.token:
            request.add_header("Authorization", f"Bearer {self.token}")
        if body is not None:
            request.add_header("Content-Type", "application/sdp")
        with urllib.request.urlopen(request, timeout=20, context=self.trust) as response:
            return response.headers, response.read().decode()

    async def ask(self, *args):
        return await asyncio.to_thread(self.call, *args)


class Watcher:
    """Counts what arrives on a track."""

    def __init__(self):
        self.video = 0
        self.audio = 0
        self.pictures = set()
        self.brightness = 0.0
        self.size = (0, 0)
        self.flowing = asyncio.Event()

    async def drain(self, track: MediaStreamTrack):
        while True:
            try:
                frame = await track.recv()
            except Exception:  # the track ended: aiortc says so by its own exception
                return
            if track.kind == "audio":
                self.audio += 1
            else:
                self.video += 1
                grey = frame.to_ndarray(format="gray")
                self.size = (frame.width, frame.height)
                self.brightness = float(grey.mean())
                self.pictures.add(hash((grey[::8, ::8] // 4).tobytes()))
            if self.audio and self.video >= FRAMES_BEFORE_FLOWING:
                self.flowing.set()


def stdin_closed():
    """Set once the caller closes our stdin. A daemon thread: it must not outlive the loop."""
    loop = asyncio.get_running_loop()
    closed = asyncio.Event()

    def wait():
        sys.stdin.read()
        loop.call_soon_threadsafe(closed.set)

    threading.Thread(target=wait, daemon=True).start()
    return closed


async def configuration(plan, gateway):
    if "bridge" in plan:
        return RTCConfiguration(iceServers=[])
    _, text = await gateway.ask("GET", "/v1/ice")
    servers = [
        RTCIceServer(urls=s["urls"], username=s["username"], credential=s["credential"])
        for s in json.loads(text)["iceServers"]
    ]
    return RTCConfiguration(iceServers=servers, iceTransportPolicy=RTCIceTransportPolicy.RELAY)


async def perform(plan):
    closed = stdin_closed()
    gateway = Gateway(plan)
    peer = RTCPeerConnection(await configuration(plan, gateway))
    watcher = Watcher()
    tasks = []
    connected = asyncio.Event()

    @peer.on("connectionstatechange")
    def _state():
        if peer.connectionState == "connected":
            connected.set()

    publishing = plan["role"] == "publish"
    if publishing:
        peer.addTrack(Bars())
        peer.addTrack(Tone())
    else:
        peer.addTransceiver("video", direction="recvonly")
        peer.addTransceiver("audio", direction="recvonly")

        @peer.on("track")
        def _track(track):
            tasks.append(asyncio.create_task(watcher.drain(track)))

    await peer.setLocalDescription(await peer.createOffer())
    kind = "whip" if publishing else "whep"
    offer = peer.localDescription.sdp.encode()
    headers, answer = await gateway.ask("POST", f"/{kind}/{plan['name']}", offer)
    await peer.setRemoteDescription(RTCSessionDescription(sdp=answer, type="answer"))
    await asyncio.wait_for(connected.wait(), CONNECT_SECONDS)
    if not publishing:
        await asyncio.wait_for(watcher.flowing.wait(), CONNECT_SECONDS)
    say("flowing")

    before = watcher.video
    try:
        await asyncio.wait_for(closed.wait(), plan.get("seconds"))
    except TimeoutError:
        pass
    report = {
        "candidates": [
            line for line in peer.localDescription.sdp.splitlines() if line.startswith("a=candidate")
        ],
        "offer": offer.decode(),
        "answer": answer,
        "connection": peer.connectionState,
        "frames": watcher.video,
        "framesWhileWatching": watcher.video - before,
        "audioFrames": watcher.audio,
        "pictures": len(watcher.pictures),
        "brightness": watcher.brightness,
        "size": watcher.size,
    }
    if "Location" in headers:
        location = headers["Location"]
        await gateway.ask("DELETE", location)
    await peer.close()
    for task in tasks:
        task.cancel()
    say("result", **report)


def main():
    plan = json.loads(sys.stdin.readline())
    try:
        asyncio.run(perform(plan))
    except Exception as error:  # the caller reads one line, whatever went wrong
        detail = ""
        if hasattr(error, "read"):
            detail = error.read().decode(errors="replace")
        say("error", message=f"{type(error).__name__}: {error} {detail}")
        sys.exit(1)


main()
