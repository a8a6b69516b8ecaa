"""Choice by a network of classes: what is unknown, by the region where it lies, without repetition.

A candidate's error indicator χ (`potentials.disagreement`) says whether it is worth a label:
unknown ones (χ > 2δ) come first, then questionable ones (χ > δ), known ones never. Where there are
more unknown ones than the round may take, its places are shared among the regions of
`esoinn_queries` as

    inside : boundary : far = 1 : 3 : 1

and what a region cannot fill passes to boundary, then far, then inside. In a region each node of
the network gives one structure before any gives a second; within these the farthest from all chosen
so far comes first. Frames that no molecule would take are set aside and counted, never chosen.

M. Xu, T. Zhu, J. Z. H. Zhang (ESOINN-DP); the farthest-first order and the screen are ours.
"""

import math
from typing import Literal

import numpy as np

from alj.potentials.disagreement import expected_largest, fewest_held_out, held_out_limit
from alj.selection.esoinn_queries import BOUNDARY, FAR, INSIDE
from alj.selection.shares import padded
from alj.types import BadInput, Evidence, Key, Selector

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
"""What a report says of the distribution of χ."""

PASSED_TO = (BOUNDARY, FAR, INSIDE)
"""Which regions take what another one could not fill."""


def esoinn_quota(
    *,
    count: int = 1000,
    limit_eV_per_A: float = 0.18,
    limit: Literal["given", "size_aware", "held_out"] = "given",
    accuracy_eV_per_A: float = 0.13,
    nearest: int = 2,
    tolerance_eV_per_A: float = 0.5,
    coverage: float = 0.9,
    inside_share: float = 1.0,
    boundary_share: float = 3.0,
    far_share: float = 1.0,
    questionable: bool = True,
    closest_radii: float = 0.6,
    energy_window_eV_per_atom: float | None = 1.0,
) -> Selector:
    """Unknown structures first, 1 : 3 : 1 from inside, the boundary and far from what is known.

    Args:
        count: Structures chosen in a round, at most.
        limit_eV_per_A: The limit δ of the error indicator: below it a structure is known, above
            twice as much unknown.
        limit: "given" takes that for all sizes, as published; "size_aware" what χ of so many atoms
            stays below with 95 % where networks are as accurate as they should be; "held_out" the
            largest of which the labels of data.held_out_fraction say that what is known is right,
            and that given while they are too few to say anything.
        accuracy_eV_per_A: What size_aware takes as the accuracy of the force components.
        nearest: Networks that answer together, for size_aware.
        tolerance_eV_per_A: For held_out, the largest force error of a structure that is right.
        coverage: For held_out, the share of the known structures that are to be right.
        inside_share: Weight of structures like those known.
        boundary_share: Weight of those at the boundary of what is known.
        far_share: Weight of those far from it.
        questionable: Fill places that unknown structures leave with questionable ones.
        closest_radii: Frames with two atoms nearer than this multiple of the sum of their covalent
            radii are set aside.
        energy_window_eV_per_atom: So are those whose predicted energy is this far from the median
            of candidates of the same composition; null for no limit.

    Raises:
        BadInput: a setting is out of range.
    """
    shares = (inside_share, boundary_share, far_share)
    if min(shares) < 0 or sum(shares) <= 0 or not (0 < limit_eV_per_A < math.inf):
        raise BadInput(
            "esoinn_quota: expected shares of at least 0, not all 0, and a positive limit; found "
            f"{shares} and {limit_eV_per_A}"
        )
    expected_largest(accuracy_eV_per_A, 3, nearest)
    if not tolerance_eV_per_A > 0:
        raise BadInput(f"tolerance_eV_per_A: expected more than 0, found {tolerance_eV_per_A:g}")
    fewest = fewest_held_out(coverage)

    def limits(evidence: Evidence) -> np.ndarray:
        """δ of every candidate in eV/Å."""
        atoms = np.sum(evidence.species > 0, axis=1)
        if limit == "size_aware":
            return expected_largest(accuracy_eV_per_A, atoms, nearest)
        found = limit_eV_per_A
        if limit == "held_out":
            if evidence.held_out_deviation is None:
                raise BadInput(
                    "esoinn_quota: limit: held_out needs labels that nothing is trained on, which "
                    "only a campaign with data.held_out_fraction has; set limit: given"
                )
            if len(evidence.held_out_deviation) >= fewest:
                found = held_out_limit(
                    evidence.held_out_deviation,
                    evidence.held_out_error,
                    tolerance_eV_per_A,
                    coverage,
                )
        return np.full(len(atoms), found)

    def levels(evidence: Evidence) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Masks of unknown and questionable candidates, and of those set aside."""
        chi, atoms = np.asarray(evidence.force_deviation), np.sum(evidence.species > 0, axis=1)
        delta = limits(evidence)
        aside = ~np.isfinite(chi) | (np.asarray(evidence.closest_radii) < closest_radii)
        if energy_window_eV_per_atom is not None:
            aside |= _outlying(evidence, atoms, energy_window_eV_per_atom)
        return ~aside & (chi > 2 * delta), ~aside & (chi > delta) & (chi <= 2 * delta), aside

    def choose(key: Key, evidence: Evidence, count: int) -> np.ndarray:
        unknown, doubtful, _ = levels(evidence)
        chosen = _shared(evidence, np.flatnonzero(unknown), count, shares, [])
        if questionable and len(chosen) < count:
            chosen = _shared(evidence, np.flatnonzero(doubtful), count, shares, chosen)
        return padded(chosen, count)

    def report(evidence: Evidence) -> dict:
        unknown, doubtful, aside = levels(evidence)
        total, regions = max(len(unknown), 1), np.asarray(evidence.regions)
        chi = np.asarray(evidence.force_deviation)
        known = ~(unknown | doubtful | aside)
        found = {
            "known": float(known.sum() / total),
            "questionable": float(doubtful.sum() / total),
            "unknown": float(unknown.sum() / total),
            "set_aside": int(aside.sum()),
            "broken": int((~np.isfinite(chi)).sum()),
            "limit_eV_per_A": float(np.median(limits(evidence))),
        }
        finite = chi[np.isfinite(chi)]
        quantiles = np.quantile(finite, QUANTILES).tolist() if len(finite) else []
        found["indicator_quantiles_eV_per_A"] = quantiles
        for name, region in (("inside", INSIDE), ("boundary", BOUNDARY), ("far", FAR)):
            found[f"unknown_{name}"] = int(np.sum(unknown & (regions == region)))
        return found

    needs = ("force_deviation", "regions", "nodes", "spectra", "closest_radii", "species")
    labels = ("held_out_deviation", "held_out_error") if limit == "held_out" else ()
    return Selector(choose, (*needs, *labels, "energies"), count, report, judges_stopped=True)


def quotas(available: tuple[int, ...], count: int, shares: tuple[float, ...]) -> list[int]:
    """How many of each region (INSIDE, BOUNDARY, FAR): its share, and what others leave.

    >>> quotas((100, 100, 100), 50, (1.0, 3.0, 1.0))
    [10, 30, 10]
    >>> quotas((100, 5, 3), 50, (1.0, 3.0, 1.0))
    [42, 5, 3]
    >>> quotas((100, 40, 3), 50, (1.0, 3.0, 1.0))
    [10, 37, 3]
    """
    exact = count * np.asarray(shares) / np.sum(shares)
    wanted = np.floor(exact).astype(int)
    # What rounding leaves goes to the largest remainders, the boundary first.
    order = sorted(PASSED_TO, key=lambda region: wanted[region] - exact[region])
    for region in order[: count - int(wanted.sum())]:
        wanted[region] += 1
    given = np.minimum(wanted, available)
    for region in PASSED_TO:
        given[region] += min(count - int(given.sum()), available[region] - given[region])
    return given.tolist()


def _shared(evidence, members: np.ndarray, count: int, shares, chosen: list[int]) -> list[int]:
    """`chosen`, and of `members` what the regions' quotas give."""
    regions = np.asarray(evidence.regions)[members]
    bins = [members[regions == region] for region in (INSIDE, BOUNDARY, FAR)]
    available = (len(bins[0]), len(bins[1]), len(bins[2]))
    for own, quota in zip(bins, quotas(available, count - len(chosen), shares), strict=True):
        chosen = [*chosen, *_spread(evidence, own, quota, chosen)]
    return chosen


