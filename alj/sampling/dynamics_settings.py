"""The settings that every dynamics takes besides its own, their checks, and where it begins."""

import inspect
import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import jax.numpy as jnp
import numpy as np

from alj.geometry.overlaps import closest_below
from alj.sampling.bonds import bonds_of
from alj.sampling.carried_tables import unmade
from alj.sampling.dynamics import Biased, Mechanics, Scheme, stepper_of
from alj.sampling.gates import Gates, doubted
from alj.sampling.masses import masses_of
from alj.sampling.thermostats import Bodies
from alj.sampling.walks import Bath, Start
from alj.types import BadInput, Potential, Sampler, Structure
from alj.units import FEMTOSECOND

Ramp = float | tuple[float, float]
"""A number, or its values at the first and at the last step."""


class Common(NamedTuple):
    """What every dynamics takes besides its own settings.

    Args:
        timestep_fs: Time step. At most 2.8 fs times the root of the lightest mass in amu, where
            the stretching of a bond of that atom becomes unstable; a fifth of that is usual.
        steps: Time steps in all.
        record_every: Time steps between two frames.
        masses_amu: Masses that replace those of the elements, by atomic number: `{8: 18.015}` for
            a bead that stands for a molecule of water.
        frozen: Indices of atoms that do not move.
        drift: Motion of the whole that is taken out: that of the center of mass ("translation"),
            also the rotation of a molecule ("rotation"), or nothing ("keep"); "automatic" is
            translation, but nothing where atoms are frozen or a wall holds them.
        wall_radius_A: Radius of a sphere around the center of the start that keeps molecules
            together; null for none.
        wall_stiffness_eV_per_A2: Spring constant of the wall.
        initial_temperature_K: Temperature of the velocities drawn at the start; null takes that
            of the bath.
        skin_A: How much further than the cutoff the neighbor tables reach.
        longest_step_A: An atom that moves further within one time step freezes the walk.
        hottest_K: A kinetic temperature above this freezes the walk; null for no limit.
        minimum_distance_A: Atoms closer than this freeze the walk.
        longest_bonds_A: Longest bonds by pairs of atomic numbers, such as {6-6: 2.8}: pairs of the
            start within three quarters of it are bonds; one that becomes longer freezes the walk.
        energy_jump_eV_per_atom: A change of the energy beyond this within one time step freezes the
            walk; null for no limit.
        force_spread_eV_per_A: A frame in which the members of the committee differ by more than
            this in the force on an atom (standard deviation) freezes the walk at the frame
            before; null for no limit.
        energy_spread_meV_per_atom: The same of the energy.
        restarts: How often a walk that was frozen begins again where it began, with new velocities.
    """

    timestep_fs: float = 1.0
    steps: int = 10_000
    record_every: int = 10
    masses_amu: dict[int | str, float] | None = None
    frozen: tuple[int, ...] = ()
    drift: Literal["automatic", "keep", "translation", "rotation"] = "automatic"
    wall_radius_A: float | None = None
    wall_stiffness_eV_per_A2: float = 1.0
    initial_temperature_K: float | None = None
    skin_A: float = 1.0
    longest_step_A: float = 0.5
    hottest_K: float | None = None
    minimum_distance_A: float = 0.0
    longest_bonds_A: dict[str, float] | None = None
    energy_jump_eV_per_atom: float | None = None
    force_spread_eV_per_A: float | None = None
    energy_spread_meV_per_atom: float | None = None
    restarts: int = 0


