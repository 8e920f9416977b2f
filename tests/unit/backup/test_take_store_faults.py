# SPDX-License-Identifier: Apache-2.0
"""A store that fails, an agent that is stopped or killed, two at once: nothing half-done counts, nothing stays behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from slipway.backup.config import Config
from slipway.backup.keeping import listing
from slipway.backup.stopping import Interrupted, Stop
from slipway.backup.stores.retry import Retry
from slipway.backup.stores.store import DirectoryStore, Store
from slipway.backup.taking import runs, take
from slipway.errors import BusyError

from tests.unit.waiting import LIMIT, LONG, until

from .fake_s3 import FakeS3, Fault
from .faults import SLOW, around, await_file, config, database, fails, meanwhile, programs, store
from .test_store import s3_store
from .test_there_and_back import keys

__all__ = ["around", "config", "database", "keys", "store"]


@pytest.mark.parametrize(
    ("faults", "denied", "message"),
    [
        ([Fault("CompleteMultipartUpload", "lost", 99)], {"HeadObject"}, "counts as not taken"),
        ([Fault("UploadPart", "403 InvalidAccessKeyId", 99)], set(), "a key that is valid"),
        ([Fault("CreateMultipartUpload", "reset", 99)], set(), "failed at beginning"),
        ([Fault("UploadPart", "503 SlowDown", 99)], set(), "failed at sending part 1.*after 4 attempts"),
        ([Fault("PutObject", "500 InternalError", 99)], set(), "failed at writing .*manifest.json"),
    ],
)
def test_a_bucket_that_fails(
    config: Config, around: take.Around, fake: FakeS3, *, faults: list[Fault], denied: set[str], message: str
) -> None:
    fake.faults, fake.denied = faults, denied
    fails(config, s3_store(fake), around, message)
    fake.faults, fake.denied = [], set()
    assert listing.read(s3_store(fake), "db1").whole == ()
    writer_only = {
        "HeadObject",
        "GetObject",
        "ListObjectsV2",
        "ListObjectVersions",
        "ListMultipartUploads",
        "DeleteObject",
    }
    fake.denied = writer_only
    assert take.run(config, lambda: s3_store(fake), replace(around, stop=Stop())).good  # what is over is over
    fake.denied = set()
    assert fake.uploads == {}
    assert len(listing.read(s3_store(fake), "db1").whole) == 1


def test_faults_that_pass_are_no_failure(config: Config, around: take.Around, fake: FakeS3) -> None:
    fake.faults = [
        Fault("UploadPart", "lost"),
        Fault("CompleteMultipartUpload", "lost"),
        Fault("PutObject", "503 SlowDown", 2),
    ]
    assert take.run(config, lambda: s3_store(fake), around).good
    assert len(listing.read(s3_store(fake), "db1").whole) == 1


def test_a_signal_is_heard_while_the_bucket_is_waited_for(config: Config, around: take.Around, fake: FakeS3) -> None:
    fake.faults = [Fault("UploadPart", "503 SlowDown", 99)]
    store = s3_store(fake)
    store.retry = Retry(attempts=50, base=LONG, cap=LONG, random=lambda: 1.0)

    def interrupt() -> None:
        until(lambda: "UploadPart" in fake.calls, "a refused part")
        around.stop.because(Interrupted("The run was stopped by SIGTERM"))

    with meanwhile(interrupt):
        fails(config, lambda: store, around, "stopped by SIGTERM")


def test_two_runs_at_once_and_a_stale_lock(config: Config, store: DirectoryStore, around: take.Around) -> None:
    held = runs.Holder("20260315T030000Z-db1-0a1b2c", around.now(), "ann", 1)
    with runs.held(around.state, held), pytest.raises(BusyError, match=r"backup 20260315T.* by ann, is not over"):
        take.run(config, lambda: store, around)
    assert runs.records(around.state) == []
    # A process that was killed leaves its note and, the kernel having let go, no lock.
    (around.state / "lock").write_bytes(take.manifest.canonical(held))
    assert runs.running(around.state) is None
    done = take.run(config, lambda: store, replace(around, stop=Stop()))
    first, second = runs.records(around.state)
    assert (first.id, first.result) == (held.id, "failed")
    assert "was killed" in first.reason
    assert second == done
    assert held.id in done.warnings[0]


CHILD = """
import sys
from pathlib import Path
from slipway.backup import argv
from slipway.backup.config import Config, Place
from slipway.backup.stopping import by_signals
from slipway.backup.stores.s3 import Bucket, S3Store
from slipway.backup.stores.store import DirectoryStore
from slipway.backup.taking import take
base, socket, user, recipients, endpoint = sys.argv[1:]
around = take.Around(server=argv.Server(socket, 5432, user), state=Path(base, "state"), recipients=Path(recipients),
                     metrics=Path(base, "metrics"), cores=2, programs=base + "/bin/")
store = S3Store(Bucket("b", endpoint, "r", "k", "s")) if endpoint else DirectoryStore(base + "/store")
with by_signals(around.stop):
    try:
        take.run(Config("db1", Place("directory", base + "/store"), ()), lambda: store, around)
    except Exception as error:
        sys.exit(str(error))
"""


@pytest.mark.parametrize("kind", ["directory", "s3"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_agent_is_stopped_or_killed(
    *, config: Config, around: take.Around, keys: tuple[str, str], tmp_path: Path, fake: FakeS3, number: signal.Signals,
    kind: str,
) -> None:  # fmt: skip
    programs(tmp_path / "bin", pg_dump=SLOW)
    assert around.server is not None
    endpoint = fake.endpoint if kind == "s3" else ""
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(tmp_path), around.server.host, around.server.user, keys[0], endpoint],
        env={**os.environ, "PYTHONPATH": str(Path(take.__file__).parents[3])}, stderr=subprocess.PIPE,
    )  # fmt: skip
    await_file(tmp_path / "bin/pg_dump.begun")
    until(lambda: fake.uploads if kind == "s3" else list((tmp_path / "store/.uploads").glob("*")), "an upload")
    child.send_signal(number)
    _, said = child.communicate(timeout=LIMIT)
    assert child.returncode == (-9 if number is signal.SIGKILL else 1)
    if number is signal.SIGKILL:  # what a killed agent cannot end itself
        os.killpg(int((tmp_path / "bin/pg_dump.begun").read_text()), signal.SIGKILL)
    store: Store = s3_store(fake) if kind == "s3" else DirectoryStore(tmp_path / "store")
    assert listing.read(store, "db1").whole == ()
    if number is signal.SIGTERM:
        assert b"stopped by SIGTERM" in said
        assert "stopped by SIGTERM" in runs.records(around.state)[-1].reason
    else:
        assert runs.records(around.state) == []
        assert fake.uploads if kind == "s3" else list((tmp_path / "store/.uploads").glob("*"))
    fake.denied = {"ListMultipartUploads"}  # the writer's key may not list: the notes in pending/ have to do
    assert take.run(config, lambda: store, around).good
    assert [each.good for each in runs.records(around.state)] == [False, True]
    assert fake.uploads == {}
    assert kind == "s3" or list((tmp_path / "store/.uploads").glob("*")) == []
    assert list((around.state / "pending").glob("*")) == []
