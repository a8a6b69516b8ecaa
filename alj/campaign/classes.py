"""Classes of structures in a campaign: a network of classes that grows with the data (ESOINN).

After each round the network is shown the spectra of all training structures, several times in
random order. What it says of candidates is evidence for selectors; its nodes of lowest density are
where the next walks begin. It is stored with the round's state, so a campaign that was killed goes
on with the same nodes.

M. Xu, T. Zhu, J. Z. H. Zhang (ESOINN-DP); S. Furao, T. Ogura, O. Hasegawa, Neural Networks 20, 893
(2007), doi:10.1016/j.neunet.2007.07.008.
"""

from typing import NamedTuple

import jax
import numpy as np
from ase.data import covalent_radii
from jaxtyping import Float, Int

from alj.arrays import pad_axis
from alj.campaign import datasets
from alj.campaign.datasets import Dataset
from alj.campaign.trees import storable
from alj.potentials.coulomb_spectra import coulomb_spectra
from alj.selection import esoinn, esoinn_queries
from alj.selection.esoinn import ClassNetwork
from alj.selection.esoinn_rules import Rules
from alj.types import BadInput, Key

storable(ClassNetwork)

FIELDS = ("spectra", "regions", "nodes", "closest_radii", "species", "positions")
"""The fields of `Evidence` that are computed here."""


class ClassSettings(NamedTuple):
    atoms: int
    rules: Rules
    signals: int
    least_structures: int


@storable
class Map(NamedTuple):
    """A network of classes, the length of the spectra that it knows, and its period in signals."""

    network: ClassNetwork
    atoms: int
    period: int


def class_settings(
    *,
    atoms: int = 64,
    period: int = 500,
    oldest_connection: int = 100,
    noise_two_neighbors: float = 0.001,
    noise_one_neighbor: float = 1.0,
    length: float = 1.0,
    signals: int = 4000,
    least_structures: int = 50,
) -> ClassSettings:
    """The network of classes, where a potential, a selector or the walks' starts use one.

    Args:
        atoms: Atoms of the largest structure; meta_networks bring their own number.
        period: Patterns after which classes are settled and noise is removed; at least five for
            each class, or small ones are lost.
        oldest_connection: Wins without a renewal after which a connection is cut.
        noise_two_neighbors: A node of two neighbors is noise below this multiple of the mean
            density,
        noise_one_neighbor: one of a single neighbor below this.
        length: Mean distance of the neighbors, in scaled units, at which a win counts a quarter.
        signals: So many patterns are shown after each round, at least; each structure equally
            often.
        least_structures: Classes with fewer training structures have no network of their own and
            join the nearest one.
    """
    if min(atoms, period, signals, least_structures) < 1:
        raise BadInput(
            "classes: expected atoms, period, signals and least_structures of at least 1, found "
            f"{atoms}, {period}, {signals} and {least_structures}"
        )
    rules = Rules(period, oldest_connection, noise_two_neighbors, noise_one_neighbor, length)
    return ClassSettings(atoms, rules, signals, least_structures)


def spectra(data: Dataset, atoms: int) -> Float[np.ndarray, "structures atoms"]:
    """The Coulomb spectra of a data set. Raises BadInput for a structure of more atoms."""
    positions, species = _padded(data)
    if not datasets.count(data):
        return np.zeros((0, atoms))
    return coulomb_spectra(positions, species, length=atoms)


def grown(key: Key, before: Map | None, data: Dataset, settings: ClassSettings) -> Map | None:
    """The network of classes after it has seen the data once more; None of fewer than two."""
    patterns = spectra(data, settings.atoms)
    if before is None and len(np.unique(patterns, axis=0)) < 2:
        return None
    network = esoinn.begin(key, patterns) if before is None else before.network
    generator = np.random.default_rng(np.asarray(jax.random.key_data(key), np.uint32))
    times = -(-settings.signals // max(len(patterns), 1))
    order = np.concatenate([generator.permutation(len(patterns)) for _ in range(times)])
    network = esoinn.learn(network, patterns[order], settings.rules)
    return Map(esoinn.trimmed(network), settings.atoms, settings.rules.period)


def sparse_places(found: Map, data: Dataset, count: int) -> Int[np.ndarray, " count"]:
    """Structures nearest to the nodes of lowest density that are older than one period.

    Younger nodes follow where there are too few, and then the first ones again.
    """
    network = found.network
    patterns = esoinn.fitting(network, spectra(data, found.atoms))
    density, born = esoinn.densities(network), network.born[: int(network.count)]
    young = born > int(network.signals) - found.period
    places: list[int] = []
    for node in np.lexsort((density, young)):
        squares = np.sum((patterns - network.weights[node][None]) ** 2, axis=1)
        squares[places] = np.inf
        if len(places) < min(count, len(patterns)):
            places.append(int(np.argmin(squares)))
    return np.resize(np.asarray(places, int), count)


def evidence_of(pool: Dataset, known: Dataset, wanted: set[str], found: Map | None) -> dict:
    """The fields of evidence that come from a network of classes, as far as they are wanted.

    Without a network one is made of the known structures, by the usual rules.
    """
    fields: dict[str, np.ndarray] = {}
    positions, species = _padded(pool)
    if "species" in wanted:
        fields["species"] = species
    if "positions" in wanted:
        fields["positions"] = positions
    if "closest_radii" in wanted:
        fields["closest_radii"] = closest_radii(pool)
    if not wanted & {"spectra", "regions", "nodes"} or not datasets.count(pool):
        return fields | {name: np.zeros(0) for name in wanted & set(FIELDS) - set(fields)}
    if found is None:
        both = max(int(np.max(datasets.sizes(data), initial=1)) for data in (pool, known))
        usual = class_settings(atoms=both)
        found = grown(jax.random.key(0), None, known, usual)
    if found is None:
        raise BadInput(
            "selector: it looks at a network of classes, which needs at least two different known "
            f"structures, found {datasets.count(known)}; give more labeled data to begin with"
        )
    patterns = spectra(pool, found.atoms)
    where = esoinn_queries.find(found.network, patterns)
    return {
        **fields,
        "spectra": esoinn.fitting(found.network, patterns),
        "regions": where.regions,
        "nodes": where.winners[:, 0],
    }


def closest_radii(data: Dataset) -> Float[np.ndarray, " structures"]:
    """The shortest distance of two atoms over the sum of their covalent radii (no images)."""
    found = np.full(datasets.count(data), np.inf)
    for i, one in enumerate(datasets.structures(data)):
        if len(one.species) < 2:
            continue
        first, second = np.triu_indices(len(one.species), 1)
        lengths = np.linalg.norm(one.positions[first] - one.positions[second], axis=1)
        radii = covalent_radii[one.species]
        found[i] = np.min(lengths / (radii[first] + radii[second]))
    return found


def _padded(data: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Positions and species of all structures, padded to the largest."""
    most = int(np.max(datasets.sizes(data), initial=1))
    rows = datasets.structures(data)
    positions = [pad_axis(np.asarray(one.positions), most, 0.0) for one in rows]
    species = [pad_axis(np.asarray(one.species), most, 0) for one in rows]
    if not rows:
        return np.zeros((0, most, 3)), np.zeros((0, most), int)
    return np.stack(positions), np.stack(species)
