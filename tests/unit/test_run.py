# SPDX-License-Identifier: Apache-2.0
"""bin/test's runner: two stages at a time, and none of them passes for another."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest

from tests import run
from tests.run import Stage

ROOT = run.ROOT


@pytest.fixture(autouse=True)
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Logs of their own: those of the run that runs this test stay."""
    monkeypatch.setattr(run, "LOGS", tmp_path)
    monkeypatch.setattr(run, "ROOT", tmp_path)
    monkeypatch.setattr(run, "COLOUR", False)
    return tmp_path


def python(name: str, text: str, *, alone: bool = False) -> Stage:
    return Stage(name, (sys.executable, "-c", text), 1, alone=alone)


def spans(folder: Path, names: str, *, alone: str = "", together: str = "") -> dict[str, tuple[float, float]]:
    """Run stages of half a second, two at a time; when each began and ended. Those ``together`` wait for each other."""
    text = (
        "import json, sys, time; from pathlib import Path\n"
        "begun, out, others = time.time(), Path(sys.argv[1]), [Path(each) for each in sys.argv[2:]]\n"
        "out.with_suffix('.begun').touch(); limit = time.monotonic() + 180\n"
        "while not all(each.exists() for each in others): assert time.monotonic() < limit; time.sleep(0.02)\n"
        "time.sleep(0.5); out.write_text(json.dumps([begun, time.time()]))"
    )
    others = [str(folder / f"{name}.begun") for name in together]
    chosen = [
        Stage(name, (sys.executable, "-c", text, str(folder / f"{name}.json"), *(others if name in together else ())), 1,
              alone=name in alone)
        for name in names
    ]  # fmt: skip
    assert run.run_all(chosen, 2).passed == len(names)
    return {name: tuple(json.loads((folder / f"{name}.json").read_text())) for name in names}


def test_two_stages_run_at_once_and_not_three(logs: Path) -> None:
    """The first two end only when both have begun."""
    found = spans(logs, "abc", together="ab")
    assert found["c"][0] >= min(found["a"][1], found["b"][1])


def test_what_wants_to_be_alone_runs_when_nothing_else_does(logs: Path) -> None:
    found = spans(logs, "xab", alone="x")
    assert found["x"][0] >= max(found["a"][1], found["b"][1])


def test_a_failing_stage_is_counted_and_shown_beside_a_good_one(capsys: pytest.CaptureFixture[str]) -> None:
    total = run.run_all([python("good", "pass"), python("bad", "print('the reason'); raise SystemExit(3)")], 2)
    assert (total.passed, total.failed) == (1, 1)
    said = capsys.readouterr().out
    assert "the reason" in said
    assert "[ 2/2]" in said


def test_a_program_that_is_not_there_is_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    assert run.run_all([Stage("gone", ("/nowhere/tool",), 0)], 2).failed == 1
    assert "is not installed" in capsys.readouterr().out


def test_a_pytest_stage_without_a_report_is_a_failure() -> None:
    assert run.run_all([Stage("silent", (sys.executable, "-c", "pass"), 0, pytest=True)], 1).failed == 1


def test_ctrl_c_ends_what_runs_and_starts_nothing_more(logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_waiting: object) -> None:
        while not run.STARTED:
            time.sleep(0.01)
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "wait", interrupted)
    later = python("later", f"open({str(logs / 'ran')!r}, 'w')")
    with pytest.raises(KeyboardInterrupt):
        run.run_all([python("long", "import time; time.sleep(600)"), later], 1)
    assert not (logs / "ran").exists()
    assert not run.STARTED


def test_every_file_of_integration_tests_is_in_one_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "ROOT", ROOT)
    words = [word for stage in run.stages() for word in stage.argv]
    for file in (ROOT / "tests/integration").glob("test_*.py"):
        assert words.count(f"tests/integration/{file.name}") == 1


def test_what_clients_wait_for_is_measured_on_a_machine_that_does_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "ROOT", ROOT)
    (load,) = (stage for stage in run.stages() if stage.name == "integration_load")
    assert load.alone
    assert "tests/integration/test_deploy_under_load.py" in load.argv
