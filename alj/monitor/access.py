"""Who may ask the monitor what: hosts, methods, sizes, tokens, and the headers of every answer.

A page that any web site can make a browser load is protected by the Host header (DNS rebinding: the
site's own name resolves to 127.0.0.1), beyond this machine by a token as well. Pure ASGI, so that
nothing is buffered.
"""

import hmac
import ipaddress
import json
from collections.abc import Awaitable, Callable, Iterable
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qsl, urlencode

COOKIE = "alj_monitor"
LONGEST_TARGET = 2048
"""Bytes of a path with its query."""

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; style-src-attr 'unsafe-inline'; "
    "img-src 'self' data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
"""Nothing from elsewhere, no inline script, no frames. Attributes of style are what plotly sets."""

HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-cache",
}

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]


class Guard:
    """Lets through what may pass to `app`; everything else gets its status and one line."""

    def __init__(self, app: Callable, *, names: Iterable[str], token: str | None, open_: bool):
        self.app, self.token, self.open = app, token, open_
        self.names = {name.lower() for name in names} | {"localhost"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
            return
        answered = False

        async def with_headers(message: dict[str, Any]) -> None:
            nonlocal answered
            if message["type"] == "http.response.start":
                answered = True
                given = {name.lower() for name, _ in message.get("headers", [])}
                more = [
                    (name.encode(), value.encode())
                    for name, value in HEADERS.items()
                    if name.encode() not in given
                ]
                message = {**message, "headers": [*message.get("headers", []), *more]}
            await send(message)

        refused = self._refused(scope)
        if refused is not None:
            await _say(with_headers, *refused)
            return
        if self.token is not None:
            moved = self._with_token_in_cookie(scope)
            if moved is not None:
                await _say(with_headers, 303, "", moved)
                return
            if not self._knows_token(scope):
                await _say(
                    with_headers, 401, "a token is needed: open the address that was printed"
                )
                return
        try:
            await self.app(scope, receive, with_headers)
        except Exception:
            # Whatever it was: nobody outside learns a path or a line of code.
            if not answered:
                await _say(with_headers, 500, "the monitor failed on this; see its terminal")
            raise

    def _refused(self, scope: Scope) -> tuple[int, str] | None:
        headers = _headers(scope)
        hosts = headers.get("host", [])
        if len(hosts) != 1 or not self._known(hosts[0]):
            return 421, "this host name is not served here"
        if scope["method"] not in ("GET", "HEAD"):
            return 405, "only GET and HEAD"
        if "transfer-encoding" in headers or headers.get("content-length", ["0"]) != ["0"]:
            return 413, "a request has no body here"
        if (
            len(scope.get("raw_path") or b"") + len(scope.get("query_string") or b"")
            > LONGEST_TARGET
        ):
            return 414, "the address is too long"
        return None

    def _known(self, host: str) -> bool:
        """Names that were given; where another address was bound, also that of any address.

        A numeric address cannot be rebound, so it is as good as its bearer's token.
        """
        name = host.strip().lower()
        name = name[1 : name.find("]")] if name.startswith("[") else name.partition(":")[0]
        if name in self.names:
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return self.open or address.is_loopback

    def _with_token_in_cookie(self, scope: Scope) -> dict[str, str] | None:
        """Where to go, and the cookie, for an address with the token in it."""
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = [value for name, value in query if name == "token"]
        if not given or not _same(given[-1], self.token):
            return None
        rest = urlencode([(name, value) for name, value in query if name != "token"])
        cookie = f"{COOKIE}={self.token}; HttpOnly; SameSite=Strict; Path=/"
        path = "/" + scope["path"].lstrip("/")  # two slashes would be another host
        return {"location": path + (f"?{rest}" if rest else ""), "set-cookie": cookie}

    def _knows_token(self, scope: Scope) -> bool:
        headers = _headers(scope)
        for value in headers.get("authorization", []):
            kind, _, given = value.partition(" ")
            if kind.lower() == "bearer" and _same(given.strip(), self.token):
                return True
        try:
            cookies = SimpleCookie("; ".join(headers.get("cookie", [])))
        except CookieError:
            return False
        return COOKIE in cookies and _same(cookies[COOKIE].value, self.token)


def _headers(scope: Scope) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in scope["headers"]:
        found.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
    return found


def _same(given: str, token: str | None) -> bool:
    return token is not None and hmac.compare_digest(given.encode(), token.encode())


async def _say(send: Send, status: int, text: str, more: dict[str, str] | None = None) -> None:
    body = json.dumps({"error": text}).encode() if text else b""
    headers = {"content-type": "application/json", "content-length": str(len(body)), **(more or {})}
    if status == 413:
        headers["connection"] = "close"
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})