def dynamics(scheme_of: Callable[..., Scheme]) -> Callable[..., Sampler]:
    """A builder of samplers from a function that turns its own settings into a `Scheme`.

    The builder's signature and help are those of the function joined with `Common`: written once,
    they read as one list of keyword-only settings.
    """
    own = inspect.signature(scheme_of).parameters
    kinds = {name: Common.__annotations__[name] for name in Common._fields}
    kind = inspect.Parameter.KEYWORD_ONLY
    shared = [
        inspect.Parameter(name, kind, default=Common._field_defaults[name], annotation=kinds[name])
        for name in Common._fields
        if name not in own
    ]

    def build(potential, **settings):
        unknown = set(settings) - set(own) - set(Common._fields)
        if unknown:
            raise TypeError(f"{scheme_of.__name__}: unexpected settings {sorted(unknown)}")
        given = {name: settings[name] for name in Common._fields if name in settings}
        given |= {n: own[n].default for n in own if n in Common._fields and n not in settings}
        common = Common(**given)
        _check(common)
        scheme = scheme_of(**{name: settings[name] for name in own if name in settings})
        return _sampler(scheme_of.__name__, potential, scheme, common)

    first = inspect.Parameter("potential", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    build.__signature__ = inspect.Signature([first, *own.values(), *shared])  # pyright: ignore
    annotations = {each.name: each.annotation for each in (*own.values(), *shared)}
    # a decorator of type checks may stand between, and readers look through it
    for function in (build, inspect.unwrap(build)):
        function.__annotations__ = annotations
    build.__name__ = build.__qualname__ = scheme_of.__name__
    build.__module__ = scheme_of.__module__
    build.__doc__ = _joined(inspect.getdoc(scheme_of) or "")
    return build


def ramp(name: str, value: Ramp, *, positive: bool = False) -> tuple[float, float]:
    """Both ends of a schedule. Raises BadInput."""
    ends = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    good = len(ends) == 2 and all(
        math.isfinite(end) and not (positive and end <= 0) for end in ends
    )
    if not good:
        wanted = "a positive number" if positive else "a finite number"
        raise BadInput(f"{name}: expected {wanted}, or two of them [first, last], found {value}")
    return float(ends[0]), float(ends[1])


def positive(**settings: float) -> None:
    """Raises BadInput where a setting is not a positive number."""
    for name, value in settings.items():
        if not (math.isfinite(value) and value > 0):
            raise BadInput(f"{name}: expected a positive number, found {value}")


LIMITS = ("energy_jump_eV_per_atom", "force_spread_eV_per_A", "energy_spread_meV_per_atom")

STIFFEST = 2.8
"""fs/amu^½: beyond this time step, per root of the mass, a bond stretch of 3700 cm⁻¹ for hydrogen
(a period of 9 fs) is unstable: ω Δt = 2, Verlet's limit."""


def _check(common: Common):
    positive(
        timestep_fs=common.timestep_fs,
        skin_A=common.skin_A,
        longest_step_A=common.longest_step_A,
        wall_stiffness_eV_per_A2=common.wall_stiffness_eV_per_A2,
    )
    for name, least in (("steps", 1), ("record_every", 1), ("restarts", 0)):
        if getattr(common, name) < least:
            raise BadInput(f"{name}: expected at least {least}, found {getattr(common, name)}")
    for name in ("wall_radius_A", "hottest_K", *LIMITS):
        if getattr(common, name) is not None:
            positive(**{name: getattr(common, name)})
    for name in ("initial_temperature_K", "minimum_distance_A"):
        value = getattr(common, name)
        if value is not None and not (math.isfinite(value) and value >= 0):
            raise BadInput(f"{name}: expected a number of at least 0, found {value}")
    held = "a wall holds the atoms" if common.wall_radius_A is not None else None
    held = "atoms are frozen" if common.frozen else held
    if held and common.drift in ("translation", "rotation"):
        raise BadInput(f"drift: expected keep or automatic, found {common.drift}; {held}")


def _sampler(name: str, potential: Potential | Biased, scheme: Scheme, common: Common) -> Sampler:
    biased = isinstance(potential, Biased)
    bare = potential.potential if biased else potential
    free_of_drift = not common.frozen and common.wall_radius_A is None
    automatic = "translation" if free_of_drift else "keep"
    drift = automatic if common.drift == "automatic" else common.drift
    wall = None
    if common.wall_radius_A is not None:
        wall = (common.wall_radius_A, common.wall_stiffness_eV_per_A2)
    limits = [math.inf if (x := getattr(common, name)) is None else x for name in LIMITS]
    gates = Gates(
        longest_step=common.longest_step_A,
        hottest=math.inf if common.hottest_K is None else common.hottest_K,
        closest=common.minimum_distance_A,
        volume_factor=scheme.volume_factor,
        energy_jump=limits[0],
        force_spread=limits[1],
        energy_spread=limits[2] / 1000,
    )
    if doubted(gates) and bare.member is None:
        raise BadInput(
            "force_spread_eV_per_A and energy_spread_meV_per_atom: expected the mean of a "
            "committee, found a potential without members; leave them null"
        )
    mechanics = Mechanics(
        scheme=scheme,
        potential=bare,
        bias=potential.bias if biased else None,
        observe=potential.observe if biased else None,
        dt=common.timestep_fs * FEMTOSECOND,
        steps=common.steps,
        record_every=min(common.record_every, common.steps),
        drift=drift,
        skin=common.skin_A,
        wall=wall,
        initial_temperature_K=common.initial_temperature_K,
        gates=gates,
        restarts=common.restarts,
    )

    def place(structures: Structure) -> Start:
        return _placed(name, mechanics, common, structures)

    steps = max(common.steps // common.record_every, 1)
    return Sampler(stepper_of(mechanics), place, steps=steps, ensemble=scheme.ensemble)


def _placed(name, mechanics: Mechanics, common: Common, structures: Structure) -> Start:
    """Starts of a batch of structures (host), each one checked. Raises BadInput."""
    species = np.asarray(structures.species)
    _check_structures(name, mechanics, structures)
    masses = masses_of(species, common.masses_amu)
    if mechanics.scheme.still:
        masses = np.ones_like(masses)
    lightest = masses[species > 0].min()
    if common.timestep_fs > STIFFEST * math.sqrt(lightest) and not mechanics.scheme.still:
        raise BadInput(
            f"timestep_fs: expected at most {STIFFEST * math.sqrt(lightest):.2g} fs for atoms of "
            f"{lightest:.4g} amu, found {common.timestep_fs}; a fifth of that is usual"
        )
    free = species > 0
    for index in common.frozen:
        if not (0 <= index < species.shape[1] and np.all(species[:, index] > 0)):
            raise BadInput(
                f"frozen: expected indices of atoms from 0 to {species.shape[1] - 1}, found {index}"
            )
        free[:, index] = False
    freedoms = 3 * free.sum(axis=1)
    if mechanics.drift != "keep":
        rotations = np.where(free.sum(axis=1) == 2, 2, 3) if mechanics.drift == "rotation" else 0
        freedoms = freedoms - 3 - rotations
    if np.any(freedoms < 1):
        raise BadInput(
            f"{name}: nothing is left to move with drift: {mechanics.drift} and "
            f"{len(common.frozen)} frozen atoms; use drift: keep for a single atom"
        )
    dtype, count = structures.positions.dtype, species.shape[0]
    structures = Structure(*(jnp.asarray(leaf) for leaf in structures))
    bodies = Bodies(jnp.asarray(masses, dtype), jnp.asarray(free), jnp.asarray(freedoms, dtype))
    bath = Bath(
        jnp.tile(jnp.asarray(mechanics.scheme.temperature_K, dtype)[None], (count, 1)),
        jnp.tile(jnp.asarray(mechanics.scheme.pressure_bar, dtype)[None], (count, 1)),
    )
    cutoff = mechanics.potential.cutoff
    table = unmade(
        structures, cutoff + mechanics.skin, elastic=mechanics.scheme.stress, cutoff=cutoff
    )
    bonds = None
    if common.longest_bonds_A is not None:
        bonds = bonds_of(structures, common.longest_bonds_A)
    velocities = jnp.full_like(structures.positions, jnp.nan)
    return Start(structures, velocities, bodies, bath, table, bonds)


def _check_structures(name, mechanics, structures):
    positions, cells = np.asarray(structures.positions), np.asarray(structures.cell)
    species = np.asarray(structures.species)
    periodic = np.any(cells != 0, axis=-1).sum(axis=-1)
    if mechanics.scheme.stress and np.any(periodic < 3):
        raise BadInput(
            f"{name}: expected three periodic directions, found {periodic.min()}; "
            "use a dynamics at constant volume instead"
        )
    for setting, asked in (
        ("drift: rotation", mechanics.drift == "rotation"),
        ("wall_radius_A", mechanics.wall is not None),
    ):
        if asked and np.any(periodic > 0):
            raise BadInput(f"{setting}: expected molecules without a cell, found a periodic one")
    if mechanics.scheme.stress and mechanics.drift == "keep":
        raise BadInput(f"{name}: frozen atoms and drift: keep do not go with a changing cell")
    for index in range(len(species)):
        real = species[index] > 0
        if not (np.isfinite(positions[index][real]).all() and np.isfinite(cells[index]).all()):
            raise BadInput(
                f"{name}: start {index} has positions or cell vectors that are not finite"
            )
        close = closest_below(positions[index], species[index], cells[index])
        if close is not None:
            first, second, distance = close
            raise BadInput(
                f"{name}: atoms {first} and {second} of start {index} lie {distance:.2g} Å apart: "
                "expected atoms that do not overlap"
            )


def _joined(own: str) -> str:
    """The docstring of a scheme with the help on the common settings under its `Args:`."""
    _, _, shared = (inspect.getdoc(Common) or "").partition("Args:\n")
    raises = (
        "\n\nRaises:\n    BadInput: a setting is out of range, or (by `place`) a start is unfit."
    )
    before, _, mine = own.partition("Args:\n")
    entries = "\n".join(part.rstrip() for part in (mine, shared) if part.strip())
    return f"{before.rstrip()}\n\nArgs:\n{entries}{raises}\n"
