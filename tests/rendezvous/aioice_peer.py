"""aioice as the other peer: candidates and credentials as `peer.py` does it, then one Message each
way.

    aioice_peer.py controlling|controlled STUN_HOST STUN_PORT
"""

from __future__ import annotations

import asyncio
import json
import sys

import aioice


async def main() -> None:
    connection = aioice.Connection(
        ice_controlling=sys.argv[1] == "controlling",
        stun_server=(sys.argv[2], int(sys.argv[3])),
        use_ipv6=False,
    )
    await connection.gather_candidates()
    for candidate in connection.local_candidates:
        print(
            f"candidate:{candidate.to_sdp()} ufrag {connection.local_username}"
            f" pwd {connection.local_password}"
        )
    print(flush=True)
    for line in iter(sys.stdin.readline, "\n"):
        words = line.split()
        connection.remote_username = words[words.index("ufrag") + 1]
        connection.remote_password = words[words.index("pwd") + 1]
        await connection.add_remote_candidate(
            aioice.Candidate.from_sdp(line.strip().removeprefix("candidate:"))
        )
    await connection.add_remote_candidate(None)
    await asyncio.wait_for(connection.connect(), 30)
    print(json.dumps({"connected": True}), flush=True)
    await connection.send(b"hello")
    data = await asyncio.wait_for(connection.recv(), 10)
    print(json.dumps({"received": data.decode()}), flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    await connection.close()


asyncio.run(main())
