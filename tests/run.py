# SPDX-License-Identifier: Apache-2.0
"""Runs the stages of bin/test, two at a time where the machine can, and closes with one line of counts.

A stage is a program; a pytest stage reports each of its tests (read from its JUnit file), any other stage
counts as one check. Output goes to a log file per stage, its end is shown when the stage fails. Each stage on lab hosts
has a lab of its own, and waits (for drains, guards, reboots) nearly as long as it works: two share two cores well.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Sequence
from concurrent import futures
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LOGS = ROOT / ".cache" / "test"
VENV = ROOT / ".venv" / "bin"
COLOUR = sys.stdout.isatty() and "NO_COLOR" not in os.environ


@dataclass(frozen=True, eq=False)
class Stage:
    """One program. ``tier`` 0 runs with --fast, 1 by default, 2 with --all only; ``alone`` when nothing else runs."""

    name: str
    argv: tuple[str, ...]
    tier: int
    pytest: bool = False
    alone: bool = False
    env: dict[str, str] = field(default_factory=dict)


@dataclass
class Counts:
    """How many checks and tests ended how."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def add(self, other: Counts) -> None:
        """Add the counts of one stage."""
        self.passed += other.passed
        self.failed += other.failed
        self.skipped += other.skipped


def tool(name: str) -> str:
    """The path of a tool of the virtual environment."""
    return str(VENV / name)


def pytest_stage(name: str, paths: Sequence[str], tier: int, *options: str, alone: bool = False) -> Stage:
    """A stage that runs pytest on some paths."""
    return Stage(name, (tool("pytest"), *paths, *options), tier, pytest=True, alone=alone)


def stages(*, slow: bool = True) -> list[Stage]:
    """All stages in order: the cheap ones first, then the longest, so that none is left to run by itself at the end.

    Tests marked slow are left out unless ``slow``.
    """
    chosen = () if slow else ("-m", "not slow")
    scenarios = sorted(path.parent.name for path in (ROOT / "molecule").glob("*/molecule.yml"))
    shell = [str(path.relative_to(ROOT)) for path in [*sorted(ROOT.glob("bin/*")), ROOT / ".ci/run"] if is_shell(path)]
    integration = integration_groups(
        path.stem.removeprefix("test_") for path in (ROOT / "tests/integration").glob("test_*.py")
    )
    benchmarks = sorted(path.stem for path in (ROOT / "benchmarks").glob("[a-z]*.py") if path.stem in BENCHMARKS)
    on_hosts = [
        *(Stage(f"molecule_{name}", (tool("molecule"), "test", "-s", name), 1) for name in scenarios),
        *(
            pytest_stage(
                f"integration_{group}",
                [f"tests/integration/test_{name}.py" for name in names],
                1,
                *chosen,
                alone=group in ALONE,
            )
            for group, names in integration.items()
        ),
    ]
    on_hosts.sort(key=lambda stage: LONGEST.index(stage.name) if stage.name in LONGEST else len(LONGEST))
    return [
        Stage("ruff", (tool("ruff"), "check", "."), 0),
        Stage("ruff_format", (tool("ruff"), "format", "--check", "."), 0),
        Stage("mypy", (tool("mypy"),), 0),
        Stage("yamllint", (tool("yamllint"), "--strict", "."), 0),
        Stage("shellcheck", ("shellcheck", *shell), 0),
        Stage("ansible_lint", (tool("ansible-lint"), "--offline"), 0, env={"ANSIBLE_LINT_NODEPS": "1"}),
        pytest_stage("lint", ["tests/lint"], 0),
        pytest_stage("unit", ["tests/unit"], 0, *chosen),
        *on_hosts,
        *(
            Stage(f"benchmark_{name}", (tool("python"), "-m", f"benchmarks.{name}"), 2, alone=True)
            for name in benchmarks
        ),
    ]


BENCHMARKS = ("site", "deploy", "backup")
LONGEST = (
    "integration_grow", "integration_host", "integration_deploy", "integration_offsite", "integration_pitr", "integration_database",
    "integration_backups", "integration_network", "integration_edge", "molecule_rung0", "integration_s3", "integration_lockout",
)  # fmt: skip
# What clients wait for is measured on a machine that does nothing else.
ALONE = ("load",)
# Test files that share a lab host run in one stage, so that it is brought up once; the rest share the converged host.
SHARED_HOSTS = {
    "lab": ("lab",),
    "database": ("postgres", "pgbouncer"),
    "edge": ("caddy", "docker"),
    "lockout": ("lockout",),
    "network": ("private_network",),
    "apart": ("apart",),
    "s3": ("s3_store", "s3_faults", "s3_bucket", "s3_chain"),
    "deploy": ("deploy",),
    "backups": ("backups",),
    "offsite": ("offsite",),
    "pitr": ("pitr", "pitr_s3"),
    "load": ("deploy_under_load",),
    "grow": ("grow_resize", "grow_redis", "grow_workers"),
}


