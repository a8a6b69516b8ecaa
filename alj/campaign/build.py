"""Starting structures built in code: a builder, then changes in the order given.

A builder `builder(generator, count, *, …) -> list[Built]` gives one structure or several; `count`
is how many are wanted, which matters to builders that place things at random.
"""

import json
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import numpy as np
import scipy.optimize

from alj import registry
from alj.annotations import join
from alj.campaign.built import Built, atomic_number
from alj.campaign.changes import CHANGES, rattle
from alj.campaign.crystals import crystal, slab
from alj.campaign.isolated import atoms, isolated_atoms
from alj.campaign.molecules import molecule
from alj.campaign.packing import box
from alj.campaign.random_atoms import random_atoms
from alj.types import BadInput, Key, Labeler, LabelingFailed, Structure

__all__ = [
    "BUILDERS",
    "Built",
    "build_structures",
    "isolated_atoms",
    "minimized",
    "random_start",
    "resolve_start",
    "scaled",
    "start_from",
]

BUILDERS: tuple[Callable[..., list[Built]], ...] = (
    molecule,
    box,
    crystal,
    slab,
    random_atoms,
    atoms,
)


_FIRST_STEP_A = 0.05
"""Molecules do not survive the first step of 1 Å that L-BFGS takes otherwise."""

_REDRAWS = 50
"""How often a structure that chance has repeated is drawn again."""


class ChangeSettings(NamedTuple):
    changes: tuple[dict, ...]
    rattle_A: float


def change_settings(
    *,
    changes: list[dict] = (),  # type: ignore[assignment]
    rattle_A: float = 0.0,
) -> ChangeSettings:
    """What every builder takes beside its own settings.

    Args:
        changes: Changes to what was built, in this order, such as `[{name: strain, isotropic:
            [-0.05, 0.05], count: 5}, {name: vacancies, number: 2}]`; see `alj show change`. Each
            multiplies the structures by its own `count`.
        rattle_A: Standard deviation of random displacements of all atoms, after all changes.
    """
    return ChangeSettings(tuple(changes), rattle_A)


def build_structures(
    spec: Mapping | str, generator: np.random.Generator, count: int | None = None, where: str = ""
) -> list[Built]:
    """The structures that a builder's settings describe, `info` saying what they were built from.

    `spec` has `name`, the builder's settings and those of `change_settings`. With `count` there are
    so many, times the counts of the changes: what is random is drawn anew for each, and several
    conformers take turns. Raises BadInput; also where structures would be the same.
    """
    shared, own = registry.divided(BUILDERS, spec, change_settings, where)
    settings = registry.call(change_settings, shared, where=where)
    changes = [
        registry.resolve(CHANGES, change, _place(where, i))
        for i, change in enumerate(settings.changes)
    ]
    bases = registry.build(BUILDERS, own, generator, count, where=where)
    built: list[Built] = []
    # What one base gives must differ; a file may have the same structure twice.
    seen: list[set[bytes]] = [set() for _ in bases]
    for i in range(count or len(bases)):
        base, before = bases[i % len(bases)], seen[i % len(bases)]
        built += _unseen(lambda: _changed(base, changes, settings, generator, where), before)
    different = sum(map(len, seen))
    if different < len(built):
        raise BadInput(
            f"{join(where, 'count')}: of {len(built)} structures only {different} would differ; "
            "add what is random (rattle_A, changes) or conformers, or ask for fewer"
        )
    about = {"config_type": own["name"], "built_from": _words(spec)}
    return [one._replace(info={**about, **one.info}) for one in built]


def resolve_start(spec: Mapping, where: str) -> dict:
    """The settings of a start with every default filled in. Raises BadInput."""
    steps, spec = _start_divided(spec, where)
    shared, own = registry.divided(BUILDERS, spec, change_settings, where)
    resolved = registry.filled(change_settings, shared, where)
    resolved["changes"] = [
        registry.resolve(CHANGES, change, _place(where, i))
        for i, change in enumerate(resolved["changes"])
    ]
    return {**registry.resolve(BUILDERS, own, where), **resolved, **steps}


def start_settings(*, minimization_steps: int = 0) -> int:
    """What a start takes beside the settings of its builder.

    Args:
        minimization_steps: Most L-BFGS iterations with the reference's forces, the cell kept.
    """
    return minimization_steps


def start_from(
    spec: Mapping, key: Key, labeler: Labeler, where: str
) -> tuple[Callable[[], tuple[Structure, int]], Structure]:
    """How to get the start that a builder's settings describe, and what it is before minimizing.

    Of several structures the first is the start. Raises BadInput.
    """
    steps, spec = _start_divided(spec, where)
    first = build_structures(spec, generator_of(key), where=where)[0].structure
    limit = steps["minimization_steps"]
    return lambda: minimized(first, labeler, limit, first_step_A=_FIRST_STEP_A), first


def generator_of(key: Key) -> np.random.Generator:
    """NumPy's generator seeded by a key."""
    return np.random.default_rng(np.asarray(jax.random.key_data(key), np.uint32))


