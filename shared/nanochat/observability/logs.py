"""JSON logs: one object a line, an event and its fields. Set up once, in a service's __main__.

    log = logging.getLogger(__name__)
    log.info("job_claimed", extra={"job_id": job_id, "attempt": attempt})

Never prompts, completions or keys.
"""

import json
import logging
import sys
from datetime import UTC, datetime

from nanochat.observability.request_id import current_request_id

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {
    "message",
    "asctime",
    "taskName",
    "color_message",
}


class JsonFormatter(logging.Formatter):
    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "service": self._service,
            "logger": record.name,
            "event": record.getMessage(),
        }
        request_id = current_request_id()
        if request_id:
            fields["request_id"] = request_id
        fields.update({key: value for key, value in record.__dict__.items() if key not in _STANDARD})
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return json.dumps(fields, default=str, ensure_ascii=False)


def setup_logs(service: str, level: str = "INFO") -> None:
    """Route every logger to standard error as JSON lines, uvicorn's and Celery's included."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(service))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "celery"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    # Access lines repeat what the metrics count, and httpx logs each call at INFO.
    for name in ("uvicorn.access", "httpx", "httpcore"):
        logging.getLogger(name).setLevel(logging.WARNING)
