"""Two aioice endpoints, relay-only, that meet through a TURN server and talk both ways.

Arguments: transport (udp, tcp or tls), server, port; two lines of user name and password on stdin.
Prints one line of JSON: the selected pair's addresses and what arrived.
"""

import asyncio
import json
import ssl
import sys

import aioice
from aioice.ice import TransportPolicy


async def connection(controlling, transport, server, port, user):
    username, password = user.split()
    context = ssl.create_default_context()
    # The certificate is of this test alone; that TLS is spoken is what counts.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return aioice.Connection(
        ice_controlling=controlling,
        components=1,
        turn_server=(server, port),
        turn_username=username,
        turn_password=password,
        turn_ssl=context if transport == "tls" else False,
        turn_transport="udp" if transport == "udp" else "tcp",
        transport_policy=TransportPolicy.RELAY,
    )


async def main():
    transport, server, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
    users = [line for line in sys.stdin.read().splitlines() if line]
    left = await connection(True, transport, server, port, users[0])
    right = await connection(False, transport, server, port, users[1])
    await asyncio.gather(left.gather_candidates(), right.gather_candidates())
    for one, other in ((left, right), (right, left)):
        for candidate in one.local_candidates:
            await other.add_remote_candidate(candidate)
        await other.add_remote_candidate(None)
        other.remote_username = one.local_username
        other.remote_password = one.local_password
    await asyncio.wait_for(asyncio.gather(left.connect(), right.connect()), 60)
    arrived = 0
    for number in range(50):
        for one, other in ((left, right), (right, left)):
            payload = number.to_bytes(2, "big") * 300
            await one.send(payload)
            if await asyncio.wait_for(other.recv(), 20) == payload:
                arrived += 1
    candidates = [
        {"type": candidate.type, "host": candidate.host, "port": candidate.port}
        for connection in (left, right)
        for candidate in connection.local_candidates
    ]
    await asyncio.gather(left.close(), right.close())
    print(json.dumps({"candidates": candidates, "arrived": arrived}))


asyncio.run(main())
