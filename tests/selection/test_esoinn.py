"""ESOINN: rules worked by hand, the kernel against NumPy to the last bit, what it should find."""

import jax
import numpy as np
import pytest
from scipy.spatial.distance import cdist

from alj.campaign.trees import decode, encode, storable
from alj.selection import esoinn_queries
from alj.selection.esoinn import (
    ClassNetwork,
    begin,
    classes,
    densities,
    esoinn,
    learn,
    packed,
    period_is_short,
    roomy,
    trimmed,
    unpacked,
)
from alj.selection.esoinn_queries import BOUNDARY, FAR, INSIDE, find, nearest_classes
from alj.selection.esoinn_rules import NEW, Nodes, Rules
from alj.selection.esoinn_search import nearest_two, search_in
from alj.stepping import run
from alj.types import BadInput, Context

KEY = jax.random.key(5)
BOTH = pytest.mark.parametrize("compiled", [True, False], ids=["numba", "numpy"])


def lumps(count=1500, features=4, groups=6, seed=0, noise=0.03):
    """Groups ten widths apart and more, some noise around them, and some patterns twice."""
    generator = np.random.default_rng(seed)
    middles = 8.0 * generator.normal(size=(groups, features))
    patterns = middles[generator.integers(groups, size=count)]
    patterns += generator.normal(size=(count, features))
    spread = generator.random(count) < noise
    patterns[spread] = generator.uniform(-20, 20, size=(np.sum(spread), features))
    again = generator.random(count) < 0.02
    patterns[again] = patterns[generator.integers(count, size=np.sum(again))]
    return patterns


def network_of(weights, edges, *, labels=None, points=None, periods=None, signals=0, scale=1.0):
    """A network made by hand; `edges` are pairs, all of age 0."""
    count = len(weights)
    neighbors = [{} for _ in range(count)]
    for i, j in edges:
        neighbors[i][j] = neighbors[j][i] = 0
    nodes = Nodes(
        weights=np.array(weights, float).reshape(count, -1),
        labels=list(labels or [NEW] * count),
        wins=[0] * count,
        points=list(map(float, points or [0.0] * count)),
        periods=list(periods or [1] * count),
        won=[False] * count,
        born=[0] * count,
        edges=neighbors,
        signals=signals,
    )
    return packed(nodes, scale)


def same(first: ClassNetwork, second: ClassNetwork) -> bool:
    """Equal to the last bit, whatever the size of the tables."""
    pairs = zip(trimmed(first), trimmed(second), strict=True)
    return all(a.dtype == b.dtype and a.tobytes() == b.tobytes() for a, b in pairs)


def edges_of(network):
    return unpacked(network).edges


# Rules by hand


@BOTH
def test_a_pattern_beyond_a_threshold_becomes_a_node(compiled):
    """W = 0, 1, no connection, so T = 1 of both: 2.5 is 1.5 from one of them."""
    network = learn(network_of([0, 1], []), np.array([[2.5]]), compiled=compiled)
    assert unpacked(network).weights.ravel().tolist() == [0.0, 1.0, 2.5]
    assert unpacked(network).labels == [NEW] * 3
    assert unpacked(network).born[2] == network.signals == 1
    assert edges_of(network) == [{}, {}, {}]
    # 1.5 is within the threshold of the winner but not of the second.
    other = learn(network_of([0, 1], []), np.array([[1.5]]), compiled=compiled)
    assert other.count == 3


@BOTH
def test_a_win_connects_scores_and_moves(compiled):
    """x = 1/4 between W = 0, 1: d = 1, p = 1/4; W_a = x, W_b = 1 + (x-1)/100."""
    start = network_of([0, 1], [], periods=[0, 0])
    once = learn(start, np.array([[0.25]]), compiled=compiled)
    nodes = unpacked(once)
    assert nodes.weights.ravel().tolist() == [0.25, 1.0 + (0.25 - 1.0) / 100]
    assert edges_of(once) == [{1: 0}, {0: 0}]
    assert (nodes.wins, nodes.points, nodes.periods) == ([1, 0], [0.25, 0.0], [1, 0])
    assert nodes.won == [True, False]
    # d = 0.7425 now; the second win of a period adds points but no period; W_a is the mean.
    twice = learn(once, np.array([[0.5]]), compiled=compiled)
    nodes = unpacked(twice)
    assert nodes.points[0] == 0.25 + 1 / (1.7425 * 1.7425)
    assert (nodes.wins[0], nodes.periods[0]) == (2, 1)
    assert nodes.weights[0, 0] == (0.25 + 0.5) / 2
    assert densities(twice)[0] == nodes.points[0]
    # A length ten times as large makes p = 1/(1 + 0.1)².
    longer = learn(start, np.array([[0.25]]), Rules(length=10.0), compiled=compiled)
    assert unpacked(longer).points[0] == 1 / (1.1 * 1.1)