def random_start(
    labeler: Labeler,
    key: Key,
    *,
    species: str = "O",
    atoms: int = 108,
    mass_amu: float | None = None,
    density_g_per_cc: float = 1.0,
    minimum_distance_A: float = 2.3,
    minimization_steps: int = 100,
) -> tuple[Structure, int]:
    """A cubic box of one species at random, minimized with the reference; and the calls that took.

    Args:
        species: Chemical symbol; O stands for a bead of coarse-grained water.
        atoms: Number of atoms.
        mass_amu: Mass of one; null takes the element's.
        density_g_per_cc: Density of the box.
        minimum_distance_A: No two atoms are placed closer than this.
        minimization_steps: Most L-BFGS iterations with the reference's forces.

    Raises:
        BadInput: the symbol is unknown, or the packing is too dense for the distance.
    """
    atomic_number(species, "species")
    built = random_atoms(
        generator_of(key),
        None,
        formula=species,
        atoms=atoms,
        mass_amu=mass_amu,
        density_g_per_cc=density_g_per_cc,
        minimum_distance_A=minimum_distance_A,
    )
    return minimized(built[0].structure, labeler, minimization_steps)


def minimized(
    start: Structure, labeler: Labeler, steps: int, *, first_step_A: float = 1.0
) -> tuple[Structure, int]:
    """The structure after at most `steps` L-BFGS iterations, and the labels that took.

    The first step, for which no curvature is known, moves all atoms together by `first_step_A` (as
    a norm). Raises BadInput where the reference cannot label a structure on the way.
    """
    calls = 0

    def energy_and_gradient(flat):
        nonlocal calls
        calls += 1
        labels = labeler.label(start._replace(positions=first_step_A * flat.reshape(-1, 3)))
        return float(labels.energy), -first_step_A * np.asarray(labels.forces, float).ravel()

    if steps < 1:
        return start, 0
    try:
        result = scipy.optimize.minimize(
            energy_and_gradient,
            np.asarray(start.positions, float).ravel() / first_step_A,
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": steps},
        )
    except LabelingFailed as failure:
        raise BadInput(
            f"data: the start could not be minimized with the labeler: {failure}; "
            "fewer minimization_steps, or another start, are needed"
        ) from None
    return start._replace(positions=first_step_A * result.x.reshape(-1, 3)), calls


def scaled(structure: Structure, density_factor: float) -> Structure:
    """The structure at another density, atoms and cell scaled alike."""
    scale = density_factor ** (-1.0 / 3.0)
    return structure._replace(
        positions=np.asarray(structure.positions) * scale, cell=np.asarray(structure.cell) * scale
    )


def _start_divided(spec: Mapping, where: str) -> tuple[dict, dict]:
    own = {k: v for k, v in dict(spec).items() if k != "minimization_steps"}
    steps = {k: v for k, v in dict(spec).items() if k == "minimization_steps"}
    return registry.filled(start_settings, steps, where), own


def _place(where: str, index: int) -> str:
    return f"{join(where, 'changes')}[{index}]"


def _changed(
    base: Built,
    changes: list[dict],
    settings: ChangeSettings,
    generator: np.random.Generator,
    where: str,
) -> list[Built]:
    """The structures that the changes make of one, drawn once."""
    several = [base]
    for i, change in enumerate(changes):
        place = _place(where, i)
        several = [
            new
            for one in several
            for new in registry.build(CHANGES, change, one, generator, where=place)
        ]
    if settings.rattle_A > 0:
        size = settings.rattle_A
        several = [rattle(one, generator, standard_deviation_A=size)[0] for one in several]
    return several


def _unseen(draw: Callable[[], list[Built]], seen: set[bytes]) -> list[Built]:
    """Structures of which none was seen before, drawn again where chance repeats one.

    Where it cannot be helped, the repeated ones stay. All of them are added to `seen`.
    """
    several = draw()
    for _ in range(_REDRAWS):
        repeated = _repeated(several, seen)
        if not repeated:
            break
        others = draw()
        if [_bytes(one) for one in others] == [_bytes(one) for one in several]:
            break
        several = [others[i] if i in repeated else one for i, one in enumerate(several)]
    seen |= {_bytes(one) for one in several}
    return several


def _repeated(several: list[Built], seen: set[bytes]) -> set[int]:
    """Places of those that were seen before, or stand among them twice."""
    contents = [_bytes(one) for one in several]
    return {i for i, one in enumerate(contents) if one in seen or one in contents[:i]}


def _bytes(built: Built) -> bytes:
    return b"".join(np.asarray(field).tobytes() for field in built.structure)


def _words(spec: Mapping | str) -> str:
    """The settings as one line: `crystal material=NaCl supercell=[2,2,2]`."""
    if isinstance(spec, str):
        return spec
    plain = {key: registry.plain(value) for key, value in spec.items() if key != "name"}
    values = (
        value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
        for value in plain.values()
    )
    return " ".join([spec["name"], *(f"{k}={v}" for k, v in zip(plain, values, strict=True))])