def integration_groups(files: Iterable[str]) -> dict[str, list[str]]:
    """Names of integration test files by the stage they run in; a file nobody listed runs on the converged host."""
    home = {name: group for group, names in SHARED_HOSTS.items() for name in names}
    groups: dict[str, list[str]] = {}
    for name in sorted(files):
        groups.setdefault(home.get(name, "host"), []).append(name)
    return groups


def is_shell(path: Path) -> bool:
    """Whether the file starts like a shell script."""
    with path.open("rb") as handle:
        first = handle.readline()
    return first.startswith(b"#!") and b"sh" in first


def paint(text: str, code: str) -> str:
    """Coloured on a terminal, plain elsewhere."""
    return f"\033[{code}m{text}\033[0m" if COLOUR else text


def junit_counts(path: Path) -> tuple[Counts, list[str]]:
    """Counts and the reasons of skipped tests from a JUnit file; a file that is not there counts as one failure."""
    if not path.exists():
        return Counts(failed=1), []
    counts, reasons = Counts(), []
    for case in ET.parse(path).getroot().iter("testcase"):  # noqa: S314 - our own file
        skipped = case.find("skipped")
        if case.find("failure") is not None or case.find("error") is not None:
            counts.failed += 1
        elif skipped is not None:
            counts.skipped += 1
            reasons.append(f"{case.get('classname')}::{case.get('name')}: {skipped.get('message')}")
        else:
            counts.passed += 1
    return counts, reasons


PULSE_SECONDS = 60
STARTED: dict[Stage, tuple[float, subprocess.Popen[bytes]]] = {}
"""What runs now, since when (monotonic)."""
ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def log_of(stage: Stage) -> Path:
    """The file that a stage's output goes to."""
    return LOGS / f"{stage.name}.log"


def last_line(log: Path) -> str:
    """What a stage wrote last, without colours."""
    with log.open("rb") as handle:
        handle.seek(0, os.SEEK_END)
        handle.seek(max(0, handle.tell() - 2000))
        lines = ANSI.sub("", handle.read().decode(errors="replace")).strip().splitlines()
    return lines[-1].strip() if lines else ""


def run_stage(stage: Stage) -> tuple[Counts, str]:
    """Run one stage; its counts, and what to tell of it."""
    log, junit = log_of(stage), LOGS / f"{stage.name}.xml"
    junit.unlink(missing_ok=True)
    argv = [*stage.argv, f"--junitxml={junit}"] if stage.pytest else list(stage.argv)
    started = time.monotonic()
    environment = {
        **os.environ,
        "PATH": f"{VENV}{os.pathsep}{os.environ['PATH']}",
        "ANSIBLE_COLLECTIONS_PATH": f"{ROOT / 'collections'}",
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "PYTHONDONTWRITEBYTECODE": "1",
        **stage.env,
    }
    with log.open("wb") as handle:
        try:
            process = subprocess.Popen(
                argv, cwd=ROOT, stdout=handle, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=environment
            )
        except FileNotFoundError:
            handle.write(f"{argv[0]} is not installed. bin/setup installs it.\n".encode())
            code = 127
        else:
            STARTED[stage] = (started, process)
            code = process.wait()
            del STARTED[stage]
    seconds = time.monotonic() - started
    counts, reasons = (
        junit_counts(junit) if stage.pytest else (Counts(passed=int(code == 0), failed=int(code != 0)), [])
    )
    if code != 0 and counts.failed == 0:
        counts.failed = 1
    verdict = paint("failed", "1;31") if counts.failed else paint("ok", "32")
    tests = f"{counts.passed} passed, {counts.failed} failed, {counts.skipped} skipped" if stage.pytest else ""
    told = [f"{stage.name:<24}{verdict:<6} {seconds:7.1f} s  {tests}".rstrip()]
    told += [f"        skipped: {reason}" for reason in reasons]
    if counts.failed:
        told += [f"    {line}" for line in log.read_text(errors="replace").splitlines()[-80:]]
        told.append(f"    whole log: {log.relative_to(ROOT)}")
    return counts, "\n".join(told)


