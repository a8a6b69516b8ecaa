"""What all reference engines share: screens before a calculation, checks after it, second chances.

An engine is one program with one set of settings, and `calculate` is one attempt with it. What no
program does reliably is done here, the same for all of them: refusing input that is not physics,
finding the spin state, trying the next fallback where the electrons do not settle, and not
believing every number that comes back.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import ase
import numpy as np
from ase.data import chemical_symbols, covalent_radii
from ase.neighborlist import neighbor_list

from alj.geometry.overlaps import flat_cell
from alj.types import BadInput, LabelingFailed, Labels, Structure


class Limits(NamedTuple):
    """What is not believed; None switches a check off. See `check_settings`."""

    closest_fraction: float | None = 0.5
    max_energy_eV_per_atom: float | None = None
    max_force_eV_per_A: float | None = 100.0
    max_net_force_eV_per_A: float | None = 0.05


@runtime_checkable
class Engine(Protocol):
    """One program with one set of settings; it can be pickled, and opens nothing until it is used.

    name: as in the registry. settings: whatever changes its answers; hashed, so plain JSON values.
    convention: what its energies are, in words. elements: atomic numbers it knows, () for any.
    periodic: whether it takes cells. electrons: whether charge and multiplicity mean anything to
    it. limits: what is not believed unless the user says otherwise.
    """

    name: str
    settings: dict[str, Any]
    convention: str
    elements: tuple[int, ...]
    periodic: bool
    electrons: bool
    limits: Limits

    def version(self) -> str:
        """Program and version. Raises BadInput where it is not installed, saying how to get it."""
        ...

    def calculate(self, structure: Structure, multiplicity: int) -> Labels:
        """One attempt, cold: nothing of an earlier structure is left. eV and Å, total energies.

        The structure was screened; `multiplicity` is 2S+1, or 0 for engines without electrons.
        Raises LabelingFailed: `not_converged`, `parse`, `crash` and whatever else it finds;
        BadInput where it is not installed.
        """
        ...


def check_settings(
    *,
    multiplicities: list[int] = (),  # type: ignore[assignment]
    fallbacks: list[dict] = (),  # type: ignore[assignment]
    closest_fraction: float | None = None,
    max_energy_eV_per_atom: float | None = None,
    max_force_eV_per_A: float | None = None,
    max_net_force_eV_per_A: float | None = None,
) -> dict[str, Any]:
    """What every reference engine takes beside its own settings.

    Args:
        multiplicities: Spin multiplicities 2S+1 that are all computed for a structure that names
            none; the lowest energy is kept, and each of them must converge (`fallbacks`). Without a
            list: singlets; a structure with an odd number of electrons must then say what it is.
        fallbacks: Settings of the engine, in order, for structures that do not converge, such as
            `[{electronic_temperature_K: 5000}]`.
        closest_fraction: Atoms nearer than this fraction of the sum of their covalent radii are
            refused; null takes the engine's own limit, 0 switches it off.
        max_energy_eV_per_atom: Energies above are not believed; null takes the engine's own.
        max_force_eV_per_A: Larger forces are not believed; null takes the engine's own.
        max_net_force_eV_per_A: Forces whose sum over all atoms is larger are not believed; null
            takes the engine's own.
    """
    for multiplicity in multiplicities:
        if multiplicity < 1:
            raise BadInput(f"multiplicities: expected 2S+1 ≥ 1, found {multiplicity}")
    given = {
        "closest_fraction": closest_fraction,
        "max_energy_eV_per_atom": max_energy_eV_per_atom,
        "max_force_eV_per_A": max_force_eV_per_A,
        "max_net_force_eV_per_A": max_net_force_eV_per_A,
    }
    limits = {name: value for name, value in given.items() if value is not None}
    return {
        "multiplicities": tuple(multiplicities),
        "fallbacks": tuple(fallbacks),
        "limits": limits,
    }


class Reference:
    """A labeler around an engine and its fallbacks (the same engine with other settings).

    `settings` is what a label's identity hashes; limits are not in it, for they change no label.
    """

    def __init__(
        self,
        engines: Sequence[Engine],
        multiplicities: Sequence[int] = (),
        limits: Limits | None = None,
    ):
        self.engine = engines[0]
        self.engines = tuple(engines)
        self.multiplicities = tuple(multiplicities)
        self.limits = limits or self.engine.limits
        self.name = self.engine.name
        more = {}
        if multiplicities:
            more["multiplicities"] = sorted(multiplicities)
        if len(engines) > 1:
            more["fallbacks"] = [engine.settings for engine in engines[1:]]
        self.settings = {**self.engine.settings, **more}

    @property
    def convention(self) -> str:
        """Whose energies these are; data of another convention must not be mixed with them."""
        return f"{self.name}: {self.engine.convention}"

    def label(self, structure: Structure) -> Labels:
        """Labels of one unpadded structure. Raises LabelingFailed."""
        return self.label_about(structure)[0]

    def label_about(self, structure: Structure) -> tuple[Labels, dict[str, Any]]:
        """Labels, and where they come from: version, convention, multiplicity, fallback, tries.

        Every multiplicity must come out, or the lowest energy would depend on luck. Raises
        LabelingFailed.
        """
        ((result, about),) = self._courses([structure])
        if isinstance(result, LabelingFailed):
            raise result
        return result, about

    def _courses(
        self, structures: Sequence[Structure]
    ) -> list[tuple[Labels | LabelingFailed, dict[str, Any]]]:
        """Each structure through multiplicities and fallbacks, to its labels or its failure."""
        courses = [_Course(self, structure) for structure in structures]
        while going := [course for course in courses if course.spins and not course.failure]:
            self._next_spin(going)
        source = {"version": self.engine.version(), "convention": self.convention}
        return [course.answer(source) for course in courses]

    def _next_spin(self, going: list["_Course"]) -> None:
        """The next multiplicity of each structure; fallbacks for those that do not converge."""
        for fallback, engine in enumerate(self.engines):
            structures, spins = [c.structure for c in going], [c.spins[0] for c in going]
            results = self._calculated(engine, structures, spins) if going else []
            for course, result in zip(going, results, strict=True):
                course.tried(result, fallback, last=fallback + 1 == len(self.engines))
            going = [course for course in going if course.again]

    def _calculated(
        self, engine: Engine, structures: list[Structure], spins: list[int]
    ) -> list[Labels | LabelingFailed]:
        """One calculation for each structure."""
        results: list[Labels | LabelingFailed] = []
        for structure, spin in zip(structures, spins, strict=True):
            try:
                results.append(engine.calculate(structure, spin))
            except LabelingFailed as failure:
                results.append(failure)
        return results

    def _spins(self, structure: Structure) -> tuple[int, ...]:
        """The multiplicities to compute. Raises LabelingFailed where none fits the electrons."""
        if not self.engine.electrons:
            return (0,)
        count = electrons(structure)
        wanted = int(structure.multiplicity)
        asked = (wanted,) if wanted else self.multiplicities or (1,)
        fitting = tuple(m for m in asked if (count - (m - 1)) % 2 == 0 and m - 1 <= count)
        if count < 1 or not fitting:
            kind = "odd" if count % 2 else "even"
            raise LabelingFailed(
                "bad_input",
                f"{count} electrons (an {kind} number, charge {int(structure.charge):+d}) do not "
                f"go with multiplicity {' or '.join(map(str, asked))}; give charge and "
                "multiplicity with the structure (info), or `multiplicities` with the labeler",
            )
        return fitting


class Blocks(Reference):
    """A labeler around an engine that labels several structures in one call (`calculate_many`)."""

    @property
    def block(self) -> int:
        """How many structures it would like to be given together."""
        many: Any = self.engine
        return many.structures_per_call

    def label_many_about(
        self, structures: Sequence[Structure]
    ) -> list[tuple[Labels | LabelingFailed, dict[str, Any]]]:
        """What `label_about` says of each structure alone, failures too; fewer calls."""
        return self._courses(structures)

    def _calculated(
        self, engine: Engine, structures: list[Structure], spins: list[int]
    ) -> list[Labels | LabelingFailed]:
        many: Any = engine
        return many.calculate_many(structures, spins)


class _Course:
    """One structure on its way through multiplicities and fallbacks."""

    def __init__(self, reference: Reference, structure: Structure):
        self.structure, self.limits = structure, reference.limits
        self.spins: tuple[int, ...] = ()
        self.tries, self.again = 0, False
        self.failure: LabelingFailed | None = None
        self.best: tuple[Labels, dict[str, Any]] | None = None
        try:
            screen(structure, reference.engine, reference.limits)
            self.spins = reference._spins(structure)
        except LabelingFailed as failure:
            self.failure = failure

    def tried(self, result: Labels | LabelingFailed, fallback: int, *, last: bool) -> None:
        """Take in one calculation with the multiplicity that is next."""
        self.tries += 1
        multiplicity = self.spins[0]
        try:
            if isinstance(result, LabelingFailed):
                raise result
            believed(result, self.structure, self.limits)
        except LabelingFailed as failure:
            self.again = failure.kind == "not_converged" and not last
            if not self.again:
                self.failure = _of_this_try(failure, multiplicity, self.tries)
            return
        self.again, self.spins = False, self.spins[1:]
        if self.best is None or float(result.energy) < float(self.best[0].energy):
            self.best = result, {"multiplicity": multiplicity, "fallback": fallback}

    def answer(self, source: dict[str, Any]) -> tuple[Labels | LabelingFailed, dict[str, Any]]:
        """The labels of the lowest energy with their provenance, or the failure."""
        if self.failure is not None or self.best is None:
            assert self.failure is not None
            return self.failure, {}
        return self.best[0], {**source, **self.best[1], "tries": self.tries}


def electrons(structure: Structure) -> int:
    """Number of electrons, core electrons included."""
    return int(np.sum(structure.species)) - int(structure.charge)


def screen(structure: Structure, engine: Engine, limits: Limits) -> None:
    """Raise LabelingFailed("bad_input") for what no engine should be asked."""
    positions, cell = np.asarray(structure.positions), np.asarray(structure.cell)
    species = np.asarray(structure.species)
    if not (np.isfinite(positions).all() and np.isfinite(cell).all()):
        raise LabelingFailed("bad_input", "a coordinate or the cell is not finite")
    if len(species) == 0 or (species <= 0).any():
        raise LabelingFailed("bad_input", "expected one or more atoms, each of a known element")
    if engine.elements and not np.isin(species, engine.elements).all():
        strange = sorted(set(species.tolist()) - set(engine.elements))
        names = ", ".join(chemical_symbols[z] for z in strange)
        raise LabelingFailed("bad_input", f"{engine.name} has no parameters for {names}")
    if cell.any() and not engine.periodic:
        raise LabelingFailed(
            "bad_input", f"{engine.name} takes molecules only; this structure is periodic"
        )
    if flat_cell(cell):
        raise LabelingFailed("bad_input", "the cell is singular")
    pair = _too_close(positions, species, cell, limits.closest_fraction or 0.0)
    if pair is not None:
        i, j, distance, least = pair
        raise LabelingFailed(
            "bad_input",
            f"atoms {i} ({chemical_symbols[species[i]]}) and {j} ({chemical_symbols[species[j]]}) "
            f"are {distance:.3g} Å apart; expected {least:.3g} Å or more (closest_fraction)",
        )


def believed(labels: Labels, structure: Structure, limits: Limits) -> None:
    """Raise LabelingFailed("unphysical") for an answer that cannot be true."""
    energy, forces = float(labels.energy), np.asarray(labels.forces)
    periodic = bool(np.any(structure.cell))
    shape = (len(structure.species), 3)
    if forces.shape != shape:
        raise LabelingFailed("parse", f"expected forces of shape {shape}, found {forces.shape}")
    known_stress = np.asarray(labels.stress)
    half_known = periodic and np.isnan(known_stress).any() and not np.isnan(known_stress).all()
    if not (np.isfinite(energy) and np.isfinite(forces).all()) or half_known:
        raise LabelingFailed("unphysical", "the energy, a force or the stress is not finite")
    per_atom, cap = energy / len(forces), limits.max_energy_eV_per_atom
    if cap is not None and per_atom > cap:
        raise LabelingFailed("unphysical", f"energy of {per_atom:.4g} eV/atom, limit {cap:g}")
    largest, cap = float(np.linalg.norm(forces, axis=1).max()), limits.max_force_eV_per_A
    if cap is not None and largest > cap:
        raise LabelingFailed("unphysical", f"a force of {largest:.4g} eV/Å, limit {cap:g}")
    net, cap = float(np.linalg.norm(forces.sum(axis=0))), limits.max_net_force_eV_per_A
    if cap is not None and net > cap:
        raise LabelingFailed("unphysical", f"the forces add up to {net:.4g} eV/Å, limit {cap:g}")


def labels_of(
    atoms: int,
    energy: float,
    forces: np.ndarray,
    *,
    stress: np.ndarray | None = None,
    dipole: np.ndarray | None = None,
    charges: np.ndarray | None = None,
) -> Labels:
    """Labels of `atoms` atoms, float64, with NaN in what an engine does not give."""
    fields: dict[str, Any] = {
        "energy": np.asarray(energy, np.float64),
        "forces": np.asarray(forces, np.float64),
        "stress": _or_nan(stress, (3, 3)),
        "dipole": _or_nan(dipole, (3,)),
        "charges": _or_nan(charges, (atoms,)),
        "atomic_energies": _or_nan(None, (atoms,)),
    }
    return Labels(**fields)


def _or_nan(value: np.ndarray | None, shape: tuple[int, ...]) -> np.ndarray:
    return np.full(shape, np.nan) if value is None else np.asarray(value, np.float64)


def _of_this_try(failure: LabelingFailed, multiplicity: int, tries: int) -> LabelingFailed:
    """The failure with what was tried, where that is not obvious."""
    notes = []
    if multiplicity > 1:
        notes.append(f"multiplicity {multiplicity}")
    if tries > 1:
        notes.append(f"calculation {tries}")
    text = f"{failure.message} ({', '.join(notes)})" if notes else failure.message
    return LabelingFailed(failure.kind, text, failure.log_tail)


def _too_close(positions, species, cell, fraction: float) -> tuple[int, int, float, float] | None:
    """The pair whose distance is the smallest part of what is expected, with that; or None."""
    reach = fraction * covalent_radii[species]
    if not cell.any() and len(species) < _FEW_ATOMS:
        i, j = np.triu_indices(len(species), 1)
        apart = np.linalg.norm(positions[i] - positions[j], axis=1)
    else:
        atoms = ase.Atoms(species, positions, cell=cell, pbc=cell.any(axis=1))
        i, j, apart = neighbor_list("ijd", atoms, np.maximum(reach, _NOWHERE))
    expected = np.maximum(reach[i] + reach[j], _NOWHERE)
    if not (apart < expected).any():
        return None
    worst = int(np.argmin(apart / expected))
    first, second = sorted((int(i[worst]), int(j[worst])))
    return first, second, float(apart[worst]), float(expected[worst])


_NOWHERE = 1e-3
"""Å; atoms nearer than this are one place, whatever the limits say."""

_FEW_ATOMS = 200
"""Below, all distances are faster than a neighbor list."""
