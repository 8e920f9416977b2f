# SPDX-License-Identifier: Apache-2.0
"""A host's own key of WireGuard: made on it, kept as the first lines of its configuration. Needs the program ``wg``."""

from __future__ import annotations

import os
from pathlib import Path

from ..commands import run
from ..errors import SlipwayError

KEY, PEERS = "key.conf", "peers.conf"
FUTURE = "(made in the run)"
_LINE = "PrivateKey = "


def make(path: Path) -> None:
    """Write a new key to ``path``, mode 0600 from its first byte on; nobody sees half a file."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    secret = run(["wg", "genkey"]).stdout.strip()
    new = path.with_suffix(".new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(f"[Interface]\n{_LINE}{secret}\n")
        file.flush()
        os.fsync(file.fileno())
    new.rename(path)


def public_half(path: Path) -> str:
    """The public key that belongs to the file; the secret goes to ``wg`` by a pipe, never by an argument."""
    lines = [line for line in path.read_text().splitlines() if line.startswith(_LINE)]
    done = run(["wg", "pubkey"], stdin=lines[0].removeprefix(_LINE) + "\n", check=False) if lines else None
    if done is None or not done.ok:
        raise SlipwayError(
            f"{path} holds no key of WireGuard", "the lines that the role private_network wrote",
            f"remove the file and run the playbook again: a new key is made ({path.parent.name})",
        )  # fmt: skip
    return done.stdout.strip()
