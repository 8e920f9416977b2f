# SPDX-License-Identifier: Apache-2.0
"""Runs the stages of bin/test one after the other and closes with one line of counts.

A stage is a program; a pytest stage reports each of its tests (read from its JUnit file), any other stage
counts as one check. Output goes to a log file per stage, its end is shown when the stage fails.
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
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOGS = ROOT / ".cache" / "test"
VENV = ROOT / ".venv" / "bin"
COLOUR = sys.stdout.isatty() and "NO_COLOR" not in os.environ


@dataclass(frozen=True)
class Stage:
    """One program. ``tier`` 0 runs with --fast, 1 by default, 2 with --all only."""

    name: str
    argv: tuple[str, ...]
    tier: int
    pytest: bool = False
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


def pytest_stage(name: str, paths: Sequence[str], tier: int, *options: str) -> Stage:
    """A stage that runs pytest on some paths."""
    return Stage(name, (tool("pytest"), *paths, *options), tier, pytest=True)


def stages() -> list[Stage]:
    """All stages in order: the cheap ones first."""
    scenarios = sorted(path.parent.name for path in (ROOT / "molecule").glob("*/molecule.yml"))
    shell = [str(path.relative_to(ROOT)) for path in [*sorted(ROOT.glob("bin/*")), ROOT / ".ci/run"] if is_shell(path)]
    integration = integration_groups(
        path.stem.removeprefix("test_") for path in (ROOT / "tests/integration").glob("test_*.py")
    )
    benchmarks = sorted(path.stem for path in (ROOT / "benchmarks").glob("[a-z]*.py") if path.stem in BENCHMARKS)
    return [
        Stage("ruff", (tool("ruff"), "check", "."), 0),
        Stage("ruff_format", (tool("ruff"), "format", "--check", "."), 0),
        Stage("mypy", (tool("mypy"),), 0),
        Stage("yamllint", (tool("yamllint"), "--strict", "."), 0),
        Stage("shellcheck", ("shellcheck", *shell), 0),
        Stage("ansible_lint", (tool("ansible-lint"), "--offline"), 0, env={"ANSIBLE_LINT_NODEPS": "1"}),
        pytest_stage("lint", ["tests/lint"], 0),
        pytest_stage("unit", ["tests/unit"], 0),
        *(Stage(f"molecule_{name}", (tool("molecule"), "test", "-s", name), 1) for name in scenarios),
        *(
            pytest_stage(f"integration_{group}", [f"tests/integration/test_{name}.py" for name in names], 1)
            for group, names in integration.items()
        ),
        *(Stage(f"benchmark_{name}", (tool("python"), "-m", f"benchmarks.{name}"), 2) for name in benchmarks),
    ]


BENCHMARKS = ("site", "deploy")
# Test files that share a lab host run in one stage, so that it is brought up once; the rest share the converged host.
SHARED_HOSTS = {
    "lab": ("lab",),
    "database": ("postgres", "pgbouncer"),
    "edge": ("caddy", "docker"),
    "lockout": ("lockout",),
    "deploy": ("deploy",),
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


def watch(argv: Sequence[str], log: Path, environment: dict[str, str], label: str) -> int:
    """Run ``argv`` into ``log`` and show where it is: on a terminal all the time, elsewhere a line a minute. Its exit code."""
    started = pulse = time.monotonic()
    with log.open("wb") as handle:
        try:
            process = subprocess.Popen(
                argv, cwd=ROOT, stdout=handle, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=environment
            )
        except FileNotFoundError:
            handle.write(f"{argv[0]} is not installed. bin/setup installs it.\n".encode())
            return 127
        try:
            while True:
                try:
                    return process.wait(timeout=1 if COLOUR else 5)
                except subprocess.TimeoutExpired:
                    now = time.monotonic()
                    if COLOUR:
                        print(f"\r\033[K{label}{now - started:7.0f} s  {last_line(log)[:80]}", end="", flush=True)
                    elif now - pulse >= PULSE_SECONDS:
                        pulse = now
                        print(f"\n        {now - started:5.0f} s  {last_line(log)[:140]}", end="", flush=True)
        except BaseException:
            process.terminate()
            process.wait()
            raise
        finally:
            if COLOUR:
                print(f"\r\033[K{label}", end="", flush=True)
            elif pulse != started:
                print(f"\n{label}", end="", flush=True)


ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def last_line(log: Path) -> str:
    """What a stage wrote last, without colours."""
    with log.open("rb") as handle:
        handle.seek(0, os.SEEK_END)
        handle.seek(max(0, handle.tell() - 2000))
        lines = ANSI.sub("", handle.read().decode(errors="replace")).strip().splitlines()
    return lines[-1].strip() if lines else ""


def run_stage(stage: Stage, number: int, total: int) -> Counts:
    """Run one stage, show how it ended, and return its counts."""
    log, junit = LOGS / f"{stage.name}.log", LOGS / f"{stage.name}.xml"
    junit.unlink(missing_ok=True)
    argv = [*stage.argv, f"--junitxml={junit}"] if stage.pytest else list(stage.argv)
    label = f"[{number:2}/{total}] {stage.name:<24}"
    print(label, end="", flush=True)
    started = time.monotonic()
    environment = {
        **os.environ,
        "PATH": f"{VENV}{os.pathsep}{os.environ['PATH']}",
        "ANSIBLE_COLLECTIONS_PATH": f"{ROOT / 'collections'}",
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "PYTHONDONTWRITEBYTECODE": "1",
        **stage.env,
    }
    code = watch(argv, log, environment, label)
    seconds = time.monotonic() - started
    counts, reasons = (
        junit_counts(junit) if stage.pytest else (Counts(passed=int(code == 0), failed=int(code != 0)), [])
    )
    if code != 0 and counts.failed == 0:
        counts.failed = 1
    verdict = paint("failed", "1;31") if counts.failed else paint("ok", "32")
    tests = f"{counts.passed} passed, {counts.failed} failed, {counts.skipped} skipped" if stage.pytest else ""
    print(f"{verdict:<6} {seconds:7.1f} s  {tests}".rstrip(), flush=True)
    for reason in reasons:
        print(f"        skipped: {reason}")
    if counts.failed:
        lines = log.read_text(errors="replace").splitlines()
        print("\n".join(f"    {line}" for line in lines[-80:]))
        print(f"    whole log: {log.relative_to(ROOT)}", flush=True)
    return counts


def main() -> int:
    """Parse the command line, run, and return the exit code: 0 only if nothing failed and something passed."""
    parser = argparse.ArgumentParser(prog="bin/test", description="Run Slipway's checks and tests.")
    parser.add_argument("names", nargs="*", metavar="STAGE", help="only these stages")
    parser.add_argument("--fast", action="store_true", help="lint and unit tests alone")
    parser.add_argument("--all", action="store_true", help="also the benchmarks and long matrices")
    parser.add_argument("--list", action="store_true", help="name the stages and stop")
    options = parser.parse_args()
    known = stages()
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
    started, total = time.monotonic(), Counts()
    try:
        for number, stage in enumerate(chosen, 1):
            total.add(run_stage(stage, number, len(chosen)))
    except KeyboardInterrupt:
        print("\nbin/test: stopped by Ctrl-C. Lab hosts that are still up: bin/lab list", file=sys.stderr)
        return 130
    minutes, seconds = divmod(int(time.monotonic() - started), 60)
    if left_out:
        print(f"Left out this time: {', '.join(left_out)}")
    print(f"Took {minutes} min {seconds} s.")
    print(f"{total.passed} passed, {total.failed} failed, {total.skipped} skipped")
    return 1 if total.failed or not total.passed else 0


if __name__ == "__main__":
    sys.exit(main())
