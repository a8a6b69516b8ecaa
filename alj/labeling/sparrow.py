"""Semiempirical methods of SCINE Sparrow: DFTB3, PM6 and their elders, in memory, milliseconds.

T. Husch, A. C. Vaucher, M. Reiher, Int. J. Quantum Chem. 118, e25799 (2018),
doi 10.1002/qua.25799; https://scine.ethz.ch. DFTB3: M. Gaus, Q. Cui, M. Elstner, J. Chem. Theory
Comput. 7, 931 (2011), doi 10.1021/ct100684s, with the parameters 3ob-3-1 (CC BY-SA 4.0): see
`dftb3_correction` for what must be cited with them. DFTB2: M. Elstner et al., Phys. Rev. B 58,
7260 (1998), doi 10.1103/PhysRevB.58.7260, with mio-1-1. PM6: J. J. P. Stewart, J. Mol. Model. 13,
1173 (2007), doi 10.1007/s00894-007-0233-4.

Its DFTB energies are right and their gradients wrong: `dftb3_correction` and `dftb_tails` add what
is missing, and a probe notices where a later Sparrow needs no help. Its calculators cannot be
pickled and hold the GIL: each process builds its own. Setting a structure begins cold, so nothing
is left of the one before.
"""

import os
from dataclasses import asdict, dataclass
from functools import cache, partial
from threading import RLock
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from ase.data import atomic_numbers, chemical_symbols
from ase.units import Bohr, Hartree

from alj.labeling import dftb3_correction, dftb_tails
from alj.labeling.dftb_gradient import CORRECTED, NEITHER, Answer, finite_differences, verdict
from alj.labeling.engine import Limits, labels_of
from alj.labeling.install import needed, version_of
from alj.types import LabelingFailed, Labels, Structure


def sparrow(
    *,
    method: Literal["DFTB3", "DFTB2", "DFTB0", "PM6", "PM3", "RM1", "AM1", "MNDO"] = "DFTB3",
    energy_convergence_eV: float = 1e-6,
    density_convergence: float = 1e-6,
    max_iterations: int = 100,
    mixer: Literal["diis", "ediis", "ediis_diis"] = "diis",
) -> "Sparrow":
    """DFTB3, PM6 and their elders for molecules: milliseconds, no periodic cells.

    Args:
        method: DFTB3 and DFTB0 with 3ob-3-1, DFTB2 with mio-1-1, or one of the NDDO methods.
            DFTB0 knows closed shells only; DFTB2 and DFTB3 open shells of H, C, N, O.
        energy_convergence_eV: Change of the energy at which the self-consistent field is found.
        density_convergence: Change of the density matrix (root mean square), likewise.
        max_iterations: Of the self-consistent field.
        mixer: How it is accelerated. Where bonds break, `diis` often finds nothing and `ediis`
            does: `fallbacks: [{mixer: ediis}]`.
    """
    return Sparrow(method, energy_convergence_eV, density_convergence, max_iterations, mixer)


class _Point(NamedTuple):
    """What Sparrow says, in eV, Å and e; orbitals of DFTB only."""

    energy: float
    forces: np.ndarray
    charges: np.ndarray
    dipole: np.ndarray
    orbitals: dftb_tails.Orbitals | None


@dataclass(frozen=True)
class Sparrow:
    """See `sparrow`."""

    method: str
    energy_convergence_eV: float = 1e-6
    density_convergence: float = 1e-6
    max_iterations: int = 100
    mixer: str = "diis"

    name: ClassVar[str] = "sparrow"
    periodic: ClassVar[bool] = False
    electrons: ClassVar[bool] = True
    limits: ClassVar[Limits] = Limits(max_energy_eV_per_atom=0.0, max_net_force_eV_per_A=1e-3)

    @property
    def settings(self) -> dict[str, Any]:
        """What changes its answers: of DFTB also that forces are slopes of the energy."""
        gradient = {"gradient": "corrected"} if self.method in _PARAMETERS else {}
        return {**asdict(self), **gradient}

    @property
    def convention(self) -> str:
        """What its energies are."""
        parameters = _PARAMETERS.get(self.method)
        return f"{self.method}{f'/{parameters}' if parameters else ''} total energy"

    @property
    def elements(self) -> tuple[int, ...]:
        """Those that the method has parameters for; for some pairs of them PM6 has none."""
        return ELEMENTS[self.method]

    def version(self) -> str:
        """Program and version, and for DFTB how its forces were corrected."""
        program = version_of("scine_sparrow")
        remedies = _remedies(self.method)
        return f"{program}, forces corrected: {', '.join(remedies)}" if remedies else program

    def calculate(self, structure: Structure, multiplicity: int) -> Labels:
        """One single point. Raises LabelingFailed: `not_converged`, `bad_input`, `crash`."""
        if multiplicity > 1 and self.method in _PARAMETERS:
            self._refuse_unknown_spins(structure)
        point = self._point(structure, multiplicity)
        return labels_of(
            len(structure.species),
            point.energy,
            self._slopes(structure, multiplicity, point),
            # Sparrow places the dipole of an ion differently from method to method.
            dipole=None if int(structure.charge) else point.dipole,
            charges=point.charges,
        )

    def _refuse_unknown_spins(self, structure: Structure) -> None:
        known = _OPEN_SHELLS if self.method != "DFTB0" else ()
        strange = set(np.asarray(structure.species).tolist()) - set(known)
        if strange:
            names = ", ".join(chemical_symbols[number] for number in sorted(strange))
            raise LabelingFailed("bad_input", f"{self.method} has no open shells of {names}")

    def _slopes(self, structure: Structure, multiplicity: int, point: _Point) -> np.ndarray:
        """Forces that are slopes of the energy."""
        remedies = _remedies(self.method)
        if DIFFERENCES in remedies:
            return finite_differences(
                lambda moved: self._point(moved, multiplicity).energy, structure
            )
        missing = [_missing(self.method, remedy, structure, point) for remedy in remedies]
        return sum(missing, point.forces)

    def _point(self, structure: Structure, multiplicity: int) -> _Point:
        """What Sparrow itself says; its DFTB forces are wrong."""
        with _ONE_AT_A_TIME:
            try:
                results = _run(self, structure, multiplicity)
            except RuntimeError as error:
                _calculator.cache_clear()
                message = " ".join(str(error).split())
                raise LabelingFailed(_kind(message), message[:300], str(error)) from None
            if not results.successful_calculation:
                raise LabelingFailed(
                    "not_converged",
                    f"{self.method}: no self-consistent field in {self.max_iterations} iterations",
                )
            return _Point(
                results.energy * Hartree,
                np.array(results.gradients) * (-Hartree / Bohr),
                np.array(results.atomic_charges),
                np.array(results.dipole) * Bohr,
                _orbitals(results) if self.method in _PARAMETERS else None,
            )


