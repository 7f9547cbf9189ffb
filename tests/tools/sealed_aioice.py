"""Two aioice agents in a sealed room: relay-only, candidates exchanged right here.

One line of JSON on stdin is the plan,
{host, callers: [{port, transport, username, credential}, …]};
lines of JSON on stdout are events; see README.md here.
"""

import asyncio
import json
import sys

import aioice

SECONDS = 30
PACKETS = 200


def say(event, **more):
    print(json.dumps({"event": event, **more}), flush=True)




def agent(plan, caller, controlling):
    return aioice.Connection(
        ice_controlling=controlling,
        components=1,
        stun_server=None,
        turn_server=(plan["host"], caller["port"]),
        turn_username=caller["username"],
        turn_password=caller["credential"],
        turn_transport=caller["transport"],
        transport_policy=aioice.TransportPolicy.RELAY,
    )


async def introduce(one, other):
    other.remote_username, other.remote_password = one.local_username, one.local_password
    for candidate in one.local_candidates:
        await other.add_remote_candidate(candidate)
    await other.add_remote_candidate(None)


async def perform(plan):
    one, other = (agent(plan, caller, i == 0) for i, caller in enumerate(plan["callers"]))
    await one.gather_candidates()
    await other.gather_candidates()
    candidates = [[c.type, c.host] for a in (one, other) for c in a.local_candidates]
    await introduce(one, other)
    await introduce(other, one)
    await asyncio.gather(one.connect(), other.connect())
    echoed = 0
    for n in range(PACKETS):
        payload = n.to_bytes(2, "big") * (1 + n % 300)
        await one.send(payload)
        there = await other.recv()
        await other.send(there[::-1])
        echoed += (await one.recv())[::-1] == payload
    await one.close()
    await other.close()
    say("result", candidates=candidates, echoed=echoed, of=PACKETS)


async def main():
    plan = json.loads(sys.stdin.readline())
    await asyncio.wait_for(perform(plan), SECONDS)


try:
    asyncio.run(main())
except BaseException as error:  # noqa: BLE001: whatever it was, the test is to say it
    say("error", message=repr(error))
    sys.exit(1)
