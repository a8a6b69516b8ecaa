"""Choices by distance against the algorithms written literally, over all pairs."""

import jax
import numpy as np
import pytest
from contracts.test_selectors import evidence

from alj.selection import diversity, kmeans_pp, lcmd, max_dist
from alj.types import BadInput, Evidence

KEY = jax.random.key(3)
BUILDERS = (max_dist, lcmd, kmeans_pp)


def clustered(count=300, known=25, size=5, seed=0, dtype=np.float64):
    """A pool in lumps of different width and number; the training set lies in some of them."""
    generator = np.random.default_rng(seed)
    middles = 4 * generator.normal(size=(6, size))
    widths = np.array([0.1, 0.3, 1.0, 1.0, 2.0, 3.0])
    lump = generator.choice(6, count, p=[0.3, 0.3, 0.2, 0.1, 0.06, 0.04])
    rows = middles[lump] + widths[lump, None] * generator.normal(size=(count, size))
    at = generator.choice(3, known)
    learned = middles[at] + 0.5 * generator.normal(size=(known, size))
    return Evidence(features=rows.astype(dtype), known_features=learned.astype(dtype))


def squared_distances(rows, centers):
    return np.sum((rows[:, None, :] - centers[None, :, :]) ** 2, axis=-1)


def literal(rule, evidence, count, draws=None):
    """Holzmüller et al., algorithms 4, 7 and 6: all distances anew before every pick."""
    rows = np.asarray(evidence.features, float)
    centers = [*np.asarray(evidence.known_features, float).reshape(-1, rows.shape[1])]
    left, chosen = list(range(len(rows))), []
    for step in range(count):
        if centers:
            square = squared_distances(rows[left], np.array(centers))
            nearest = np.min(square, axis=1)
        elif rule == "kmeans_pp":
            nearest = np.ones(len(left))
        else:
            nearest = np.sum(rows[left] ** 2, axis=1)
        if rule == "max_dist" or (rule == "lcmd" and not centers):
            place = int(np.argmax(nearest))
        elif rule == "lcmd":
            cluster = np.argmin(square, axis=1)
            sizes = [np.sum(nearest[cluster == c]) for c in range(len(centers))]
            place = int(np.argmax(np.where(cluster == np.argmax(sizes), nearest, -1.0)))
        else:
            shares = np.cumsum(nearest / np.sum(nearest))
            place = int(np.flatnonzero(shares > draws[step])[0])
        chosen.append(left.pop(place))
        centers.append(rows[chosen[-1]])
    return chosen


def draws_of(key, count):
    return np.random.default_rng(np.asarray(jax.random.key_data(key), np.uint32)).random(count)


def test_the_first_farthest_point_is_the_farthest_from_the_training_set():
    for seed in range(10):
        pool = clustered(seed=seed)
        square = squared_distances(pool.features, pool.known_features).min(axis=1)
        assert max_dist().choose(KEY, pool, 1).tolist() == [int(np.argmax(square))]
    # Alone a structure that is known already would be an outlier.
    pool = Evidence(features=np.array([[9.0], [1.0], [2.5]]), known_features=np.array([[9.0]]))
    assert max_dist().choose(KEY, pool, 3).tolist() == [1, 2, 0]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("known", [25, 1, 0])
@pytest.mark.parametrize("builder", BUILDERS, ids=lambda b: b.__name__)
def test_picks_are_those_of_the_literal_algorithm(builder, known, dtype, monkeypatch):
    monkeypatch.setattr(diversity, "CENTERS", 7)
    for seed in range(4):
        pool = clustered(known=known, seed=seed, dtype=dtype)
        chosen = builder().choose(KEY, pool, 20).tolist()
        assert chosen == literal(builder.__name__, pool, 20, draws_of(KEY, 20))


