"""`alj monitor`: a read-only server of run folders for the browser of whoever started it.

It serves the page, its scripts, and data as JSON; it writes nothing, imports no JAX, and takes a
run that disappears, or is being written, as it comes: 404 for what is gone, 422 for what is
damaged, 304 for what has not changed since the browser asked.
"""

import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from alj.monitor import assets, numbers, views
from alj.monitor.access import Guard
from alj.monitor.folders import Damaged, Gone, mark_of, runs_below

AT_ONCE = 3
"""Answers computed at the same time: bounds memory."""


def application(
    folder: str | Path,
    *,
    names: tuple[str, ...] = (),
    token: str | None = None,
    open_: bool = False,
) -> Guard:
    """The server as an ASGI application.

    `names` are host names it answers to besides localhost; `token` is asked for where given;
    `open_` says that it is bound to more than this machine.
    """
    root, busy = Path(folder), threading.BoundedSemaphore(AT_ONCE)

    def found(request: Request) -> Path:
        name = request.query_params.get("run", "")
        runs = runs_below(root)
        if name not in runs:
            raise Gone(name)
        return runs[name]

    def answered(request: Request, compute: Callable[[], Any], mark: Callable[[], str]) -> Response:
        try:
            with busy:
                tag = f'"{mark()}"'
                if request.headers.get("if-none-match") == tag:
                    return Response(status_code=304, headers={"etag": tag})
                body = numbers.text(numbers.plain(compute()))
            return Response(body, media_type="application/json", headers={"etag": tag})
        except Gone:
            return _error("there is no such run or structure (any more)", 404)
        except Damaged as error:
            return _error(f"this run folder is damaged or half-written: {error}", 422)
        except (ArithmeticError, LookupError, TypeError, ValueError, AttributeError) as error:
            # A file of the right form with contents that nobody wrote.
            sys.stderr.write(f"alj monitor: {request.url.path}: {type(error).__name__}: {error}\n")
            return _error("this run folder holds something that cannot be shown", 422)
        except OSError:
            return _error("this run folder cannot be read", 404)

    def page(request: Request) -> Response:
        view = views.PAGES.get(request.query_params.get("page", ""))
        if view is None:
            return _error("there is no such page", 404)
        return answered(request, lambda: view(found(request)), lambda: mark_of(found(request)))

    def structure(request: Request) -> Response:
        index = request.query_params.get("index", "")
        if not index.isascii() or not index.isdigit() or len(index) > 9:
            return _error("index: expected a whole number", 400)
        return answered(
            request,
            lambda: views.structure(found(request), int(index)),
            lambda: mark_of(found(request)) + index,
        )

    def runs(request: Request) -> Response:
        there = runs_below(root)

        def mark() -> str:
            return "-".join(_mark(path)[:6] for path in there.values())[:400] + str(len(there))

        return answered(request, lambda: views.runs(there), mark)

    def shell(_: Request) -> Response:
        return Response(assets.page(), media_type="text/html")

    def asset(request: Request) -> Response:
        known = assets.served(request.path_params["name"])
        if known is None:
            return PlainTextResponse("not found", 404)
        return Response(known.data, media_type=known.kind, headers={"cache-control": "max-age=600"})

    routes = [
        Route("/", shell),
        Route("/static/{name}", asset),
        Route("/api/runs", runs),
        Route("/api/page", page),
        Route("/api/structure", structure),
    ]
    return Guard(Starlette(routes=routes), names=names, token=token, open_=open_)


def serve(app: Guard, host: str, port: int, on_start: Callable[[int], None]) -> None:
    """Serve until interrupted; `on_start(port)` once the address is bound.

    Raises OSError where it cannot be bound.
    """
    import asyncio

    import uvicorn

    family_host = host.strip("[]")
    config = uvicorn.Config(
        app, host=family_host, port=port, http="h11", ws="none", lifespan="off", access_log=False,
        log_level="warning", server_header=False, date_header=True, limit_concurrency=64,
        h11_max_incomplete_event_size=16 * 1024, timeout_keep_alive=15,
        timeout_graceful_shutdown=2, proxy_headers=False,
    )  # fmt: skip
    sock = _bound(family_host, port)
    on_start(sock.getsockname()[1])
    server = uvicorn.Server(config)
    with sock:
        asyncio.run(server.serve(sockets=[sock]))


def _bound(host: str, port: int):
    import socket

    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(128)
    except BaseException:
        sock.close()
        raise
    return sock


def _mark(path: Path) -> str:
    try:
        return mark_of(path)
    except Gone:
        return ""


def _error(text: str, status: int) -> Response:
    return Response(numbers.text({"error": text}), status, media_type="application/json")
