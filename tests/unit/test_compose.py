# SPDX-License-Identifier: Apache-2.0
"""The Compose file of a colour and Docker's argument lists, to the letter."""

from __future__ import annotations

import json
from typing import Any

from slipway.deploy import compose
from slipway.deploy import spec as appspec

ENV = {
    "SECRET_KEY": "pa$$word'\n2",
    "DATABASE_URL": "postgresql://pooled",
    "DATABASE_SESSION_URL": "postgresql://session",
}


def spec(**changes: Any) -> appspec.Spec:
    """A spec of app notes."""
    return appspec.parse({"name": "notes", "image": {"source": "registry", "reference": "r/notes:1"}, **changes})


def made(**changes: Any) -> dict[str, Any]:
    """Its Compose file."""
    return compose.compose(
        spec(**changes), ENV, image="slipway/notes:R1", release="R1", colour="green", address="10.213.87.101"
    )


def test_nothing_is_published_and_nothing_is_privileged() -> None:
    web = made()["services"]["web"]
    assert "ports" not in web
    assert web["cap_drop"] == ["ALL"]
    assert web["security_opt"] == ["no-new-privileges:true"]
    assert web["networks"] == {"apps": {"ipv4_address": "10.213.87.101"}}


def test_memory_has_a_limit_that_swap_does_not_raise() -> None:
    web = made(memory_mb=300)["services"]["web"]
    assert (web["mem_limit"], web["memswap_limit"]) == ("300m", "300m")
    assert web["oom_score_adj"] > 0


def test_dollars_in_values_stay_dollars() -> None:
    assert made()["services"]["web"]["environment"]["SECRET_KEY"] == "pa$$$$word'\n2"
    assert made(command=["sh", "-c", "echo $HOME"])["services"]["web"]["command"] == ["sh", "-c", "echo $$HOME"]


def test_container_knows_its_release_colour_and_port() -> None:
    env = made(port=9000)["services"]["web"]["environment"]
    assert (env["PORT"], env["RELEASE"], env["SLIPWAY_COLOUR"]) == ("9000", "R1", "green")


def test_release_command_gets_the_session_pool_and_no_fixed_address() -> None:
    services = made(release_command=["python", "-m", "notes.migrate"])["services"]
    assert services["release"]["environment"]["DATABASE_URL"] == "postgresql://session"
    assert services["web"]["environment"]["DATABASE_URL"] == "postgresql://pooled"
    assert services["release"]["networks"] == {"apps": {}}
    assert services["release"]["profiles"] == ["release"]
    assert "release" not in made()["services"]


def test_read_only_root_gets_a_tmp_in_memory() -> None:
    assert made(read_only=True)["services"]["web"]["tmpfs"] == ["/tmp:size=64m,mode=1777"]
    assert made(read_only=True, tmpfs=["/run"])["services"]["web"]["tmpfs"] == ["/run"]
    assert made()["services"]["web"]["tmpfs"] == []


def test_the_file_is_json_and_the_same_each_time() -> None:
    assert compose.render(made()) == compose.render(made())
    assert json.loads(compose.render(made())) == made()


def test_argument_lists_hold_no_secret_and_are_exactly_these() -> None:
    assert compose.up_argv("slipway_notes_green", "/f.json") == [
        "docker", "compose", "--project-name", "slipway_notes_green", "--file", "/f.json", "--progress", "plain",
        "up", "--detach", "--no-build", "--remove-orphans", "web",
    ]  # fmt: skip
    assert compose.run_release_argv("p", "/f.json", "slipway_notes_release")[8:] == [
        "run", "--rm", "--no-deps", "--no-TTY", "--name", "slipway_notes_release", "release",
    ]  # fmt: skip
    assert compose.stop_argv("c", 20) == ["docker", "stop", "--time", "20", "c"]
    assert compose.build_argv("slipway/notes:src-1", "Dockerfile", {"B": "2", "A": "1"}, "prod") == [
        "docker", "build", "--tag", "slipway/notes:src-1", "--file", "Dockerfile", "--build-arg", "A=1", "--build-arg", "B=2",
        "--target", "prod", "-",
    ]  # fmt: skip


def test_log_lines_are_shown_without_values_that_may_be_secret() -> None:
    lines = ["connecting to postgresql://pooled", "port 8000"]
    assert compose.redact(lines, {**ENV, "PORT": "8000"}) == ["connecting to ***", "port 8000"]
