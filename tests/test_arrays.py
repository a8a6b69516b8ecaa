"""Array functions: values and gradients where they are dangerous, sizes that come in buckets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alj import arrays


def test_the_norm_of_nothing_has_gradient_zero():
    vectors = jnp.asarray([[3.0, 4.0, 0.0], [0.0, 0.0, 0.0]])
    value, slope = jax.value_and_grad(lambda v: jnp.sum(arrays.safe_norm(v)))(vectors)
    assert float(value) == 5.0
    np.testing.assert_allclose(slope, [[0.6, 0.8, 0.0], [0.0, 0.0, 0.0]])


def test_a_power_below_one_of_zero_has_gradient_zero():
    base = jnp.asarray([0.0, 4.0])
    value, slope = jax.value_and_grad(lambda b: jnp.sum(arrays.safe_power(b, 0.5)))(base)
    assert float(value) == 2.0
    np.testing.assert_allclose(slope, [0.0, 0.25])


def test_second_derivatives_are_finite_too():
    hessian = jax.hessian(lambda v: jnp.sum(arrays.safe_norm(v) ** 2))(jnp.zeros((1, 3)))
    assert np.isfinite(hessian).all()


@given(st.integers(1, 10**9), st.integers(1, 100))
def test_a_bucket_holds_its_content_and_wastes_at_most_a_third(count, smallest):
    size = arrays.bucket(count, smallest)
    needed = max(count, smallest)
    assert needed <= size <= max(needed * 3 / 2, 2)
    assert arrays.bucket(size) == size
    assert arrays.bucket(count + 1, smallest) >= size


def test_there_are_few_buckets():
    assert len({arrays.bucket(count) for count in range(1, 1025)}) == 20


def test_padding_extends_one_axis():
    padded = arrays.pad_axis(np.ones((2, 3)), 5, -1.0, axis=1)
    assert padded.shape == (2, 5)
    assert (padded[:, 3:] == -1).all()
    assert (padded[:, :3] == 1).all()


def test_a_named_key_depends_on_its_name_alone():
    walk, choose = arrays.split_named(jax.random.key(0), "walk", "choose")
    (again,) = arrays.split_named(jax.random.key(0), "choose")
    data = jax.random.key_data
    np.testing.assert_array_equal(data(choose), data(again))
    assert not np.array_equal(data(walk), data(choose))


def test_stacking_and_taking_are_inverse():
    trees = [{"a": jnp.asarray([i, i + 1.0]), "b": jnp.asarray(i)} for i in range(3)]
    stacked = arrays.stack_trees(trees)
    assert stacked["a"].shape == (3, 2)
    taken = arrays.take_tree(stacked, 1)
    assert taken["b"] == 1
    np.testing.assert_array_equal(taken["a"], [1.0, 2.0])


@pytest.mark.parametrize("enable", [True, False])
def test_precision_is_scoped(enable):
    with arrays.double_precision(enable):
        inside = jnp.zeros(1).dtype
    assert inside == (jnp.float64 if enable else jnp.float32)
    assert jnp.zeros(1).dtype == jnp.float64


@pytest.mark.parametrize("rows", [6, 5])
def test_rows_are_shared_among_devices(rows):
    """Two host devices are there in the tests: an even number of rows is shared, others are not."""
    assert jax.device_count() == 2
    table = {"x": jnp.arange(3.0 * rows).reshape(rows, 3)}

    def each(shared, table):
        return jax.lax.map(lambda row: jnp.sum(jnp.sin(row["x"]) * shared), table)

    shared = jnp.asarray([1.0, 2.0, 3.0])
    found = jax.jit(lambda: arrays.across_devices(each, shared, table))()
    assert len(found.sharding.device_set) == (2 if rows == 6 else 1)
    np.testing.assert_array_equal(found, jax.jit(each)(shared, table))


@pytest.mark.parametrize(("dtype", "count"), [(jnp.float64, 16_385), (jnp.float32, 32_769)])
def test_this_jaxlib_sums_rightly(dtype, count):
    """As jaxlib 0.10.2 silently does not (jax issue 39103): products of small matrices, reduced."""
    numbers = jnp.arange(count, dtype=dtype)
    rows = jnp.stack([numbers, jnp.zeros_like(numbers), jnp.zeros_like(numbers)], axis=1)
    unit = jnp.eye(3, dtype=dtype)
    found = jax.jit(jax.vmap(lambda row: jnp.sum((unit @ row) ** 2)))(rows)
    np.testing.assert_allclose(found, numbers**2, rtol=1e-6)


def test_this_jaxlib_survives_sums_of_many_axes():
    """As jaxlib 0.10.2 and 0.11.0 do not (jax issue 39257); the crash comes later, elsewhere."""
    shape = (3, 1, 2, 2, 8, 8, 8)
    one, other = (jax.random.normal(jax.random.key(seed), shape, jnp.float32) for seed in (0, 1))
    found = jax.jit(lambda a, b: jnp.sum(a * b, axis=3))(one, other)
    expected = np.sum(np.asarray(one) * np.asarray(other), axis=3)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
