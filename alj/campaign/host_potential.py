"""A reference engine as a potential: every energy and force of a walk is a label.

The engine is called from inside compiled programs; its forces are the derivative with respect to
positions, and where it gives a stress σ, so is the derivative with respect to the cell h,

    G = h⁻ᵀ (V σ + Σ rᵢ ⊗ Fᵢ),   V σ = ∂E/∂ε at r → r(1 + ε), h → h(1 + ε).

Compiled code cannot raise: what the engine cannot label has an energy that is not a number, which
freezes the walk, and the reason waits in the log. Only NumPy runs inside the call; a program of JAX
called there could wait for ever for the program that waits for it.
"""

from collections import OrderedDict
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from alj.potentials.combine import PARTS
from alj.types import BadInput, Labeler, LabelingFailed, Labels, Potential, Structure

REMEMBERED = 1024
"""Labels kept at most, so that the frames of a block can have their forces."""

_REACH = 2.0
"""Å: nothing but gates looks into the neighbor table of an engine's walk."""


class HostLog:
    """What happened inside the calls: labels, the first failure of every walk, what is fatal.

    `failures` maps a place in the batch to the size of the batch and the reason; several places may
    belong to one walk (replicas). `fatal` is what must end the run (an interrupt, an engine that is
    not installed): raise it once the program has returned.
    """

    def __init__(self):
        self.calls = 0
        self.failures: dict[int, tuple[int, str]] = {}
        self.fatal: BaseException | None = None
        self.recent: OrderedDict[bytes, Labels] = OrderedDict()

    def known(self, structure: Structure) -> Labels | None:
        """The label of a structure of this run, if it is still remembered."""
        return self.recent.get(_identity(structure))

    def failure_of(self, walk: int, walks: int) -> str | None:
        """Why the label of a walk, one of `walks` that walk together, failed first; None."""
        mine = (r for place, (size, r) in self.failures.items() if place * walks // size == walk)
        return next(mine, None)

    def first_failure(self, walks: int) -> tuple[int, str]:
        """The first walk of `walks` with a failure, and the reason; there must be one."""
        place, (size, reason) = min(self.failures.items())
        return place * walks // size, reason

    def check(self) -> None:
        """Raise what must end the run."""
        if self.fatal is not None:
            error, self.fatal = self.fatal, None
            raise error


class HostPotential(NamedTuple):
    """A potential that asks an engine, and what it has to say besides."""

    potential: Potential
    log: HostLog


def host_potential(labeler: Labeler) -> HostPotential:
    """The potential of an engine, for whole structures (`hops` is None) and in float64.

    Every atom has an equal share of the energy. Structures of a batch are labeled one after the
    other; one that was labeled a moment ago is not labeled again.
    """
    log = HostLog()

    def answers(positions, cell, species, charge, multiplicity):
        fields = (positions, species, cell, charge, multiplicity)
        return _answers(labeler, log, *(np.asarray(field) for field in fields))

    def asked(positions, cell, *others):
        real = jnp.result_type(float)
        shapes = (
            jax.ShapeDtypeStruct((), real),
            jax.ShapeDtypeStruct(positions.shape, real),
            jax.ShapeDtypeStruct((3, 3), real),
        )
        return jax.pure_callback(
            answers, shapes, positions, cell, *others, vmap_method="broadcast_all"
        )

    @jax.custom_vjp
    def energy(positions, cell, species, charge, multiplicity):
        return asked(positions, cell, species, charge, multiplicity)[0]

    def forward(positions, cell, *others):
        value, forces, slope = asked(positions, cell, *others)
        return value, (forces.astype(positions.dtype), slope.astype(cell.dtype))

    def backward(kept, weight):
        forces, slope = kept
        return -weight * forces, weight * slope, None, None, None

    energy.defvjp(forward, backward)

    def evaluate(params, structure: Structure):
        value = energy(
            structure.positions,
            structure.cell,
            structure.species,
            structure.charge,
            structure.multiplicity,
        )
        real = structure.species > 0
        return jnp.where(real, value / jnp.maximum(jnp.sum(real), 1), 0.0)

    potential = Potential(
        init=lambda key: {part: {} for part in PARTS},
        prepare=lambda params, batches: params,
        atomic_energies=lambda params, structure, neighbors: evaluate(params, structure),
        describe=lambda structure, neighbors: structure,
        evaluate=evaluate,
        cutoff=_REACH,
        hops=None,
    )
    return HostPotential(potential, log)


def _answers(labeler, log: HostLog, positions, species, cell, charge, multiplicity):
    """Energies, forces and slopes along the cell of one structure or of a batch."""
    single = positions.ndim == 2
    given = (positions, species, cell, charge, multiplicity)
    columns = [field[None] if single else field for field in given]
    energies = np.full(len(columns[0]), np.nan)
    forces = np.zeros(columns[0].shape)
    slopes = np.full((len(energies), 3, 3), np.nan)
    for walk, fields in enumerate(zip(*columns, strict=True)):
        if log.fatal is not None:
            break
        padded = Structure(*fields)
        label = _label(labeler, log, (walk, len(energies)), padded)
        if label is not None:
            real = padded.species > 0
            energies[walk] = label.energy
            forces[walk, real] = label.forces
            slopes[walk] = _slope(label, padded, forces[walk])
    found = energies, forces, slopes
    return tuple(each[0] for each in found) if single else found


def _label(labeler, log: HostLog, where: tuple[int, int], padded: Structure) -> Labels | None:
    """The label of one structure; None where there is none, and the log says why."""
    identity = _identity(padded)
    if identity in log.recent:
        return log.recent[identity]
    real = padded.species > 0
    structure = padded._replace(positions=padded.positions[real], species=padded.species[real])
    log.calls += 1
    try:
        label = labeler.label(structure)
        if not (np.isfinite(label.energy) and np.isfinite(label.forces).all()):
            raise LabelingFailed("unphysical", "it gives no finite energy and forces")
    except LabelingFailed as failure:
        _failed(log, where, str(failure))
        return None
    except (BadInput, KeyboardInterrupt, SystemExit, MemoryError) as error:
        log.fatal = error
        return None
    except Exception as error:  # an engine may raise anything, and nobody would hear of it here
        _failed(log, where, f"crash: {type(error).__name__}: {error}")
        return None
    log.recent[identity] = label
    while len(log.recent) > REMEMBERED:
        log.recent.popitem(last=False)
    return label


def _failed(log: HostLog, where: tuple[int, int], reason: str) -> None:
    place, size = where
    log.failures.setdefault(place, (size, " ".join(reason.split())))


def _slope(label: Labels, structure: Structure, forces: np.ndarray) -> np.ndarray:
    """dE/dh at fixed positions, eV/Å; NaN where a periodic structure has no stress."""
    cell = np.asarray(structure.cell, np.float64)
    if not cell.any():
        return np.zeros((3, 3))
    rows = cell[cell.any(axis=1)]
    volume = float(np.prod(np.linalg.svd(rows, compute_uv=False)))
    virial = volume * np.asarray(label.stress, np.float64)
    virial = virial + np.asarray(structure.positions, np.float64).T @ forces
    return np.linalg.pinv(cell).T @ virial


def _identity(structure: Structure) -> bytes:
    fields: Any = (np.asarray(field) for field in structure)
    return b"|".join(field.tobytes() for field in fields)