_ONE_AT_A_TIME = RLock()
"""Threads share the calculator of their process, and its structure with it."""


def _run(engine: Sparrow, structure: Structure, multiplicity: int):
    utilities, calculator = _utilities(), _calculator(engine, multiplicity > 1)
    calculator.settings["molecular_charge"] = int(structure.charge)
    calculator.settings["spin_multiplicity"] = multiplicity
    calculator.settings["spin_mode"] = "restricted" if multiplicity == 1 else "unrestricted"
    element = utilities.ElementInfo.element
    calculator.structure = utilities.AtomCollection(
        [element(number) for number in np.asarray(structure.species).tolist()],
        np.asarray(structure.positions, np.float64) / Bohr,
    )
    return calculator.calculate()


def _orbitals(results: Any) -> dftb_tails.Orbitals:
    """Converged orbitals, filled from the lowest."""
    coefficients, energies = results.coefficient_matrix, results.orbital_energies
    occupation = results.electronic_occupation
    if energies.is_restricted:
        spins = [(coefficients.restricted_matrix, energies.restricted_energies)]
        filled = [(2.0, occupation.n_occupied_restricted_orbitals)]
    else:
        spins = [
            (coefficients.alpha_matrix, energies.alpha),
            (coefficients.beta_matrix, energies.beta),
        ]
        filled = [(1.0, occupation.n_alpha), (1.0, occupation.n_beta)]
    overlap = np.array(results.overlap_matrix)
    index = np.arange(len(overlap))
    return dftb_tails.Orbitals(
        overlap,
        tuple(np.array(matrix) for matrix, _ in spins),
        tuple(np.array(levels) for _, levels in spins),
        tuple(np.where(index < count, each, 0.0) for each, count in filled),
    )


@cache
def _calculator(engine: Sparrow, open_shell: bool) -> Any:
    """The calculator of this process for these settings.

    One that has done closed shells with `ediis` crashes with open ones: each has its own.
    """
    settings = {
        "self_consistence_criterion": engine.energy_convergence_eV / Hartree,
        "density_rmsd_criterion": engine.density_convergence,
        "max_scf_iterations": engine.max_iterations,
        "scf_mixer": engine.mixer,
    }
    if engine.method in _PARAMETERS:
        settings["method_parameters"] = _PARAMETERS[engine.method]
    properties = ("Energy", "Gradients", "AtomicCharges", "Dipole", "SuccessfulCalculation")
    orbitals = _ORBITALS if engine.method in _PARAMETERS else ()
    return _new(engine.method, settings, (*properties, *orbitals))


_ORBITALS = ("OverlapMatrix", "CoefficientMatrix", "OrbitalEnergies", "ElectronicOccupation")


def _new(method: str, settings: dict[str, Any], properties: tuple[str, ...]) -> Any:
    """A calculator that says nothing on the screen; settings that the method lacks are left out."""
    utilities = _utilities()
    calculator = utilities.core.get_calculator(method, "Sparrow")
    calculator.log = utilities.core.Log.silent()
    known = calculator.settings.as_dict()
    for key in settings.keys() & known.keys():
        calculator.settings[key] = settings[key]
    calculator.set_required_properties([getattr(utilities.Property, name) for name in properties])
    return calculator


