"""Training meta-networks: each network on the structures whose nearest classes it belongs to.

Classes too small to train a network join their nearest. With fewer classes than networks that
answer together, these are all trained on everything. From round to round a class goes on with the
network of the old class that holds most of its training structures; one of new structures only with
that of the nearest old class. Networks that were trained on everything are handed on in turn, so
that neighbors descend from different ones and their disagreement means something.

Two networks of one origin would agree without knowing anything: where training makes neither better
(the best of its epochs is kept), they stay the same and χ is 0, which was seen. So only the largest
of the classes that go on with the same network has it as it was; the others begin with it shrunk
towards a fresh one (J. Ash, R. P. Adams, NeurIPS 33, 3884 (2020), arXiv:1910.08475).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.spatial.distance import cdist

from alj.arrays import split_named
from alj.campaign import classes, datasets
from alj.campaign.classes import ClassSettings, Map
from alj.campaign.datasets import Dataset
from alj.campaign.trees import storable
from alj.geometry.neighbors import TableSize
from alj.potentials.meta_networks import (
    MetaNetworks,
    assembled,
    committee_of,
    networks_of,
    no_prototypes,
)
from alj.selection import esoinn
from alj.training import Fitted, fit
from alj.training.batching import trained_part
from alj.types import BadInput, Key, Params, Trainer

SHRUNK = 0.8
"""What is kept of weights that another class goes on with too; the rest are fresh ones."""

SIZES = 3
"""Structures are padded to one of so many sizes: each more is a program more to compile."""


@storable
class Taught(NamedTuple):
    """Which networks there are: prototypes in units of `scale` with their networks (none: all
    networks are trained on everything), and of each training structure the nearest networks."""

    nodes: Float[np.ndarray, "nodes atoms"]
    of: Int[np.ndarray, " nodes"]
    scale: float
    nearest: Int[np.ndarray, "structures nearest"]

    @property
    def networks(self) -> int:
        """How many networks there are."""
        return int(np.max(self.nearest, initial=0)) + 1


def taught(
    key: Key,
    parts: MetaNetworks,
    trainer: Trainer,
    found: Map | None,
    data: Dataset,
    params: Params | None,
    before: Taught | None,
    settings: ClassSettings,
    dtype: Any,
) -> tuple[Fitted, Taught]:
    """The committee trained on the data class by class; `params` and `before` are the last ones.

    `Fitted` has one entry for each network, its params are those of the committee. Raises BadInput.
    """
    if trainer.members != parts.nearest:
        raise BadInput(
            f"trainer.members: meta_networks answer with {parts.nearest} networks at a time, found "
            f"{trainer.members} members; set it to potential.nearest"
        )
    now = divided(parts, found, data, settings)
    parents = inherited(now, before, parts.nearest)
    trains = np.stack([np.any(now.nearest == c, axis=1) for c in range(now.networks)])
    old = None if params is None else networks_of(jax.tree.map(lambda leaf: leaf[0], params))
    (learn,) = split_named(key, "networks")
    fits, kept = [], heirs(parents, np.bincount(now.nearest[:, 0], minlength=now.networks))
    for number, (mask, parent) in enumerate(zip(trains, parents, strict=True)):
        own = None if old is None else jax.tree.map(lambda x, c=parent: x[c : c + 1], old)
        mine = jax.random.fold_in(learn, number)
        if own is not None and number not in kept:
            mine, apart = jax.random.split(mine)
            own = _shrunk(parts, own, apart)
        fits.append(
            _one(mine, parts, trainer, datasets.select(data, np.flatnonzero(mask)), own, dtype)
        )
    rooms = [*range(now.networks), *[0] * (parts.classes - now.networks)]
    networks = jax.tree.map(
        lambda *x: jnp.concatenate([x[c] for c in rooms]), *[f.params for f in fits]
    )
    one = assembled(parts, networks, now.nodes, now.of, now.scale)
    return _together(fits, committee_of(parts, one), trains), now


def divided(
    parts: MetaNetworks, found: Map | None, data: Dataset, settings: ClassSettings
) -> Taught:
    """The networks of classes that are large enough, and the nearest ones of each structure."""
    everything = np.tile(np.arange(parts.nearest), (datasets.count(data), 1))
    if found is None:
        return Taught(*no_prototypes(parts), everything)
    network = found.network
    patterns = esoinn.fitting(network, classes.spectra(data, found.atoms))
    nodes = network.weights[: int(network.count)]
    to_nodes, of = cdist(patterns, nodes), esoinn.classes(network)
    of = _merged(of, to_nodes, cdist(nodes, nodes), settings.least_structures, parts.classes)
    if np.max(of) + 1 < parts.nearest:
        return Taught(*no_prototypes(parts), everything)
    kept = _most_winning(of, network.wins[: len(of)], parts.nodes)
    distances = _to_classes(to_nodes[:, kept], of[kept])
    nearest = np.argsort(distances, axis=1, kind="stable")[:, : parts.nearest]
    return Taught(nodes[kept], of[kept], float(network.scale), nearest)


def inherited(now: Taught, before: Taught | None, nearest: int) -> list[int]:
    """The old network that each one goes on with."""
    if before is None:
        return [0] * now.networks
    if len(before.of) == 0:
        return _in_turn(now, nearest)
    known, parents = len(before.nearest), []
    old_class = before.nearest[:, 0]
    for c in range(now.networks):
        own = now.nearest[:known, 0] == c
        votes = np.bincount(old_class[own], minlength=before.networks)
        if len(now.of) == 0:
            parents.append(c % before.networks)
        elif votes.any():
            parents.append(int(np.argmax(votes)))
        else:
            gaps = cdist(now.nodes[now.of == c] * now.scale, before.nodes * before.scale)
            parents.append(int(before.of[np.argmin(np.min(gaps, axis=0))]))
    return parents


def heirs(parents: list[int], sizes: Int[np.ndarray, " networks"]) -> set[int]:
    """The networks that go on unchanged: of those with the same parent the one of most structures.

    >>> sorted(heirs([0, 1, 1], np.array([5, 2, 9])))
    [0, 2]
    """
    largest: dict[int, int] = {}
    for number, parent in enumerate(parents):
        if parent not in largest or sizes[number] > sizes[largest[parent]]:
            largest[parent] = number
    return set(largest.values())


def _shrunk(parts: MetaNetworks, params: Params, key: Key) -> Params:
    """A network (with a leading axis of 1) between itself and a fresh one."""
    fresh, _ = trained_part(jax.jit(parts.body.init)(key))
    trained, rebuild = trained_part(params)
    return rebuild(
        jax.tree.map(
            lambda old, new: (SHRUNK * old + (1.0 - SHRUNK) * new[None]).astype(old.dtype),
            trained, fresh,
        )
    )  # fmt: skip


def _in_turn(now: Taught, nearest: int) -> list[int]:
    """Networks trained on everything, handed on so that the nearest classes get different ones."""
    if len(now.of) == 0:
        return list(range(now.networks))
    parents: list[int] = []
    for c in range(now.networks):
        mine = now.nodes[now.of == c]
        gaps = [np.min(cdist(mine, now.nodes[now.of == other])) for other in range(c)]
        parents.append((parents[int(np.argmin(gaps))] + 1) % nearest if gaps else 0)
    return parents


def _merged(of, to_nodes, between, least: int, room: int) -> Int[np.ndarray, " nodes"]:
    """Classes of nodes, numbered from 0: the smallest joins its nearest while it is too small."""
    of = of.copy()
    while True:
        names, of = np.unique(of, return_inverse=True)
        counts = np.bincount(of[np.argmin(to_nodes, axis=1)], minlength=len(names))
        smallest = int(np.argmin(counts))
        if len(names) == 1 or (counts[smallest] >= least and len(names) <= room):
            return of
        mine, others = np.flatnonzero(of == smallest), np.flatnonzero(of != smallest)
        place = np.argmin(np.min(between[np.ix_(mine, others)], axis=0))
        of[mine] = of[others[place]]


def _most_winning(of, wins, room: int) -> Int[np.ndarray, " kept"]:
    """As many nodes as there is room for, those that won most, and of each class at least one."""
    order = np.lexsort((np.arange(len(of)), -wins))
    _, first = np.unique(of[order], return_index=True)
    leaders = order[first]
    rest = order[~np.isin(order, leaders)]
    return np.sort(np.concatenate([leaders, rest])[:room])


def _to_classes(to_nodes, of) -> Float[np.ndarray, "structures classes"]:
    return np.stack([np.min(to_nodes[:, of == c], axis=1) for c in range(np.max(of) + 1)], axis=1)


def _one(key, parts: MetaNetworks, trainer: Trainer, data: Dataset, params, dtype) -> Fitted:
    """One network on its own structures, padded to a size that other classes share."""
    step = -(-parts.atoms // SIZES)
    atoms = min(-(-int(np.max(datasets.sizes(data))) // step) * step, parts.atoms)
    batches = datasets.batches(
        data,
        parts.body.cutoff,
        dtype=dtype,
        at_least=128,
        atoms=atoms,
        table={atoms: TableSize(atoms, (0, 0, 0))},
    )
    alone = trainer._replace(members=1)
    return fit(key, alone, parts.body, params, batches, datasets.count(data))


def _together(fits: list[Fitted], params: Params, trains: Bool[np.ndarray, "networks n"]) -> Fitted:
    """The fits as one of many members; each was trained on its own part of what it was given."""
    masks = np.zeros_like(trains)
    for mask, given, one in zip(masks, trains, fits, strict=True):
        mask[given] = one.train[0]
    loss = np.concatenate([one.loss for one in fits])
    return Fitted(
        params=params,
        best=int(np.argmin(loss)),
        loss=loss,
        error=jax.tree.map(lambda *x: np.concatenate(x), *[one.error for one in fits]),
        force_mae=np.concatenate([one.force_mae for one in fits]),
        finite=np.concatenate([one.finite for one in fits]),
        train=masks,
        history=None,
        steps=sum(one.steps for one in fits),
    )
