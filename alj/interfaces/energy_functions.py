"""A model as an energy function of jax-md, for its simulations, minimizers and quantities.

    from jax_md import simulate, space
    from alj.interfaces.energy_functions import energy_neighbor_list

    displacement, shift = space.periodic(side)
    neighbor_fn, energy_fn = energy_neighbor_list("runs/water", displacement, side, species)
    neighbor = neighbor_fn.allocate(positions)
    init, step = simulate.nve(energy_fn, shift, dt)
    state = init(key, positions, mass=18.015, kT=kT, neighbor=neighbor)

Units are ours: Å, eV, and amu for masses, so that a time is in units of 10.18 fs (`alj.units`).
S. S. Schoenholz, E. D. Cubuk, NeurIPS 33 (2020), arXiv:1912.04232.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from alj.campaign.models import Model
from alj.campaign.subjects import model_of_name
from alj.geometry.environment import environment
from alj.geometry.periodic import reciprocal
from alj.types import BadInput, Neighbors, Structure


def energy_neighbor_list(
    model: Model | str | Path,
    displacement: Callable,
    box: Any,
    species: Any,
    *,
    dr_threshold: float = 0.5,
    fractional_coordinates: bool = False,
    charge: int = 0,
    multiplicity: int = 0,
    **neighbor_settings: Any,
) -> tuple[Any, Callable]:
    """`neighbor_fn` and `energy_fn(R, neighbor, box=…, perturbation=…, params=…) -> eV`.

    `box` (Å) is jax-md's: a length, three lengths, or a matrix whose columns are lattice vectors;
    None for `space.free()`. `species` are atomic numbers. The energy is that of the committee's
    mean; `params` replaces its parameters. `neighbor_settings` go to
    `jax_md.partition.neighbor_list`.

    Raises BadInput for species that the model does not know, and for a box lower than twice cutoff
    plus `dr_threshold`, in which jax-md sees one image of each atom only: repeat it.
    """
    ready = model if isinstance(model, Model) else model_of_name(str(model))
    numbers = np.asarray(species, np.int32)
    _check_species(numbers, ready.species)
    cutoff = ready.potential.cutoff
    if box is not None:
        _check_height(_cell_of(jnp.asarray(box)), cutoff + dr_threshold)
    with jax.ensure_compile_time_eval():
        from jax_md import partition, space
    whole: Any = 1.0 if box is None else box
    neighbor_fn = partition.neighbor_list(
        displacement,
        whole,
        cutoff,
        dr_threshold,
        fractional_coordinates=fractional_coordinates,
        format=partition.NeighborListFormat.Dense,
        **{"disable_cell_list": box is None, **neighbor_settings},
    )
    first_box, own = box, ready.params

    def energy_fn(R, neighbor, box=None, perturbation=None, params=None, **_ignored):
        here = first_box if box is None else box
        cell = jnp.zeros((3, 3), R.dtype) if here is None else _cell_of(jnp.asarray(here, R.dtype))
        # jax-md's own transformation: its derivative gives forces in real space.
        positions = space.transform(cell.T, R) if fractional_coordinates else R
        if perturbation is not None:
            strain = _matrix(jnp.asarray(perturbation, R.dtype))
            positions, cell = positions @ strain.T, cell @ strain.T
        structure = Structure(
            positions.astype(ready.dtype), jnp.asarray(numbers), cell.astype(ready.dtype),
            jnp.asarray(charge, jnp.int32), jnp.asarray(multiplicity, jnp.int32),
        )  # fmt: skip
        table = _table(structure, neighbor.idx)
        atoms = ready.mean.atomic_energies(own if params is None else params, structure, table)
        return jnp.sum(atoms, dtype=jnp.promote_types(atoms.dtype, R.dtype))

    return neighbor_fn, energy_fn


def _table(structure: Structure, indices) -> Neighbors:
    """Our table from jax-md's dense one: of every neighbor the nearest image."""
    still = jax.lax.stop_gradient(structure)
    nothing = Neighbors(indices, jnp.zeros((*indices.shape, 3), jnp.int32), jnp.asarray(False))
    apart = environment(still, nothing, 0.0).vectors
    shifts = -jnp.round(apart @ reciprocal(still.cell)).astype(jnp.int32)
    known = (indices < structure.species.shape[0])[..., None]
    return nothing._replace(shifts=jnp.where(known, shifts, 0))


def _cell_of(box):
    """Rows of lattice vectors."""
    return _matrix(box).T


def _matrix(value):
    if value.ndim == 2:
        return value
    return jnp.diag(jnp.broadcast_to(value, (3,)))


def _check_species(numbers: np.ndarray, known: tuple[int, ...]) -> None:
    unknown = sorted(set(numbers.tolist()) - set(known)) if known else []
    if unknown:
        raise BadInput(f"the model knows the atomic numbers {list(known)}, found {unknown}")


def _check_height(cell, reach: float) -> None:
    if isinstance(cell, Tracer):
        return
    lowest = 1.0 / np.linalg.norm(np.linalg.inv(np.asarray(cell)), axis=0).max()
    if lowest < 2.0 * reach:
        raise BadInput(
            f"the box is {lowest:.2f} Å high; jax-md sees one image of each atom and needs at "
            f"least {2 * reach:.2f} Å, twice cutoff plus dr_threshold; repeat the box"
        )
