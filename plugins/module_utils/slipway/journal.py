# SPDX-License-Identifier: Apache-2.0
"""The journal of a host: who did what, when, and how it ended. One JSON object a line, only ever appended to."""

from __future__ import annotations

import fcntl
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

JOURNAL = "/var/log/slipway/journal.jsonl"


def stamp(seconds: float) -> str:
    """Seconds since the epoch as UTC in ISO 8601, whole seconds (``2026-01-31T12:00:00Z``)."""
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def append(path: str | Path, *, at: float, who: str, what: str, **fields: Any) -> dict[str, Any]:
    """Append one line and return it as a mapping; it is on disk when this returns.

    ``at`` is in seconds since the epoch. The caller keeps secrets out of ``fields``. Raises OSError.
    """
    line = {"at": stamp(at), "who": who, "what": what, **fields}
    text = json.dumps(line, ensure_ascii=False, separators=(",", ":")) + "\n"
    target = Path(path)
    target.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
    descriptor = os.open(target, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # two apps may finish in the same instant
        os.write(descriptor, text.encode())
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return line


def tail(path: str | Path, count: int = 20) -> list[dict[str, Any]]:
    """The last ``count`` entries, oldest first; a line cut by a crash is left out."""
    try:
        lines = Path(path).read_text(encoding="utf-8", errors="replace").splitlines()[-count:]
    except FileNotFoundError:
        return []
    entries = []
    for line in lines:
        try:
            entries.append(json.loads(line))
        except ValueError:
            continue
    return entries
