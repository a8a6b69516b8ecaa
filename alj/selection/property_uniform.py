"""Choice that is uniform in a scalar, of structures or of their atoms, and choice from one walk.

Between the smallest and the largest of all values lie anchors, evenly spaced; every anchor takes
the nearest value that is not taken yet. The value of an atom stands for its structure, and anchors
are added until n different structures have been taken. Values of atoms (their energies, the size of
the force on them) bring rare surroundings in, which the energy of the whole averages away.

S. Tovey et al., "Efficient data selection methods for the development of machine learned
potentials" (molten sodium chloride; published system 5).
"""

from typing import Literal

import jax
import numpy as np
from jaxtyping import Float, Int

from alj.selection.shares import padded
from alj.types import BadInput, Evidence, Key, Selector

Property = Literal["energy", "atomic_energies", "force_magnitudes", "column"]
"""What is to be uniform: eV per atom of the structure, eV or eV/Å of every atom, or anything."""

_FIELDS = {
    ("energy", "model"): "energies_per_atom",
    ("atomic_energies", "model"): "atomic_energies",
    ("force_magnitudes", "model"): "force_magnitudes",
    ("energy", "labels"): "label_energies",
    ("atomic_energies", "labels"): "label_atomic_energies",
    ("force_magnitudes", "labels"): "label_force_magnitudes",
}


def property_uniform(
    *,
    count: int = 10,
    property: Property = "atomic_energies",
    of: Literal["model", "labels"] = "model",
    column: str | None = None,
) -> Selector:
    """Uniform in a scalar: evenly spaced values take the structures (or atoms) nearest to them.

    Structures without a finite value are never chosen.

    Args:
        count: Structures chosen in a round.
        property: "energy" per atom of the whole structure, "atomic_energies", "force_magnitudes",
            or a "column" of the data.
        of: What the "model" predicts, or the "labels" that the pool has already.
        column: With `property: column`, its name in the data: a number for each structure or for
            each atom.

    Raises:
        BadInput: a column that is not named, or named without being asked for; values that the pool
            does not have (when choosing).
    """
    if (property == "column") != (column is not None):
        raise BadInput(
            "property_uniform: expected `column: NAME` together with `property: column`, found "
            f"property {property} and column {column}"
        )
    field = "columns" if column is not None else _FIELDS[property, of]

    def choose(key: Key, evidence: Evidence, count: int) -> np.ndarray:
        values = getattr(evidence, field)
        if column is not None:
            if column not in values:
                known = ", ".join(sorted(values)) or "none"
                raise BadInput(
                    f"property_uniform: expected a column {column!r} of numbers in the data, "
                    f"found {known}"
                )
            values = values[column]
        values = np.asarray(values, float)
        values = values.reshape(len(values), -1)
        if len(values) and not np.isfinite(values).any():
            raise BadInput(
                f"property_uniform: expected {property.replace('_', ' ')} among the labels of the "
                "pool, found none; give them, or choose by what the model says (of: model)"
            )
        return padded(uniform_in(values, count), count)

    return Selector(choose, (field,), count)


def one_trajectory(*, count: int = 10, contiguous: bool = False) -> Selector:
    """All from one walk, drawn at random among those long enough: the baseline of cheap data.

    Where no walk is long enough the longest serves, and fewer are chosen.

    Args:
        count: Structures chosen in a round.
        contiguous: One after the other along the walk, from a random place; else at random.
    """

    def choose(key: Key, evidence: Evidence, count: int) -> np.ndarray:
        walks, places = np.unique(evidence.walks, return_inverse=True)
        lengths = np.bincount(places, minlength=len(walks))
        generator = np.random.default_rng(np.asarray(jax.random.key_data(key), np.uint32))
        long = np.flatnonzero(lengths >= min(count, lengths.max(initial=0)))
        if not len(long):
            return padded([], count)
        members = np.flatnonzero(places == generator.choice(long))
        if contiguous:
            members = members[np.argsort(np.asarray(evidence.spacing)[members], kind="stable")]
            first = int(generator.integers(max(len(members) - count, 0) + 1))
            return padded(members[first : first + count], count)
        return padded(generator.permutation(members), count)

    return Selector(choose, ("walks", "spacing"), count)


def uniform_in(values: Float[np.ndarray, "n atoms"], count: int) -> Int[np.ndarray, " chosen"]:
    """Structures (in order of choice) that anchors between the extremes of all values take.

    NaN pads. The outermost anchors are served first; of the last, superfluous ones the innermost
    are left out.

    >>> uniform_in(np.array([[0.0, 0.1], [0.2, 0.1], [9.0, 0.0], [10.0, 5.0]]), 3).tolist()
    [0, 3, 2]
    """
    there = np.isfinite(values)
    structures = np.nonzero(there)[0]
    flat = values[there]
    order = np.argsort(flat, kind="stable")
    sorted_, whose = flat[order], structures[order]
    wanted = min(count, len(np.unique(structures)))
    if not wanted:
        return np.zeros(0, int)
    low, high = wanted, wanted
    while len(found := _taken(sorted_, whose, high)) < wanted:
        low, high = high, min(2 * high, len(sorted_))
    best = found
    while low < high:
        middle = (low + high) // 2
        found = _taken(sorted_, whose, middle)
        if len(found) >= wanted:
            best, high = found, middle
        else:
            low = middle + 1
    return best[:wanted]


def _taken(values: np.ndarray, whose: np.ndarray, anchors: int) -> np.ndarray:
    """Different structures that so many anchors take, the outermost anchors first."""
    targets = np.linspace(values[0], values[-1], anchors)
    inwards = np.minimum(np.arange(anchors), anchors - 1 - np.arange(anchors))
    turns = np.argsort(inwards, kind="stable")
    places = np.searchsorted(values, targets)
    # left[i]: the nearest free place at or before i - 1; right[i]: at or after i.
    left, right = np.arange(len(values) + 1), np.arange(len(values) + 1)
    taken = []
    for turn in turns:
        before, after = _free(left, int(places[turn])), _free(right, int(places[turn]))
        below = targets[turn] - values[before - 1] if before > 0 else np.inf
        above = values[after] - targets[turn] if after < len(values) else np.inf
        pick = before - 1 if below <= above else after
        taken.append(pick)
        left[pick + 1], right[pick] = pick, pick + 1
    owners = whose[np.asarray(taken, int)]
    _, first = np.unique(owners, return_index=True)
    return owners[np.sort(first)]


def _free(links: np.ndarray, place: int) -> int:
    """Where a chain of taken places ends; the chain is shortened on the way."""
    end = place
    while links[end] != end:
        end = links[end]
    while links[place] != end:
        links[place], place = end, links[place]
    return int(end)
