"""The viewer as a page, served on this machine: Starlette in front of the desk.

Three addresses: `/` the page, `/assets/…` its script and style, `POST /ask` a question for the desk. Who may come in is
settled before anything else is looked at: the Host must be this server's name, a web page elsewhere is turned away by
its Origin, and where the server can be reached from other machines a token is asked for.
"""

from __future__ import annotations

import asyncio
import gzip
import hmac
import ipaddress
import json
import socket
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import anyio
import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from regard.viewer.api import LIMIT, Desk, Refusal, encode
from regard.viewer.bundle import served_page

BODY = 8 * LIMIT  # bytes of a question: a text at the limit, escaped
SECONDS = 10.0  # within which a request must have come
PAUSES = (0.01, 0.02, 0.04, 0.08, 0.15)  # seconds, after each of which it is seen whether a long answer is there
AT_ONCE, WAITING = 4, 256  # questions that are answered side by side, and that may wait
COOKIE = "regard-token"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
LOOPBACK = ("localhost", "127.0.0.1", "::1")


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def application(desk: Desk, host: str = "127.0.0.1", token: str | None = None) -> ASGIApp:
    """The viewer as an ASGI application, for a server that listens on `host`.

    Raises ValueError for a host that other machines can reach, without a token.
    """
    if not is_loopback(host) and not token:
        raise ValueError(f"serve: {host} can be reached from other machines: give a token that they must know.")
    if token is not None and (len(token) < 8 or not token.isascii() or not token.isprintable() or " " in token):
        raise ValueError("serve: token: expected 8 characters or more, of letters, digits and signs.")
    page, assets = served_page()
    packed = {name: (gzip.compress(content, 9, mtime=0), kind) for name, (content, kind) in assets.items()}
    room, waiting = anyio.CapacityLimiter(AT_ONCE), 0

    async def index(request: Request) -> Response:
        return Response(page, media_type="text/html; charset=utf-8", headers={"Cache-Control": "no-store"})

    async def asset(request: Request) -> Response:
        found = packed.get(request.path_params["name"])
        if found is None:
            return PlainTextResponse("There is no such file.", 404)
        headers = {"Cache-Control": "no-cache", "Content-Encoding": "gzip", "Vary": "Accept-Encoding"}
        content, kind = found
        if "gzip" not in request.headers.get("accept-encoding", ""):
            del headers["Content-Encoding"]
            content = gzip.decompress(content)
        return Response(content, media_type=kind, headers=headers)

    async def ask(request: Request) -> Response:
        nonlocal waiting
        try:
            question = json.loads(await body(request))
        except (ValueError, RecursionError):  # of wrong UTF-8 too
            return refused("A question is a JSON object, in UTF-8.")
        if waiting >= AT_ONCE + WAITING:
            return refused("Too many questions at once: try again in a moment.", 503)
        waiting += 1
        try:
            answer = await answered(question)
        finally:
            waiting -= 1
        return Response(answer, media_type="application/octet-stream", headers={"Cache-Control": "no-store"})

    async def answered(question: Any) -> bytes:
        """The answer, encoded. Who waits for long work waits here, and holds no thread that others need."""

        def attempt() -> tuple[bool, bytes]:
            about, arrays = desk.ask(question, wait=0)
            return "working" in about, encode((about, arrays))

        for pause in (*PAUSES, None):
            working, answer = await anyio.to_thread.run_sync(attempt, limiter=room)
            if not working or pause is None:
                break
            await anyio.sleep(pause)
        return answer

    async def refusal(request: Request, error: Exception) -> Response:
        return refused(str(error), getattr(error, "status", 400), getattr(error, "code", None))

    async def gone(request: Request, error: Exception) -> Response:
        return Response(status_code=499)

    async def failure(request: Request, error: Exception) -> Response:
        return refused("The server met an error of its own; its log says which.", 500)

    routes = [Route("/", index), Route("/assets/{name}", asset), Route("/ask", ask, methods=["POST"])]
    handlers: dict[Any, Any] = {Refusal: refusal, ClientDisconnect: gone, Exception: failure}
    return _Guard(Starlette(routes=routes, exception_handlers=handlers), host, token)


async def body(request: Request) -> bytes:
    """What was sent. Raises Refusal where it is too much, or takes too long."""
    parts, size = [], 0
    try:
        async with asyncio.timeout(SECONDS):
            async for part in request.stream():
                parts.append(part)
                size += len(part)
                if size > BODY:
                    raise Refusal(f"The question is longer than {BODY:,} bytes.", 413)
    except TimeoutError:
        raise Refusal(f"The question did not arrive within {SECONDS:.0f} seconds.", 408) from None
    return b"".join(parts)


