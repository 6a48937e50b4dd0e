"""Why a request cannot be answered."""

from __future__ import annotations

UNKNOWN_READING = "unknown_reading"  # code of an error: the reading is not known, as after a restart; read it again
CANCELLED = "cancelled"  # code of an error: reading the text was cancelled; only `read` starts it again


class RequestError(Exception):
    """The request cannot be answered: `status` as in HTTP, `code` for a program to act on."""

    def __init__(self, message: str, status: int = 400, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.code = status, code
