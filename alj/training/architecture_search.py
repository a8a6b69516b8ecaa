"""Widths of networks by a genetic search: the smallest one that learns well enough in time.

Round after round, from the widths A of the last round's winner, candidates are drawn around it,

    A_i = A + γ_i · 0.1 A,   γ_i integers from -5 to 5, one for each layer               (eq. 17)

and trained until their force error is below a target. Of those that reach it within the budget the
one with the fewest weights wins,

    C = I H¹ + Σ Hⁿ Hⁿ⁺¹ + Hᴺ O,   I the length of the descriptor, O = 1                 (eq. 18)

until every width changes by less than a tenth. M. Xu, T. Zhu, J. Z. H. Zhang (ESOINN-DP). A itself
is always among its candidates; where none reaches the target, A stays and others are drawn.

Networks of different widths are trained in one program: all are filled up with zeros to the largest
widths. A unit without connections has no output, its weights have no slopes, so it stays what it
is, where the activation of 0 is 0 and no rule looks at the width. Whether this is so is measured
before; where it is not, only candidates of the same widths share a program.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from alj.arrays import double_precision, split_named
from alj.training.fitting import fit
from alj.types import BadInput, Batch, Key, Params, Potential, Trainer

LARGEST_STEP = 5
"""γ, in tenths of a width."""

SAME = 1e-4
"""eV per atom: energies of a network and of the same one filled up differ by less."""

Widths = tuple[int, ...]


class Candidate(NamedTuple):
    """One candidate: its widths, eq. 18, its lowest force error (eV/Å) on what validates it (on
    what trains it where nothing does), after how many steps it had reached the target (-1: it has
    not)."""

    widths: Widths
    weights: int
    error_eV_per_A: float
    reached_after: int


class Search(NamedTuple):
    """Where a search stands: the winner so far, whether it has settled, and all rounds."""

    widths: Widths
    settled: bool = False
    rounds: tuple[tuple[Candidate, ...], ...] = ()


class SearchSettings(NamedTuple):
    """See `search_settings`."""

    widths: Widths | None
    candidates: int
    accuracy: float
    rounds: int
    least_structures: int


START = (200, 200, 200)
"""The widths that the published search begins with."""


def search_settings(
    *,
    start: tuple[int, ...] | None = None,
    candidates: int = 8,
    accuracy_eV_per_A: float = 0.13,
    rounds: int = 20,
    least_structures: int = 0,
) -> SearchSettings:
    """A search for the smallest hidden widths that learn well enough.

    Args:
        start: Widths of the hidden layers that it begins with; null takes those of the potential,
            and without one 200, 200, 200.
        candidates: Networks that are trained in a round of the search, the best one so far among
            them.
        accuracy_eV_per_A: Force error, rms, below which a network is good enough.
        rounds: Rounds of the search at most.
        least_structures: Structures that there must be before the first one: with few, no widths
            learn well enough.
    """
    if (start is not None and min(start, default=0) < 1) or candidates < 2 or rounds < 0:
        raise BadInput(
            "expected widths of at least 1, two candidates or more and rounds of at least 0; found "
            f"start {start}, candidates {candidates}, rounds {rounds}"
        )
    if not accuracy_eV_per_A > 0:
        raise BadInput(f"accuracy_eV_per_A: expected more than 0, found {accuracy_eV_per_A:g}")
    widths = None if start is None else tuple(start)
    return SearchSettings(widths, candidates, accuracy_eV_per_A, rounds, least_structures)


def weights_in(inputs: int, widths: Sequence[int], outputs: int = 1) -> int:
    """The number of weights, biases apart (eq. 18).

    >>> weights_in(10, (3, 2))
    38
    """
    return sum(n * m for n, m in pairwise([inputs, *widths, outputs]))


def drawn(key: Key, widths: Widths, count: int) -> list[Widths]:
    """`widths` and others around them (eq. 17), all different, fewer where there are not so many.

    Small widths are rounded to whole numbers, of at least 1.
    """
    generator = np.random.default_rng(np.asarray(jax.random.key_data(key), np.uint32))
    found = [tuple(widths)]
    for _ in range(50 * count):
        if len(found) == count:
            break
        steps = generator.integers(-LARGEST_STEP, LARGEST_STEP + 1, len(widths))
        moved = np.rint(np.asarray(widths) * (1.0 + 0.1 * steps)).astype(int)
        one = tuple(int(width) for width in np.maximum(moved, 1))
        if one not in found:
            found.append(one)
    return found


def search_round(
    key: Key,
    search: Search,
    settings: SearchSettings,
    build: Callable[[Widths], Potential],
    train: Callable[[Potential], Trainer],
    batches: tuple[Batch, ...],
    count: int,
) -> Search:
    """One round: candidates, their trainings, the winner.

    `build` makes the potential of some widths, `train` a trainer whose steps are the budget and
    which fits forces; `batches` are `count` structures, as `training.fit` takes them.

    Raises:
        BadInput: the trainer fits no forces.
    """
    if "forces" not in train(build(search.widths)).quantities:
        raise BadInput("widths: the search looks at force errors; expected force_weight above 0")
    draw, learn = split_named(key, "draw", "learn")
    options = drawn(draw, search.widths, settings.candidates)
    inputs = descriptor_length(build, search.widths)
    target = settings.accuracy
    errors = _errors(learn, options, build, train, batches, count, target, inputs)
    found = []
    for widths, history in zip(options, errors, strict=True):
        good = np.flatnonzero(history <= target)
        reached = int(good[0]) + 1 if len(good) else -1
        least = float(np.min(history)) if len(history) else float("inf")
        found.append(Candidate(widths, weights_in(inputs, widths), least, reached))
    good = [one for one in found if one.reached_after >= 0]
    winner = min(good, key=lambda one: one.weights).widths if good else search.widths
    return Search(winner, bool(good) and settled(search.widths, winner),
                  (*search.rounds, tuple(found)))  # fmt: skip


def search_widths(
    key: Key,
    settings: SearchSettings,
    build: Callable[[Widths], Potential],
    train: Callable[[Potential], Trainer],
    batches: tuple[Batch, ...],
    count: int,
) -> Search:
    """Rounds until the widths have settled, or as many as there may be; see `search_round`.

    >>> settings = search_settings(start=(20, 20), accuracy_eV_per_A=0.1)
    >>> settings.candidates
    8
    """
    search = Search(settings.widths or START)
    while not search.settled and len(search.rounds) < settings.rounds:
        round_key = jax.random.fold_in(key, len(search.rounds))
        search = search_round(round_key, search, settings, build, train, batches, count)
    return search


def settled(before: Widths, after: Widths) -> bool:
    """Whether every width has changed by less than a tenth.

    >>> settled((200, 100), (181, 109)), settled((200, 100), (180, 100))
    (True, False)
    """
    return all(abs(new - old) < 0.1 * old for old, new in zip(before, after, strict=True))


def descriptor_length(build: Callable[[Widths], Potential], widths: Widths) -> int:
    """I: the number of inputs of the first hidden layer, read off its weights.

    Raises:
        BadInput: no weights of the potential follow the first width.
    """
    wider = (widths[0] + 1, *widths[1:])
    shapes = [_shapes(build(each)) for each in (widths, wider)]
    growing = [
        one
        for one, other in zip(*map(jax.tree.leaves, shapes), strict=True)
        if one.ndim > 1 and one.shape[:-1] == other.shape[:-1] and one.shape != other.shape
    ]
    if not growing:
        raise BadInput("widths: expected a potential whose first hidden layer has weights")
    # Where elements share an array, biases have two axes and weights three.
    return int(max(growing, key=lambda leaf: leaf.ndim).shape[-2])


def filled_up(params: Params, like: Params) -> Params:
    """Params with zeros behind, in every direction, to the shapes of `like`."""

    def fill(leaf, target):
        room = [(0, n - m) for m, n in zip(leaf.shape, target.shape, strict=True)]
        return jnp.pad(leaf, room) if room else leaf

    return jax.tree.map(fill, params, like)


def _shapes(potential: Potential):
    return jax.eval_shape(lambda: potential.init(jax.random.key(0)))


def _errors(key, options, build, train, batches, count, target, inputs) -> list[np.ndarray]:
    """The force error of every candidate, step by step."""
    largest = tuple(max(each) for each in zip(*options, strict=True))
    begin, learn = split_named(key, "begin", "learn")
    with double_precision():
        begun = [
            _prepared(build(each), jax.random.fold_in(begin, i), batches)
            for i, each in enumerate(options)
        ]
        wide = build(largest)
        whole = _shapes(wide)
        together = all(
            _same(build(each), wide, one, filled_up(one, whole), batches[0])
            for each, one in zip(options, begun, strict=True)
        )
    order = [weights_in(inputs, each) for each in options]
    if together:
        members = [filled_up(one, whole) for one in begun]
        return _trained(learn, wide, train, members, order, batches, count, target)
    found = []
    for i, each in enumerate(options):
        own = _trained(
            jax.random.fold_in(learn, i), build(each), train, begun[i : i + 1], [0], batches, count,
            target,
        )  # fmt: skip
        found += own
    return found


def _prepared(potential: Potential, key: Key, batches) -> Params:
    return potential.prepare(potential.init(key), batches)


def _same(small: Potential, wide: Potential, params: Params, filled: Params, batch: Batch) -> bool:
    """Whether a network that is filled up gives the energies that it gave before."""
    one = jax.tree.map(lambda leaf: leaf[0], (batch.structures, batch.neighbors))
    energies = [
        np.asarray(potential.atomic_energies(own, *one))
        for potential, own in ((small, params), (wide, filled))
    ]
    return bool(np.max(np.abs(energies[0] - energies[1]), initial=0.0) < SAME)


def _trained(key, potential, train, members, order, batches, count, target) -> list[np.ndarray]:
    """Force errors (steps,) of members that begin with these params, trained together.

    It ends early where the smallest of them has reached the target: no other can win.
    """
    trainer = train(potential)._replace(members=len(members), start="warm")
    params = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)
    first = int(np.argmin(order))

    def on_block(done: int, state: Any, progress: Any) -> bool:
        return bool(np.any(_judged(progress)[:, first] <= target))

    fitted = fit(key, trainer, potential, params, batches, count, on_block=on_block)
    history = _judged(fitted.history) if fitted.history is not None else np.zeros((0, len(order)))
    return list(history.T)


def _judged(progress) -> np.ndarray:
    """Force errors (steps, members) on what validates, on what trains where nothing does."""
    validation = np.asarray(progress.validation_error.forces)
    errors = np.where(np.isnan(validation), np.asarray(progress.train_error.forces), validation)
    return np.where(np.isfinite(errors), errors, np.inf)
