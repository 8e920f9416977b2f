# SPDX-License-Identifier: Apache-2.0
"""Deploys on a lab host, by the playbooks that a user types: good ones, bad ones, cut-off ones, rolled-back ones.

The app is ``tests/fixtures/tinyapp``, built on the host from the lab's Python image; faults are asked for by its environment.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from slipway.deploy.switch import FORGOTTEN_SECONDS

from tests.integration.tiny import PATIENT, PLACE, SECRET, TINY, Tiny, flat, message, playing, send_base
from tests.integration.world import ROOT, VENV, Done, raise_lab, recap, remove_lab

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def tiny() -> Iterator[Tiny]:
    """A host with Docker, agent and Caddy, and the base image of the tiny app; nothing is deployed yet."""
    world = raise_lab("deploy", image="rung0", acme=False)
    try:
        world.settings.update({
            "caddy_sites": [{
                "name": "tiny", "domains": ["tiny.lab.test"], "upstream_address": "10.213.87.1", "upstream_port": 18000,
                "tls_internal": True,
            }],
        })  # fmt: skip
        # This host has no admin user: each playbook tries one before root, which Debian's own jail would ban for.
        world.root(["systemctl", "disable", "--now", "fail2ban.service"])
        found = Tiny(world)
        found.write()
        done = subprocess.run(
            [str(VENV / "ansible-playbook"), "-i", str(world.inventory), "tests/integration/apps.yml"],
            cwd=ROOT, capture_output=True, text=True, check=False, timeout=600, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-5000:]
        send_base(world)
        yield found
    finally:
        remove_lab(world)


@pytest.fixture
def served(tiny: Tiny) -> Tiny:
    """The same with the app serving as :meth:`Tiny.reset` says; brought back to that after a test that left it otherwise."""
    tiny.reset()
    if not tiny.serves_as_reset():
        tiny.ok("-e", "app_watch_seconds=0")
        tiny.remember()
    return tiny


def test_first_deploy_serves_and_a_second_run_changes_nothing(tiny: Tiny) -> None:
    done = tiny.ok()
    assert "healthy after" in done.stdout
    assert tiny.who()["GREETING"] == "hello $HOME 'quoted'"
    assert tiny.status()["health"] == "healthy"
    again = tiny.ok("-e", "app_deploy=needed")
    assert recap(again)["changed"] == 0
    asked = tiny.ok()
    assert "serves exactly this already" in flat(asked.stdout)
    assert len(tiny.status()["releases"]) == 1


def test_check_mode_changes_nothing(served: Tiny) -> None:
    before = served.status()
    done = served.deploy("--check", "--diff", env={"GREETING": "other"})
    assert done.returncode == 0, done.stdout
    assert SECRET not in done.stdout
    moving = {"connections", "memory_mb"}
    after = served.status()
    assert {key: after[key] for key in after if key not in moving} == {
        key: before[key] for key in before if key not in moving
    }


def test_changed_setting_is_a_new_release_in_the_other_colour(served: Tiny) -> None:
    before = served.who()
    served.ok(env={"GREETING": "changed"})
    after = served.who()
    assert after["GREETING"] == "changed"
    assert after["SLIPWAY_COLOUR"] != before["SLIPWAY_COLOUR"]
    assert len(served.containers()) == 1


def test_changed_source_is_built_and_deployed(served: Tiny, tmp_path: Path) -> None:
    for file in TINY.iterdir():
        if file.is_file():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "VERSION").write_text("2\n")
    served.ok(image={**served.app["image"], "path": str(tmp_path)})
    assert served.who()["version"] == "2"


def test_image_that_does_not_exist_leaves_the_old_release(served: Tiny) -> None:
    before = served.who()
    text = message(served.deploy(image={"source": "registry", "name": "127.0.0.1:5999/nothing", "tag": "9"}))
    assert "127.0.0.1:5999/nothing:9 could not be pulled" in text
    assert "still serves" in text
    assert served.who() == before


def test_health_check_that_never_passes_leaves_the_old_release_and_shows_its_log(served: Tiny) -> None:
    before = served.who()
    text = message(served.deploy(env={"FAIL_READY": "1"}, health={"path": "/healthz", "timeout": 3}))
    assert "not healthy within 3 s: GET /healthz gave status 503" in text
    assert "starting with secret ***" in text
    assert SECRET not in text
    assert served.who() == before
    assert len(served.containers()) == 1


def test_container_that_stops_says_so_with_its_last_words(served: Tiny) -> None:
    before = served.who()
    text = message(served.deploy(env={"EXIT_AT_START": "1"}))
    assert "stopped with code 1" in text
    assert "there is no configuration at all" in text
    assert served.who() == before


def test_failing_release_command_stops_the_deploy(served: Tiny) -> None:
    before = served.who()
    command = ["python3", "-c", "print('the table is locked'); raise SystemExit(7)"]
    text = message(served.deploy(release_command=command))
    assert "ended with code 7" in text
    assert "the table is locked" in text
    assert served.who() == before


def test_failing_build_shows_why(served: Tiny, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("ARG BASE_IMAGE\nFROM ${BASE_IMAGE}\nRUN echo no such wheel && false\n")
    text = message(served.deploy(image={**served.app["image"], "path": str(tmp_path)}))
    assert "could not be built" in text
    assert "no such wheel" in text


def test_second_deploy_is_told_who_is_at_work(served: Tiny) -> None:
    patient = {"release_command": PATIENT}
    first: list[Done] = []
    thread = threading.Thread(target=lambda: first.append(served.deploy(**patient, env={"GREETING": "first"})))
    thread.start()
    try:
        served.wait_for("release_command")
        served.world.settings["slipway_apps"][0]["env"] = {"GREETING": "second"}
        inventory = served.world.write_inventory()
        text = message(served.world.playbook("deploy", "-e", "app_operator=bob", inventory_path=inventory))
        assert "tiny is busy: a deploy by alice has been running since 20" in text
    finally:
        served.world.root(["docker", "kill", "--signal=TERM", "slipway_tiny_release"], check=False)
        thread.join()
    assert first[0].returncode == 0, first[0].stdout[-3000:]
    assert served.who()["GREETING"] == "first"


def test_engine_killed_before_the_switch_returns_by_itself(served: Tiny) -> None:
    before = served.who()
    served.write(release_command=["sleep", "30"], env={"GREETING": "killed"})
    with playing(served) as play:
        served.wait_for("release_command")
        served.world.root(["systemctl", "kill", "--signal=KILL", "slipway-deploy@tiny.service"])
        text = flat(play.communicate(timeout=240)[0])
    assert play.returncode != 0
    assert "was cut off in phase release_command" in text
    assert served.wait_until_over()["result"] == "interrupted"
    assert served.who() == before
    assert served.world.root("docker ps -aq --filter name=slipway_tiny_release") == ""
    assert len(served.containers()) == 1


def test_engine_killed_after_the_switch_goes_on_by_itself(served: Tiny) -> None:
    served.write(env={"GREETING": "survivor"}, drain_seconds=60, release_command=["sleep", "2"])
    slow = threading.Thread(target=lambda: served.world.root(["curl", "-sSm", "60", f"{PLACE}/slow?seconds=18"]))
    with playing(served) as play:
        served.wait_for("release_command")
        slow.start()  # so that the drain lasts, however long Ansible took to come so far
        served.wait_for("drain")
        served.world.root(["systemctl", "kill", "--signal=KILL", "slipway-deploy@tiny.service"])
        play.communicate(timeout=240)
    slow.join()
    assert play.returncode == 0
    assert served.wait_until_over()["result"] == "succeeded"
    assert served.who()["GREETING"] == "survivor"
    assert len(served.containers()) == 1


def test_laptop_that_goes_away_does_not_stop_the_deploy_and_a_rerun_joins_it(served: Tiny) -> None:
    served.write(release_command=["sleep", "10"], env={"GREETING": "alone"})
    with playing(served) as play:
        served.wait_for("release_command")
        os.killpg(play.pid, signal.SIGKILL)
    done = served.world.playbook("deploy", "-e", "app_operator=alice")
    assert done.returncode == 0, done.stdout[-3000:]
    assert served.status()["deploy"]["result"] == "succeeded"
    assert served.who()["GREETING"] == "alone"
    assert served.world.root('grep -c \'"what":"deploy".*"result":"started"\' /var/log/slipway/journal.jsonl')


def test_request_in_flight_at_the_switch_ends_well(served: Tiny) -> None:
    served.write(env={"GREETING": "next"}, drain_seconds=30, release_command=["sleep", "2"])
    answers: list[str] = []
    slow = threading.Thread(
        target=lambda: answers.append(served.world.root(["curl", "-sSm", "60", f"{PLACE}/slow?seconds=18"]))
    )
    with playing(served) as play:
        served.wait_for("release_command")
        slow.start()
        served.wait_for("drain")
        assert answers == [], "it had its answer before the switch, so this test shows nothing"
        play.communicate(timeout=240)
    assert play.returncode == 0
    slow.join()
    assert answers == ["slept"]
    assert served.who()["GREETING"] == "next"


def test_rollback_by_playbook_and_no_return_of_what_was_rolled_back(served: Tiny) -> None:
    served.ok(env={"GREETING": "worse"})
    done = served.world.playbook("rollback", "-e", "app_operator=carol")
    assert done.returncode == 0, done.stdout[-3000:]
    assert served.who()["GREETING"] == "hello $HOME 'quoted'"
    # What site.yml does at the next run: the files stand as they are, nothing is deployed, and it says why.
    again = served.ok("-e", "app_deploy=needed", env={"GREETING": "worse"})
    assert "rolled back by carol" in flat(again.stdout)
    assert recap(again)["changed"] == 0
    assert served.who()["GREETING"] == "hello $HOME 'quoted'"


def test_rollback_to_a_release_that_is_not_kept_names_those_that_are(served: Tiny) -> None:
    text = message(served.world.playbook("rollback", "-e", "release=20200101T000000Z-old"))
    assert "tiny has no release 20200101T000000Z-old" in text
    assert served.status()["release"] in text


def test_five_releases_are_kept(served: Tiny) -> None:
    def kept() -> list[str]:
        return [release["id"] for release in served.status()["releases"]]

    made = set(kept())
    while len(made) < 6:  # earlier tests have made some
        served.ok(env={"GREETING": f"number {len(made)}"})
        made |= set(kept())
    assert kept() == sorted(made, reverse=True)[:5]
    tags = served.world.root("docker image ls --format '{{.Tag}}' slipway/tiny").split()
    assert len([tag for tag in tags if tag.startswith("20")]) == 5


def test_release_that_turns_bad_is_rolled_back_by_itself(served: Tiny) -> None:
    before = served.who()
    stop = threading.Event()

    def visitors() -> None:
        while not stop.is_set():
            served.world.root(
                "for i in 1 2 3 4 5 6 7 8 9 10; do curl -ksSm 5 -o /dev/null --resolve tiny.lab.test:443:127.0.0.1 "
                "https://tiny.lab.test/; sleep 0.1; done", check=False,
            )  # fmt: skip

    thread = threading.Thread(target=visitors)
    thread.start()
    try:
        text = message(served.deploy(env={"FAIL_AFTER_SWITCH": "1"}, watch_seconds=60))
    finally:
        stop.set()
        thread.join()
    assert "was rolled back by itself" in text
    assert "were answered with an error" in text
    assert served.who()["SLIPWAY_RELEASE"] == before["SLIPWAY_RELEASE"]
    assert served.status()["held"]["why"].endswith("before the switch it was 0%)")


def test_restart_of_docker_cuts_no_request(served: Tiny) -> None:
    answers: list[str] = []
    slow = threading.Thread(
        target=lambda: answers.append(served.world.root(["curl", "-sSm", "60", f"{PLACE}/slow?seconds=6"]))
    )
    slow.start()
    time.sleep(1)
    served.world.root(["systemctl", "restart", "docker.service"])
    slow.join()
    assert answers == ["slept"]
    assert served.who()["SLIPWAY_RELEASE"] == served.status()["release"]


def test_connections_of_the_switch_are_forgotten_soon_after_their_end(served: Tiny) -> None:
    # By its source port: others ask through the switch too.
    known = "grep -c ' sport=30101 dport=18000 ' /proc/net/nf_conntrack || true"
    assert served.world.root(f"curl -sS --local-port 30101 -o /dev/null {PLACE}/; {known}").strip() == "1"
    time.sleep(FORGOTTEN_SECONDS)
    assert served.world.root(known).strip() == "0"


def test_killed_container_and_flushed_switch_come_back_by_themselves(served: Tiny) -> None:
    served.world.root(
        "docker kill $(docker ps -q --filter label=slipway.app=tiny) && nft delete table ip slipway_switch"
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and served.status()["health"] != "healthy":
        time.sleep(1)
    assert served.who()["SLIPWAY_RELEASE"] == served.status()["release"]


def test_secrets_are_in_no_argument_no_log_and_no_readable_file(served: Tiny) -> None:
    done = served.ok("-vvv", env={"GREETING": "talkative"})
    assert SECRET not in done.stdout + done.stderr
    root = served.world.root
    assert (
        root(
            "find /etc/slipway /var/lib/slipway /var/log/slipway -type f -perm /077 -exec grep -l " + SECRET + " {} +",
            check=False,
        )
        == ""
    )
    assert root(f"grep -rl {SECRET} /etc/slipway", check=False).split() == ["/etc/slipway/apps/tiny/app.env"]
    assert root(f"grep -c {SECRET} /var/log/slipway/journal.jsonl", check=False).strip() == "0"
    assert root(f"journalctl -u 'slipway-*' | grep -c {SECRET}", check=False).strip() == "0"
    assert SECRET not in json.dumps(served.status())


def test_app_that_would_take_anothers_port_is_refused_before_anything_changes(served: Tiny) -> None:
    served.world.settings["slipway_apps"] = [{**served.app, "name": "first", "domains": ["first.lab.test"]}, served.app]
    text = message(served.world.playbook("deploy", inventory_path=served.world.write_inventory()))
    assert "port_base: 18000" in text
    assert "first" not in served.world.root(["ls", "/etc/slipway/apps"])


def test_misspelled_app_name_names_those_there_are(served: Tiny) -> None:
    assert "There is no app 'tinny'" in message(served.world.playbook("deploy", "-e", "app=tinny"))


def test_removed_app_leaves_nothing_behind(served: Tiny) -> None:
    served.ok(state="absent")
    assert served.containers() == []
    assert served.world.root("nft list map ip slipway_switch backends").count("18000") == 0
    assert served.world.root("docker image ls -q slipway/tiny") == ""
    assert (
        yaml.safe_load(served.world.root("ls /etc/slipway/apps /var/lib/slipway/apps | grep -c tiny", check=False)) == 0
    )
