# SPDX-License-Identifier: Apache-2.0
"""The Compose file of one colour, and every argument list for Docker. Pure: plain data in, plain data out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from .spec import Colour, Job, Spec

SERVICE, RELEASE_SERVICE = "web", "release"
JOB_CLIENTS = 2
"""Connections to the pooler that a background container is told to open at most: the one it works on, and a spare."""
JOB_NUMBERS = {"WORKERS": "1", "WEB_CONCURRENCY": "1", "CONCURRENCY": "1", "POOL_SIZE": "1", "POOL_OVERFLOW": "1"}
FILE = "compose.json"


def project(app: str, colour: Colour) -> str:
    """The Compose project of one colour of an app."""
    return f"slipway_{app}_{colour}"


def container(app: str, colour: Colour) -> str:
    """The name of the container that serves."""
    return f"slipway_{app}_{colour}"


def job_service(job: Job, number: int) -> str:
    """The Compose service of one container of a background job; ``number`` counts from 1."""
    return f"job-{job.name}-{number}"


def job_containers(spec: Spec, colour: Colour) -> dict[str, str]:
    """Every background container that a release wants in a colour: its name, and its Compose service.

    Names of apps and jobs have no hyphen, so no other app's container can be called like one of these.
    """
    return {
        f"{container(spec.name, colour)}-{job.name}-{number}": job_service(job, number)
        for job in spec.jobs
        for number in range(1, job.count + 1)
    }


def release_container(app: str) -> str:
    """The name of the one-off container that runs the release command."""
    return f"slipway_{app}_release"


def log_tag(app: str, job: str = "") -> str:
    """What an app's lines in the system journal are tagged with: ``slipway-notes``, its job's ``slipway-notes-mail``."""
    return f"slipway-{app}-{job}" if job else f"slipway-{app}"


def image_tag(app: str, release: str) -> str:
    """The name under which a release's image is kept on the host."""
    return f"slipway/{app}:{release}"


def compose(
    spec: Spec, env: Mapping[str, str], *, image: str, release: str, colour: Colour, address: str
) -> dict[str, Any]:
    """The Compose file as plain data (JSON is YAML). It holds the environment, so it belongs into a 0600 file.

    ``address`` is fixed, because it must survive restarts of the container, of Docker and of the host.
    Nothing is published: the proxy reaches the container's address through the switch. The release command gets the
    session-pooled database URL in place of the transaction-pooled one, because migrations take session locks.
    """
    own = {**env, "PORT": str(spec.port), "RELEASE": release, "SLIPWAY_RELEASE": release}
    common: dict[str, Any] = {
        "image": image,
        "pull_policy": "never",
        "cap_drop": ["ALL"],
        "cap_add": list(spec.cap_add),
        "security_opt": ["no-new-privileges:true"],
        "mem_limit": f"{spec.memory_mb}m",
        "memswap_limit": f"{spec.memory_mb}m",
        "cpu_shares": spec.cpu_shares,
        "pids_limit": spec.pids_limit,
        # The kernel shall pick an app before it picks the database.
        "oom_score_adj": 300,
        "read_only": spec.read_only,
        "tmpfs": list(spec.tmpfs) or (["/tmp:size=64m,mode=1777"] if spec.read_only else []),  # noqa: S108 - in the container
        "volumes": list(spec.volumes),
        "logging": {"driver": "journald", "options": {"tag": log_tag(spec.name)}},
        "labels": {"slipway.app": spec.name, "slipway.release": release, "slipway.colour": colour},
    }
    if spec.user:
        common["user"] = spec.user
    web = {
        **common,
        "container_name": container(spec.name, colour),
        "environment": _literal({**own, "SLIPWAY_COLOUR": colour}),
        # Until it has passed its gate: a container that ends shall be seen to have ended. Then Docker is told to keep it.
        "restart": "no",
        "init": spec.init,
        "stop_grace_period": f"{spec.stop_grace_seconds}s",
        "networks": {"apps": {"ipv4_address": address}},
    }
    if spec.command:
        web["command"] = [_dollars(word) for word in spec.command]
    services = {SERVICE: web}
    if spec.release_command:
        session = {"DATABASE_URL": own["DATABASE_SESSION_URL"]} if own.get("DATABASE_SESSION_URL") else {}
        services[RELEASE_SERVICE] = {
            **common,
            "profiles": ["release"],
            "restart": "no",
            "environment": _literal({**own, **session}),
            "command": [_dollars(word) for word in spec.release_command],
            "networks": {"apps": {}},
        }
    for job in spec.jobs:
        services |= _job(spec, job, common, own, colour)
    return {
        "name": project(spec.name, colour),
        "services": services,
        "networks": {"apps": {"name": spec.network.name, "external": True}},
    }


