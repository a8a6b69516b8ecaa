"""Properties of the finished potential beside those of its reference, by the same code.

Each entry of `properties` is a sampler at some temperature (and pressure). It runs on the
reference, where that is a potential of this package, and on the mean of the committee, from the
same start with the same keys. What is measured: density, energy, radial and angular distributions,
of a molecular dynamics also diffusion. A run is cut into segments that the store remembers, so a
killed one goes on where it was.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ase.data import atomic_masses

from alj import registry
from alj.analysis import structure as structures
from alj.analysis.thermodynamics import density_g_per_cc, mean_of_walks
from alj.analysis.transport import diffusion
from alj.arrays import split_named
from alj.campaign.store import FolderStore
from alj.sampling import SAMPLERS
from alj.stepping import batched, run
from alj.types import BadInput, Context, Key, Params, Potential, Sampler, Structure

SEGMENTS = 10
"""Parts in which a run is remembered, equilibration included."""


class PropertySettings(NamedTuple):
    walks: int
    atoms: int | None
    mass_amu: float | None
    equilibration_share: float
    range_A: float
    width_A: float
    angle_radius_A: float
    coordination_radius_A: float
    diffusion_ps: tuple[float, float] | None


class Subject(NamedTuple):
    """Whose properties: "reference" or "network", its potential and params."""

    name: str
    potential: Potential
    params: Params


def property_settings(
    *,
    walks: int = 4,
    atoms: int | None = None,
    mass_amu: float | None = None,
    equilibration_share: float = 0.3,
    range_A: float = 7.0,
    width_A: float = 0.05,
    angle_radius_A: float = 4.0,
    coordination_radius_A: float = 3.25,
    diffusion_ps: tuple[float, float] | None = None,
) -> PropertySettings:
    """What is simulated and measured, besides the sampler's own settings.

    Args:
        walks: Independent walks; the spread of their means is the standard error.
        atoms: The start is repeated along its shortest directions until it has at least so many;
            null takes it as it is.
        mass_amu: Mass of one atom or bead; null takes the elements'.
        equilibration_share: Share of every walk that is not used.
        range_A: Largest distance of the radial distribution.
        width_A: Width of its bins.
        angle_radius_A: Neighbors within this radius span the angles.
        coordination_radius_A: Radius within which neighbors are counted.
        diffusion_ps: Two lags, such as [1, 4]; diffusion is the growth of the mean squared
            displacement between them. A tenth of the dynamics must be longer than the second. Null:
            not measured.
    """
    if walks < 1 or not 0 <= equilibration_share < 1:
        raise BadInput(
            "properties: expected walks >= 1 and 0 <= equilibration_share < 1, found "
            f"{walks} and {equilibration_share}"
        )
    return PropertySettings(
        walks, atoms, mass_amu, equilibration_share, range_A, width_A, angle_radius_A,
        coordination_radius_A, diffusion_ps,
    )  # fmt: skip


def resolved(spec: Any, where: str) -> dict:
    """An entry of `properties` with every default filled in. Raises BadInput."""
    common, own = registry.divided(SAMPLERS, spec, property_settings, where)
    return {
        **registry.resolve(SAMPLERS, own, where),
        **registry.filled(property_settings, common, where),
    }


def sampler_of(
    spec: dict, potential: Potential, where: str = "properties"
) -> tuple[Sampler, PropertySettings]:
    """The sampler of an entry on a potential, and what is measured. Raises BadInput."""
    common, own = registry.divided(SAMPLERS, spec, property_settings, where)
    settings = registry.call(property_settings, common, where=where)
    sampler = registry.build(SAMPLERS, own, potential, where=where)
    if settings.diffusion_ps is not None:
        spacing, last = _spacing(own, where), 1000.0 * settings.diffusion_ps[1]
        if not last < (sampler.steps // SEGMENTS - 1) * spacing:
            raise BadInput(
                f"{where}.diffusion_ps: expected lags shorter than a tenth of the dynamics, "
                f"{sampler.steps // SEGMENTS * spacing:g} fs, found {last:g} fs"
            )
    return sampler, settings


def _spacing(spec: dict, where: str = "properties") -> float:
    """The time between two frames of a dynamics in fs. Raises BadInput for other samplers."""
    resolved = registry.resolve(SAMPLERS, spec, where)
    if "timestep_fs" not in resolved:
        raise BadInput(
            f"{where}.diffusion_ps: expected a molecular dynamics, found {resolved['name']}"
        )
    return resolved["timestep_fs"] * resolved["record_every"]


def measure(
    key: Key,
    spec: dict,
    subject: Subject,
    start: Structure,
    store: FolderStore,
    name: str,
    on_progress: Callable[[int, int], None] | None = None,
) -> dict:
    """The properties of one subject by one entry, as `summary` makes them.

    `name` is where the store remembers the segments.
    """
    sampler, settings = sampler_of(spec, subject.potential)
    _, own = registry.divided(SAMPLERS, spec, property_settings)
    stepper, context = batched(sampler.stepper), Context(params=subject.params)
    place, go = split_named(key, "place", "go")
    box = repeated(start, settings.atoms)
    starts = jax.tree.map(lambda x: jnp.asarray(np.stack([x] * settings.walks)), box)
    begin = stepper.init if stepper.host else jax.jit(stepper.init)
    state = begin(place, sampler.place(starts), context)
    leaves, shape = jax.tree.flatten(jax.device_get(state))
    length = -(-sampler.steps // SEGMENTS)
    rows = []
    for number, first in enumerate(range(0, sampler.steps, length)):
        steps = min(length, sampler.steps - first)

        def segment(leaves=leaves, first=first, steps=steps):
            state = jax.tree.unflatten(shape, leaves)
            state, frames = run(stepper, go, state, context, steps=steps, start=first)
            used = first >= settings.equilibration_share * sampler.steps
            measured = _measured(frames, settings) if used else None
            if used and settings.diffusion_ps is not None:
                moved = {"diffusion": _diffusion(frames, settings, own)}
                measured = {**(measured or {}), **moved}
            return {"leaves": jax.tree.leaves(jax.device_get(state)), "rows": measured}

        kept = store.remember(f"{name}-{number}", segment)
        leaves = kept["leaves"]
        if kept["rows"] is not None:
            rows.append(kept["rows"])
        if on_progress is not None:
            on_progress(first + steps, sampler.steps)
    return summary(rows, settings)


def repeated(start: Structure, atoms: int | None) -> Structure:
    """The structure repeated along its shortest lattice vectors until it has `atoms` or more."""
    positions, cell = np.asarray(start.positions, float), np.asarray(start.cell, float)
    species = np.asarray(start.species)
    if atoms is not None and len(species) < atoms and not np.all(np.any(cell != 0, axis=1)):
        raise BadInput(
            "properties: expected a start that repeats in three directions, to be repeated to "
            f"{atoms} atoms"
        )
    while atoms is not None and len(species) < atoms:
        axis = int(np.argmin(np.linalg.norm(cell, axis=1)))
        positions = np.concatenate([positions, positions + cell[axis]])
        species = np.concatenate([species, species])
        cell = cell.copy()
        cell[axis] *= 2.0
    return start._replace(positions=positions, species=species, cell=cell)


def summary(rows: list[dict], settings: PropertySettings) -> dict:
    """Means with standard errors over walks, and the curves with theirs.

    Densities in g/cm³, energies in eV/atom, distances in Å, angles in degrees.
    """
    if not rows:
        raise BadInput("properties: nothing is left after equilibration; give more cycles")
    series = {
        name: np.concatenate([row[name] for row in rows])
        for name in ("density", "energy", "coordination")
    }
    found: dict[str, Any] = {"frames": len(series["density"]), "walks": settings.walks}
    for name, values in series.items():
        mean = mean_of_walks(list(values.T))
        found |= {name: mean.mean, f"{name}_error": mean.error}
    if "diffusion" in rows[0]:
        walks = np.stack([row["diffusion"] for row in rows]).mean(axis=0)
        error = walks.std(ddof=1) / len(walks) ** 0.5 if len(walks) > 1 else np.nan
        found |= {"diffusion_A2_per_ps": float(walks.mean()), "diffusion_error": float(error)}
    curves: dict[str, Any] = {}
    for name in ("rdf", "adf"):
        parts = np.stack([row[name] for row in rows])  # (segments, walks, bins)
        walks = parts.mean(axis=0)
        several = walks if len(walks) > 1 else parts[:, 0]
        error = several.std(axis=0, ddof=1) / len(several) ** 0.5 if len(several) > 1 else None
        curves |= {
            name: walks.mean(axis=0),
            f"{name}_error": np.zeros(walks.shape[1]) if error is None else error,
            f"{name}_centers": rows[0][f"{name}_centers"],
        }
    found["acceptance"] = float(np.mean([row["acceptance"] for row in rows]))
    return {"numbers": {**found, **_peaks(curves)}, "curves": curves, "series": series}


def _peaks(curves: dict) -> dict:
    """First maximum, first minimum behind it, and the highest angle on either side of 70°."""
    r, g = curves["rdf_centers"], curves["rdf"]
    found: dict[str, Any] = {}
    if g.max() > 0:
        first = structures.highest(r, g, r[0], r[-1])
        lowest = structures.highest(r, g, first.position, 1.45 * first.position, lowest=True)
        second = structures.highest(r, g, lowest.position, 1.9 * first.position)
        found = {
            "rdf_first_maximum_A": first.position,
            "rdf_first_height": first.height,
            "rdf_first_minimum_A": lowest.position,
            "rdf_second_maximum_A": second.position,
        }
    angles, p = curves["adf_centers"], curves["adf"]
    for name, low, high in (("small", 20.0, 70.0), ("large", 70.0, 140.0)):
        found[f"adf_{name}_maximum_degrees"] = structures.highest(angles, p, low, high).position
    return found


def _diffusion(frames, settings: PropertySettings, own: dict) -> np.ndarray:
    """The diffusion coefficient of every walk in one segment, Å²/ps."""
    assert settings.diffusion_ps is not None
    first, second = (1000.0 * lag for lag in settings.diffusion_ps)
    walks = np.moveaxis(np.asarray(frames.structure.positions, float), 1, 0)
    return np.array(
        [
            diffusion([walk], _spacing(own), from_fs=first, to_fs=second).coefficient
            for walk in walks
        ]
    )


def _measured(frames, settings: PropertySettings) -> dict:
    """What is kept of a segment: series by frame, distributions averaged over its frames."""
    steps, walks = frames.energy.shape
    flat = jax.tree.map(lambda x: np.asarray(x).reshape(-1, *x.shape[2:]), frames.structure)
    atoms = (flat.species > 0).sum(axis=1)
    mass = float(atomic_masses[flat.species[0]].sum())
    if settings.mass_amu is not None:
        mass = float(atoms[0] * settings.mass_amu)
    density = density_g_per_cc(flat.cell, mass)
    rdf = structures.radial_distribution(flat, range_A=settings.range_A, width_A=settings.width_A)
    adf = structures.angle_distribution(flat, radius_A=settings.angle_radius_A)
    around = structures.coordination(flat, radius_A=settings.coordination_radius_A)
    by_walk = lambda values: np.reshape(values, (steps, walks, -1)).mean(axis=0)  # noqa: E731
    return {
        "density": np.reshape(density, (steps, walks)),
        "energy": frames.energy / atoms.reshape(steps, walks),
        "coordination": around.reshape(steps, walks),
        "acceptance": np.mean(frames.acceptance, axis=0),
        "rdf": by_walk(rdf.values),
        "adf": by_walk(adf.values),
        "rdf_centers": rdf.centers,
        "adf_centers": adf.centers,
    }
