"""SOAP: the overlap of densities, integrated by other means, and by another program."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from potentials.liquids import liquid, structure, table
from scipy.spatial.transform import Rotation

from alj.geometry.environment import environment
from alj.potentials.soap import edges, expansion, power_spectra, soap, spectrum, unpacked
from alj.types import BadInput

TABLE_3 = {"cutoff_A": 6.5, "transition_A": 0.5, "sigma_A": 0.825, "n_max": 8, "l_max": 6}
SALT = (11, 17)


def spectra(about, s, reach=40):
    found = jax.jit(
        lambda s, n: power_spectra(about, environment(s, n, about.cutoff))
    )(s, table(s, about.cutoff, reach))  # fmt: skip
    return np.asarray(found)


def test_the_kernel_is_the_rotational_average_of_squared_overlaps():
    """Two surroundings turned against each other: ∫dR |∫ρ ρ'_R|², from Gaussians alone.

    ∫ exp(-|r-a|²/2σ²) exp(-|r-b|²/2σ²) d³r ∝ exp(-|a-b|²/4σ²), summed over pairs of one element,
    needs neither radial functions nor harmonics.
    """
    about = soap((8, 1), cutoff_A=6.0, transition_A=0.1, sigma_A=0.9, n_max=10, l_max=9)
    generator = np.random.default_rng(0)
    kinds = np.array([8, 1, 8, 1])
    clusters = [
        np.concatenate([np.zeros((1, 3)), generator.normal(scale=1.2, size=(3, 3))])
        for _ in range(3)
    ]
    p = np.stack([spectra(about, structure(each, kinds), 8)[0] for each in clusters])
    turns = Rotation.random(20_000, rng=1).as_matrix()

    def overlap(one, other):
        turned = np.einsum("rxy,jy->rjx", turns, other)
        squares = np.sum((one[None, :, None] - turned[:, None]) ** 2, axis=-1)
        same = kinds[:, None] == kinds[None]
        # Densities of different elements are different functions: products of their overlaps.
        return np.mean(np.sum(np.exp(-squares / (4 * 0.9**2)) * same[None], axis=(1, 2)) ** 2)

    raw = np.array([[overlap(a, b) for b in clusters] for a in clusters])
    size = np.sqrt(np.diag(raw))
    np.testing.assert_allclose(p @ p.T, raw / size[:, None] / size[None], atol=0.01)
    assert np.min(p @ p.T) < 0.9


def test_the_kernel_of_another_program():
    """dscribe's, in another radial basis, both large enough; every atom well within the cutoff."""
    given = json.loads((Path(__file__).parents[1] / "data" / "dscribe_soap.json").read_text())
    kinds = np.array([{"Na": 11, "Cl": 17}[symbol] for symbol in given["symbols"]])
    settings = {**TABLE_3, "cutoff_A": 8.0, "n_max": 11}
    p = spectra(soap(SALT, **settings), structure(np.array(given["positions_A"]), kinds), 8)
    np.testing.assert_allclose(p @ p.T, given["kernel"], atol=5e-5)


def test_tabulated_functions_are_the_integrals():
    """R_nl Y_lm against three-dimensional quadrature of g_n Y_lm and a shifted Gaussian."""
    about = soap((8,), cutoff_A=4.0, transition_A=0.5, sigma_A=0.6, n_max=3, l_max=2)
    place = np.array([0.7, -1.1, 1.4])
    radial, angular = edges(about, jnp.asarray(place)[None], jnp.array([True]))
    found = np.asarray(radial)[0][:, [0, 1, 1, 1, 2, 2, 2, 2, 2]] * np.asarray(angular)
    axis = np.arange(-9.0, 9.0, 0.2)
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    distance = np.linalg.norm(grid, axis=1)
    bells = np.exp(-0.5 * ((distance[None] - np.linspace(0, 4.0, 3)[:, None]) / 0.6) ** 2)
    values, vectors = np.linalg.eigh(bells @ bells.T * 0.2**3 / (4 * np.pi))
    basis = vectors @ np.diag(values**-0.5) @ vectors.T @ bells
    x, y, z = (grid / np.maximum(distance, 1e-9)[:, None]).T
    density = np.exp(-0.5 * np.sum((grid - place) ** 2, axis=1) / 0.36) * 0.2**3
    s = np.sqrt(1 / (4 * np.pi))
    # e3x without its Cartesian order: m = -l … l.
    harmonics = s * np.stack([
        np.ones_like(x), 3**0.5 * y, 3**0.5 * z, 3**0.5 * x,
        15**0.5 * x * y, 15**0.5 * y * z, 5**0.5 / 2 * (3 * z * z - 1), 15**0.5 * x * z,
        15**0.5 / 2 * (x * x - y * y),
    ])  # fmt: skip
    expected = np.einsum("np,mp,p->nm", basis, harmonics, density)
    np.testing.assert_allclose(found, expected, atol=2e-3 * np.abs(expected).max())


def test_rotations_mirrors_and_exchange_change_nothing():
    about = soap(SALT, **TABLE_3)
    s = liquid(3, species=SALT)
    p = spectra(about, s, 160)
    np.testing.assert_allclose(np.sum(p**2, axis=1), 1.0, rtol=1e-12)
    turn = Rotation.random(rng=4).as_matrix() @ np.diag([1.0, 1.0, -1.0])
    turned = s._replace(positions=s.positions @ turn, cell=s.cell @ turn)
    np.testing.assert_allclose(spectra(about, turned, 160), p, atol=1e-12)
    order = np.random.default_rng(5).permutation(12)
    mixed = s._replace(positions=s.positions[order], species=s.species[order])
    np.testing.assert_allclose(spectra(about, mixed, 160), p[order], atol=1e-12)
    swapped = s._replace(species=28 - s.species)
    assert np.abs(spectra(about, swapped, 160) - p).max() > 0.01


@pytest.mark.parametrize("channels", [(2, 1), (3, 1), (2, 2)])
def test_unpacked_is_the_derivative(channels):
    n_max, kinds = channels
    about = soap((8, 1)[:kinds], cutoff_A=4.0, transition_A=1.0, sigma_A=0.5, n_max=n_max, l_max=2)
    s = liquid(2, species=about.species)
    c = expansion(about, environment(s, table(s, 4.0, 40), 4.0))[:3]
    vectors = jax.random.normal(jax.random.key(0), (2, about.width))
    slope = jax.grad(lambda c, v: jnp.sum(spectrum(about, c) @ v))
    degrees = np.array([0, 1, 1, 1, 2, 2, 2, 2, 2])
    for place, matrix in enumerate(unpacked(about, vectors)):
        expected = jnp.einsum("mab,ibm->iam", matrix[degrees], c)
        np.testing.assert_allclose(slope(c, vectors[place]), expected, rtol=1e-10, atol=1e-12)


def test_settings_out_of_range():
    for change in ({"transition_A": 0.0}, {"sigma_A": 7.0}, {"n_max": 0}, {"l_max": 11}):
        with pytest.raises(BadInput):
            soap(SALT, **{**TABLE_3, **change})
