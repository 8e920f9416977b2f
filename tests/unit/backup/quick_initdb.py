# SPDX-License-Identifier: Apache-2.0
"""Drills of tests make a cluster each, and initdb is half of what that costs: its work is done once and copied.

The drill itself is not changed. It finds PostgreSQL's programs in a folder of links to the real ones, with one exception:
an ``initdb`` that copies what the real one made when it was first called with the very same arguments.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from slipway.backup.drills import scratch

REAL = scratch.PROGRAMS
INITDB = """#!/bin/sh
# initdb -D FOLDER ARGUMENTS...; the zeros of the write-ahead log are left to the file system.
set -eu
[ "$1" = -D ] || exec {real} "$@"
folder=$2; shift 2
made={cache}/$(printf '%s\\n' "$@" | sha256sum | cut -c 1-16)
if ! [ -d "$made" ]; then
  {real} -D "$made.new" "$@"
  mv "$made.new" "$made"
fi
exec cp -a --sparse=always "$made/." "$folder/"
"""


@contextmanager
def programs() -> Iterator[Path]:
    """A folder to stand for scratch.PROGRAMS, of every major that is installed here."""
    home = Path(tempfile.mkdtemp(prefix="slipway-initdb-"))
    home.chmod(0o755)
    try:
        for real in REAL.glob("*/bin/initdb"):
            major = home / real.parts[-3]
            (major / "bin").mkdir(parents=True)
            (major / "made").mkdir()
            if owner := scratch.account():
                shutil.chown(major / "made", owner)
            for each in real.parent.iterdir():
                (major / "bin" / each.name).symlink_to(each)
            (major / "bin/initdb").unlink()
            (major / "bin/initdb").write_text(INITDB.format(real=real, cache=major / "made"))
            (major / "bin/initdb").chmod(0o755)
        yield home
    finally:
        shutil.rmtree(home, ignore_errors=True)
