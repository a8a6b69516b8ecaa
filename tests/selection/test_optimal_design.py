"""Optimal design against explicit inverses, determinants and the greedy rule written plainly."""

import jax
import numpy as np
import pytest
import scipy.stats
from contracts.test_selectors import evidence

from alj.selection import d_optimal, feature_space, lazy_greedy, qs1, qs2, qs3
from alj.types import BadInput, Evidence

KEY = jax.random.key(0)


def correlated(count=400, known=60, size=12, seed=0, decay=0.3):
    """Features with directions of very different lengths, as networks have them."""
    generator = np.random.default_rng(seed)
    mixing = generator.normal(size=(size, size)) * np.exp(-decay * np.arange(size))[:, None]
    rows = generator.normal(size=(count + known, size)) @ mixing + 0.5
    return Evidence(
        features=rows[:count], known_features=rows[count:], samplers=np.arange(count) % 3
    )


def information(pool, prior):
    both = np.concatenate([pool.known_features, pool.features])
    size = both.shape[1]
    scale = np.trace(both.T @ both) / size
    return pool.known_features.T @ pool.known_features + prior * scale * np.eye(size)


def plain_greedy(pool, prior, count):
    """All variances before every pick, by explicit inverses; the first of equal ones."""
    matrix, chosen, rows = information(pool, prior), [], np.asarray(pool.features, float)
    for _ in range(count):
        q = np.einsum("nd,de,ne->n", rows, np.linalg.inv(matrix), rows)
        q[chosen] = -np.inf
        chosen.append(int(np.argmax(q >= np.max(q) * (1 - 1e-9))))
        matrix += np.outer(rows[chosen[-1]], rows[chosen[-1]])
    return chosen


def test_the_downdate_of_the_score_is_what_a_new_inverse_gives():
    pool = correlated()
    matrix, rows = information(pool, 1e-6), pool.features
    norms = feature_space.squared_norms(rows)
    np.testing.assert_allclose(
        feature_space.information(pool.known_features, norms, 1e-6), matrix, rtol=1e-12
    )
    lower = feature_space.factor(matrix)
    before = feature_space.variances(lower, rows.copy())
    for added in (0, 17, 399):
        covariance = feature_space.whiten(lower, rows.copy()) @ (np.linalg.inv(lower) @ rows[added])
        downdated = before - covariance**2 / (1 + before[added])
        grown = matrix + np.outer(rows[added], rows[added])
        inverted = np.einsum("nd,de,ne->n", rows, np.linalg.inv(grown), rows)
        np.testing.assert_allclose(downdated, inverted, rtol=1e-8)
        again = feature_space.variances(feature_space.factor(grown), rows.copy())
        np.testing.assert_allclose(again, inverted, rtol=1e-8)
        _, with_it = np.linalg.slogdet(grown)
        _, without = np.linalg.slogdet(matrix)
        np.testing.assert_allclose(with_it - without, np.log1p(before[added]), rtol=1e-8)


@pytest.mark.parametrize(("front", "block"), [(16384, 512), (16, 4), (1, 1), (30, 512)])
def test_lazy_picks_are_those_of_the_plain_rule(monkeypatch, front, block):
    monkeypatch.setattr(lazy_greedy, "FRONT", front)
    monkeypatch.setattr(lazy_greedy, "BLOCK", block)
    for seed, known in ((0, 60), (1, 3), (2, 0)):
        pool = correlated(known=known, seed=seed)
        chosen = d_optimal(prior=1e-4).choose(KEY, pool, 30)
        assert chosen.tolist() == plain_greedy(pool, 1e-4, 30)
    # Every structure stands three times in the pool: equal ones, of which the first is taken.
    rows = np.tile(correlated(count=40).features, (3, 1))
    pool = correlated()._replace(features=rows, samplers=np.zeros(120, int))
    chosen = d_optimal(prior=1e-2).choose(KEY, pool, 30).tolist()
    assert chosen == plain_greedy(pool, 1e-2, 30)
    # After the first of them its copies have less variance than it, not than all others.
    assert chosen[0] < 40


def test_equal_candidates_are_taken_in_their_order(monkeypatch):
    monkeypatch.setattr(lazy_greedy, "FRONT", 4)
    for row in (np.zeros(5), np.ones(5)):
        pool = Evidence(
            features=np.tile(row, (20, 1)), known_features=np.eye(5), samplers=np.zeros(20)
        )
        assert d_optimal().choose(KEY, pool, 6).tolist() == [0, 1, 2, 3, 4, 5]


def test_the_choice_determines_more_than_the_top_of_the_list_and_chance():
    for seed in range(5):
        pool = correlated(seed=seed)
        matrix = information(pool, 1e-6)

        def gained(chosen, pool=pool, matrix=matrix):
            rows = pool.features[chosen]
            return np.linalg.slogdet(matrix + rows.T @ rows)[1]

        greedy = gained(d_optimal().choose(KEY, pool, 15))
        q = np.einsum("nd,nd->n", pool.features @ np.linalg.inv(matrix), pool.features)
        assert greedy >= gained(np.argsort(-q)[:15])
        draws = np.random.default_rng(seed)
        assert greedy > max(gained(draws.choice(400, 15, replace=False)) for _ in range(50))


