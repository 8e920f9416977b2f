# SPDX-License-Identifier: Apache-2.0
"""What an app is on a host: its specification (``app.json``) and its environment (``app.env``). Pure.

The control node renders both files, the host reads them back; the hash over their exact text says whether what runs
is what is wished for.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal

from ..errors import InputError, UnknownNameError
from ..sizing.model import JOB_MEMORY_MB

Colour = Literal["blue", "green"]
COLOURS: tuple[Colour, Colour] = ("blue", "green")
SERVICES = ("DATABASE_URL", "DATABASE_SESSION_URL", "REDIS_URL")
"""Variables that say where the host's own services are: they belong to the host, not to a release."""

JOBS_MOST = 32
"""Containers of one background job, and different jobs of one app, at most."""

_NAME = re.compile(r"[a-z][a-z0-9_]{0,30}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def other(colour: Colour) -> Colour:
    """The colour that is not ``colour``."""
    return "green" if colour == "blue" else "blue"


@dataclass(frozen=True)
class Image:
    """Where the image comes from. ``reference`` names it on the host, and changes whenever its content should.

    ``source``: ``registry`` is pulled, ``build`` is built on the host from a folder that was sent, ``ship`` is loaded
    from an archive that was sent.
    """

    source: Literal["registry", "build", "ship"]
    reference: str
    label: str = ""
    dockerfile: str = "Dockerfile"
    args: dict[str, str] = field(default_factory=dict)
    target: str = ""


@dataclass(frozen=True)
class Health:
    """The gate: GET ``path`` must answer 2xx ``successes`` times in a row within ``timeout`` seconds."""

    path: str = "/healthz"
    timeout: float = 60
    successes: int = 2
    interval: float = 0.3
    request_timeout: float = 5


@dataclass(frozen=True)
class Watch:
    """The watched window after a switch. ``seconds`` 0 turns it off; ``error_rate`` is a share, ``p95_ms`` milliseconds.

    ``factor``: how many times worse than before the switch counts as worse. ``restarts``: how many restarts of the
    container are too many.
    """

    seconds: float = 900
    error_rate: float = 0.05
    p95_ms: float = 1000
    factor: float = 2
    min_requests: int = 20
    restarts: int = 2
    access_log: str = ""


@dataclass(frozen=True)
class Network:
    """The Docker network of the apps and its IPv4 addresses."""

    name: str = "slipway"
    subnet: str = "10.213.87.0/24"
    gateway: str = "10.213.87.1"


@dataclass(frozen=True)
class Job:
    """A background worker: ``command`` in ``count`` containers of the app's own image, each limited to ``memory_mb``.

    ``drain_seconds``: what one gets between SIGTERM and SIGKILL to finish the job it has in hand.
    """

    name: str
    command: tuple[str, ...]
    count: int = 1
    memory_mb: int = JOB_MEMORY_MB
    drain_seconds: int = 30


@dataclass(frozen=True)
class Spec:
    """One app, wholly. Sizes in MB, times in seconds."""

    name: str
    image: Image
    stable_port: int = 18000
    port: int = 8000
    domains: tuple[str, ...] = ()
    health: Health = field(default_factory=Health)
    watch: Watch = field(default_factory=Watch)
    network: Network = field(default_factory=Network)
    release_command: tuple[str, ...] = ()
    release_timeout: float = 600
    command: tuple[str, ...] = ()
    memory_mb: int = 512
    cpu_shares: int = 512
    pids_limit: int = 1024
    read_only: bool = False
    tmpfs: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    cap_add: tuple[str, ...] = ()
    user: str = ""
    init: bool = False
    drain_seconds: float = 30
    stop_grace_seconds: int = 20
    jobs: tuple[Job, ...] = ()

    def to_json(self) -> str:
        """The text of ``app.json``: sorted keys, so that equal specs are equal files."""
        data = asdict(self)
        if not self.jobs:  # an app without jobs is what it was before there were any: no new release of it
            del data["jobs"]
        return json.dumps(data, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


PARTS: dict[str, Any] = {"image": Image, "health": Health, "watch": Watch, "network": Network}
TUPLES = ("domains", "release_command", "command", "tmpfs", "volumes", "cap_add")


def parse(raw: Mapping[str, Any]) -> Spec:
    """A spec from plain data (an app's own settings, or ``app.json`` read back).

    Raises InputError or UnknownNameError, naming the app and the key.
    """
    name = raw.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InputError(
            f"The app name {name!r} cannot be used", "a small letter, then at most 30 small letters, digits, _"
        )
    values: dict[str, Any] = {"name": name}
    known = {item.name for item in fields(Spec)}
    for key, value in raw.items():
        if key not in known:
            raise UnknownNameError(f"setting of app {name}", key, known)
        if value is None:
            continue
        if key in PARTS:
            values[key] = _part(name, key, value)
        elif key == "jobs":
            values[key] = _jobs(name, value)
        elif key in TUPLES:
            if isinstance(value, str | bytes | Mapping):
                raise InputError(f"App {name}: {key} is {value!r}", "a list", f"write {key}: [...]")
            values[key] = tuple(str(item) for item in value)
        else:
            values[key] = _scalar(name, Spec, key, value)
    if "image" not in values:
        raise InputError(f"App {name} has no image", "where its image comes from, under 'image'")
    spec = Spec(**values)
    _check(spec)
    return spec


def _scalar(app: str, owner: Any, key: str, value: Any) -> Any:
    """``value`` as the type that the field has, numbers also from their text (templates render text)."""
    kind = {item.name: item.type for item in fields(owner)}[key]
    try:
        if kind == "bool":
            if not isinstance(value, bool):
                raise ValueError(value)
            return value
        if kind in ("int", "float"):
            if isinstance(value, bool):
                raise ValueError(value)
            number = float(value)
            if kind == "int" and number != int(number):
                raise ValueError(value)
            return int(number) if number == int(number) else number
    except (TypeError, ValueError):
        wanted = {"bool": "true or false", "int": "a whole number", "float": "a number"}[str(kind)]
        raise InputError(f"App {app}: {key} is {value!r}", wanted, f"correct {key}") from None
    if isinstance(value, Mapping | list):
        if kind.startswith("dict") and isinstance(value, Mapping):
            return {str(name): str(item) for name, item in value.items()}
        raise InputError(f"App {app}: {key} is a {type(value).__name__}", "plain text", f"correct {key}")
    return str(value)


def _part(app: str, key: str, value: Any) -> Any:
    owner = PARTS[key]
    if not isinstance(value, Mapping):
        raise InputError(f"App {app}: {key} is {value!r}", f"a mapping with {', '.join(f.name for f in fields(owner))}")
    known = {item.name for item in fields(owner)}
    for name in value:
        if name not in known:
            raise UnknownNameError(f"key under {key} of app {app}", str(name), known)
    try:
        return owner(**{name: _scalar(app, owner, name, item) for name, item in value.items() if item is not None})
    except TypeError:
        required = [item for item in ("source", "reference") if item not in value]
        raise InputError(f"App {app}: {key} lacks {', '.join(required)}") from None


def _jobs(app: str, value: Any) -> tuple[Job, ...]:
    if not isinstance(value, list | tuple):
        raise InputError(f"App {app}: jobs is {value!r}", "a list", "write each job as an entry with name and command")
    jobs: dict[str, Job] = {}
    for raw in value:
        job = _job(app, raw)
        if job.name in jobs:
            raise InputError(f"App {app}: two jobs are called {job.name}", "a name of its own for each", "rename one")
        jobs[job.name] = job
    if len(jobs) > JOBS_MOST:
        raise InputError(f"App {app} has {len(jobs)} jobs", f"{JOBS_MOST} at most")
    return tuple(jobs.values())


def _job(app: str, raw: Any) -> Job:
    known = {item.name for item in fields(Job)}
    if not isinstance(raw, Mapping):
        raise InputError(f"App {app}: a job is {raw!r}", f"a mapping with {', '.join(f.name for f in fields(Job))}")
    for key in raw:
        if key not in known:
            raise UnknownNameError(f"key of a job of app {app}", str(key), known)
    name, command = raw.get("name"), raw.get("command")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InputError(
            f"App {app}: the job name {name!r} cannot be used",
            "a small letter, then at most 30 small letters, digits, _",
        )
    if not isinstance(command, list | tuple) or not command:
        raise InputError(
            f"App {app}: the command of job {name} is {command!r}", "a list of words, such as [python, -m, jobs]"
        )
    numbers = {
        key: _scalar(app, Job, key, raw[key])
        for key in ("count", "memory_mb", "drain_seconds")
        if raw.get(key) is not None
    }
    job = Job(name, tuple(str(word) for word in command), **numbers)
    if not 1 <= job.count <= JOBS_MOST:
        raise InputError(
            f"App {app}: count of job {name} is {job.count}", f"1 to {JOBS_MOST}", "correct it, or remove the job"
        )
    if job.memory_mb < 16 or job.drain_seconds < 0:
        raise InputError(f"App {app}: job {name}", "memory_mb of at least 16 and drain_seconds of 0 or more")
    return job


def _check(spec: Spec) -> None:
    """Bounds that a type cannot say. Raises InputError."""
    app = f"App {spec.name}:"
    if spec.image.source not in ("registry", "build", "ship"):
        raise InputError(f"{app} image.source is {spec.image.source!r}", "one of: registry, build, ship")
    for key in ("port", "stable_port"):
        if not 1 <= getattr(spec, key) <= 65535:
            raise InputError(f"{app} {key} is {getattr(spec, key)}", "1 to 65535")
    if not spec.health.path.startswith("/"):
        raise InputError(f"{app} health.path is {spec.health.path!r}", "a path that starts with /")
    if spec.health.successes < 1 or spec.health.timeout <= 0:
        raise InputError(f"{app} health allows nothing", "successes of at least 1 and a timeout above 0")
    if spec.memory_mb < 16:
        raise InputError(f"{app} memory_mb is {spec.memory_mb}", "at least 16")
    if spec.drain_seconds < 0 or spec.stop_grace_seconds < 0 or spec.watch.seconds < 0:
        raise InputError(f"{app} a negative time", "drain_seconds, stop_grace_seconds and watch.seconds of 0 or more")


def environment_text(values: Mapping[str, Any], app: str = "") -> str:
    """The text of ``app.env``: ``NAME='value'`` lines in the shell's quoting, sorted; booleans as ``true``/``false``.

    Raises InputError on a name that is no variable name, or a value that is not plain. No message quotes a value.
    """
    lines = []
    for name in sorted(values):
        value = values[name]
        if not _VARIABLE.fullmatch(str(name)):
            raise InputError(f"App {app}: {name!r} is no name for an environment variable", "letters, digits and _")
        if isinstance(value, Mapping | list | tuple) or value is None:
            raise InputError(f"App {app}: the value of {name} is a {type(value).__name__}", "text or a number")
        text = str(value).lower() if isinstance(value, bool) else str(value)
        if "\0" in text:
            raise InputError(f"App {app}: the value of {name} holds a zero byte", "text")
        lines.append(f"{name}={shlex.quote(text)}\n")
    return "".join(lines)


def parse_environment(text: str) -> dict[str, str]:
    """The reverse of :func:`environment_text`. Raises InputError on text that it did not write."""
    try:
        pairs = [word.split("=", 1) for word in shlex.split(text, comments=True)]
        return dict(pairs)  # a word without = is no pair: ValueError
    except ValueError:
        raise InputError("An environment file cannot be read", "NAME='value' lines", "run the playbook again") from None


def digest(spec_text: str, environment: str) -> str:
    """What identifies a wish: SHA-256 over both files' text, the first 16 hexadecimal digits."""
    return hashlib.sha256(f"{spec_text}\0{environment}".encode()).hexdigest()[:16]


def for_rollback(
    old: Spec, old_env: Mapping[str, str], now: Spec, now_env: Mapping[str, str]
) -> tuple[Spec, dict[str, str]]:
    """An old release as it must run today: its own image, settings and environment, but today's connections.

    Where the database is and with which password (``SERVICES``) belongs to the host, not to the release.
    """
    env = {name: value for name, value in old_env.items() if name not in SERVICES}
    env.update({name: now_env[name] for name in SERVICES if name in now_env})
    return replace(old, stable_port=now.stable_port, network=now.network), env
