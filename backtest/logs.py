"""The log of a run: a line per event on standard error with ``-v``, and JSON lines in the file of ``--log``."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from backtest.errors import DataError

LOG = logging.getLogger("backtest")


def tell(event: str, facts: Mapping[str, object]) -> None:
    """Log an event of a run.

    Parameters
    ----------
    event : str
        Such as ``"task finished"``.
    facts : mapping
        Values that JSON can hold; units are in the names.
    """
    text = ", ".join(f"{name} {value}" for name, value in facts.items())
    LOG.info(f"{event}: {text}" if text else event, extra={"event": event, "facts": facts})


@contextmanager
def logged(file: str | Path | None) -> Iterator[None]:
    """Append all log records of the block to a file, one JSON object per line; None: no file.

    Each object has ``time`` (UTC, by the machine's clock), ``level``, ``event`` and the facts of the event. A record
    that is no event of a run has the event ``message`` and its ``text``.

    Raises
    ------
    DataError
        If the file cannot be opened.
    """
    if file is None:
        yield
        return
    try:
        handler = _File(file, encoding="utf-8")
    except OSError as error:
        raise DataError(f"{file}: cannot be written ({error.strerror}); name another file with --log") from None
    handler.setFormatter(_Json())
    level = LOG.level
    LOG.addHandler(handler)
    LOG.setLevel(logging.INFO)
    try:
        yield
    finally:
        LOG.setLevel(level)
        LOG.removeHandler(handler)
        with suppress(OSError):  # the last lines could not be written
            handler.close()


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        facts: Mapping[str, object] = getattr(record, "facts", {"text": record.getMessage()})
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        event = getattr(record, "event", "message")
        head = {"time": when, "level": record.levelname.lower(), "event": event}
        return json.dumps(head | dict(facts), ensure_ascii=False)


class _File(logging.FileHandler):
    """Stops with one warning when it cannot be written, as on a full disk; the run continues."""

    def handleError(self, record: logging.LogRecord) -> None:
        LOG.removeHandler(self)
        LOG.warning(f"{self.baseFilename}: the log cannot be written ({sys.exception()}) and ends here")
