# SPDX-License-Identifier: Apache-2.0
"""Asking a server of Redis, by Debian's own ``redis-cli``. Passwords go by its environment, never by its arguments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..commands import CommandError, Outcome, run
from ..errors import SlipwayError

SECONDS = 5.0
Runner = Callable[..., Outcome]


class RedisError(SlipwayError):
    """A server does not answer, runs with other settings, or lets in what it should not."""


@dataclass(frozen=True)
class Door:
    """Where a server is reached. ``inside`` is the process whose network is used (0: this host's own)."""

    address: str
    port: int
    inside: int = 0
    runner: Runner = run

    def ask(self, *words: str, user: str = "", password: str = "") -> str:
        """The answer of one command, errors of the server included (they begin with their code, as in ``NOPERM ...``).

        Raises RedisError where nothing answers.
        """
        argv = ["redis-cli", "-h", self.address, "-p", str(self.port), "--no-auth-warning"]
        if user:
            argv += ["--user", user]
        if self.inside:
            argv = ["nsenter", f"--target={self.inside}", "--net", "--", *argv]
        try:
            environment = {"REDISCLI_AUTH": password} if password else None
            outcome = self.runner([*argv, *words], check=False, timeout=SECONDS, env=environment)
        except CommandError as error:
            raise RedisError(f"Redis at {self.address}:{self.port} does not answer: {error.found}") from error
        if "AUTH failed: " in outcome.stderr:
            return outcome.stderr.partition("AUTH failed: ")[2].strip()
        if not outcome.ok and not outcome.stdout.strip():
            raise RedisError(
                f"Redis at {self.address}:{self.port} does not answer: {outcome.said or 'no reason given'}",
                "a server that listens there",
                "look at 'systemctl status redis-server@*' and 'journalctl -u redis-server@*' on the host",
            )
        return outcome.stdout.strip()

    def numbers(self, *, user: str, password: str) -> dict[str, str]:
        """``INFO``: name -> value. Raises RedisError."""
        text = self.ask("INFO", user=user, password=password)
        found = parse_info(text)
        if "used_memory" not in found:
            raise RedisError(f"Redis at {self.address}:{self.port} does not tell {user} its numbers: {first(text)}")
        return found


def parse_info(text: str) -> dict[str, str]:
    """The lines ``name:value`` of INFO."""
    pairs = (line.partition(":") for line in text.splitlines() if not line.startswith("#"))
    return {name: value.strip() for name, found, value in pairs if found}


def first(text: str) -> str:
    """The first line of an answer, for messages."""
    return (text.splitlines() or ["nothing"])[0]


def keys(numbers: dict[str, str]) -> int:
    """How many keys all databases of a server hold, from INFO's ``db0:keys=3,expires=0,...``."""
    found = [value for name, value in numbers.items() if name.startswith("db") and "keys=" in value]
    return sum(int(value.partition("keys=")[2].split(",")[0]) for value in found)


def denied(answer: str, codes: Sequence[str]) -> bool:
    """Whether the server refused, with one of these error codes."""
    return answer.removeprefix("(error) ").startswith(tuple(codes))
