#!/usr/bin/env python3
"""A bad link between two network namespaces: a TUN device in each, and this process between them.

The plan is one line of JSON on stdin: {"seed", "upper": {"namespace", "device"}, "lower": {the
same}}. "down" is what goes from upper to lower, "up" the other way. It answers with
{"event":"ready","seed":…} once both devices exist. From then on each line is an order:

  {"set":"down", …}   parameters of a direction; those left out are as if there were no link:
      loss        share of packets lost, 0 to 1
      duplicate   share of packets delivered twice
      delay_ms    what every packet takes
      jitter_ms   what a packet takes on top, evenly from 0 to this
      reorder     true: every packet draws its own jitter, so packets overtake each other;
                  false: the jitter drifts, a new value every 100 ms, and nobody overtakes
      rate_kbps   1,000 bits of IP packets a second
      queue_ms    what waits for the rate at most; what comes on top is dropped (default 200)
    answered by {"event":"set","direction":…}. The random sequences start again from the seed:
    the n-th packet after an order has the same fate each time.
  {"counters":true}   answered by {"event":"counters","up":{…},"down":{…}}

The end of stdin ends it. Debian's Python, nothing but its standard library: it has no setns.
"""

import collections
import ctypes
import fcntl
import heapq
import json
import os
import random
import select
import struct
import sys
import time

TUNSETIFF = 0x400454CA
IFF_TUN = 0x0001
IFF_NO_PI = 0x1000
CLONE_NEWNET = 0x40000000
# Packets of one direction before the other and the timers have their turn.
BATCH = 64
LONGEST = 65_536
DRIFT_EVERY = 0.1
PARAMETERS = {
    "loss": 0.0,
    "duplicate": 0.0,
    "delay_ms": 0.0,
    "jitter_ms": 0.0,
    "reorder": False,
    "rate_kbps": None,
    "queue_ms": 200.0,
}


