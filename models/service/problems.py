"""Errors of a request, as JSON: what is wrong, and what to do."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.responses import JSONResponse


class RequestProblem(Exception):
    """A request that is refused or failed.

    Args:
        status: HTTP status code.
        error: what is wrong, with its value; one line.
        remedy: what the client can do; one line.
        extra: further members of the JSON answer.
        headers: further headers of the answer.
    """

    def __init__(
        self,
        status: int,
        error: str,
        remedy: str,
        extra: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(error)
        self.status, self.error, self.remedy = status, error, remedy
        self.extra, self.headers = dict(extra or {}), dict(headers or {})

    def response(self) -> JSONResponse:
        """Return the answer: `{"error": ..., "remedy": ...}` and what is in `extra`."""
        body = {"error": self.error, "remedy": self.remedy} | self.extra
        return JSONResponse(body, self.status, headers=self.headers)