def test_rankings_do_not_hang_on_the_prior():
    pool = correlated(known=200, decay=0.1)
    assert np.linalg.cond(pool.known_features.T @ pool.known_features) < 1e4
    scores = []
    for prior in (1e-8, 1e-7, 1e-6, 1e-5, 1e-4):
        norms = feature_space.squared_norms(pool.features)
        matrix = feature_space.information(pool.known_features, norms, prior)
        scores.append(feature_space.variances(feature_space.factor(matrix), pool.features.copy()))
    for score in scores:
        assert scipy.stats.spearmanr(scores[2], score).statistic > 0.99


def test_duplicates_and_what_is_known_are_not_taken_again():
    pool = evidence()
    features = pool.features.copy()
    features[3] = features[11] = 100 * np.eye(6)[0]
    chosen = d_optimal().choose(KEY, pool._replace(features=features), 3)
    assert len({3, 11} & set(chosen.tolist())) == 1
    known = np.concatenate([pool.known_features, *[100 * np.eye(6)[:1]] * 20])
    chosen = d_optimal().choose(KEY, pool._replace(features=features, known_features=known), 6)
    assert {3, 11}.isdisjoint(chosen.tolist())


def test_the_count_is_shared_between_samplers():
    pool = evidence()
    features = pool.features * np.where(pool.samplers == 0, 1.0, 1e-3)[:, None]
    pool = pool._replace(features=features)
    free = d_optimal().choose(KEY, pool, 6)
    fair = d_optimal(balanced=True).choose(KEY, pool, 6)
    assert np.sum(pool.samplers[free] == 0) > 3
    assert np.sum(pool.samplers[fair] == 0) == 3


def test_gradient_features_are_asked_for_and_looked_at():
    pool = evidence()
    selector = d_optimal(features="gradient")
    assert selector.needs == ("gradient_features", "known_gradient_features", "samplers")
    moved = pool._replace(
        features=pool.gradient_features, known_features=pool.known_gradient_features
    )
    without = pool._replace(features=None, known_features=None)
    expected = d_optimal().choose(KEY, moved, 5).tolist()
    assert selector.choose(KEY, without, 5).tolist() == expected


def test_pools_on_disk_are_read_as_they_are(tmp_path):
    pool = correlated(count=5000)
    rows = pool.features.astype(np.float32)
    np.save(tmp_path / "rows.npy", rows)
    mapped = pool._replace(features=np.load(tmp_path / "rows.npy", mmap_mode="r"))
    expected = d_optimal().choose(KEY, pool._replace(features=rows), 20)
    np.testing.assert_array_equal(d_optimal().choose(KEY, mapped, 20), expected)


def test_strategies_rank_by_their_scores():
    pool = evidence()
    top = lambda score, count=7: np.argsort(-score, kind="stable")[:count].tolist()  # noqa: E731
    assert qs1().needs == ("qs1",)
    assert qs1().choose(KEY, pool, 7).tolist() == top(pool.qs1)
    assert qs2().choose(KEY, pool, 7).tolist() == top(pool.qs2)
    sketched = qs2(estimate="sketched")
    assert sketched.needs == ("qs2_sketched",)
    assert sketched.choose(KEY, pool, 7).tolist() == top(pool.qs2_sketched)
    largest = qs2(estimate="largest")
    assert largest.choose(KEY, pool, 7).tolist() == top(pool.qs2_largest)
    of_energy = pool.qs1_saturated
    assert qs3(beta=4.6).choose(KEY, pool, 7).tolist() == top(of_energy + 4.6 * pool.qs2)
    assert qs3().choose(KEY, pool, 7).tolist() == top(of_energy + 1.5 * pool.qs2)
    assert qs3(estimate="sketched").needs == ("qs1", "qs2_sketched")
    # q / (1 + q) of these is 1 in single precision; q still tells them apart.
    large = np.array([1e8, 3e8, 2e8, 3e8])
    assert qs1().choose(KEY, Evidence(qs1=large), 4).tolist() == [1, 3, 2, 0]
    report = qs1().report(pool)
    assert report["largest_score"] == pytest.approx(pool.qs1.max())
    assert report["median_score"] == pytest.approx(np.median(pool.qs1))


def test_only_informative_structures_pass_a_threshold():
    pool = Evidence(qs1=np.array([0.5, 3.0, 1.5, np.nan, 9.0]), known_qs1=np.array([1.0, 2.0, 9.0]))
    median = qs1(threshold="median")
    assert median.needs == ("qs1", "known_qs1")
    assert median.choose(KEY, pool, 4).tolist() == [4, 1, -1, -1]
    assert median.report(pool)["informative"] == pytest.approx(2 / 5)
    assert median.report(pool)["threshold"] == 2.0
    assert qs1(threshold="mean").choose(KEY, pool, 4).tolist() == [4, -1, -1, -1]
    with pytest.raises(BadInput, match="threshold"):
        median.choose(KEY, pool._replace(known_qs1=np.array([np.nan])), 2)


def test_bad_settings_and_diverged_training_are_one_line():
    with pytest.raises(BadInput, match="prior"):
        d_optimal(prior=0.0)
    with pytest.raises(BadInput, match="beta"):
        qs3(beta=-1.0)
    pool = evidence()
    known = pool.known_features.copy()
    known[5, 2] = np.nan
    with pytest.raises(BadInput, match="1 of 12 training structures"):
        d_optimal().choose(KEY, pool._replace(known_features=known), 3)
