"""A model as a driver of i-PI: it computes forces for whoever moves atoms behind a socket.

i-PI sends positions and a cell, and gets energy, forces and virial back; which atoms these are, it
does not say: that is what the structure handed in is for. ASE speaks the protocol.
Y. Litman et al., J. Chem. Phys. 161, 062504 (2024), doi:10.1063/5.0215869.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

import ase
from ase.calculators.socketio import SocketClient

from alj.calculator import CommitteeCalculator
from alj.campaign.models import Model
from alj.types import BadInput


class Address(NamedTuple):
    """Where the server listens: the name of a UNIX socket (/tmp/ipi_NAME), or host and port."""

    unix: str | None = None
    host: str = "localhost"
    port: int = 31415

    def __str__(self) -> str:
        return f"/tmp/ipi_{self.unix}" if self.unix else f"{self.host}:{self.port}"


def serve(
    model: Model,
    atoms: ase.Atoms,
    address: Address,
    *,
    patience_seconds: float = 60.0,
    on_step: Callable[[int], None] | None = None,
) -> int:
    """Answer until the server says that it is done; the number of steps that were answered.

    `atoms` says which atoms they are, in the server's order, and in which directions they repeat.
    Waits for a server that is not there yet for `patience_seconds`. Raises BadInput where none
    comes, and for structures that the model cannot take.
    """
    moved = atoms.copy()
    moved.calc = CommitteeCalculator(model, uncertainty=False)
    moved.get_potential_energy()  # whatever is wrong with it is said now, and programs are compiled
    client = _connected(address, patience_seconds)
    steps = 0
    try:
        for _ in client.irun(moved, use_stress=bool(moved.pbc.any())):
            steps += 1
            if on_step is not None:
                on_step(steps)
    except (ConnectionResetError, BrokenPipeError):
        pass  # it ended without a word
    finally:
        client.close()
    return steps


def _connected(address: Address, patience_seconds: float) -> SocketClient:
    given = time.monotonic()
    while True:
        try:
            if address.unix:
                return SocketClient(unixsocket=address.unix)
            return SocketClient(host=address.host, port=address.port)
        except OSError as error:
            if time.monotonic() - given > patience_seconds:
                reason = (error.strerror or str(error)).lower()
                raise BadInput(
                    f"no server at {address} within {patience_seconds:g} s ({reason}); start i-PI "
                    "first, and give the address of its ffsocket"
                ) from None
            time.sleep(0.2)
