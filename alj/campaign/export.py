"""A model as StableHLO programs in one archive, for those who do not have this package.

`jax.export` leaves the number of atoms and of neighbors open, twice: for few atoms, and for many in
multiples of the block that CPUs work in (`potentials/blocks.py`). A potential that cannot be
written so gets a program for each of a few padded sizes. `exported_potential.py`, the loader, goes
into the archive and finds neighbors on the host.
"""

import io
import json
import zipfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from alj.annotations import plain
from alj.arrays import double_precision
from alj.campaign.models import Model, answer_mean, answer_members
from alj.campaign.store import write_file
from alj.labeling.install import needed
from alj.types import BadInput, Neighbors, Structure

PLATFORMS = ("cpu", "cuda", "tpu")
SIZES = (16, 64)
"""Atoms of the programs of potentials that want to know how many."""

_MOST = 10**9
_WIDEST = 96


class Shape(NamedTuple):
    """For which structures a program is: padded to a `multiple`, then `fewest` to `most` atoms.

    `columns` of the neighbor table, None for any.
    """

    fewest: int
    most: int
    multiple: int
    columns: int | None


def export_model(
    model: Model, *, platforms: Sequence[str] = PLATFORMS, atoms: Sequence[int] = ()
) -> tuple[bytes, list[Shape]]:
    """The archive, and for which structures it has programs. Raises BadInput.

    `atoms` are the sizes for a potential that needs to know how many (default 16 and 64).
    """
    needed("flatbuffers")
    unknown = [name for name in platforms if name not in PLATFORMS]
    if unknown:
        raise BadInput(f"--platform {unknown[0]}: expected one of {', '.join(PLATFORMS)}")
    with double_precision():
        programs = _programs(model, tuple(platforms), tuple(atoms))
    about = {
        "format": 1,
        "potential": plain(model.config.get("potential", "")),
        "species": [int(number) for number in model.species],
        "cutoff_A": float(model.potential.cutoff),
        "members": model.members,
        "platforms": list(platforms),
        "provenance": plain(model.config.get("provenance", {})),
        "versions": {package: version(package) for package in ("alj", "jax", "numpy")},
        "programs": [
            {"file": f"programs/{i}.stablehlo", **shape._asdict()}
            for i, (shape, _) in enumerate(programs)
        ],
    }
    leaves, stored = jax.tree.leaves(model.params), io.BytesIO()
    np.savez(stored, *[np.asarray(leaf) for leaf in leaves])
    loader = Path(__file__).with_name("exported_potential.py").read_bytes()
    return _archive(about, stored.getvalue(), loader, [data for _, data in programs]), [
        shape for shape, _ in programs
    ]


def write_export(path: str | Path, data: bytes) -> None:
    """Put the archive where it belongs, whole or not at all."""
    write_file(Path(path), data)


def _archive(about: dict, parameters: bytes, loader: bytes, programs: list[bytes]) -> bytes:
    """A zip file whose entries have no time of their own."""
    whole = io.BytesIO()
    entries = {
        "model.json": (json.dumps(about, indent=1) + "\n").encode(),
        "parameters.npz": parameters,
        "exported_potential.py": loader,
        **{f"programs/{i}.stablehlo": data for i, data in enumerate(programs)},
    }
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data)
    return whole.getvalue()


def _programs(model, platforms, atoms) -> list[tuple[Shape, bytes]]:
    """With sizes left open where that can be, else for the sizes of `atoms`."""
    from jax import export

    if not atoms:
        few = export.symbolic_shape("n, k", constraints=["n <= 64"])
        blocks, columns = export.symbolic_shape("b, k", constraints=["b >= 2"])
        opened = (
            (Shape(1, 64, 1, None), *few),
            (Shape(128, _MOST, 64, None), 64 * blocks, columns),
        )
        try:
            return [(shape, _program(model, platforms, *dims)) for shape, *dims in opened]
        except Exception as error:  # whatever arithmetic of shapes a potential does
            if not _is_about_shapes(error):
                raise
    padded = [Shape(size, size, size, min(size, _WIDEST)) for size in sorted(atoms or SIZES)]
    return [(shape, _program(model, platforms, shape.most, shape.columns)) for shape in padded]


def _is_about_shapes(error: Exception) -> bool:
    words = ("ymbolic dimension", "InconclusiveDimension", "polymorphic")
    return any(word in f"{type(error).__name__}: {error}" for word in words)


def _program(model: Model, platforms, atoms, columns) -> bytes:
    """One serialized program; `atoms` and `columns` are numbers or open."""
    from jax import export

    leaves, tree = jax.tree.flatten(model.params)
    real, whole = jnp.dtype("float64"), jnp.dtype("int32")

    def everything(leaves, positions, species, cell, charge, multiplicity, indices, shifts):
        params = jax.tree.unflatten(tree, leaves)
        structure = Structure(
            positions.astype(model.dtype), species, cell.astype(model.dtype), charge, multiplicity
        )
        return _answer(model, params, structure, Neighbors(indices, shifts, jnp.asarray(False)))

    shapes: list[Any] = [
        jax.ShapeDtypeStruct(shape, dtype)
        for shape, dtype in (
            ((atoms, 3), real),
            ((atoms,), whole),
            ((3, 3), real),
            ((), whole),
            ((), whole),
            ((atoms, columns), whole),
            ((atoms, columns, 3), whole),
        )
    ]
    given = [jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in leaves]
    return bytes(
        export.export(jax.jit(everything), platforms=platforms)(given, *shapes).serialize()
    )


def _answer(model: Model, params, structure, neighbors):
    """Energy, forces, stress, atomic energies, and the spreads of a committee, in float64."""
    if model.members == 1:
        answer = answer_mean(model.mean, params, structure, neighbors)
    else:
        answer = answer_members(model.potential, model.members, params, structure, neighbors)
    fields = (answer.energy, answer.forces, answer.stress, answer.atomic_energies)
    fields = [field.astype(jnp.float64) for field in fields]
    means = tuple(jnp.mean(field, axis=0) for field in fields)
    if model.members == 1:
        return means
    return (*means, *(jnp.std(field, axis=0, ddof=1) for field in fields[:2]))
