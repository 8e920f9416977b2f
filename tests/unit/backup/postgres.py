# SPDX-License-Identifier: Apache-2.0
"""A PostgreSQL for tests: that of SLIPWAY_TEST_PG (a DSN of a superuser), else a throwaway cluster of this machine's own."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

SETTINGS = "fsync=off\nlisten_addresses=''\nshared_buffers=16MB\nmax_connections=20\n"


@contextmanager
def server(settings: str = "") -> Iterator[str]:
    """The conninfo of database ``postgres`` on a running server, without a database name. Skips where there is none.

    ``settings``: lines of a postgresql.conf that come after those of the tests; for a throwaway cluster alone.
    """
    given = os.environ.get("SLIPWAY_TEST_PG")
    if given:
        yield given
        return
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: int(p.parts[-3]))
    if not programs:
        pytest.skip("no PostgreSQL here: install one or set SLIPWAY_TEST_PG to a superuser's DSN")
    home = Path(tempfile.mkdtemp(prefix="slipway-pg-"))
    user = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
    if os.geteuid() == 0:
        shutil.chown(home, user)
    as_user = {"user": user} if os.geteuid() == 0 else {}

    def run(*argv: str) -> None:
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, cwd=home, **as_user)  # type: ignore[call-overload]

    folder = programs[-1].parent
    try:
        run(str(folder / "initdb"), "-D", str(home / "data"), "-U", "postgres", "-A", "trust", "-E", "UTF8", "-N",
            "--locale=C.UTF-8", "--data-checksums")  # fmt: skip
        with (home / "data/postgresql.conf").open("a") as conf:
            conf.write(f"{SETTINGS}unix_socket_directories='{home}'\n{settings}")
        run(str(folder / "pg_ctl"), "-D", str(home / "data"), "-l", str(home / "log"), "-w", "start")
        try:
            yield f"host={home} user=postgres"
        finally:
            run(str(folder / "pg_ctl"), "-D", str(home / "data"), "-m", "immediate", "stop")
    finally:
        shutil.rmtree(home, ignore_errors=True)
