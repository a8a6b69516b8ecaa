"""PySCF: Hartree–Fock and density functionals with Gaussian orbitals, of molecules, in memory.

Q. Sun et al., J. Chem. Phys. 153, 024109 (2020), doi 10.1063/5.0006074. D3: S. Grimme, J. Antony,
S. Ehrlich, H. Krieg, J. Chem. Phys. 132, 154104 (2010), doi 10.1063/1.3382344; S. Grimme,
S. Ehrlich, L. Goerigk, J. Comput. Chem. 32, 1456 (2011), doi 10.1002/jcc.21759, by the package
dftd3 (two-body terms only, as in these papers).

The grid moves with the atoms, and the gradient includes what that does: forces are slopes to
1e-5 eV/Å and add up to zero on any grid, at no cost. Without it ethanol on grid level 3 has forces
that add up to 3 meV/Å. Open shells are unrestricted.
"""

import traceback
import warnings
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, ClassVar, Literal

import numpy as np
from ase.data import chemical_symbols
from ase.units import Bohr, Hartree

from alj.labeling.engine import Limits, labels_of
from alj.labeling.install import needed, version_of
from alj.types import BadInput, LabelingFailed, Labels, Structure


def pyscf(
    *,
    functional: str = "PBE",
    basis: str = "6-31G*",
    dispersion: Literal["D3(BJ)", "D3(0)", "none"] = "D3(BJ)",
    dispersion_functional: str = "",
    density_fitting: bool = False,
    grid_level: int = 3,
    convergence_eV: float = 1e-8,
    max_iterations: int = 100,
    converger: Literal["diis", "newton"] = "diis",
    level_shift_eV: float = 0.0,
    damping: float = 0.0,
    max_memory_MB: int = 4000,
) -> "Pyscf":
    """Any density functional or Hartree–Fock, of molecules: seconds a label.

    Args:
        functional: As libxc and PySCF name it (PBE, B3LYP, wB97X_V, `HF` for Hartree–Fock).
        basis: Name of the Gaussian basis set; its effective core potentials come with it.
        dispersion: Grimme's correction: D3 with Becke–Johnson damping, with zero damping, or none.
        dispersion_functional: The functional's name in the tables of D3, where it is another one.
        density_fitting: Fit the density in an auxiliary basis: faster for many atoms, meV per
            molecule away from the exact integrals.
        grid_level: Of the integration grid, 0 (coarse) to 9.
        convergence_eV: Change of the energy at which the self-consistent field is found.
        max_iterations: Of the self-consistent field.
        converger: `newton` finds most fields that `diis` does not, in more time: a good fallback.
        level_shift_eV: Raises the empty orbitals while iterating; 10 calms an unsteady field.
        damping: Fraction of the old matrix that is kept in each iteration, 0 to 1.
        max_memory_MB: What PySCF may plan with; changes no label.
    """
    if convergence_eV <= 0.0:
        raise BadInput(f"convergence_eV: expected more than 0, found {convergence_eV:g}")
    if not 0 <= grid_level <= 9:
        raise BadInput(f"grid_level: expected 0 to 9, found {grid_level}")
    if not 0.0 <= damping < 1.0:
        raise BadInput(f"damping: expected 0 or more, less than 1, found {damping:g}")
    return Pyscf(
        functional,
        basis,
        dispersion,
        dispersion_functional or functional,
        density_fitting,
        grid_level,
        convergence_eV,
        max_iterations,
        converger,
        level_shift_eV,
        damping,
        max_memory_MB,
    )


