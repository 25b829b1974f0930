"""A gateway as one would write it first: Klein, PyJWT and json. To compare with, not to use.

``python -m benchmarks.naive PORT [--log]`` answers Connect and nothing else: it verifies the token,
looks the room up in a dict, picks a server at random for a new one, and signs a room token. It
has no limits, bans, reservations, metrics or store. Keys are loaded once, at the start.
"""

import json
import random
import sys
import time
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from klein import Klein
from twisted.internet import reactor
from twisted.web.server import Site

from benchmarks.customers import SERVERS, Customers

app = Klein()
clients = {
    key.kid: (f"customer-{number // 10}", Ed25519PublicKey.from_public_bytes(key.public_key))
    for number, key in enumerate(Customers().keys)
}
servers = {f"sfu{number}.example:4433": Ed25519PrivateKey.generate() for number in range(SERVERS)}
rooms: dict[tuple[str, str], str] = {}


@app.route("/", methods=["POST"])
def connect(request: Any) -> str:
    """Answer Connect."""
    call = json.loads(request.content.read())
    token = request.getHeader("authorization").removeprefix("Bearer ")
    customer, public_key = clients[jwt.get_unverified_header(token)["kid"]]
    claims = jwt.decode(token, public_key, algorithms=["EdDSA"], audience="gateway")
    room = (customer, claims["rid"])
    if room not in rooms:
        rooms[room] = random.choice(list(servers))  # noqa: S311  -- no secret depends on it
    address = rooms[room]
    now = int(time.time())
    room_token = jwt.encode(
        {
            "uid": claims["uid"],
            "cid": customer,
            "rid": claims["rid"],
            "nsp": customer,
            "adr": address,
            "exp": now + 300,
            "nbf": now,
            "sub": "connect",
            "aud": "sfu",
        },
        servers[address],
        algorithm="EdDSA",
        headers={"kid": address},
    )
    request.setHeader("Content-Type", "application/json")
    result = {"address": address, "token": room_token}
    return json.dumps({"jsonrpc": "2.0", "id": call["id"], "result": result})


class QuietSite(Site):
    """Writes no access log, as odingw writes none."""

    def log(self, request: Any) -> None:
        """Write nothing."""


if __name__ == "__main__":
    port = int(sys.argv[1])
    if "--log" in sys.argv:
        app.run("127.0.0.1", port)
    else:
        running: Any = reactor
        site = QuietSite(app.resource())
        running.listenTCP(port, site, interface="127.0.0.1")
        running.run()
