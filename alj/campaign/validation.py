"""A potential judged by what it says of crystals and molecules, beside its reference.

A check is a function of ASE atoms and a calculator; its keyword-only arguments are its settings.
What a check cannot do (a cell that does not come to rest, an engine without a stress) is a reason
in the result, not the end of the validation.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import ase
import numpy as np

from alj import registry
from alj.campaign.crystal_checks import elastic_constants, equation_of_state, phonons, vacancy
from alj.campaign.molecule_checks import bond_scans, stability, vibrations
from alj.campaign.reading import structure_of
from alj.types import BadInput, LabelingFailed

CRYSTAL = (equation_of_state, elastic_constants, phonons, vacancy)
MOLECULE = (bond_scans, vibrations, stability)
CHECKS = (*CRYSTAL, *MOLECULE)

_LONG = ("curve", "bands", "scans", "matrix_GPa", "wavenumber_per_cm", "cell_A", "supercell")


class Subject(NamedTuple):
    """A structure to be judged: where it came from, and the atoms."""

    name: str
    atoms: ase.Atoms

    @property
    def checks(self) -> tuple[Callable, ...]:
        """Those of crystals where it repeats in all directions, else those of molecules."""
        return CRYSTAL if self.atoms.pbc.all() else MOLECULE


def settings_of(given: Sequence[str], only: Sequence[str] = ()) -> dict[str, dict[str, Any]]:
    """The settings of every check that is to be made, from `check.KEY=VALUE`, defaults filled in.

    `only` names the checks, all without. Raises BadInput before anything is computed.
    """
    from alj.campaign.config import override_one

    names = [check.__name__ for check in CHECKS]
    for name in only:
        registry.find(CHECKS, name, "--only")
    chosen = [check for check in CHECKS if not only or check.__name__ in only]
    config: dict[str, Any] = {}
    for setting in given:
        config = override_one(config, setting, names)
    return {
        check.__name__: registry.filled(check, config.get(check.__name__), check.__name__)
        for check in chosen
    }


def validate(
    subjects: Sequence[Subject],
    calculators: dict[str, Any],
    settings: dict[str, dict[str, Any]],
    on_check: Callable[[str], None] | None = None,
) -> list[dict[str, Any]]:
    """For each subject its checks, for each of these what each calculator says.

    The first calculator is judged, the second, where there is one, is the reference; dynamics are
    those of the first only, and the reference says what it thinks of the frames.
    """
    results = []
    for subject in subjects:
        checks = {}
        for check in subject.checks:
            name = check.__name__
            if name not in settings:
                continue
            checks[name] = {}
            for who, calculator in calculators.items():
                if check is stability and checks[name]:
                    continue
                if on_check is not None:
                    on_check(f"{subject.name}: {name} by the {who}")
                checks[name][who] = _checked(check, subject.atoms, calculator, settings[name])
            if check is stability:
                _compare_frames(checks[name], calculators)
        results.append(
            {
                "name": subject.name,
                "formula": subject.atoms.get_chemical_formula(),
                "kind": "crystal" if subject.atoms.pbc.all() else "molecule",
                "checks": checks,
            }
        )
    return results


def numbers(answer: dict[str, Any]) -> dict[str, float]:
    """The plain numbers of a check's result, with their units in their names."""
    return {
        key: value
        for key, value in answer.items()
        if key not in _LONG and isinstance(value, (int, float)) and not isinstance(value, bool)
    }


def _checked(check: Callable, atoms: ase.Atoms, calculator: Any, settings: dict) -> dict[str, Any]:
    try:
        structure_of(atoms)
        return registry.call(check, settings, atoms, calculator, where=check.__name__)
    except (BadInput, LabelingFailed, NotImplementedError, np.linalg.LinAlgError) as error:
        return {"failed": " ".join(str(error).split()) or type(error).__name__}
    except (RuntimeError, ValueError, ArithmeticError) as error:  # of ASE's algorithms
        return {"failed": f"{type(error).__name__}: {' '.join(str(error).split())}"}


def _compare_frames(found: dict[str, dict], calculators: dict[str, Any]) -> None:
    """Errors on the frames of the dynamics, relative energies; the frames are dropped."""
    (own, *others) = calculators
    frames = found[own].pop("frames", [])
    for other in others:
        try:
            answers = [_of_frames(frames, calculators[who]) for who in (own, other)]
        except (LabelingFailed, BadInput, RuntimeError) as error:
            found[other] = {"failed": " ".join(str(error).split())}
            continue
        if frames:
            energies = answers[0][0] - answers[1][0]
            forces = answers[0][1] - answers[1][1]
            atoms = len(frames[0])
            found[own] |= {
                "frames": len(frames),
                "energy_scatter_meV_per_atom": float(1000 * np.std(energies) / atoms),
                "force_rmse_eV_per_A": float(np.sqrt(np.mean(forces**2))),
            }


def _of_frames(frames: list[ase.Atoms], calculator: Any) -> tuple[np.ndarray, np.ndarray]:
    energies, forces = [], []
    for frame in frames:
        here = frame.copy()
        here.calc = calculator
        energies.append(here.get_potential_energy())
        forces.append(here.get_forces())
    return np.array(energies), np.array(forces)
