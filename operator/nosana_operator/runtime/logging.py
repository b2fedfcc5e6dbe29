"""Log lines: JSON for machines, one readable line on a terminal.

What a line is about goes into `extra` under the names of `FIELDS`, not into the text. Nothing here hides secrets:
they are never logged in the first place.
"""

from __future__ import annotations

import datetime
import json
import logging
import sys
from typing import Any, TextIO

from nosana_operator.runtime.settings import LogSettings

FIELDS = ("market", "job", "run", "op", "pod", "wallet", "signature", "reason")
"""The fields of a line, in the order in which a terminal shows them."""

_LOUD = {
    # Otherwise each watch event is a line and each repeated request an error, and both are ordinary.
    "kopf.objects": logging.ERROR,
    "kopf._cogs.clients": logging.CRITICAL,
    "kopf": logging.WARNING,
    "aiohttp.access": logging.WARNING,
}


class JsonFormatter(logging.Formatter):
    """One JSON object a line: ts, level, logger, msg, then the fields and the error, if any."""

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter`."""
        line: dict[str, Any] = {
            "ts": _timestamp(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "msg": record.getMessage(),
        }
        line |= _fields(record)
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


class ConsoleFormatter(logging.Formatter):
    """Time, level, text, and the fields as `name=value`."""

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter`."""
        moment = datetime.datetime.fromtimestamp(record.created).strftime("%H:%M:%S.%f")[:-3]
        fields = "".join(f" {name}={value}" for name, value in _fields(record).items())
        text = f"{moment} {record.levelname:<7} {record.getMessage()}{fields}"
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


def configure_logging(settings: LogSettings, stream: TextIO | None = None) -> None:
    """Send all log lines of the process to `stream` (standard error) in the format of the settings."""
    stream = stream if stream is not None else sys.stderr
    console = settings.format == "console" or (settings.format == "auto" and stream.isatty())
    handler = logging.StreamHandler(stream)
    handler.setFormatter(ConsoleFormatter() if console else JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.level.upper())
    for name, level in _LOUD.items():
        logging.getLogger(name).setLevel(level)
    logging.captureWarnings(True)


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name in FIELDS if (value := getattr(record, name, None)) is not None}


def _timestamp(record: logging.LogRecord) -> str:
    moment = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
