"""What every selector promises, over the registry."""

import jax
import numpy as np
import pytest

from alj.selection import SELECTORS
from alj.types import Evidence

POOL = 30
SCORES = ("qs1", "qs1_saturated", "qs2", "qs2_largest", "qs2_sketched")
DRAWN = ("random", "kmeans_pp", "one_trajectory")
JUDGING = [
    builder
    for builder in SELECTORS
    if any(need in SCORES or need == "features" for need in builder().needs)
]
SETTINGS = {"along_path": {"reference_frames": 4, "deviations": 0.5}}


def evidence(count=POOL, seed=0):
    generator = np.random.default_rng(seed)
    return Evidence(
        energies=generator.normal(size=count),
        samplers=np.arange(count) % 2,
        walks=np.arange(count) % 3,
        spacing=generator.normal(size=count),
        variable=generator.normal(size=count),
        features=generator.normal(size=(count, 6)),
        known_features=generator.normal(size=(12, 6)),
        energy_spread=generator.uniform(size=count),
        force_spread=generator.uniform(size=(count, 5)),
        descriptors=generator.normal(size=(count, 4)),
        known_force_spread=generator.uniform(high=0.3, size=(12, 4)),
        atomic_energies=generator.normal(size=(count, 5)),
        gradient_features=generator.normal(size=(count, 8)),
        known_gradient_features=generator.normal(size=(12, 8)),
        species=np.tile([8, 1, 1], (count, 1)),
        force_deviation=generator.uniform(high=0.8, size=count),
        spectra=generator.normal(size=(count, 3)),
        regions=generator.integers(3, size=count),
        nodes=generator.integers(8, size=count),
        closest_radii=generator.uniform(0.5, 1.5, size=count),
        **{name: generator.exponential(size=count) for name in SCORES},
        **{f"known_{name}": generator.exponential(size=12) for name in SCORES},
    )


def permuted(known, order):
    rows = known._asdict()
    return Evidence(
        **{k: v if v is None or k.startswith("known") else v[order] for k, v in rows.items()}
    )


@pytest.mark.parametrize("builder", SELECTORS, ids=lambda b: b.__name__)
def test_selector_contract(builder):
    selector = builder(**SETTINGS.get(builder.__name__, {}))
    pool = evidence()
    for count in (1, 7, POOL, POOL + 5):
        chosen = np.asarray(selector.choose(jax.random.key(0), pool, count))
        real = chosen[chosen >= 0]
        assert chosen.shape == (count,)
        assert len(np.unique(real)) == len(real)
        assert real.size <= POOL
        assert np.all(real < POOL)
        # Padding only at the end.
        assert np.all(chosen[len(real) :] == -1)
    assert set(selector.needs) <= set(Evidence._fields)

    again = np.asarray(selector.choose(jax.random.key(0), pool, 7))
    np.testing.assert_array_equal(again, np.asarray(selector.choose(jax.random.key(0), pool, 7)))
    if builder.__name__ not in DRAWN:
        order = np.random.default_rng(1).permutation(POOL)
        moved = np.asarray(selector.choose(jax.random.key(0), permuted(pool, order), 7))
        assert set(order[moved[moved >= 0]]) == set(again[again >= 0])


def test_every_selector_survives_an_almost_empty_pool():
    # one that nobody knows, and whose atoms are not on top of each other
    one = evidence(1)._replace(force_deviation=np.array([0.7]), closest_radii=np.array([1.2]))
    for builder in SELECTORS:
        chosen = np.asarray(builder().choose(jax.random.key(0), one, 3))
        # the only frame of a walk does not stand out from its beginning
        assert chosen.tolist() == [-1 if builder.__name__ == "along_path" else 0, -1, -1]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("builder", JUDGING, ids=lambda b: b.__name__)
def test_what_cannot_be_judged_comes_last_and_is_counted(builder, bad):
    pool = evidence()
    for name in (*SCORES, "features"):
        values = np.array(getattr(pool, name))
        values[3] = bad
        values.T[..., 11] = bad
        pool = pool._replace(**{name: values})
    selector = builder()
    for count in (POOL - 2, POOL):
        chosen = np.asarray(selector.choose(jax.random.key(0), pool, count)).tolist()
        assert sorted(chosen[: POOL - 2]) == [i for i in range(POOL) if i not in (3, 11)]
        assert chosen[POOL - 2 :] == [3, 11][: count - POOL + 2]
    assert selector.report(pool)["not_finite"] == 2