@cache
def _utilities() -> Any:
    """scine_utilities with Sparrow loaded, on one thread whatever the environment says.

    With more, the order in which threads add to a DFTB gradient changes its last bits.
    """
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        needed("scine_sparrow")
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before
    return needed("scine_sparrow", "scine_utilities")


THIRD_ORDER = "third order"
TAILS = "tails of integrals"
DIFFERENCES = "finite differences of the energy"


@cache
def _remedies(method: str) -> tuple[str, ...]:
    """What the forces of a method need in this process: found out once, in about 50 ms."""
    if method not in _PARAMETERS:
        return ()
    engine, remedies = Sparrow(method), []
    for remedy, probes in _probes(method).items():

        def answer(structure: Structure, remedy: str = remedy) -> Answer:
            point = engine._point(structure, 1)
            return Answer(point.energy, point.forces, _missing(method, remedy, structure, point))

        found = verdict(answer, probes)
        if found == NEITHER:
            return (DIFFERENCES,)
        if found == CORRECTED:
            remedies.append(remedy)
    return tuple(remedies)


def _probes(method: str) -> dict[str, list[Structure]]:
    """Molecules that show one defect each and not the other."""
    one: Any = dftb3_correction.crooked_formamide()
    distance_A = (_tail(_PARAMETERS[method], 1, 1).cutoff - dftb_tails.LENGTH / 2) * Bohr
    ends = np.array([[0.0, 0.0, 0.0], [0.6 * distance_A, 0.0, 0.8 * distance_A]])
    probes = {TAILS: [one._replace(positions=ends, species=np.array([1, 1], np.int32))]}
    if method == "DFTB3":
        reverse = one._replace(positions=one.positions[::-1], species=one.species[::-1])
        probes[THIRD_ORDER] = [one, reverse]
    return probes


def _missing(method: str, remedy: str, structure: Structure, point: _Point) -> np.ndarray:
    """What Sparrow's forces lack of one term, eV/Å."""
    positions = np.asarray(structure.positions, np.float64)
    species = np.asarray(structure.species)
    if remedy == THIRD_ORDER:
        return dftb3_correction.missing_forces(positions, species, point.charges)
    assert point.orbitals is not None
    return dftb_tails.missing_forces(
        positions, species, point.orbitals, partial(_tail, _PARAMETERS[method])
    )


@cache
def _tail(parameters: str, first: int, second: int) -> dftb_tails.Tail:
    """Where and how the integrals of two elements end, asked of pairs of atoms."""
    with _ONE_AT_A_TIME:
        calculator = _new("DFTB0", {"method_parameters": parameters}, _ORBITALS)
        size = len(_integrals(calculator, first, first, 5.0)[0]) // 2
        return dftb_tails.tail_from(partial(_integrals, calculator, first, second), size)


def _integrals(calculator: Any, first: int, second: int, distance: float):
    """S and H⁰ of two atoms along z at a distance in bohr: DFTB0 has no other Hamiltonian."""
    utilities = _utilities()
    calculator.settings["molecular_charge"] = (first + second) % 2
    element = utilities.ElementInfo.element
    calculator.structure = utilities.AtomCollection(
        [element(first), element(second)], np.array([[0.0, 0.0, 0.0], [0.0, 0.0, distance]])
    )
    orbitals = _orbitals(calculator.calculate())
    SC = orbitals.overlap @ orbitals.coefficients[0]
    return orbitals.overlap, (SC * orbitals.energies[0]) @ SC.T


def _kind(message: str) -> str:
    return "bad_input" if any(part in message for part in _REFUSALS) else "crash"


_REFUSALS = (
    "element pair",
    "to accomodate",
    "multiplicity",
    "settings are invalid",
)
"""Parts of what Sparrow says of charges, spins and pairs of elements that it cannot do."""

_OPEN_SHELLS = (1, 6, 7, 8)
"""Other elements lack spin constants; of P and S, the energy of open shells is not variational, for
Sparrow 5.2 takes the first d orbital for a p orbital when it counts spins."""

_PARAMETERS = {"DFTB0": "3ob-3-1", "DFTB2": "mio-1-1", "DFTB3": "3ob-3-1"}


def _numbers(symbols: str) -> tuple[int, ...]:
    return tuple(sorted(atomic_numbers[symbol] for symbol in symbols.split()))


_MAIN = "H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca"
_MNDO = f"{_MAIN} Zn Ga Ge As Se Br Kr Rb Sr In Sn Sb Te I Xe Cs Ba Hg Tl Pb Bi"

ELEMENTS = {
    "DFTB0": tuple(dftb3_correction.HUBBARD),
    "DFTB2": _numbers("H C N O P S"),
    "DFTB3": tuple(dftb3_correction.HUBBARD),
    "MNDO": _numbers(_MNDO),
    "AM1": tuple(z for z in _numbers(_MAIN) if z != atomic_numbers["B"]),
    "RM1": _numbers("H C N O F P S Cl Br I"),
    "PM3": _numbers(f"{_MNDO} Cd"),
    "PM6": tuple(z for z in (*range(1, 58), *range(72, 84)) if z != atomic_numbers["Tc"]),
}
"""Atomic numbers that Sparrow 5.2 has parameters for, by method."""
