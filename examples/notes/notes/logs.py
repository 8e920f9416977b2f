# SPDX-License-Identifier: Apache-2.0
"""One JSON object a line on stdout: what journald, jq and log shippers read without a parser."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

from .settings import Settings

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}


class JsonLines(logging.Formatter):
    """Formats a record, and whatever it was given as ``extra``, as one line of JSON."""

    def __init__(self, release: str, colour: str) -> None:
        super().__init__()
        self._constant = {"release": release, "colour": colour}

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "what": record.getMessage(),
            **self._constant,
        }
        line.update({key: value for key, value in vars(record).items() if key not in _STANDARD})
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def configure(settings: Settings) -> None:
    """Send every logger, uvicorn's included, through one JSON handler."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonLines(settings.release, settings.colour))
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler], force=True)
    # Pool reconnects are told once by the pool itself; its per-connection chatter helps nobody.
    logging.getLogger("psycopg.pool").setLevel(logging.ERROR)
    # "Started", "Waiting for ..." and the like: the application says when it serves and when it stops.
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
