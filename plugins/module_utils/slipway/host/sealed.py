# SPDX-License-Identifier: Apache-2.0
"""Secrets sealed to a host by ``systemd-creds``: what lies on the disk is of use on that host alone, and to root alone.

Sealed with the host's own key: a TPM's would be lost when the provider moves the machine.
"""

from __future__ import annotations

import base64
from dataclasses import replace

from ..commands import CommandError, run
from .files import FileSpec, Found


def seal(name: str, clear: bytes) -> bytes:
    """``clear`` as the text that only this host can open, for units that ask for the credential ``name``. Raises CommandError."""
    argv = ["systemd-creds", "encrypt", "--with-key=host", f"--name={name}", "-", "-"]
    return run(argv, stdin=clear.decode()).stdout.encode()


def unseal(name: str, sealed: bytes) -> bytes | None:
    """What was sealed, or None where this host cannot open it (sealed elsewhere, under another name, or damaged)."""
    try:
        outcome = run(["systemd-creds", "decrypt", f"--name={name}", "--transcode=base64", "-", "-"], check=False,
                      stdin=sealed.decode("ascii", "replace"))  # fmt: skip
    except CommandError:
        return None
    return base64.b64decode(outcome.stdout) if outcome.ok else None


def settle(spec: FileSpec, found: Found, *, dry_run: bool = False) -> FileSpec:
    """The wish with its content sealed: as it lies there when that holds the same, else sealed anew (each time differs)."""
    if not spec.sealed or spec.content is None:
        return spec
    if found.kind == "file" and unseal(spec.sealed, found.content) == spec.content:
        return replace(spec, content=found.content)
    return replace(spec, content=b"(sealed)\n" if dry_run else seal(spec.sealed, spec.content))
