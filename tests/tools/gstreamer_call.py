"""GStreamer's webrtcbin through the relay, publishing over WHIP.

One line of JSON on stdin is the plan, lines of JSON on stdout are events; see README.md here.
Debian's Python runs this: it is the one that has GStreamer's bindings.
"""

import json
import os
import ssl
import sys
import threading
import urllib.parse
import urllib.request

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstSdp", "1.0")
gi.require_version("GstWebRTC", "1.0")
from gi.repository import GLib, Gst, GstSdp, GstWebRTC  # noqa: E402

CONNECT_SECONDS = 60
PIPELINE = """
webrtcbin name=peer bundle-policy=max-bundle ice-transport-policy={policy}
videotestsrc is-live=true pattern=ball background-color=0xff707070
  ! video/x-raw,width=320,height=240,framerate=15/1
  ! vp8enc deadline=1 cpu-used=8 target-bitrate=300000 ! rtpvp8pay
  ! application/x-rtp,media=video,encoding-name=VP8,payload=96 ! peer.
audiotestsrc is-live=true ! opusenc ! rtpopuspay
  ! application/x-rtp,media=audio,encoding-name=OPUS,payload=97 ! peer.
"""


# libnice writes its own messages to stdout: the events' is another one.
EVENTS = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)


def say(event, **more):
    print(json.dumps({"event": event, **more}), file=EVENTS, flush=True)


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


def turn_server(gateway, transport):
    """webrtcbin takes one URL with the credential in it; ours has `:` and base64 in it."""
    server = json.loads(gateway.call("GET", "/v1/ice")[1])["iceServers"][0]
    url = next(url for url in server["urls"] if url.endswith(f"transport={transport}"))
    scheme, rest = url.split(":", 1)
    user, password = (
        urllib.parse.quote(server[part], safe="") for part in ("username", "credential")
    )
    return f"{scheme}://{user}:{password}@{rest}"


class Publisher:
    def __init__(self, plan, loop):
        self.plan = plan
        self.loop = loop
        self.gateway = Gateway(plan)
        self.location = None
        self.answer = ""
        self.offer = ""
        self.candidates = []
        self.flowing = False
        self.failure = None
        policy = "all" if "bridge" in plan else "relay"
        self.pipeline = Gst.parse_launch(PIPELINE.format(policy=policy))
        self.peer = self.pipeline.get_by_name("peer")
        if "localIp" in plan:
            # libnice leaves loopback out, and its sockets reach only their own interface.
            # Kept: it comes with a floating reference, which Python would take and drop.
            self.ice = self.peer.get_property("ice-agent")
            self.ice.emit("add-local-ip-address", plan["localIp"])
        if "bridge" not in plan:
            transport = plan.get("transport", "udp")
            self.peer.set_property("turn-server", turn_server(self.gateway, transport))
        self.peer.connect("on-negotiation-needed", self.on_negotiation_needed)
        self.peer.connect("on-ice-candidate", self.on_candidate)
        self.peer.connect("notify::connection-state", self.on_state)
        bus = self.pipeline.get_bus()
        bus.add_signal_watch()
        bus.connect("message::error", self.on_error)
        # webrtcbin calls back on threads of its own: HTTP happens on the main one.
        self.pipeline.set_state(Gst.State.PLAYING)

    def end(self, failure=None):
        def on_main():
            self.failure = self.failure or failure
            self.loop.quit()

        GLib.idle_add(on_main)

    def on_error(self, _bus, message):
        error, detail = message.parse_error()
        self.end(f"{error.message} {detail}")

    def on_candidate(self, _peer, _line, candidate):
        # Trickled nowhere: an ICE-lite gateway learns them from our checks.
        self.candidates.append("a=" + candidate)

    def on_state(self, peer, _property):
        state = peer.get_property("connection-state")
        if state == GstWebRTC.WebRTCPeerConnectionState.CONNECTED and not self.flowing:
            self.flowing = True
            say("flowing")
        elif state == GstWebRTC.WebRTCPeerConnectionState.FAILED:
            self.end("the connection failed")

    def on_negotiation_needed(self, peer):
        promise = Gst.Promise.new_with_change_func(self.on_offer, peer)
        peer.emit("create-offer", None, promise)

    def on_offer(self, promise, peer):
        promise.wait()
        # The offer lives in the reply: it must not go before.
        reply = promise.get_reply()
        offer = reply.get_value("offer")
        peer.emit("set-local-description", offer, Gst.Promise.new())
        self.offer = offer.sdp.as_text()
        GLib.idle_add(self.post)

    def post(self):
        try:
            path = f"/whip/{self.plan['name']}"
            headers, self.answer = self.gateway.call("POST", path, self.offer.encode())
            self.location = headers["Location"]
        except Exception as error:  # whatever it is, the caller reads one line
            detail = error.read().decode(errors="replace") if hasattr(error, "read") else ""
            self.end(f"{type(error).__name__}: {error} {detail}")
            return False
        _, message = GstSdp.SDPMessage.new()
        GstSdp.sdp_message_parse_buffer(self.answer.encode(), message)
        answer = GstWebRTC.WebRTCSessionDescription.new(GstWebRTC.WebRTCSDPType.ANSWER, message)
        self.peer.emit("set-remote-description", answer, Gst.Promise.new())
        return False

    def state(self, of):
        return self.peer.get_property(of + "-state").value_nick

    def finish(self):
        connection = self.state("connection")
        if self.location:
            self.gateway.call("DELETE", self.location)
        self.pipeline.set_state(Gst.State.NULL)
        say(
            "result",
            candidates=self.candidates,
            offer=self.offer,
            answer=self.answer,
            connection=connection,
        )


def main():
    plan = json.loads(sys.stdin.readline())
    Gst.init(None)
    loop = GLib.MainLoop()
    try:
        publisher = Publisher(plan, loop)
    except Exception as error:
        say("error", message=f"{type(error).__name__}: {error}")
        sys.exit(1)

    def wait_for_end():
        sys.stdin.read()
        publisher.end()

    def too_late():
        if not publisher.flowing:
            states = {of: publisher.state(of) for of in ("signaling", "ice-gathering", "ice-connection")}
            publisher.end(f"not connected in time: {states}, {publisher.candidates}")
        return False

    threading.Thread(target=wait_for_end, daemon=True).start()
    GLib.timeout_add_seconds(CONNECT_SECONDS, too_late)
    loop.run()
    if publisher.failure:
        say("error", message=publisher.failure)
        sys.exit(1)
    publisher.finish()


main()
