"""The process that labels, under a `Supervisor`.

It is given a labeler once and blocks of structures after that, over a socket. Its standard output
and error are the log of the engine. It does not import the program that started it.
"""

import contextlib
import os
import pickle
import signal
import sys
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from alj.types import BadInput, Structure


class Block(NamedTuple):
    """Structures to label one after another, or `together`; `journal` is a path, or "" for none."""

    structures: list[Structure]
    hashes: list[str]
    journal: str
    together: bool


def main(descriptor: int) -> None:
    """Label until the other end of the socket with this descriptor hangs up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    connection = Connection(descriptor)
    with contextlib.suppress(EOFError, ConnectionError):
        labeler = _received(connection)
        while labeler is not None:
            _label(labeler, connection, connection.recv())


def _received(connection: Connection) -> Any:
    """The labeler; None where it cannot be had, which the other end is told."""
    places, pickled = connection.recv()
    sys.path += [place for place in places if place not in sys.path]
    try:
        labeler = pickle.loads(pickled)
    except Exception as error:
        connection.send(("broken", f"{type(error).__name__}: {error}"))
        return None
    connection.send(("ready", os.getpid()))
    return labeler


def _label(labeler: Any, connection: Connection, block: Block) -> None:
    """Each answer is in the journal before it is sent."""
    from alj.campaign.executors import journal
    from alj.campaign.executors.answers import label_each, label_together

    label = label_together if block.together else label_each
    try:
        for index, answer in enumerate(label(labeler, block.structures)):
            try:
                if block.journal:
                    journal.append(Path(block.journal), block.hashes[index], answer)
            except OSError as error:  # the disk's fault, not the structure's
                connection.send(("disk", (error.errno, error.strerror, block.journal)))
                return
            connection.send((index, answer))
    except BadInput as error:
        connection.send(("broken", str(error)))
    except ConnectionError:
        raise
    except Exception:
        connection.send(("broken", traceback.format_exc()[-2000:]))
