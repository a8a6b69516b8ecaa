"""A campaign's classes: the network that grows, who trains on what, and who inherits from whom."""

from functools import cache
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from alj.campaign import class_training, classes, datasets, trees
from alj.campaign.class_training import Taught, divided, inherited, taught
from alj.campaign.classes import class_settings, closest_radii, evidence_of, grown, sparse_places
from alj.campaign.reading import empty_labels
from alj.potentials import meta_networks
from alj.potentials.meta_networks import nearest_classes, of_networks
from alj.selection import esoinn
from alj.training import Fitted, gradient
from alj.types import Structure

BODY = {"name": "behler_parrinello", "hidden": [4], "cutoff_A": 3.5}
SETTINGS = class_settings(atoms=8, period=60, signals=300, least_structures=8)


@cache
def clusters(count=36, seed=0):
    """Clusters of 2, 5 and 8 atoms in turn, with labels that anything can be fitted to."""
    generator = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.arange(2)] * 3), axis=-1).reshape(-1, 3)
    structures, labels = [], []
    for i in range(count):
        atoms = (2, 5, 8)[i % 3]
        positions = 2.4 * grid[:atoms] + generator.normal(0.0, 0.08, (atoms, 3))
        none = np.int32(0)
        structures.append(
            Structure(positions, np.full(atoms, 8, np.int32), np.zeros((3, 3)), none, none)
        )
        forces = generator.normal(size=(atoms, 3))
        labels.append(empty_labels(atoms)._replace(energy=np.array(-1.0 * atoms), forces=forces))
    return datasets.append(datasets.empty(), structures, labels)


@cache
def learned():
    return grown(jax.random.key(1), None, clusters(), SETTINGS)


def parts_of(nearest=2):
    return meta_networks((8,), nearest=nearest, classes=6, nodes=64, atoms=8, body=BODY).networks


def test_classes_tell_sizes_apart_and_grow_the_same_from_what_was_stored():
    found = learned()
    patterns = classes.spectra(clusters(), 8)
    labels = esoinn.classes(found.network)
    mine = class_training._merged(labels, *_gaps(found, patterns), 8, 6)
    assert np.max(mine) + 1 >= 3
    more = clusters(48)
    stored = trees.decode(trees.encode(found), "test")
    again = [grown(jax.random.key(1), one, more, SETTINGS) for one in (found, stored)]
    for one, other in zip(*again, strict=True):
        jax.tree.map(np.testing.assert_array_equal, one, other)


def _gaps(found, patterns):
    nodes = found.network.weights[: int(found.network.count)]
    fitted = esoinn.fitting(found.network, patterns)
    far = [np.linalg.norm(a[:, None] - nodes[None], axis=-1) for a in (fitted, nodes)]
    return far[0], far[1]


def test_a_structure_trains_the_networks_of_its_nearest_classes():
    now = divided(parts_of(), learned(), clusters(), SETTINGS)
    assert now.networks >= 3
    sizes = datasets.sizes(clusters())
    for c in range(now.networks):
        # no class of its own holds two sizes
        assert len(set(sizes[now.nearest[:, 0] == c])) <= 1
    assert np.all(now.nearest[:, 0] != now.nearest[:, 1])


def test_with_fewer_classes_than_networks_all_train_on_everything():
    few = SETTINGS._replace(least_structures=1000)
    now = divided(parts_of(3), learned(), clusters(), few)
    assert len(now.of) == 0
    assert np.array_equal(now.nearest, np.tile([0, 1, 2], (36, 1)))


def test_small_classes_join_their_nearest():
    of = np.array([0, 0, 1, 2])
    nodes = np.array([[0.0], [1.0], [1.5], [9.0]])
    between = np.abs(nodes - nodes.T)
    patterns = np.array([0.0] * 10 + [1.5] * 2 + [9.0] * 10)
    found = class_training._merged(of, np.abs(patterns[:, None] - nodes.T), between, 5, 6)
    assert found.tolist() == [0, 0, 0, 1]


def test_a_class_inherits_from_the_one_that_holds_most_of_its_structures():
    before = Taught(
        np.array([[0.0], [5.0]]), np.array([0, 1]), 1.0, np.array([[0, 1]] * 6 + [[1, 0]] * 4)
    )
    now = Taught(
        np.array([[0.0], [5.0], [5.2]]), np.array([0, 1, 2]), 1.0,
        np.array([[1, 0]] * 2 + [[0, 1]] * 4 + [[1, 0]] * 4 + [[2, 1]] * 3),
    )  # fmt: skip
    # of class 0 all come from 0; of class 1 four of six from 1; 2 is of new structures only
    assert inherited(now, before, 2) == [0, 1, 1]
    everything = Taught(np.zeros((0, 1)), np.zeros(0, int), 1.0, np.tile([0, 1], (10, 1)))
    parents = inherited(now, everything, 2)
    # neighbors descend from different networks
    assert parents[1] != parents[2]
    assert set(parents) == {0, 1}


