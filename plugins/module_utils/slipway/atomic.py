# SPDX-License-Identifier: Apache-2.0
"""Files that are replaced whole or not at all: whoever reads meanwhile sees the old one or the new one."""

from __future__ import annotations

import os
from pathlib import Path


def replace(path: Path, content: bytes, mode: int = 0o600, *, durable: bool = True) -> None:
    """Put a file in the place of another in one step, with exactly ``mode``. Its folder must be there.

    ``durable``: it and its name are on disk when this returns; else a power cut may leave the old one. What a crash
    leaves beside it begins with a dot. Raises OSError; the old file is untouched then.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode), "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        aside.rename(path)
    except OSError:
        aside.unlink(missing_ok=True)
        raise
    if durable:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