@pytest.mark.parametrize("builder", BUILDERS, ids=lambda b: b.__name__)
def test_posterior_space_is_plain_space_of_whitened_features(builder):
    pool = clustered()
    both = np.concatenate([pool.known_features, pool.features])
    scale = np.trace(both.T @ both) / both.shape[1]
    matrix = pool.known_features.T @ pool.known_features + 1e-6 * scale * np.eye(5)
    inverse = np.linalg.inv(np.linalg.cholesky(matrix))
    whitened = Evidence(
        features=pool.features @ inverse.T, known_features=pool.known_features @ inverse.T
    )
    chosen = builder(space="posterior").choose(KEY, pool, 20).tolist()
    assert chosen == literal(builder.__name__, whitened, 20, draws_of(KEY, 20))
    assert chosen != builder().choose(KEY, pool, 20).tolist()


def test_a_cluster_counts_by_its_sum():
    # Twenty candidates at a distance of 1 from one center, one at 3 from the other.
    rows = np.array([[1.0]] * 20 + [[103.0]])
    pool = Evidence(features=rows, known_features=np.array([[0.0], [100.0]]))
    assert lcmd().choose(KEY, pool, 3).tolist() == [0, 20, 1]
    assert max_dist().choose(KEY, pool, 3).tolist() == [20, 0, 1]


def test_draws_follow_the_squared_distance():
    rows = np.array([[0.0], [1.0], [2.0], [3.0]])
    pool = Evidence(features=rows, known_features=np.zeros((1, 1)))
    keys = jax.random.split(KEY, 1400)
    first = np.array([kmeans_pp().choose(key, pool, 1)[0] for key in keys])
    counts = np.bincount(first, minlength=4)
    expected = 1400 * np.array([0.0, 1.0, 4.0, 9.0]) / 14
    assert counts[0] == 0
    assert np.all(np.abs(counts - expected) < 5 * np.sqrt(expected) + 1e-9)


def test_a_far_origin_does_not_blur_small_distances():
    pool = clustered(dtype=np.float64)
    far = pool._replace(features=pool.features + 1e5, known_features=pool.known_features + 1e5)
    for builder in (max_dist, lcmd):
        near = builder().choose(KEY, pool, 15).tolist()
        assert builder().choose(KEY, far, 15).tolist() == near


@pytest.mark.parametrize("builder", BUILDERS, ids=lambda b: b.__name__)
def test_copies_come_last_in_their_order(builder):
    pool = evidence()
    features = np.concatenate([pool.features[:5], pool.known_features[:3], pool.features[:2]])
    pool = Evidence(features=features, known_features=pool.known_features)
    chosen = builder().choose(KEY, pool, 10).tolist()
    assert {0, 1, 2, 3, 4} == {pick if pick < 5 else pick - 8 for pick in chosen[:5]}
    assert chosen[5:] == sorted(chosen[5:])


def test_gradient_features_disk_and_bad_input(tmp_path):
    pool = evidence()
    selector = lcmd(features="gradient")
    assert selector.needs == ("gradient_features", "known_gradient_features")
    moved = Evidence(features=pool.gradient_features, known_features=pool.known_gradient_features)
    expected = lcmd().choose(KEY, moved, 6).tolist()
    assert selector.choose(KEY, pool, 6).tolist() == expected
    np.save(tmp_path / "rows.npy", pool.gradient_features.astype(np.float32))
    mapped = pool._replace(gradient_features=np.load(tmp_path / "rows.npy", mmap_mode="r"))
    for space in ("plain", "posterior"):
        chosen = lcmd(features="gradient", space=space)
        expected = chosen.choose(KEY, pool, 6).tolist()
        assert chosen.choose(KEY, mapped, 6).tolist() == expected
    with pytest.raises(BadInput, match="prior"):
        max_dist(prior=0.0)
    broken = pool._replace(known_features=np.full((12, 6), np.nan))
    for builder in BUILDERS:
        with pytest.raises(BadInput, match="known_features: expected finite"):
            builder().choose(KEY, broken, 2)
