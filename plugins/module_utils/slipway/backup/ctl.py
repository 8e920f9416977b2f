# SPDX-License-Identifier: Apache-2.0
"""``slipway backup``: what a person, ``fab`` and the units call."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from ..errors import SlipwayError
from . import alarms, config, runs, take
from .codec import to_plain
from .stopping import by_signals

GOOD, FAILED, USAGE, BUSY = 0, 1, 2, 3


def add(commands: Any) -> None:
    """Add ``backup`` and its verbs to the command's parsers."""
    verbs = commands.add_parser("backup", help="the backups of this server").add_subparsers(dest="verb", required=True)
    run = _verb(verbs, "run", "take a backup now, and follow it")
    run.add_argument("--here", action="store_true", help="in this process: what slipway-backup.service does")
    run.add_argument("--hold", default="", metavar="WHY", help="retention keeps it until somebody lets it go")


def _verb(verbs: Any, name: str, text: str) -> argparse.ArgumentParser:
    made: argparse.ArgumentParser = verbs.add_parser(name, help=text, description=text)
    made.add_argument("--json", action="store_true", help="for programs")
    made.add_argument("--config", type=Path, default=config.FILE, help=argparse.SUPPRESS)
    return made


def main(arguments: argparse.Namespace) -> int:
    """Run a verb; the exit code. Raises SlipwayError for errors that end with 1."""
    try:
        return {"run": _run}[arguments.verb](arguments)
    except runs.BusyError as error:
        return _failure(error, arguments, BUSY)
    except SlipwayError as error:
        return _failure(error, arguments, FAILED)


def _failure(error: SlipwayError, arguments: argparse.Namespace, code: int) -> int:
    if arguments.json:
        print(json.dumps({"result": "busy" if code == BUSY else "failed", **error.to_dict(), "reason": str(error)}))
    print(f"slipway: {error}", file=sys.stderr)
    return code


def _run(arguments: argparse.Namespace) -> int:
    settings = config.load(arguments.config)
    quiet = arguments.json
    around = take.Around(
        by=os.environ.get("SUDO_USER", ""), hold=arguments.hold, say=(lambda _text: None) if quiet else _say
    )
    with by_signals(around.stop):
        done = take.run(
            settings, lambda: config.store(settings, "writer"), around, alarms.load() if settings.alarms else None
        )
    if arguments.json:
        print(json.dumps(to_plain(done)))
        return GOOD
    for text in done.warnings:
        _say(f"warning: {text}")
    _say(
        f"{done.id}: {len(done.databases)} databases, {done.stored_bytes} bytes in {settings.place}, "
        f"{done.duration_ms / 1000:.1f} s, snapshot held {done.held_ms / 1000:.1f} s"
    )
    return GOOD


def _say(text: str) -> None:
    print(text, flush=True)