@pytest.fixture(scope="module")
def fitted():
    parts = parts_of()
    trainer = gradient(
        parts.body, epochs=2, members=2, force_weight=1.0, batch_size=8, precision="float64"
    )
    given = (parts, trainer, learned(), clusters(), None, None, SETTINGS, "float64")
    return parts, [taught(jax.random.key(3), *given) for _ in range(2)]


def test_of_classes_with_one_origin_the_largest_goes_on_with_its_network(monkeypatch):
    """The others begin apart from it, and from each other: else they may stay the same network and
    agree without knowing anything."""
    parts, starts = parts_of(), []

    def begun(key, parts, trainer, data, params, dtype):
        starts.append(jax.tree.map(np.asarray, params))
        return SimpleNamespace(params=params)

    monkeypatch.setattr(class_training, "_one", begun)
    done = Fitted(None, *[np.zeros(1)] * 6, None, 0)
    monkeypatch.setattr(
        class_training, "_together", lambda fits, params, trains: done._replace(params=params)
    )
    trainer = gradient(parts.body, members=2)
    last = jax.vmap(of_networks(parts).init)(jax.random.split(jax.random.key(1), 2))
    # everything was of one class
    none = np.zeros((datasets.count(clusters()), 2), int)
    before = Taught(np.zeros((1, 8)), np.array([0]), 1.0, none)
    _, now = taught(
        jax.random.key(3), parts, trainer, learned(), clusters(), last, before, SETTINGS, "float64"
    )
    origin = class_training.networks_of(jax.tree.map(lambda leaf: leaf[0], last))
    first = [np.asarray(leaf[:1]) for leaf in jax.tree.leaves(origin)]
    assert now.networks >= 3
    largest = np.argmax(np.bincount(now.nearest[:, 0]))
    for c, start in enumerate(starts):
        same = [np.array_equal(*pair) for pair in zip(jax.tree.leaves(start), first, strict=True)]
        assert all(same) == (c == largest)
    weights = [start["readout"]["weights"] for start in starts]
    assert len({one.tobytes() for one in weights}) == now.networks
    # shrunk, not thrown away
    assert min(np.corrcoef(one.ravel(), weights[largest].ravel())[0, 1] for one in weights) > 0.8


@pytest.mark.slow
def test_training_touches_only_the_networks_there_are_and_is_reproducible(fitted):
    _, ((one, now), (other, _)) = fitted
    jax.tree.map(np.testing.assert_array_equal, one.params, other.params)
    assert len(one.loss) == now.networks
    assert np.all(np.isfinite(one.loss))
    # nobody trains on a structure of classes that are not near
    for c in range(now.networks):
        assert not np.any(one.train[c] & ~np.any(now.nearest == c, axis=1))
    leaf = jax.tree.leaves(one.params["readout"])[0]
    assert leaf.shape[:2] == (2, 6)


@pytest.mark.slow
def test_members_answer_with_the_networks_that_the_structure_trained(fitted):
    """What the campaign trains on the host and what a walk looks up are the same networks."""
    parts, ((one, now), _) = fitted
    potential = of_networks(parts)
    answering = jax.jit(lambda s: nearest_classes(potential, one.params, s))
    for i in range(0, 36, 5):
        s = datasets.structure(clusters(), i)
        padded = Structure(
            np.pad(s.positions, ((0, 8 - len(s.species)), (0, 0))),
            np.pad(s.species, (0, 8 - len(s.species))), s.cell, s.charge, s.multiplicity,
        )  # fmt: skip
        found = answering(jax.tree.map(np.asarray, padded))
        assert np.asarray(found).tolist() == now.nearest[i].tolist()


def test_sparse_places_are_different_structures_near_rare_nodes():
    places = sparse_places(learned(), clusters(), 5)
    assert len(set(places.tolist())) == 5
    repeated = sparse_places(learned(), clusters(), 100)
    assert len(repeated) == 100
    assert np.array_equal(repeated[:5], places)


def test_evidence_without_a_network_makes_one_of_what_is_known():
    fields = evidence_of(clusters(9, seed=1), clusters(), {"regions", "nodes", "spectra"}, None)
    assert fields["spectra"].shape == (9, 8)
    assert len(fields["regions"]) == len(fields["nodes"]) == 9
    # a molecule torn apart is far from everything
    odd = clusters(3, seed=1)
    odd = odd._replace(positions=odd.positions * 0.4)
    assert np.all(evidence_of(odd, clusters(), {"regions"}, learned())["regions"] == 2)


def test_the_closest_pair_in_units_of_covalent_radii():
    none = np.int32(0)
    water = Structure(
        np.array([[0.0, 0, 0], [0.97, 0, 0], [0.0, 0.5, 0]]), np.array([8, 1, 1], np.int32),
        np.zeros((3, 3)), none, none,
    )  # fmt: skip
    data = datasets.append(datasets.empty(), [water])
    assert closest_radii(data)[0] == pytest.approx(0.5 / (0.66 + 0.31))