def refused(message: str, status: int = 400, code: str | None = None) -> Response:
    """Why not, for the page to show, and the code that a program can act on where there is one."""
    about = {"error": message} if code is None else {"error": message, "code": code}
    return JSONResponse(about, status, {"Cache-Control": "no-store"})


class _Guard:
    """Lets in who may come in, and sends the headers by which the browser keeps others out."""

    def __init__(self, app: ASGIApp, host: str, token: str | None) -> None:
        self.app, self.token = app, token
        names = {*LOOPBACK, host}
        if not is_loopback(host):
            names |= {socket.gethostname(), socket.getfqdn()}
        self.names, self.public = {name.lower() for name in names}, not is_loopback(host)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)  # the life of the server; there are no websockets
            return

        async def send_with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *((k.encode(), v.encode()) for k, v in HEADERS.items())]
            await send(message)

        request = Request(scope)
        answer = self.turned_away(request)
        await (answer or self.app)(scope, receive, send_with_headers)

    def turned_away(self, request: Request) -> Response | None:
        """The answer to those who may not come in, and to those who bring the token in the address."""
        host = _host_of("//" + request.headers.get("host", ""))
        if not self.knows(host):
            return refused("This server does not go by that name.", 421)
        origin = request.headers.get("origin")
        if origin is not None and (not self.knows(_host_of(origin)) or _netloc(origin) != request.headers.get("host")):
            return refused("Pages of other sites may not ask here.", 403)
        if request.headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and (
            request.method != "GET" or request.url.path != "/"
        ):
            return refused("Pages of other sites may not ask here.", 403)
        if self.token is None:
            return None
        given = request.query_params.get("token")
        if request.url.path == "/" and given is not None and self.is_token(given):
            answer = RedirectResponse("/", 303)  # out of the address, where others might read it
            answer.set_cookie(COOKIE, given, httponly=True, samesite="strict")
            return answer
        scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
        if self.is_token(request.cookies.get(COOKIE, "")) or (scheme.lower() == "bearer" and self.is_token(bearer)):
            return None
        return refused("This server asks for a token: open the address that it printed, with ?token=… in it.", 401)

    def is_token(self, given: str) -> bool:
        """In a time that does not tell how much of it was right."""
        return hmac.compare_digest(given.encode(), (self.token or "").encode())

    def knows(self, host: str | None) -> bool:
        """Whether a request meant this server; by a number it can be reached too where others may reach it."""
        if not host:
            return False
        try:
            return host in self.names or (self.public and bool(ipaddress.ip_address(host)))
        except ValueError:
            return False


def _host_of(address: str) -> str | None:
    try:
        return (urlsplit(address).hostname or "").lower()
    except ValueError:
        return None


def _netloc(address: str) -> str:
    return urlsplit(address).netloc


class _Protocol(H11Protocol):
    """HTTP in which a request's head, too, must come in time: a client of one byte a second keeps no place."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._deadline = self.loop.call_later(SECONDS, self._too_late)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        in_head = bool(self.conn.trailing_data[0])  # bytes that make no whole head yet
        if in_head and self._deadline is None:
            self._deadline = self.loop.call_later(SECONDS, self._too_late)
        elif not in_head and self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def connection_lost(self, exc: Exception | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        super().connection_lost(exc)

    def _too_late(self) -> None:
        self.transport.close()


def serve(
    desk: Desk,
    host: str = "127.0.0.1",
    port: int = 8000,
    token: str | None = None,
    ready: Callable[[str], None] = lambda address: None,
) -> None:
    """Answers until it is stopped; `ready` is told the address. Raises OSError where the port is taken."""
    app = application(desk, host, token)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, port))
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise OSError(f"serve: cannot listen on {host}, port {port}: {reason}.") from None
        listening.listen(1024)  # who comes as soon as the address is told, waits
        port = listening.getsockname()[1]
        shown = f"[{host}]" if ":" in host else host
        ready(f"http://{shown}:{port}/" + (f"?token={token}" if token else ""))
        config = uvicorn.Config(
            app, http=_Protocol, ws="none", log_level="error", access_log=False, server_header=False,
            timeout_keep_alive=60, timeout_graceful_shutdown=2, backlog=1024, lifespan="off",
        )  # fmt: skip
        try:
            uvicorn.Server(config).run(sockets=[listening])
        finally:
            desk.close()