@dataclass(frozen=True)
class Pyscf:
    """See `pyscf`."""

    functional: str
    basis: str
    dispersion: str
    dispersion_functional: str
    density_fitting: bool
    grid_level: int
    convergence_eV: float
    max_iterations: int
    converger: str
    level_shift_eV: float
    damping: float
    max_memory_MB: int

    name: ClassVar[str] = "pyscf"
    elements: ClassVar[tuple[int, ...]] = ()
    periodic: ClassVar[bool] = False
    electrons: ClassVar[bool] = True
    limits: ClassVar[Limits] = Limits(max_energy_eV_per_atom=0.0, max_net_force_eV_per_A=1e-3)

    @property
    def settings(self) -> dict[str, Any]:
        """What changes its answers."""
        return {key: value for key, value in asdict(self).items() if key != "max_memory_MB"}

    @property
    def convention(self) -> str:
        """What its energies are."""
        correction = "" if self.dispersion == "none" else f"-{self.dispersion}"
        fitted = " with density fitting" if self.density_fitting else ""
        return f"{self.functional}{correction}/{self.basis}{fitted} total energy"

    def version(self) -> str:
        """Program and version, and of the package for D3 where it is used."""
        own = version_of("pyscf")
        return own if self.dispersion == "none" else f"{own}, {version_of('dftd3')}"

    def calculate(self, structure: Structure, multiplicity: int) -> Labels:
        """One single point. Raises LabelingFailed `not_converged`, `bad_input` (an element that
        the basis set lacks), `out_of_memory`, `crash`; BadInput for an unknown functional or basis.
        """
        needed("pyscf")
        if not self._hartree_fock:
            _check_functional(self.functional)
        energy, gradient = self._dispersion(structure)
        cycles: list[str] = []
        try:
            field = self._field(self._molecule(structure, multiplicity), multiplicity)
            field.callback = lambda about: cycles.append(_cycle(len(cycles), about))
            energy += field.kernel()
            if not field.converged:
                message = f"no self-consistent field in {self.max_iterations} iterations"
                raise LabelingFailed("not_converged", message, "\n".join(cycles[-40:]))
            slopes = field.nuc_grad_method()
            slopes.grid_response = True  # Hartree–Fock has no grid and does not look
            gradient = gradient + slopes.kernel()
            charges = field.mulliken_pop(verbose=0)[1]
            dipole = field.dip_moment(unit="AU", verbose=0)
        except BadInput:
            raise
        except MemoryError:
            raise LabelingFailed("out_of_memory", "PySCF ran out of memory") from None
        except (RuntimeError, ValueError, ArithmeticError, AssertionError) as error:
            text = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            raise LabelingFailed("crash", text, traceback.format_exc()[-3000:]) from None
        return labels_of(
            len(structure.species),
            float(energy) * Hartree,
            -np.asarray(gradient) * Hartree / Bohr,
            dipole=np.asarray(dipole) * Bohr,
            charges=charges,
        )

    @property
    def _hartree_fock(self) -> bool:
        return self.functional.upper() == "HF"

    def _molecule(self, structure: Structure, multiplicity: int) -> Any:
        """The molecule with its basis. Raises BadInput, LabelingFailed."""
        gto = needed("pyscf", "pyscf.gto")
        symbols = [chemical_symbols[int(z)] for z in structure.species]
        cores = {}
        for symbol in sorted(set(symbols)):
            if _has_core(self.basis, symbol):
                cores[symbol] = self.basis
        positions = np.asarray(structure.positions, np.float64) / Bohr
        return gto.M(
            atom=list(zip(symbols, positions.tolist(), strict=True)),
            unit="Bohr",
            basis=self.basis,
            ecp=cores,
            charge=int(structure.charge),
            spin=multiplicity - 1,
            max_memory=self.max_memory_MB,
            verbose=0,
        )

    def _field(self, molecule: Any, multiplicity: int) -> Any:
        """What is to be made self-consistent; it writes no checkpoints."""
        if self._hartree_fock:
            scf = needed("pyscf", "pyscf.scf")
            field = (scf.UHF if multiplicity > 1 else scf.RHF)(molecule)
        else:
            dft = needed("pyscf", "pyscf.dft")
            kind = dft.UKS if multiplicity > 1 else dft.RKS
            field = kind(molecule, xc=self.functional)
            field.grids.level = self.grid_level
        if self.density_fitting:
            field = field.density_fit()
        field.chkfile = None
        field.conv_tol = self.convergence_eV / Hartree
        field.max_cycle = self.max_iterations
        field.level_shift = self.level_shift_eV / Hartree
        field.damp = self.damping
        return field.newton() if self.converger == "newton" else field

    def _dispersion(self, structure: Structure) -> tuple[float, np.ndarray]:
        """Energy in Hartree and gradient in Hartree/Bohr. Raises BadInput."""
        positions = np.asarray(structure.positions, np.float64) / Bohr
        if self.dispersion == "none":
            return 0.0, np.zeros_like(positions)
        interface = needed("dftd3", "dftd3.interface")
        name = "RationalDampingParam" if self.dispersion == "D3(BJ)" else "ZeroDampingParam"
        try:
            damping = getattr(interface, name)(method=self.dispersion_functional)
        except RuntimeError as error:
            raise BadInput(
                f"dispersion_functional: {self.dispersion} has no parameters for "
                f"'{self.dispersion_functional}' ({error}); give the name that it has there, or "
                "dispersion: none"
            ) from None
        model = interface.DispersionModel(np.asarray(structure.species), positions)
        found = model.get_dispersion(damping, grad=True)
        return float(found["energy"]), np.asarray(found["gradient"])


def _check_functional(name: str) -> None:
    """Raise BadInput for a functional that libxc does not know."""
    libxc = needed("pyscf", "pyscf.dft.libxc")
    try:
        libxc.parse_xc(name)
    except (KeyError, ValueError, IndexError) as error:
        raise BadInput(f"functional: PySCF does not know '{name}' ({error})") from None


@cache
def _has_core(basis: str, symbol: str) -> bool:
    """Whether a basis set stands for the valence electrons of an element only.

    Raises BadInput for an unknown basis set, LabelingFailed("bad_input") for a missing element.
    """
    sets = needed("pyscf", "pyscf.gto.basis")
    if not _has(sets.load, basis, symbol):
        if not any(_has(sets.load, basis, other) for other in ("H", "C", "Fe", "Au")):
            raise BadInput(f"basis: PySCF does not know '{basis}'")
        raise LabelingFailed("bad_input", f"the basis set {basis} has no functions for {symbol}")
    return _has(sets.load_ecp, basis, symbol)


def _has(load: Any, basis: str, symbol: str) -> bool:
    """Whether PySCF finds something. It says no in many ways, and warns of further downloads."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return bool(load(basis, symbol))
        except (KeyError, RuntimeError, ValueError, OSError):
            return False


def _cycle(count: int, about: dict[str, Any]) -> str:
    energy = float(about["e_tot"]) * Hartree
    return f"cycle {count}: {energy:.6f} eV"
