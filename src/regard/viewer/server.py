"""The viewer over HTTP, for `regard serve`: three routes of a Starlette application, run by uvicorn.

    GET  /            the page
    GET  /assets/…    its script and style
    POST /api         a request of protocol/ as JSON; the reply of api.py, encoded by protocol/encode.py

access.py decides which requests are answered at all. The command line calls `serve`; nothing else imports this file.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
from collections.abc import Callable
from typing import Any

import anyio
import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from regard.viewer.access import AccessControl, check_token, error_response
from regard.viewer.api import ViewerAPI
from regard.viewer.bundle import served_page
from regard.viewer.protocol.encode import MEDIA_TYPE, encode
from regard.viewer.protocol.errors import RequestError
from regard.viewer.protocol.limits import TEXT_LIMIT

BODY_LIMIT = 8 * TEXT_LIMIT  # bytes of a request: a text at the limit, escaped
TIMEOUT = 10.0  # seconds within which a request must arrive
POLLS = (0.01, 0.02, 0.04, 0.08, 0.15)  # seconds, after each of which a pending reply is tried again
CONCURRENT, WAITING = 4, 256  # requests that are answered at once, and that may wait


def application(api: ViewerAPI, host: str = "127.0.0.1", token: str | None = None) -> ASGIApp:
    """The viewer as an ASGI application, for a server that listens on `host`.

    Raises ValueError for a host that other machines can reach, without a token.
    """
    check_token(host, token)
    page, assets = served_page()
    endpoint = _Endpoint(api)

    async def index(request: Request) -> Response:
        return Response(page, media_type="text/html; charset=utf-8", headers={"Cache-Control": "no-store"})

    routes = [
        Route("/", index),
        Route("/assets/{name}", _asset_handler(assets)),
        Route("/api", endpoint.handle, methods=["POST"]),
    ]
    handlers: dict[Any, Any] = {
        RequestError: _on_request_error,
        ClientDisconnect: _on_disconnect,
        Exception: _on_failure,
    }
    return AccessControl(Starlette(routes=routes, exception_handlers=handlers), host, token)


def _asset_handler(assets: dict[str, tuple[bytes, str]]) -> Callable[[Request], Any]:
    """The handler of the page's files, compressed for clients that accept gzip."""
    compressed = {name: (gzip.compress(content, 9, mtime=0), kind) for name, (content, kind) in assets.items()}

    async def asset(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in compressed:
            return PlainTextResponse("Not found.", 404)
        content, kind = compressed[name]
        headers = {"Cache-Control": "no-cache", "Content-Encoding": "gzip", "Vary": "Accept-Encoding"}
        if "gzip" not in request.headers.get("accept-encoding", ""):
            del headers["Content-Encoding"]
            content = gzip.decompress(content)
        return Response(content, media_type=kind, headers=headers)

    return asset


class _Endpoint:
    """POST /api: at most CONCURRENT requests are answered at once, in threads of their own."""

    def __init__(self, api: ViewerAPI) -> None:
        self.api = api
        self.limiter = anyio.CapacityLimiter(CONCURRENT)
        self.waiting = 0

    async def handle(self, request: Request) -> Response:
        try:
            message = json.loads(await _body(request))
        except (ValueError, RecursionError):  # of invalid UTF-8 too
            return error_response("The request is not JSON in UTF-8.")
        if self.waiting >= CONCURRENT + WAITING:
            return error_response("Too many requests at once: try again in a moment.", 503)
        self.waiting += 1
        try:
            content = await self.reply(message)
        finally:
            self.waiting -= 1
        return Response(content, media_type=MEDIA_TYPE, headers={"Cache-Control": "no-store"})

    async def reply(self, message: object) -> bytes:
        """The encoded reply. What is pending is waited for here, where waiting blocks no thread."""

        def attempt() -> tuple[bool, bytes]:
            reply = self.api.handle(message, wait=0)
            return "progress" in reply, encode(reply)

        for pause in (*POLLS, None):
            pending, content = await anyio.to_thread.run_sync(attempt, limiter=self.limiter)
            if not pending or pause is None:
                break
            await anyio.sleep(pause)
        return content


async def _body(request: Request) -> bytes:
    """The body of a request. Raises RequestError where it is too long, or takes too long to arrive."""
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(TIMEOUT):
            async for chunk in request.stream():
                chunks.append(chunk)
                size += len(chunk)
                if size > BODY_LIMIT:
                    raise RequestError(f"The request is longer than {BODY_LIMIT:,} bytes.", 413)
    except TimeoutError:
        raise RequestError(f"The request did not arrive within {TIMEOUT:.0f} seconds.", 408) from None
    return b"".join(chunks)


async def _on_request_error(request: Request, error: RequestError) -> Response:
    return error_response(str(error), error.status, error.code)


async def _on_disconnect(request: Request, error: Exception) -> Response:
    return Response(status_code=499)


async def _on_failure(request: Request, error: Exception) -> Response:
    return error_response("Internal server error: see the server's log.", 500)


class _Protocol(H11Protocol):
    """HTTP/1.1 in which the head of a request, too, must arrive in time, so that slow clients hold no connection."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._deadline = self.loop.call_later(TIMEOUT, self._close)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        in_head = bool(self.conn.trailing_data[0])  # bytes that are not yet a whole head
        if in_head and self._deadline is None:
            self._deadline = self.loop.call_later(TIMEOUT, self._close)
        elif not in_head and self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def connection_lost(self, exc: Exception | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        super().connection_lost(exc)

    def _close(self) -> None:
        self.transport.close()


def serve(
    api: ViewerAPI,
    host: str = "127.0.0.1",
    port: int = 8000,
    token: str | None = None,
    on_ready: Callable[[str], None] = lambda address: None,
) -> None:
    """Run the server until it is stopped.

    Args:
        api: what answers the requests; it is closed at the end.
        host: the address to listen on.
        port: 0 takes any that is free.
        token: what visitors must know, where other machines can reach the host.
        on_ready: called with the address of the page, once the server listens.

    Raises:
        OSError: the port is taken.
        ValueError: other machines can reach the host, and there is no token.
    """
    app = application(api, host, token)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, port))
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise OSError(f"serve: cannot listen on {host}, port {port}: {reason}.") from None
        listening.listen(1024)  # from here on, connections wait until the server accepts them
        port = listening.getsockname()[1]
        name = f"[{host}]" if ":" in host else host
        on_ready(f"http://{name}:{port}/" + (f"?token={token}" if token else ""))
        config = uvicorn.Config(
            app, http=_Protocol, ws="none", log_level="error", access_log=False, server_header=False,
            timeout_keep_alive=60, timeout_graceful_shutdown=2, backlog=1024, lifespan="off",
        )  # fmt: skip
        try:
            uvicorn.Server(config).run(sockets=[listening])
        finally:
            api.close()
