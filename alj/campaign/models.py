"""Models on disk: a potential's configuration and its committee's parameters, nothing executable.

A model folder holds `model.yaml` and one file of parameters that it names. The parameters come
first and the name last, so a crash leaves the old model or the new one. The answer of a model is
the mean of its committee.
"""

import hashlib
import json
from collections.abc import Mapping
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from alj.annotations import plain
from alj.arrays import double_precision
from alj.campaign import trees
from alj.campaign.config import dump, read
from alj.campaign.store import write_file
from alj.potentials import build_potential
from alj.potentials.combine import charges, committee, everything
from alj.types import BadInput, Neighbors, Params, Potential, Structure

_FORMAT = 1


class Model(NamedTuple):
    """A committee ready to answer: `params` have a leading member axis, `mean` is their mean.

    `config` is what `model.yaml` says. It computes in the precision of its parameters.
    """

    potential: Potential
    mean: Potential
    params: Params
    config: dict[str, Any]

    @property
    def members(self) -> int:
        """The size of the committee; 1 for a classical potential."""
        return int(self.config["members"])

    @property
    def species(self) -> tuple[int, ...]:
        """The atomic numbers that it knows; () for any."""
        return self.potential.species

    @property
    def dtype(self) -> np.dtype:
        """What positions are cast to; energies are summed in float64."""
        leaves = jax.tree.leaves(self.params)
        return jnp.result_type(*leaves) if leaves else np.dtype("float64")


class Answer(NamedTuple):
    """Each member's answer to one structure: eV, eV/Å, eV/Å^3, eV; with a leading member axis.

    `charges` in e, None of a potential without charges; `overflow` says that the neighbor table was
    too small: the rest is then worthless.
    """

    energy: jax.Array
    forces: jax.Array
    stress: jax.Array
    atomic_energies: jax.Array
    overflow: jax.Array
    charges: jax.Array | None = None


def save(
    folder: str | Path,
    *,
    potential_config: Mapping[str, Any] | str,
    species: tuple[int, ...],
    params: Params,
    precision: str,
    provenance: Mapping[str, Any],
) -> None:
    """Write a model folder; `params` have a leading member axis. Raises DiskFull."""
    folder = Path(folder)
    host = jax.tree.map(np.asarray, params)
    data = trees.encode(host)
    name = f"params-{hashlib.sha256(data).hexdigest()[:16]}.tree"
    leaves = jax.tree.leaves(host)
    about = {
        "format": _FORMAT,
        "potential": plain(potential_config),
        "species": [int(number) for number in species],
        "members": len(leaves[0]) if leaves else 1,
        "precision": precision,
        "params": name,
        "provenance": plain(provenance),
        "versions": {package: version(package) for package in ("alj", "jax", "numpy")},
    }
    write_file(folder / name, data)
    write_file(folder / "model.yaml", dump(about).encode())
    for old in folder.glob("params-*.tree"):
        if old.name != name:
            old.unlink(missing_ok=True)


def load(path: str | Path) -> Model:
    """The model in a run folder or a model folder; nothing in it is executed. Raises BadInput."""
    path = Path(path)
    folder = next((f for f in (path / "model", path) if (f / "model.yaml").is_file()), None)
    if folder is None:
        found = "no such folder" if not path.exists() else "it has no model.yaml"
        raise BadInput(f"{path} is not a model: expected a run folder or a model folder, {found}")
    file = folder / "model.yaml"
    about = read(file)
    missing = [k for k in ("format", "potential", "species", "members", "params") if k not in about]
    if missing or about["format"] != _FORMAT:
        reason = f"it lacks {missing[0]}" if missing else f"its format is {about['format']}"
        raise BadInput(f"{file} is damaged or of another version of alj: {reason}")
    stored = folder / Path(str(about["params"])).name
    if not stored.is_file():
        raise BadInput(f"{file} names parameters that are not there: {stored.name}")
    species = tuple(int(number) for number in about["species"])
    potential = potential_of(about["potential"], species, where=f"{file}: potential")
    params = trees.decode(stored.read_bytes(), str(stored))
    return model_of(potential, params, about, str(stored))


def potential_of(
    config: Mapping[str, Any] | str, species: tuple[int, ...], where: str = "potential"
) -> Potential:
    """The potential of a configuration, one and the same each time, so that programs are shared.

    Raises BadInput.
    """
    try:
        return _built(json.dumps(plain(config), sort_keys=True), species)
    except BadInput as error:
        raise BadInput(f"{where}: {error}") from None


def model_of(potential: Potential, params: Params, config: dict, where: str = "params") -> Model:
    """A model from its parts. Raises BadInput where the parameters do not fit the potential."""
    count = int(config.setdefault("members", _members(params)))
    expected = jax.eval_shape(lambda: potential.init(jax.random.key(0)))
    found = jax.tree.map(lambda leaf: np.shape(leaf)[1:], params)
    fits = jax.tree.structure(expected) == jax.tree.structure(params) and all(
        one.shape == np.shape(leaf)[1:] and len(leaf) == count
        for one, leaf in zip(jax.tree.leaves(expected), jax.tree.leaves(params), strict=True)
    )
    if not fits:
        raise BadInput(f"{where} does not fit the potential: found arrays of the shapes {found}")
    with double_precision():
        params = jax.tree.map(jnp.asarray, params)
    mean = _committee(potential) if jax.tree.leaves(params) else potential
    return Model(potential, mean, params, config)


@partial(jax.jit, static_argnums=0)
def answer_mean(
    potential: Potential, params: Params, structure: Structure, neighbors: Neighbors
) -> Answer:
    """The answer of `Model.mean` to one structure; its member axis has length 1."""
    answer = _answer(potential, params, structure, neighbors)
    return jax.tree.map(lambda leaf: leaf[None], answer)


@partial(jax.jit, static_argnums=(0, 1))
def answer_members(
    potential: Potential, count: int, params: Params, structure: Structure, neighbors: Neighbors
) -> Answer:
    """Every member's answer to one structure, by `Model.potential`.

    What no parameter touches is computed once forward; the backward pass runs per member.
    """
    axes = (None, 0, None, None)
    return jax.vmap(_answer, axes, axis_size=count)(potential, params, structure, neighbors)


def _answer(potential, params, structure, neighbors) -> Answer:
    arguments = (potential, params, structure, neighbors)
    return Answer(*everything(*arguments), neighbors.overflow, charges(*arguments))


@cache
def _built(config: str, species: tuple[int, ...]) -> Potential:
    return build_potential(json.loads(config), species, where="")


_committee = cache(committee)


def _members(params: Params) -> int:
    leaves = jax.tree.leaves(params)
    return len(leaves[0]) if leaves else 1