@BOTH
def test_connections_age_with_the_wins_of_a_node_and_are_cut_when_old(compiled):
    """Node 0 wins near node 1; its connection to node 2 is not renewed."""
    network = network_of([0, 1, 3], [(0, 1), (0, 2)])
    network = learn(network, np.array([[0.1]] * 3), Rules(oldest=3), compiled=compiled)
    assert edges_of(network) == [{1: 0, 2: 3}, {0: 0}, {0: 3}]
    network = learn(network, np.array([[0.1]]), Rules(oldest=3), compiled=compiled)
    assert edges_of(network) == [{1: 0}, {0: 0}, {}]


STEEP = [1, 4, 0.5, 0.3, 0.2]
"""Densities of a class with a maximum of more than three means, α = 1; the first is connected."""


@pytest.mark.slow
@BOTH
@pytest.mark.parametrize(
    ("other", "joined"),
    [
        ([1.5, 5, 0.5, 0.5, 0.5], False),  # 3 · 1.6 < 5: α = 1, and 1 < 5
        ([1.5, 2.1, 0.5, 0.2, 0.1], False),  # 2 · 0.88 < 2.1 < 3 · 0.88: α = 1/2, and 1 < 1.05
        ([1.5, 1.9, 0.5, 0.1, 0.1], True),  # 2 · 0.82 < 1.9 < 3 · 0.82: α = 1/2, and 1 > 0.95
        ([1.5, 1.6, 1.5, 1.6, 1.5], True),  # 1.6 < 2 · 1.54: α = 0
        ([0, 0.1, 0.1, 0.1, 0.1], False),  # α = 0, but 0 > 0 fails
    ],
)
def test_classes_are_joined_across_a_valley_that_is_high_enough(compiled, other, joined):
    """Nodes 0 and 5 win, of two classes; the test is min(h) > α max of either."""
    weights = [0, 10, 11, 12, 13, 1, 20, 21, 22, 23]
    labels = [3] * 5 + [1] * 5
    for first, second in ((STEEP, other), (other, STEEP)):
        network = network_of(weights, [(0, 5)], labels=labels, points=first + second)
        after = learn(network, np.array([[0.4]]), compiled=compiled)
        assert unpacked(after).labels == ([1] * 10 if joined else labels)
        assert edges_of(after)[0] == ({5: 0} if joined else {})
        # Without a neighbor there is a win, but no point.
        assert unpacked(after).wins[0] == 1
        assert (unpacked(after).points[0] > first[0]) == joined


@BOTH
def test_a_period_labels_by_ascent_and_removes_noise(compiled):
    """A chain of densities 9, 1, 8, 0.1, an isolated node, and a pair of no density."""
    network = network_of(
        [0, 1, 2, 3, 50, 80, 81],
        [(0, 1), (1, 2), (2, 3), (0, 2), (5, 6)],
        points=[9, 1, 8, 0.1, 7, 0, 0],
        signals=9,
    )
    # The tenth pattern is far from all: a new node, without connections, that goes at once.
    after = learn(network, np.array([[500.0]]), Rules(period=10), compiled=compiled)
    nodes = unpacked(after)
    assert nodes.weights.ravel().tolist() == [0.0, 1.0, 2.0]
    assert nodes.labels == [0, 0, 0]
    assert edges_of(after) == [{1: 0, 2: 0}, {0: 0, 2: 0}, {1: 0, 0: 0}]
    # A threshold for two neighbors above the density of node 1 takes it too.
    after = learn(network, np.array([[500.0]]), Rules(period=10, two=0.5), compiled=compiled)
    assert unpacked(after).weights.ravel().tolist() == [0.0, 2.0]


@BOTH
def test_two_nodes_always_stay(compiled):
    network = network_of([0, 1, 5], [], points=[1, 3, 2], signals=9)
    after = learn(network, np.array([[100.0]]), Rules(period=10), compiled=compiled)
    assert unpacked(after).weights.ravel().tolist() == [1.0, 5.0]


# The kernel and NumPy


