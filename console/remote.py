# SPDX-License-Identifier: Apache-2.0
"""One round trip to a host over Fabric: a Python script in, JSON out. A host that cannot be reached says why."""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from slipway.errors import SlipwayError

from .hosts import Endpoint

CONNECT_SECONDS = 8
ANSWER_SECONDS = 45
PROBE = Path(__file__).with_name("probe.py")


class UnreachableError(SlipwayError):
    """A host did not let us look; the message is for a table cell or a line."""


def probe_source(domains: Sequence[str], only: str = "") -> bytes:
    """The script as it is sent: the probe's text and one call. Domains travel as JSON, never as code of their own."""
    call = f"\nmain(json.loads({json.dumps(json.dumps(list(domains)))}), {json.dumps(only)})\n"
    return PROBE.read_bytes() + call.encode()


def look(host: Endpoint, domains: Sequence[str], only: str = "") -> dict[str, Any]:
    """The probe's answer from ``host``. Raises UnreachableError."""
    answer = exchange(host, probe_source(domains, only))
    try:
        return dict(json.loads(answer.strip().splitlines()[-1]))
    except (ValueError, IndexError):
        raise UnreachableError("answered something that is not a status", "Python 3.9 or newer there") from None


def look_at_all(hosts: Sequence[Endpoint], domains: Sequence[str]) -> list[dict[str, Any] | SlipwayError]:
    """Every host at once, in the order given; an error stands in the place of its host's answer."""

    def one(host: Endpoint) -> dict[str, Any] | SlipwayError:
        try:
            return look(host, domains)
        except SlipwayError as error:
            return error

    with ThreadPoolExecutor(max_workers=max(1, min(16, len(hosts)))) as pool:
        return list(pool.map(one, hosts))


def exchange(host: Endpoint, script: bytes) -> str:
    """Run ``script`` by the host's Python as root and return its output; tries the host's users in turn."""
    from paramiko.ssh_exception import (
        AuthenticationException,
        BadHostKeyException,
        NoValidConnectionsError,
        SSHException,
    )

    logging.getLogger("paramiko").setLevel(logging.CRITICAL)  # its tracebacks; what matters is raised
    refused: list[str] = []
    for user in host.users:
        try:
            return _run(host, user, script)
        except BadHostKeyException:
            raise UnreachableError(
                "shows another host key than the one known: re-installed, or someone is in between",
                "", f"when you know why: ssh-keygen -R '{known_name(host)}'",
            ) from None  # fmt: skip
        except AuthenticationException:
            refused.append(user)
        except (NoValidConnectionsError, ConnectionError):
            raise UnreachableError(f"refuses connections on port {host.port}") from None
        except TimeoutError:
            raise UnreachableError(f"did not answer within {CONNECT_SECONDS} s") from None
        except socket.gaierror:
            raise UnreachableError(f"the name {host.address} is not known to DNS") from None
        except (SSHException, EOFError, OSError) as error:
            if "not found in known_hosts" in str(error):
                raise UnreachableError(
                    "its host key is not known yet",
                    "",
                    f"connect once and compare the key: {' '.join(host.ssh_argv())}",
                ) from None
            raise UnreachableError(f"SSH failed: {error}") from None
    raise UnreachableError(
        f"lets nobody in with your key (tried {', '.join(refused)})", "", "check the key: ssh-add -L"
    )


def known_name(host: Endpoint) -> str:
    """How known_hosts spells the host."""
    return host.address if host.port == 22 else f"[{host.address}]:{host.port}"


def _run(host: Endpoint, user: str, script: bytes) -> str:
    from fabric import Config, Connection
    from paramiko import RejectPolicy

    arguments: dict[str, Any] = {"key_filename": list(host.keys)} if host.keys else {}
    gateway = Connection(host.jump) if host.jump else None
    connection = Connection(
        host.address, user=user, port=host.port, connect_timeout=CONNECT_SECONDS, gateway=gateway,
        connect_kwargs={**arguments, "banner_timeout": CONNECT_SECONDS, "auth_timeout": CONNECT_SECONDS},
        config=Config(overrides={"load_ssh_configs": True}),
    )  # fmt: skip
    connection.client.set_missing_host_key_policy(RejectPolicy())
    if host.known_hosts:
        for path in host.known_hosts:
            if Path(path).is_file():
                connection.client.load_host_keys(path)
    else:
        connection.client.load_system_host_keys()
    with connection:
        connection.open()
        channel = connection.transport.open_session(timeout=CONNECT_SECONDS)
        channel.settimeout(ANSWER_SECONDS)
        channel.exec_command("/usr/bin/python3 -" if user == "root" else "sudo -n /usr/bin/python3 -")
        channel.sendall(script)
        channel.shutdown_write()
        output, errors = channel.makefile("rb").read(), channel.makefile_stderr("rb").read()
        code = channel.recv_exit_status()
    if code != 0:
        said = errors.decode("utf-8", "replace").strip().splitlines()
        raise UnreachableError(f"could not be looked at as {user}: {said[-1] if said else f'exit code {code}'}")
    return str(output.decode("utf-8", "replace"))