def _spread(evidence, members: np.ndarray, count: int, before: list[int]) -> list[int]:
    """`count` of the members: one per node before a second of any, the farthest first."""
    points, nodes = np.asarray(evidence.spectra), np.asarray(evidence.nodes)
    chi = np.asarray(evidence.force_deviation)
    # Sorted by what does not depend on the order of the pool.
    members = members[np.lexsort((*points[members].T, -chi[members]))]
    distance = np.full(len(members), np.inf)
    for place in before:
        distance = np.minimum(distance, _distances(points[members], points[place]))
    taken, visits = np.zeros(len(members), bool), np.zeros(len(members), int)
    chosen: list[int] = []
    while len(chosen) < min(count, len(members)):
        open_ = ~taken & (visits == np.min(visits[~taken]))
        best = int(np.argmax(np.where(open_, distance, -np.inf)))
        taken[best] = True
        visits += nodes[members] == nodes[members[best]]
        chosen.append(int(members[best]))
        distance = np.minimum(distance, _distances(points[members], points[members[best]]))
    return chosen


def _distances(points: np.ndarray, point: np.ndarray) -> np.ndarray:
    return np.linalg.norm(points - point[None], axis=1)


def _outlying(evidence: Evidence, atoms: np.ndarray, window: float) -> np.ndarray:
    """Whose energy per atom lies beyond the window around the median of its composition.

    What no potential has walked has no energy, and stays.
    """
    energies = np.asarray(evidence.energies) / np.maximum(atoms, 1)
    kinds = np.sort(np.asarray(evidence.species), axis=1)
    outlying = np.isinf(energies)
    for kind in np.unique(kinds, axis=0):
        mine = np.all(kinds == kind[None], axis=1)
        fine = mine & np.isfinite(energies)
        if fine.any():
            outlying |= fine & (np.abs(energies - np.median(energies[fine])) > window)
    return outlying