@pytest.mark.parametrize(
    ("features", "rules"),
    [
        (1, Rules(period=50)),
        (3, Rules(period=37, oldest=10, two=0.1)),
        (4, Rules(period=200, one=0.2)),
        (9, Rules(length=0.3)),
    ],
)
def test_the_kernel_is_numpy_to_the_last_bit(features, rules):
    patterns = lumps(features=features, seed=features)
    start = begin(KEY, patterns)
    network = learn(start, patterns, rules)
    assert network.count > 5
    assert same(network, learn(start, patterns, rules, compiled=False))
    assert start.signals == 0  # the network given is left alone


@pytest.mark.slow
def test_the_kernel_is_numpy_to_the_last_bit_for_long():
    patterns = lumps(100_000, features=6, groups=30)
    start = begin(KEY, patterns)
    assert same(learn(start, patterns), learn(start, patterns, compiled=False))


def test_near_ties_are_decided_in_double_precision():
    """A lattice far from zero: in float32 all of it is one point; on it, ties go to the lower."""
    generator = np.random.default_rng(0)
    lattice = 1e6 + 1e-3 * generator.integers(0, 4, size=(300, 3)).astype(float)
    search = search_in(lattice, len(lattice))
    for pattern in 1e6 + 1e-3 * generator.integers(0, 4, size=(200, 3)):
        a, b, nearest, second = nearest_two(pattern, lattice, len(lattice), search)
        apart = pattern - lattice
        squares = np.cumsum(apart * apart, axis=1)[:, -1]
        assert [a, b] == np.argsort(squares, kind="stable")[:2].tolist()
        assert (nearest, second) == (squares[a], squares[b])


# What must change nothing


def test_room_blocks_and_storage_change_nothing():
    patterns = lumps()
    start = begin(KEY, patterns)
    whole = learn(start, patterns)
    assert same(whole, learn(roomy(start, 40, 8), patterns))
    storable(ClassNetwork)
    network = start
    for first, last in ((0, 1), (1, 700), (700, 1203), (1203, len(patterns))):
        network = learn(network, patterns[first:last])
        network = decode(encode(trimmed(network)), "network")
    assert same(whole, network)


def test_units_change_nothing():
    patterns = lumps()
    one, two = (learn(begin(KEY, x), x) for x in (patterns, 4.0 * patterns))
    assert float(two.scale) == 4.0 * float(one.scale)
    assert same(one, two._replace(scale=one.scale))


def test_the_driver_resumes_on_the_same_path():
    patterns = lumps(400)
    stepper, context = esoinn(period=100), Context(data=patterns)
    start = stepper.init(KEY, patterns, context)
    walk = jax.random.key(1)
    whole, infos = run(stepper, walk, start, context, steps=3)
    half, _ = run(stepper, walk, start, context, steps=2)
    other, _ = run(stepper, walk, half, context, steps=1, start=2)
    assert same(whole, other)
    assert infos["nodes"][-1] == whole.count
    assert whole.signals == 3 * len(patterns)


# What it should find


def two_clusters(generator, count=3000):
    group = generator.integers(2, size=count)
    return np.array([[0.0, 0.0], [12.0, 5.0]])[group] + generator.normal(size=(count, 2)), group


def test_two_clusters_are_two_classes():
    """No class and no connection on both sides for any seed, and most often just two classes."""
    counts = []
    for seed in range(6):
        patterns, group = two_clusters(np.random.default_rng(seed))
        network = learn(begin(jax.random.key(seed), patterns), patterns, Rules(period=50))
        found = find(network, patterns).classes
        assert not set(found[group == 0]) & set(found[group == 1])
        weights = network.weights[: network.count] * network.scale
        side = np.argmin(cdist(weights, [[0.0, 0.0], [12.0, 5.0]]), axis=1)
        assert all(side[i] == side[j] for i, row in enumerate(edges_of(network)) for j in row)
        counts.append(len(set(found)))
    assert np.median(counts) == 2


@pytest.mark.parametrize("seed", range(3))
def test_noise_is_removed(seed):
    """A tenth of the patterns fill a square of 60: nodes stay where the other nine tenths are."""
    generator = np.random.default_rng(seed)
    patterns, _ = two_clusters(generator, 6000)
    noise = generator.random(6000) < 0.1
    patterns[noise] = generator.uniform(-30, 30, size=(np.sum(noise), 2))
    network = learn(begin(jax.random.key(seed), patterns), patterns)
    weights = network.weights[: network.count] * network.scale
    far = np.min(cdist(weights, [[0.0, 0.0], [12.0, 5.0]]), axis=1) > 5
    away = np.min(cdist(patterns, [[0.0, 0.0], [12.0, 5.0]]), axis=1) > 5
    assert np.sum(far) < 0.1 * np.sum(away)
    assert np.max(densities(network)[far], initial=0) < np.max(densities(network)[~far])


