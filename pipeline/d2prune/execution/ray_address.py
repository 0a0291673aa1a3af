"""Whether a Ray cluster answers at an address, before Ray is asked to connect.

`ray.init` waits for minutes, without a message, for a cluster that has gone. So a plain connection
is made first: the head's ports speak HTTP/2 (gRPC), whose server answers the client's greeting.
"""

import logging
import os
import socket
import time
from urllib.parse import urlsplit

from d2prune.errors import UserError

log = logging.getLogger(__name__)

VARIABLE = "RAY_ADDRESS"
WAIT_S = 10.0
"""Seconds to wait for an answer; a head that is just starting gets as long."""

_PAUSE_S = 0.5
_CLIENT_PORT = 10001
# The greeting of an HTTP/2 client, with empty settings, and the type of the frame that answers it.
_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
_SETTINGS = 4


def name_address(address: str | None) -> str:
    """What messages call the address: the key or the variable that gives it."""
    if address is not None:
        return f"ray.address {address!r}"
    return f"{VARIABLE}={os.environ.get(VARIABLE)!r} in the environment"


def is_own_machine(address: str | None) -> bool:
    """Whether a run works on this machine alone, and not on a cluster, which may grow."""
    return (address or os.environ.get(VARIABLE)) in (None, "", "local")


def check_address(address: str | None) -> tuple[str, int] | None:
    """`find_head` without loading Ray: None for `auto` and a local Ray, too.

    Raises:
        UserError: not an address.
    """
    if (address or os.environ.get(VARIABLE)) in (None, "", "auto", "local"):
        return None
    try:
        return find_head(address)
    except ValueError as error:
        raise UserError(f"{name_address(address)}: not an address of a Ray cluster: {error}") from error


def check_cluster(address: str | None) -> None:
    """Check that the cluster which a run names answers, without loading Ray.

    Args:
        address: as for `find_head`.

    Raises:
        UserError: none answers, or it is not an address.
    """
    if head := check_address(address):
        wait_for_head(*head, name_address(address))


def find_head(address: str | None) -> tuple[str, int] | None:
    """Host and port of the head; None where only Ray can find them.

    Args:
        address: `host:port`, `ray://host:port`, `auto`; None: the value of `RAY_ADDRESS`.

    Raises:
        ConnectionError: `auto`, and no cluster runs on this machine.
        ValueError: not an address.
    """
    given = address or os.environ.get(VARIABLE, "auto")
    if given == "auto":
        from ray._private import services

        given = services.canonicalize_bootstrap_address("auto") or ""
    scheme, _, place = given.rpartition("://")
    if scheme in ("http", "https"):
        raise ValueError("expected host:port, ray://host:port or auto; this is the address for `submit`")
    if not given or scheme not in ("", "ray"):
        return None
    parts = urlsplit(f"//{place}")
    port = parts.port or (_CLIENT_PORT if scheme else None)
    if parts.hostname is None or port is None:
        raise ValueError("expected host:port, ray://host:port or auto")
    return parts.hostname, port


def wait_for_head(host: str, port: int, shown: str) -> None:
    """Wait until a cluster answers, for at most `WAIT_S`.

    Args:
        host: of the head.
        port: of the head.
        shown: what messages call the address.

    Raises:
        UserError: none answers.
    """
    log.info("connecting to the Ray cluster at %s:%d (%s)", host, port, shown)
    end = time.monotonic() + WAIT_S
    while True:
        try:
            return _greet(host, port, max(0.1, end - time.monotonic()))
        except OSError as error:
            reason = "no answer" if isinstance(error, TimeoutError) else error.strerror or str(error)
        if time.monotonic() + _PAUSE_S > end:
            raise UserError(
                f"{shown}: no Ray cluster answers at {host}:{port} within {WAIT_S:g} s ({reason}); expected "
                "the address of a running cluster, or none to start a local Ray"
            )
        time.sleep(_PAUSE_S)


def _greet(host: str, port: int, timeout_s: float) -> None:
    """Connect and wait for the answer of an HTTP/2 server; raises OSError."""
    end = time.monotonic() + timeout_s
    with socket.create_connection((host, port), timeout=timeout_s) as connection:
        if os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):
            return
        connection.sendall(_GREETING)
        answer = b""
        while len(answer) < 4:
            connection.settimeout(max(0.1, end - time.monotonic()))
            data = connection.recv(64)
            if not data:
                raise OSError("the connection was closed")
            answer += data
    if answer[3] != _SETTINGS:
        raise OSError("another kind of server answers")
