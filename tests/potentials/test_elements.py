"""Networks of elements, chosen while a program runs: the same numbers as every network for all."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from alj.potentials.elements import ByElement, by_element, listed

ATOMS, INPUTS = 13, 4


def network(kind, params, x):
    return jnp.tanh(x @ params["weights"][kind]) @ params["readout"][kind]


NETWORKS = [partial(network, kind) for kind in range(2)]


@pytest.fixture(params=["while it runs", "listed"])
def case(request):
    """Params and a description, of two elements and an atom of none."""
    rng = np.random.default_rng(1)
    params = {"weights": rng.normal(size=(2, INPUTS, 3)), "readout": rng.normal(size=(2, 3))}
    kinds = np.array([0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 2])
    of = kinds[:, None] == np.arange(2)[None]
    description = ByElement(rng.normal(size=(ATOMS, INPUTS)), of)
    if request.param == "listed":
        batch = listed(jax.tree.map(lambda leaf: leaf[None], description))
        description = jax.tree.map(lambda leaf: leaf[0], batch)
    return params, jax.tree.map(jnp.asarray, description)


def energies(description):
    return lambda params, x: by_element(description._replace(inputs=x), NETWORKS, params)


def plain(description):
    def every(params, x):
        each = [jnp.where(description.of[:, k], f(params, x), 0.0) for k, f in enumerate(NETWORKS)]
        return each[0] + each[1]

    return every


DERIVATIVES = {
    "value": lambda f: f,
    "inputs": lambda f: jax.jacrev(f, 1),
    "inputs forward": lambda f: jax.jacfwd(f, 1),
    "params": lambda f: jax.jacrev(f, 0),
    "both": lambda f: jax.jacrev(f, (0, 1)),
    "params of slopes": lambda f: jax.jacrev(lambda p, x: jax.grad(lambda y: f(p, y).sum())(x), 0),
    "inputs of slopes": lambda f: jax.jacrev(jax.grad(lambda p, x: f(p, x).sum(), 1), 1),
    "slopes of params": lambda f: jax.jacfwd(jax.grad(lambda p, x: f(p, x).sum(), 0), 1),
}


@pytest.mark.parametrize("name", DERIVATIVES)
def test_values_and_derivatives_are_those_of_all_networks_for_all_atoms(case, name):
    params, description = case
    found = jax.jit(DERIVATIVES[name](energies(description)))(params, description.inputs)
    expected = jax.jit(DERIVATIVES[name](plain(description)))(params, description.inputs)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-13)


def test_a_committee_in_a_batch(case):
    """Slopes of each member, for structures of different composition at once."""
    params, description = case
    many = jax.tree.map(lambda leaf: jnp.stack([leaf, 1.5 * leaf, leaf + 0.1]), params)
    turned = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), description)
    if not description.rows:
        turned = turned._replace(of=jnp.stack([description.of, description.of[:, ::-1]]))

    def slopes(which, params, one):
        return jax.grad(lambda x: which(one)(params, x).sum())(one.inputs)

    def all_of(which):
        over = jax.vmap(jax.vmap(partial(slopes, which), (0, None)), (None, 0))
        return jax.jit(over)(many, turned)

    np.testing.assert_allclose(all_of(energies), all_of(plain), rtol=1e-12, atol=1e-13)