def _job(
    spec: Spec, job: Job, common: Mapping[str, Any], own: Mapping[str, str], colour: Colour
) -> dict[str, dict[str, Any]]:
    """The services of one background job: the web container's jail with its own command, limit and log tag.

    The numbers that the sizing gave the web workers are not this container's: it is one process, with a small pool.
    """
    numbers = {name: value for name, value in JOB_NUMBERS.items() if name in own}
    services = {}
    for number in range(1, job.count + 1):
        named = {"SLIPWAY_COLOUR": colour, "SLIPWAY_JOB": job.name, "SLIPWAY_JOB_NUMBER": str(number)}
        services[job_service(job, number)] = {
            **common,
            "container_name": f"{container(spec.name, colour)}-{job.name}-{number}",
            "command": [_dollars(word) for word in job.command],
            "environment": _literal({**own, **numbers, **named}),
            "mem_limit": f"{job.memory_mb}m",
            "memswap_limit": f"{job.memory_mb}m",
            "logging": {"driver": "journald", "options": {"tag": log_tag(spec.name, job.name)}},
            "labels": {**common["labels"], "slipway.job": job.name},
            # As for the web container: what ends at once shall be seen to have ended.
            "restart": "no",
            "init": spec.init,
            # Docker keeps it with the container, so that `docker stop` gives each job its own time.
            "stop_grace_period": f"{job.drain_seconds}s",
            # An image's check asks the web server, which does not run here.
            "healthcheck": {"disable": True},
            "networks": {"apps": {}},
        }
    return services


def render(data: Mapping[str, Any]) -> str:
    """The text of the Compose file."""
    return json.dumps(data, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _literal(env: Mapping[str, str]) -> dict[str, str]:
    return {name: _dollars(value) for name, value in sorted(env.items())}


def _dollars(text: str) -> str:
    """Compose replaces $NAME in values; a doubled $ stands for itself."""
    return text.replace("$", "$$")


def _compose_argv(name: str, file: str) -> list[str]:
    return ["docker", "compose", "--project-name", name, "--file", file, "--progress", "plain"]


def up_argv(name: str, file: str, services: Sequence[str] = (SERVICE,)) -> list[str]:
    """Start services of a project (the serving container alone, unless told), anew if their definition changed."""
    return [*_compose_argv(name, file), "up", "--detach", "--no-build", "--remove-orphans", *services]


def run_release_argv(name: str, file: str, container_name: str) -> list[str]:
    """Run the release command to its end in a container of its own."""
    return [
        *_compose_argv(name, file),
        "run",
        "--rm",
        "--no-deps",
        "--no-TTY",
        "--name",
        container_name,
        RELEASE_SERVICE,
    ]


def stop_argv(container_name: str, grace_seconds: int) -> list[str]:
    """SIGTERM, and SIGKILL after the grace period."""
    return ["docker", "stop", "--time", str(grace_seconds), container_name]


def stop_jobs_argv(names: Sequence[str]) -> list[str]:
    """SIGTERM to all at once, SIGKILL to each after the grace period it was made with."""
    return ["docker", "stop", *names]


def jobs_argv(app: str) -> list[str]:
    """The ids of all background containers of an app, those that do not run too."""
    return [
        "docker", "ps", "--all", "--quiet", "--no-trunc",
        "--filter", f"label=slipway.app={app}", "--filter", "label=slipway.job",
    ]  # fmt: skip


def remove_argv(container_name: str) -> list[str]:
    """Remove a container whatever its state, with its anonymous volumes."""
    return ["docker", "rm", "--force", "--volumes", container_name]


def build_argv(reference: str, dockerfile: str, args: Mapping[str, str], target: str) -> list[str]:
    """Build from a context given on standard input."""
    argv = ["docker", "build", "--tag", reference, "--file", dockerfile]
    for name in sorted(args):
        argv += ["--build-arg", f"{name}={args[name]}"]
    if target:
        argv += ["--target", target]
    return [*argv, "-"]


def logs_argv(container_name: str, lines: int) -> list[str]:
    """The last lines a container wrote, both streams."""
    return ["docker", "logs", "--tail", str(lines), container_name]


def redact(lines: Sequence[str], env: Mapping[str, str]) -> list[str]:
    """``lines`` with every value of the environment that may be a secret blotted out.

    Values under six characters are left: they are numbers and switches, and blotting them would garble the text.
    """
    values = sorted({value for value in env.values() if len(value) >= 6}, key=len, reverse=True)
    clean = []
    for line in lines:
        for value in values:
            line = line.replace(value, "***")  # noqa: PLW2901 - one line, many values
        clean.append(line)
    return clean
