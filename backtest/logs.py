"""What happens in a run: a line per event, on standard error with ``-v``, and as JSON in the file of ``--log``."""

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
        What JSON can hold, under names with units.
    """
    text = ", ".join(f"{name} {value}" for name, value in facts.items())
    LOG.info(f"{event}: {text}" if text else event, extra={"event": event, "facts": facts})


@contextmanager
def logged(file: str | Path | None) -> Iterator[None]:
    """Append all that is logged meanwhile to a file, an object of JSON per line; None: to none.

    Each has ``time`` (UTC, by the machine's clock), ``level`` and ``event``, which is ``message`` with its ``text``
    where it is no event of a run; the facts stand beside them.

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
        with suppress(OSError):  # what could not be written
            handler.close()


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        facts: Mapping[str, object] = getattr(record, "facts", {"text": record.getMessage()})
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        event = getattr(record, "event", "message")
        head = {"time": when, "level": record.levelname.lower(), "event": event}
        return json.dumps(head | dict(facts), ensure_ascii=False)


class _File(logging.FileHandler):
    """A log that cannot be written any more, as on a full disk, is given up with one line: the work is worth more."""

    def handleError(self, record: logging.LogRecord) -> None:
        LOG.removeHandler(self)
        LOG.warning(f"{self.baseFilename}: the log cannot be written ({sys.exception()}) and ends here")