def lanes() -> int:
    """How many stages run at once: two, where there are two cores and memory for the hosts of two."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return 2 if (os.cpu_count() or 1) >= 2 and memory >= LEAST_MEMORY_GB else 1


LEAST_MEMORY_GB = 7


def run_all(chosen: Sequence[Stage], jobs: int) -> Counts:
    """Run stages, ``jobs`` at a time; those that want to be alone come last. A line for each as it ends."""
    total, done = Counts(), 0
    together = [stage for stage in chosen if not stage.alone]
    for group, most in ((together, jobs), ([stage for stage in chosen if stage.alone], 1)):
        with futures.ThreadPoolExecutor(most) as pool:
            waiting = {pool.submit(run_stage, stage) for stage in group}
            try:
                while waiting:
                    ended, waiting = wait(waiting)
                    for one in ended:
                        counts, told = one.result()
                        total.add(counts)
                        done += 1
                        print(f"{CLEAR}[{done:2}/{len(chosen)}] {told}", flush=True)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                for _, process in list(STARTED.values()):
                    process.terminate()
                raise
    return total


CLEAR = "\r\033[K" if COLOUR else ""


def wait(waiting: set[futures.Future[tuple[Counts, str]]]) -> tuple[set[Any], set[Any]]:
    """Until a stage ends, show where those that run are: on a terminal all the time, elsewhere each minute."""
    pulse = time.monotonic()
    while True:
        ended, rest = futures.wait(waiting, 1 if COLOUR else 5, futures.FIRST_COMPLETED)
        if ended:
            return ended, rest
        now = time.monotonic()
        running = [(now - since, stage) for stage, (since, _) in list(STARTED.items())]
        if COLOUR:
            shown = "   ".join(f"{stage.name} {seconds:.0f} s" for seconds, stage in running)
            print(f"{CLEAR}{shown[:100]}", end="", flush=True)
        elif now - pulse >= PULSE_SECONDS:
            pulse = now
            for seconds, stage in running:
                print(f"        {seconds:5.0f} s  {stage.name}: {last_line(log_of(stage))[:110]}", flush=True)


def main() -> int:
    """Parse the command line, run, and return the exit code: 0 only if nothing failed and something passed."""
    parser = argparse.ArgumentParser(prog="bin/test", description="Run Slipway's checks and tests.")
    parser.add_argument("names", nargs="*", metavar="STAGE", help="only these stages")
    parser.add_argument("--fast", action="store_true", help="lint and unit tests alone")
    parser.add_argument("--all", action="store_true", help="also the benchmarks and long matrices")
    parser.add_argument("--jobs", type=int, default=0, metavar="N", help="stages at a time; by default what fits")
    parser.add_argument("--list", action="store_true", help="name the stages and stop")
    options = parser.parse_args()
    known = stages(slow=options.all)
    tier = 0 if options.fast else 2 if options.all else 1
    if options.list:
        for stage in known:
            print(f"{stage.name:<28}{('fast', 'default', '--all')[stage.tier]}")
        return 0
    unknown = set(options.names) - {stage.name for stage in known}
    if unknown:
        print(
            f"bin/test: there is no stage {', '.join(sorted(unknown))}. 'bin/test --list' names them all.",
            file=sys.stderr,
        )
        return 2
    chosen = [stage for stage in known if (stage.name in options.names if options.names else stage.tier <= tier)]
    left_out = [stage.name for stage in known if stage not in chosen]
    shutil.rmtree(LOGS, ignore_errors=True)
    LOGS.mkdir(parents=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    started = time.monotonic()
    try:
        total = run_all(chosen, max(0, options.jobs) or lanes())
    except KeyboardInterrupt:
        print("\nbin/test: stopped by Ctrl-C. Lab hosts that are still up: bin/lab list", file=sys.stderr)
        return 130
    minutes, seconds = divmod(int(time.monotonic() - started), 60)
    if not options.all:
        left_out.append("tests marked slow (bin/test --all)")
    if left_out:
        print(f"Left out this time: {', '.join(left_out)}")
    print(f"Took {minutes} min {seconds} s.")
    print(f"{total.passed} passed, {total.failed} failed, {total.skipped} skipped")
    return 1 if total.failed or not total.passed else 0


if __name__ == "__main__":
    sys.exit(main())