def test_short_periods_lose_groups():
    """Of planted groups more are kept the longer the period is, and a short one is noticed."""
    generator = np.random.default_rng(0)
    middles = 10.0 * generator.normal(size=(100, 8))
    patterns = middles[generator.integers(100, size=15000)] + generator.normal(size=(15000, 8))
    kept = []
    for period in (50, 500):
        network = learn(begin(KEY, patterns), patterns, Rules(period=period))
        found = find(network, middles)
        kept.append(int(np.sum(found.distances[:, 0] * network.scale < 5.0)))
    assert kept[0] < 0.8 * kept[1]
    assert kept[1] >= 95
    assert period_is_short(network, Rules(period=20))
    assert not period_is_short(network, Rules(period=10_000))


# Queries


def test_queries_are_those_of_the_definition(monkeypatch):
    patterns = lumps(noise=0.3)
    network = trimmed(learn(begin(KEY, patterns), patterns, Rules(period=100)))
    x = patterns / network.scale
    apart = cdist(x, network.weights)
    found = find(network, patterns)
    np.testing.assert_array_equal(found.winners, np.argsort(apart, axis=1, kind="stable")[:, :2])
    np.testing.assert_allclose(found.distances, np.sort(apart, axis=1)[:, :2], atol=1e-12)
    between = cdist(network.weights, network.weights)
    limits = np.array(
        [max(between[i, list(row)]) if row else np.partition(between[i], 1)[1]
         for i, row in enumerate(edges_of(network))]
    )  # fmt: skip
    labels, (d1, d2) = classes(network), found.distances.T
    first, second = found.winners.T
    regions = np.full(len(x), BOUNDARY)
    one = labels[first] == labels[second]
    regions[one & (d1 <= limits[first]) & (d2 <= limits[second])] = INSIDE
    regions[(d1 > 2 * limits[first]) | (d2 > 2 * limits[second])] = FAR
    np.testing.assert_array_equal(found.regions, regions)
    assert set(regions) == {INSIDE, BOUNDARY, FAR}
    np.testing.assert_array_equal(found.classes, labels[first])
    np.testing.assert_array_equal(found.densities, densities(network)[first])
    monkeypatch.setattr(esoinn_queries, "CHUNK", 97)
    for again in (find(network, patterns, threads=1), find(roomy(network, 2, 2), patterns)):
        assert all(np.array_equal(a, b) for a, b in zip(found, again, strict=True))


def test_nearest_classes_are_those_of_the_definition():
    patterns = lumps()
    network = trimmed(learn(begin(KEY, patterns), patterns))
    labels = classes(network)
    count = int(np.max(labels)) + 1
    assert count >= 3
    apart = cdist(patterns / network.scale, network.weights)
    of_class = np.stack([apart[:, labels == c].min(axis=1) for c in range(count)], axis=1)
    chosen, distances = nearest_classes(network, patterns, count + 2)
    np.testing.assert_array_equal(chosen[:, :count], np.argsort(of_class, axis=1, kind="stable"))
    np.testing.assert_allclose(distances[:, :count], np.sort(of_class, axis=1), atol=1e-12)
    assert np.all(chosen[:, count:] == -1)
    assert np.all(np.isinf(distances[:, count:]))
    assert nearest_classes(network, patterns[:0], 2)[0].shape == (0, 2)


def test_classes_are_connected_components_in_the_order_of_nodes():
    network = network_of([0, 1, 2, 3, 4], [(1, 3), (0, 4)])
    assert classes(network).tolist() == [0, 1, 2, 1, 0]


# What is refused


def test_what_cannot_be_used_is_refused():
    patterns = lumps(50)
    network = begin(KEY, patterns)
    with pytest.raises(BadInput, match="two patterns that differ, found 1"):
        begin(KEY, patterns[[0, 0]])
    with pytest.raises(BadInput, match="patterns of 4 numbers"):
        learn(network, patterns[:, :3])
    patterns[7, 1] = np.nan
    with pytest.raises(BadInput, match="row 7"):
        learn(network, patterns)
    with pytest.raises(BadInput, match="finite"):
        begin(KEY, patterns)
    with pytest.raises(BadInput, match="period"):
        esoinn(period=0)
    with pytest.raises(BadInput, match="noise_two"):
        esoinn(noise_two_neighbors=-1.0)
