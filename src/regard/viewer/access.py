"""Access control of the viewer's server: which requests are answered at all.

server.py wraps its application in `AccessControl`. A request must name this server in Host, which keeps out names that
are pointed at it from elsewhere (DNS rebinding); pages of other origins are refused by Origin and Sec-Fetch-Site; and
where other machines can reach the server, visitors need its token.
"""

from __future__ import annotations

import hmac
import ipaddress
import socket
from typing import Any
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from regard.viewer.protocol import ErrorReply

COOKIE = "regard-token"
LOOPBACK = ("localhost", "127.0.0.1", "::1")
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


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_token(host: str, token: str | None) -> None:
    """Raises ValueError for a host that other machines can reach, without a token, and for a token that is too weak."""
    if not is_loopback(host) and not token:
        raise ValueError(f"serve: {host} can be reached from other machines: give a token that visitors must know.")
    if token is not None and (len(token) < 8 or not token.isascii() or not token.isprintable() or " " in token):
        raise ValueError("serve: token: expected at least 8 printable ASCII characters without spaces.")


def error_response(message: str, status: int = 400, code: str | None = None) -> Response:
    """An error as JSON."""
    reply: ErrorReply = {"error": message}
    if code is not None:
        reply["code"] = code
    return JSONResponse(reply, status, {"Cache-Control": "no-store"})


class AccessControl:
    """An ASGI middleware that refuses requests, and adds the headers by which browsers protect the page."""

    def __init__(self, app: ASGIApp, host: str, token: str | None) -> None:
        self.app, self.token = app, token
        names = {*LOOPBACK, host}
        if not is_loopback(host):
            names |= {socket.gethostname(), socket.getfqdn()}
        self.names, self.public = {name.lower() for name in names}, not is_loopback(host)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)  # the lifespan of the server; there are no websockets
            return

        async def send_with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *((k.encode(), v.encode()) for k, v in HEADERS.items())]
            await send(message)

        response = self.response_to(Request(scope))
        await (response or self.app)(scope, receive, send_with_headers)

    def response_to(self, request: Request) -> Response | None:
        """An error, or the redirect that takes the token out of the address; None where the application may answer."""
        if not self.is_own_name(_host_of("//" + request.headers.get("host", ""))):
            return error_response("Unknown Host header.", 421)
        if self._is_cross_origin(request):
            return error_response("Cross-origin request refused.", 403)
        if self.token is None:
            return None
        given = request.query_params.get("token")
        if request.url.path == "/" and given is not None and self.is_token(given):
            redirect = RedirectResponse("/", 303)  # so that the address, which others may see, does not keep the token
            redirect.set_cookie(COOKIE, given, httponly=True, samesite="strict")
            return redirect
        scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
        if self.is_token(request.cookies.get(COOKIE, "")) or (scheme.lower() == "bearer" and self.is_token(bearer)):
            return None
        return error_response("This server requires a token: open the address that it printed, with ?token=….", 401)

    def _is_cross_origin(self, request: Request) -> bool:
        """Whether a page of another origin sent the request; following a link to the page itself is allowed."""
        origin = request.headers.get("origin")
        if origin is not None and (
            not self.is_own_name(_host_of(origin)) or urlsplit(origin).netloc != request.headers.get("host")
        ):
            return True
        site = request.headers.get("sec-fetch-site", "none")
        return site not in ("none", "same-origin") and (request.method != "GET" or request.url.path != "/")

    def is_token(self, given: str) -> bool:
        """Whether this is the token, compared in constant time."""
        return hmac.compare_digest(given.encode(), (self.token or "").encode())

    def is_own_name(self, host: str | None) -> bool:
        """Whether a host name is this server's: any IP address, where other machines can reach it."""
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
