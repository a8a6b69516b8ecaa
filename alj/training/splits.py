"""Which structures train a member of a committee, and which validate it.

A split is `(key, count, members, before) -> (members, count)`, True for training; `before` is the
split of the best member so far, of the first structures, or None. All are made on the host.
"""

from collections.abc import Callable

import jax
import numpy as np
from jaxtyping import Bool

from alj.types import BadInput, Key

# Arrays of the host: on the device, every new size of a growing data set would cost a program.
Masks = Bool[np.ndarray, "members count"]
Before = Bool[np.ndarray, " known"] | None
Split = Callable[..., Masks]

NAMES = ("k_fold", "random", "inherited", "all")


def split_by_name(name: str, validation_fraction: float) -> Split:
    """The split of that name. Raises BadInput for an unknown name or an impossible fraction."""
    if not 0.0 < validation_fraction < 1.0:
        raise BadInput(
            f"validation_fraction must lie between 0 and 1, found {validation_fraction}; "
            "use split: all to train on everything"
        )
    made = {
        "k_fold": k_fold(validation_fraction),
        "random": random(validation_fraction),
        "inherited": inherited(validation_fraction),
        "all": everything(),
    }
    if name not in made:
        raise BadInput(f"split must be one of {', '.join(NAMES)}; found {name!r}")
    return made[name]


def k_fold(validation_fraction: float = 0.1, seed: int = 0) -> Split:
    """Each member leaves out another fold; there are 1/fraction folds, or as many as members.

    A structure keeps its fold while the data set grows (no key, only its place), so that a member
    which goes on from earlier parameters never validates on what it was trained on.
    """

    def split(key: Key, count: int, members: int, before: Before = None) -> Masks:
        folds = min(max(members, round(1.0 / validation_fraction), 2), max(count, 2))
        deals = [
            np.random.default_rng((seed, deal)).permutation(folds)
            for deal in range(-(-count // folds))
        ]
        fold_of = np.concatenate(deals)[:count]
        return fold_of[None, :] != np.arange(members)[:, None] % folds

    return split


def random(validation_fraction: float = 0.1) -> Split:
    """Each member leaves out a random fraction of its own, at least one structure."""

    def split(key: Key, count: int, members: int, before: Before = None) -> Masks:
        left_out = min(max(round(count * validation_fraction), 1), count - 1)
        generator = _generator(key)
        places = [generator.permutation(count) for _ in range(members)]
        return np.stack(places) >= left_out

    return split


def inherited(validation_fraction: float = 0.1) -> Split:
    """All members take over the split of the best one so far; only new structures are drawn anew.

    Inherited data selection of doi 10.1039/d3dd00216k: what made the best member is kept.
    """
    fresh = random(validation_fraction)

    def split(key: Key, count: int, members: int, before: Before = None) -> Masks:
        known = np.zeros(0, bool) if before is None else np.asarray(before)[:count]
        drawn = fresh(key, count - len(known), members)
        return np.concatenate([np.tile(known, (members, 1)), drawn], axis=1)

    return split


def everything() -> Split:
    """Every member trains on all structures and validates on none."""
    return lambda key, count, members, before=None: np.ones((members, count), bool)


def _generator(key):
    return np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel().tolist())
