"""Choice along steered walks: where the committee disagrees more than it does at their beginning.

The spread of the committee's energies drifts from round to round, so that no fixed threshold holds.
Each walk sets its own: mean + k standard deviations over its first frames. The frames beyond it
are gone through in order, and one is kept only if it differs from the last one kept, in energy
and in the variable that is pulled. Where more are kept than may be chosen, those are chosen that
lie evenly along the sum of the spread: all of the path, most densely where the members differ most.
(The first ones in order would never reach the break: a bond under load gains 1 kcal/mol in 0.01 Å.)

Steered molecular dynamics of a breaking bond, Digital Discovery 3, 514 (2024),
doi:10.1039/d3dd00216k.
"""

import numpy as np

from alj.selection.shares import even_shares, evenly_spaced, padded
from alj.types import BadInput, Evidence, Key, Selector


def along_path(
    *,
    count: int = 50,
    reference_frames: int = 100,
    deviations: float = 3.0,
    energy_step_eV: float = 0.0433641153087705,
    variable_step_A: float = 0.01,
) -> Selector:
    """Frames of steered walks beyond the threshold that the beginning of each walk sets.

    Walks share the count evenly. Frames before the pull (whose variable is NaN) are passed over.

    Args:
        count: Structures chosen in a round, at most.
        reference_frames: First frames of the pull, over which the threshold is taken.
        deviations: Standard deviations above the mean at which the threshold lies.
        energy_step_eV: A frame must differ this much in energy from the last one taken (1 kcal/mol
            by default),
        variable_step_A: and this much in the variable (of an angle: rad).

    Raises:
        BadInput: a setting is out of range.
    """
    if reference_frames < 2:
        raise BadInput(f"reference_frames: expected at least 2, found {reference_frames}")
    if min(deviations, energy_step_eV, variable_step_A) < 0:
        raise BadInput(
            "deviations, energy_step_eV and variable_step_A: expected at least 0, found "
            f"{deviations}, {energy_step_eV} and {variable_step_A}"
        )

    def beyond(evidence: Evidence) -> list[tuple[np.ndarray, float]]:
        """Of each walk, the frames beyond its threshold in their order, and the threshold."""
        found = []
        for walk in np.unique(evidence.walks):
            pulled = (evidence.walks == walk) & np.isfinite(evidence.variable)
            frames = np.flatnonzero(pulled)
            frames = frames[np.argsort(np.asarray(evidence.spacing)[frames], kind="stable")]
            spread = np.asarray(evidence.energy_spread)[frames]
            first = spread[:reference_frames]
            limit = np.mean(first) + deviations * np.std(first) if len(first) else np.inf
            found.append((frames[spread > limit], float(limit)))
        return found

    def different(evidence: Evidence, frames: np.ndarray) -> list[int]:
        energies, variable = np.asarray(evidence.energies), np.asarray(evidence.variable)
        taken: list[int] = []
        for frame in frames:
            if not taken or (
                abs(energies[frame] - energies[taken[-1]]) > energy_step_eV
                and abs(variable[frame] - variable[taken[-1]]) > variable_step_A
            ):
                taken.append(int(frame))
        return taken

    def choose(key: Key, evidence: Evidence, count: int) -> np.ndarray:
        paths = [different(evidence, frames) for frames, _ in beyond(evidence)]
        shares = even_shares(count, np.array([len(path) for path in paths], int))
        spread = np.asarray(evidence.energy_spread)
        picks = [
            np.asarray(path, int)[evenly_spaced(np.cumsum(spread[path]), share)]
            for path, share in zip(paths, shares, strict=True)
            if share
        ]
        return padded(np.concatenate(picks) if picks else [], count)

    def report(evidence: Evidence) -> dict:
        limits = beyond(evidence)
        return {
            "threshold_eV_per_atom": float(np.mean([limit for _, limit in limits])),
            "beyond": float(sum(len(frames) for frames, _ in limits)),
        }

    needs = ("energies", "energy_spread", "walks", "spacing", "variable")
    return Selector(choose, needs, count, report)
