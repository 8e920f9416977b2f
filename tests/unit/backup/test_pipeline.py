# SPDX-License-Identifier: Apache-2.0
"""Pipelines: whatever goes wrong in any program is an error in its own words, and nothing is left running."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from slipway.backup import argv
from slipway.backup.pipeline import Flow, PipelineError, Stage, run

from tests.unit.waiting import LIMIT, LONG

MB = 1024 * 1024


def sh(name: str, script: str) -> Stage:
    return Stage(name, ["sh", "-c", script])


def many(megabytes: int) -> Stage:
    return sh("source", f"head -c {megabytes * MB} /dev/zero")


CAT = Stage("middle", ["cat"])
LAST = Stage("last", ["cat"])


def children() -> set[str]:
    """Processes of ours that still run, zombies left out."""
    found = subprocess.run(
        ["ps", "-o", "pid=,stat=,comm=", "--ppid", str(os.getpid())], capture_output=True, text=True, check=False
    )
    return {line for line in found.stdout.splitlines() if " Z" not in line and " ps" not in line}


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    before, fds = children(), len(os.listdir("/proc/self/fd"))
    yield
    assert children() <= before
    assert len(os.listdir("/proc/self/fd")) <= fds


def test_the_output_is_given_on_counted_and_hashed() -> None:
    out: list[bytes] = []
    flow = run([sh("hello", "printf hello; echo a word >&2"), CAT, LAST], out.append)
    assert b"".join(out) == b"hello"
    assert (flow.size, flow.sha256) == (5, hashlib.sha256(b"hello").hexdigest())
    assert flow.said == {"hello": "a word"}
    assert run([sh("hello", "printf hello")], hashed=False).sha256 == ""


def test_a_single_program_and_a_source() -> None:
    out: list[bytes] = []
    assert run([CAT], out.append, source=iter([b"a", b"", b"b" * MB])).size == MB + 1
    assert b"".join(out) == b"a" + b"b" * MB


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("number", ["TERM", "KILL", "PIPE"])
def test_any_program_killed_mid_stream_fails_the_whole(place: int, number: str) -> None:
    stages = [sh(name, "cat") for name in ("one", "two", "three")]
    stages[0] = sh("one", f"head -c 3000000 /dev/zero; sleep {LONG}")
    stages[place] = sh(stages[place].name, f"head -c 2000000 {'/dev/zero' if place == 0 else ''}; kill -{number} $$")
    started = time.monotonic()
    with pytest.raises(PipelineError, match=rf"^{stages[place].name} was killed by SIG{number}") as caught:
        run(stages)
    assert caught.value.culprit == stages[place].name
    assert time.monotonic() - started < LIMIT


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_failure_after_all_output_still_counts(place: int) -> None:
    """Data that looks whole is worth nothing when a program says that it is not."""
    stages = [many(2), CAT, LAST]
    stages[place] = sh(
        f"p{place}", ("head -c 99 /dev/zero" if place == 0 else "cat") + "; echo 'disk is sad' >&2; exit 3"
    )
    with pytest.raises(PipelineError, match=f"^p{place} ended with code 3: disk is sad"):
        run(stages)


def test_the_program_at_fault_is_named_and_not_those_that_failed_in_consequence() -> None:
    stages = [
        Stage("writer", [sys.executable, "-c", "import sys\nwhile True: sys.stdout.buffer.write(b'x' * 65536)"]),
        CAT,
        sh("reader", "head -c 100000 >/dev/null; echo wrong key >&2; exit 1"),
    ]
    with pytest.raises(PipelineError, match=r"^reader ended with code 1: wrong key"):
        run(stages)


def test_an_early_failure_upstream_is_named_before_the_complaint_downstream() -> None:
    stages = [
        sh("decrypt", "echo bad header >&2; exit 1"),
        sh("restore", "cat; sleep 0.3; echo empty input >&2; exit 1"),
    ]
    with pytest.raises(PipelineError, match=r"^decrypt ended with code 1: bad header"):
        run(stages)


def test_no_output_is_an_error_unless_it_is_expected() -> None:
    with pytest.raises(PipelineError, match="without any output"):
        run([sh("dump", "true"), CAT])
    assert run([sh("restore", "true")], may_be_empty=True).size == 0


def test_a_program_that_is_not_there_is_named_and_those_before_it_are_ended() -> None:
    with pytest.raises(PipelineError, match="no-such-program could not be started"):
        run([sh("source", "sleep 60"), Stage("zip", ["no-such-program"])])


def test_a_sink_that_fails_ends_everything_and_keeps_its_own_error() -> None:
    def full(_piece: bytes) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        run([sh("source", "yes"), CAT], full)


def test_a_source_that_breaks_off_is_the_error_and_not_what_its_reader_says() -> None:
    def broken() -> Iterator[bytes]:
        yield b"x" * 100
        raise ConnectionError("reset by the store")

    for reader in ("cat", "cat; echo truncated >&2; exit 1"):
        with pytest.raises(ConnectionError, match="reset by the store"):
            run([sh("decrypt", reader)], source=broken())


def test_a_reader_that_ends_before_its_source_fails_the_run_only_by_its_code() -> None:
    endless = (b"y" * 65536 for _ in iter(int, 1))
    assert run([sh("head", "head -c 10")], source=endless).size == 10


def test_too_long_is_an_error_and_a_program_deaf_to_sigterm_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slipway.backup.pipeline._PATIENCE", 0.5)
    with pytest.raises(PipelineError, match="stubborn, last still ran when the time allowed was over"):
        run([sh("stubborn", "trap '' TERM; echo x; sleep 30 & wait; sleep 30"), LAST], timeout=0.3)


def test_a_program_that_closes_its_output_but_does_not_end_is_not_taken_for_done() -> None:
    with pytest.raises(PipelineError, match="lingering still ran"):
        run([sh("lingering", "echo x; exec >&-; sleep 30")], timeout=0.5)


def test_an_interrupted_run_leaves_nothing_running() -> None:
    def interrupted(_piece: bytes) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run([sh("source", "yes"), CAT], interrupted)


def test_memory_stays_at_a_few_chunks_whatever_the_size() -> None:
    tracemalloc.start()
    flow = run([many(200), CAT])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert flow.size == 200 * MB
    assert peak < 5 * MB


def test_words_are_kept_to_the_end_of_a_long_complaint() -> None:
    with pytest.raises(PipelineError) as caught:
        run([sh("noisy", "seq 1 200000 >&2; echo the reason >&2; exit 1")])
    assert str(caught.value.found).endswith("the reason")
    assert len(str(caught.value)) < 10_000


def test_two_runs_at_once_do_not_hold_each_other() -> None:
    """Each pipe's ends must not leak into the other run's programs, or it would never see its end."""
    flows: list[Flow] = []
    threads = [threading.Thread(target=lambda: flows.append(run([many(5), CAT, LAST]))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
    assert [flow.size for flow in flows] == [5 * MB] * 4


@pytest.fixture
def keys(tmp_path: Path) -> tuple[str, str]:
    """(recipients file, identity file) of a fresh age key."""
    if not (shutil.which("age") and shutil.which("age-keygen") and shutil.which("zstd")):
        pytest.skip("age and zstd are not installed here")
    identity, recipients = tmp_path / "id", tmp_path / "recipients"
    subprocess.run(["age-keygen", "-o", str(identity)], check=True, capture_output=True)
    line = subprocess.run(["age-keygen", "-y", str(identity)], check=True, capture_output=True).stdout
    recipients.write_bytes(line)
    return str(recipients), str(identity)


def test_zstd_and_age_there_and_back_and_every_damage_is_an_error(keys: tuple[str, str], tmp_path: Path) -> None:
    recipients, identity = keys
    plain = os.urandom(300_000) + b"0" * 3_000_000
    sealed: list[bytes] = []
    run([Stage("zstd", argv.compress(3, 1)), Stage("age", argv.encrypt(recipients))], sealed.append, source=[plain])
    whole = b"".join(sealed)
    back = [Stage("age", argv.decrypt(identity)), Stage("zstd", argv.decompress())]
    out: list[bytes] = []
    run(back, out.append, source=[whole])
    assert b"".join(out) == plain
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    for damaged in (
        whole[:-1],
        whole[: len(whole) // 2],
        bytes(flipped),
        whole[:70_000] + whole[140_000:],
        whole + b"x",
    ):
        with pytest.raises(PipelineError, match=r"^age ended with code 1"):
            run(back, source=[damaged])
    other = tmp_path / "other"
    subprocess.run(["age-keygen", "-o", str(other)], check=True, capture_output=True)
    with pytest.raises(PipelineError, match="no identity matched"):
        run([Stage("age", argv.decrypt(str(other)))], source=[whole])
