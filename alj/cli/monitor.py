"""`alj monitor`: the page of run folders, served until interrupted. Starts without JAX."""

import importlib.util
import ipaddress
import secrets
import socket
from pathlib import Path
from typing import NamedTuple

import click

NEEDED = ("starlette", "uvicorn", "plotly")


class MonitorOptions(NamedTuple):
    """The options of the command."""

    host: str
    port: int
    token: str | None
    names: tuple[str, ...]


def monitor(folder: str, options: MonitorOptions) -> int:
    """Serve; 0 when interrupted."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise click.ClickException(
            f"alj monitor needs {', '.join(missing)}; run: pip install 'alj[monitor]'"
        )
    from alj.monitor import server
    from alj.monitor.folders import runs_below

    root = Path(folder)
    if not root.is_dir():
        raise click.ClickException(f"{folder}: no such folder; `alj run` makes runs in runs/")
    found = runs_below(root)
    near = _is_loopback(options.host)
    token = options.token or (None if near else secrets.token_urlsafe(24))
    if token is not None and (len(token) < 12 or not token.isascii() or not _is_simple(token)):
        raise click.ClickException(
            "--token: expected at least 12 letters, digits, - or _, found something else"
        )
    names = (
        *options.names,
        *(() if near else (options.host, socket.gethostname(), socket.getfqdn())),
    )
    app = server.application(root, names=names, token=token, open_=not near)

    def told(port: int) -> None:
        where = "127.0.0.1" if near else socket.gethostname()
        query = f"?token={token}" if token else ""
        runs = f"{len(found)} run{'' if len(found) == 1 else 's'}"
        click.echo(f"{runs} in {folder}; open http://{where}:{port}/{query}")
        if not near:
            click.echo("the connection is not encrypted: beyond a trusted network, use ssh -L")
        click.echo("Ctrl-C ends it")

    try:
        server.serve(app, options.host, options.port, told)
    except OSError as error:
        raise click.ClickException(
            f"{options.host}:{options.port} cannot be bound ({error.strerror or error}); "
            "choose another --port, 0 for any that is free"
        ) from None
    except KeyboardInterrupt:
        pass
    return 0


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _is_simple(token: str) -> bool:
    return all(letter.isalnum() or letter in "-_" for letter in token)
