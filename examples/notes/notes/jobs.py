# SPDX-License-Identifier: Apache-2.0
"""``python -m notes.jobs``: the background worker. Takes jobs from a table, one at a time, until SIGTERM.

A job is taken and counted as done in one transaction: who dies in between has done nothing, and the next worker finds the job
again. Rows that another worker has in hand are passed over, so as many as one likes may run, of two releases too.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from . import logs
from .settings import SettingError, Settings, from_environment

if TYPE_CHECKING:
    import psycopg

log = logging.getLogger("notes.jobs")

IDLE_SECONDS = 0.5
RECONNECT_SECONDS = 1.0
TAKE = (
    "SELECT id, seconds FROM notes_job WHERE done_at IS NULL"
    " ORDER BY created_at FOR UPDATE SKIP LOCKED LIMIT 1"
)  # fmt: skip
BEGUN = "SELECT nextval('notes_job_begun')"
DONE = "UPDATE notes_job SET done = done + 1, done_at = now(), release = %s WHERE id = %s"


def work_one(connection: psycopg.Connection[Any], release: str) -> bool:
    """Take one job, do it and count it, all in one transaction; False when none is waiting."""
    with connection.transaction():
        job = connection.execute(TAKE).fetchone()
        if job is None:
            return False
        connection.execute(BEGUN)
        time.sleep(job[1])  # stands for the work; SIGTERM does not cut it short
        connection.execute(DONE, (release, job[0]))
    log.info("job done", extra={"job": str(job[0]), "seconds": job[1]})
    return True


def work(settings: Settings, stopping: threading.Event) -> None:
    """Do jobs until told to stop; the one in hand is finished first. A database that goes away is waited for."""
    import psycopg

    while not stopping.is_set():
        try:
            # No prepared statements: the pooler gives each transaction another server connection.
            with psycopg.connect(
                settings.database_url, autocommit=True, prepare_threshold=None, connect_timeout=5,
                application_name=f"notes jobs {settings.release}",
            ) as connection:  # fmt: skip
                while not stopping.is_set():
                    if not work_one(connection, settings.release):
                        stopping.wait(IDLE_SECONDS)
        except psycopg.OperationalError as error:
            log.warning("database unavailable", extra={"reason": type(error).__name__})
            stopping.wait(RECONNECT_SECONDS)


def main() -> int:
    """Run as a background job: 0 after SIGTERM, 2 with one line on stderr when a setting is wrong."""
    try:
        settings = from_environment(os.environ)
        if settings.fail_jobs:
            raise SettingError("FAIL_JOBS is set: this worker ends at once, on purpose")
    except SettingError as error:
        print(f"notes jobs cannot start: {error}", file=sys.stderr)
        return 2
    logs.configure(settings)
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    log.info("waiting for jobs")
    work(settings, stopping)
    log.info("stopped")
    return 0


if __name__ == "__main__":
    sys.exit(main())
