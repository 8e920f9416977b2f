# SPDX-License-Identifier: Apache-2.0
"""Ansible's collection loader is put up before any test imports a plugin, as it is in real runs.

Otherwise the first test that needs it puts it up halfway, and plugins imported without it before break those after.

Hypothesis has no deadline: a year of backups takes what a busy machine gives it.

Temporary files are in memory where this machine lets them: a rename costs milliseconds on a busy disk, and the tests
of crashes alone make tens of thousands.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings

from console.hosts import _load_plugins

MEMORY = Path("/dev/shm")
ENOUGH = 3 * 1024**3  # a drill wants 1.3 GB free, though it takes little of it


def _in_memory() -> bool:
    """Whether temporary files may go there: not against the user's word, nor where programs cannot be run (containers)."""
    try:
        runs = not os.statvfs(MEMORY).f_flag & os.ST_NOEXEC
        return (
            "TMPDIR" not in os.environ and runs and os.access(MEMORY, os.W_OK)
            and shutil.disk_usage(MEMORY).free > ENOUGH
        )  # fmt: skip
    except OSError:
        return False


if _in_memory():
    os.environ["TMPDIR"] = str(MEMORY)
    tempfile.tempdir = None  # whoever asked before us may have settled it

settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")
_load_plugins()