def open_tun(namespace, device):
    """A descriptor of a new TUN device of that namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    there = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
    if libc.setns(there, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), f"setns {namespace}")
    os.close(there)
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", device.encode(), IFF_TUN | IFF_NO_PI))
    return tun


class Direction:
    """Loss, then the line with its queue, then the delay; times are seconds of one clock."""

    def __init__(self, name, seed, source, sink):
        self.name, self.seed, self.source, self.sink = name, seed, source, sink
        self.waiting = collections.deque()
        self.waiting_bits = 0
        self.line_free = 0.0
        self.flying = []
        self.order = 0
        self.last_due = 0.0
        self.counters = dict.fromkeys(
            ("received", "lost", "queue_dropped", "duplicated", "delivered", "refused"), 0
        )
        self.set({})

    def set(self, wanted):
        """Raises ValueError for what nobody knows."""
        unknown = set(wanted) - set(PARAMETERS)
        if unknown:
            raise ValueError(f"no such parameter: {', '.join(sorted(unknown))}")
        self.parameters = {**PARAMETERS, **wanted}
        # A sequence a purpose: whether packets are duplicated does not change which are lost.
        self.random = {
            purpose: random.Random(f"{self.seed} {self.name} {purpose}")
            for purpose in ("loss", "duplicate", "jitter")
        }
        self.drift_at = None

    def arrive(self, packet, now):
        self.counters["received"] += 1
        lost = self.random["loss"].random() < self.parameters["loss"]
        twice = self.random["duplicate"].random() < self.parameters["duplicate"]
        if lost:
            self.counters["lost"] += 1
            return
        bits = 8 * len(packet)
        rate = self.parameters["rate_kbps"]
        if rate and self.waiting_bits + bits > rate * self.parameters["queue_ms"]:
            self.counters["queue_dropped"] += 1
            return
        self.waiting.append((now, bits, packet, twice))
        self.waiting_bits += bits

    def head_leaves(self):
        """When the first packet of the queue has left the line."""
        arrived, bits, _, _ = self.waiting[0]
        rate = self.parameters["rate_kbps"]
        return max(self.line_free, arrived) + (bits / (1_000.0 * rate) if rate else 0.0)

    def advance(self, now):
        """Moves what is due; the next time at which something will be, or None."""
        while self.waiting and (leaves := self.head_leaves()) <= now:
            _, bits, packet, twice = self.waiting.popleft()
            self.waiting_bits -= bits
            self.line_free = leaves
            self.fly(packet, leaves)
            if twice:
                self.counters["duplicated"] += 1
                self.fly(packet, leaves)
        while self.flying and self.flying[0][0] <= now:
            self.deliver(heapq.heappop(self.flying)[2])
        times = [self.flying[0][0]] if self.flying else []
        times += [self.head_leaves()] if self.waiting else []
        return min(times, default=None)

    def fly(self, packet, leaves):
        due = leaves + (self.parameters["delay_ms"] + self.jitter_ms(leaves)) / 1_000.0
        if not self.parameters["reorder"]:
            due = max(due, self.last_due)
        self.last_due = max(due, self.last_due)
        self.order += 1
        heapq.heappush(self.flying, (due, self.order, packet))

    def jitter_ms(self, when):
        most = self.parameters["jitter_ms"]
        if not most:
            return 0.0
        draw = self.random["jitter"].random
        if self.parameters["reorder"]:
            return most * draw()
        if self.drift_at is None:
            self.drift_at, self.drift_from, self.drift_to = when, draw(), draw()
        while when >= self.drift_at + DRIFT_EVERY:
            self.drift_at += DRIFT_EVERY
            self.drift_from, self.drift_to = self.drift_to, draw()
        part = (when - self.drift_at) / DRIFT_EVERY
        return most * (self.drift_from + part * (self.drift_to - self.drift_from))

    def deliver(self, packet):
        try:
            os.write(self.sink, packet)
            self.counters["delivered"] += 1
        except OSError:
            # The device is down, or its queue is full: as a wire nobody listens to.
            self.counters["refused"] += 1

    def take(self):
        for _ in range(BATCH):
            try:
                packet = os.read(self.source, LONGEST)
            except OSError:
                return
            self.arrive(packet, time.monotonic())


class Orders:
    """Lines of stdin as they come; stdin is not to be waited for."""

    def __init__(self):
        os.set_blocking(0, False)
        self.rest = b""

    def lines(self):
        """The complete lines that are there, then None at the end."""
        piece = os.read(0, LONGEST)
        *lines, self.rest = (self.rest + piece).split(b"\n")
        return [json.loads(line) for line in lines if line.strip()] + ([] if piece else [None])


def say(event):
    print(json.dumps(event), flush=True)


def obey(order, directions):
    if "set" in order:
        name = order.pop("set")
        directions[name].set(order)
        say({"event": "set", "direction": name, **directions[name].parameters})
    elif order.get("counters"):
        say({"event": "counters", **{name: d.counters for name, d in directions.items()}})
    else:
        raise ValueError(f"no such order: {order}")


def main():
    plan = json.loads(sys.stdin.buffer.raw.readline())
    upper = open_tun(**plan["upper"])
    lower = open_tun(**plan["lower"])
    seed = plan["seed"]
    directions = {
        "down": Direction("down", seed, upper, lower),
        "up": Direction("up", seed, lower, upper),
    }
    say({"event": "ready", "seed": seed})
    orders = Orders()
    while True:
        now = time.monotonic()
        due = [d.advance(now) for d in directions.values()]
        next_due = min((when for when in due if when is not None), default=None)
        patience = None if next_due is None else max(0.0, next_due - time.monotonic())
        # select, not poll: poll counts in whole milliseconds.
        ready, _, _ = select.select([0, upper, lower], [], [], patience)
        for direction in directions.values():
            if direction.source in ready:
                direction.take()
        if 0 in ready:
            for order in orders.lines():
                if order is None:
                    return
                obey(order, directions)


main()
