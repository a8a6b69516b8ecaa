"""Springs and the disagreement of a committee as biases: distributions, forces, what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from sampling.springs import begin, clusters, springs
from sampling.wells import at_rest, stiffnesses, wells

from alj import registry
from alj.potentials.combine import committee, local
from alj.sampling import SAMPLERS
from alj.sampling.metadynamics import metadynamics
from alj.sampling.umbrella import umbrella
from alj.sampling.uncertainty_bias import uncertainty_bias
from alj.sampling.variables import Variable
from alj.stepping import run
from alj.types import BadInput, Context, Structure
from alj.units import BOLTZMANN

KEY = jax.random.key(9)
TEMPERATURE = 600.0
ENERGY = BOLTZMANN * TEMPERATURE
BATH = {"name": "nvt_langevin", "timestep_fs": 4.0, "skin_A": 5.0, "drift": "keep"}
BATH |= {"temperature_K": TEMPERATURE, "friction_time_fs": 50.0}


def across(structure: Structure, start=None):
    return structure.positions[0, 0]


ALONG = Variable(across, "x", "Å", atoms=(0,))


def test_umbrellas_are_exact_in_a_harmonic_well():
    """Springs k and K: the mean is K c/(k + K), the variance kT/(k + K); each walk its window."""
    stiff, windows, count = 3.0, (-0.4, 0.3), 1024
    potential = wells(1)
    sampler = umbrella(
        potential,
        variable=ALONG,
        windows=windows,
        stiffness_eV_per_A2=stiff,
        dynamics=BATH | {"steps": 500, "record_every": 500},
    )
    stepper, state, context = begin(sampler, potential, at_rest(count, 1))
    _, frames = run(stepper, KEY, state, context, steps=1)
    assert not frames.stopped.any()
    seen = frames.observed
    own = stiffnesses(1)[0, 0]
    for index, window in enumerate(windows):
        values = seen.value[0, index::2]
        exact = scipy.stats.norm(stiff * window / (own + stiff), np.sqrt(ENERGY / (own + stiff)))
        assert scipy.stats.kstest(values, exact.cdf).pvalue > 1e-3
        assert scipy.stats.kstest(values, scipy.stats.norm(0, exact.std()).cdf).pvalue < 1e-3
        np.testing.assert_allclose(seen.anchor[0, index::2], window)
    np.testing.assert_allclose(seen.bias_energy, 0.5 * stiff * (seen.value - seen.anchor) ** 2)
    np.testing.assert_allclose(seen.bias_energy, frames.external_energy, rtol=1e-9)


def test_a_center_that_moves_does_the_work_that_is_known():
    """In a harmonic well the free energy is ½ kK/(k + K) c²; work obeys Jarzynski's equality."""
    stiff, far, count = 3.0, 0.3, 1024
    potential = wells(1)
    sampler = umbrella(
        potential,
        variable=ALONG,
        center=(0.0, far),
        stiffness_eV_per_A2=stiff,
        dynamics=BATH | {"steps": 30, "record_every": 15},
    )
    start = at_rest(count, 1)
    own = stiffnesses(1)[0, 0]
    drawn = np.random.default_rng(2).normal(size=count) * np.sqrt(ENERGY / (own + stiff))
    start = start._replace(positions=start.positions.at[:, 0, 0].set(drawn))
    stepper, state, context = begin(sampler, potential, start)
    _, frames = run(stepper, KEY, state, context, steps=2)
    np.testing.assert_allclose(frames.observed.anchor[:, 0], [0.5 * far, far])
    work = frames.observed.work[-1] / ENERGY
    exact = 0.5 * own * stiff / (own + stiff) * far**2 / ENERGY
    assert 0.5 < exact < 3.0
    weights = np.exp(-(work - exact))
    assert abs(weights.mean() - 1.0) < 4 * weights.std() / np.sqrt(count)
    assert weights.std() / np.sqrt(count) < 0.1
    # the work of a harmonic system is Gaussian and dissipates half its variance over kT
    assert work.mean() > exact + 4 * work.std() / np.sqrt(count)
    assert abs(work.mean() - 0.5 * work.var() - exact) < 0.2


SCALES = jnp.asarray([0.8, 1.0, 1.3])


def several():
    """Springs of three strengths, their mean, and the params of all."""
    mean = committee(springs())
    return mean, {"body": {"spring": 0.5 * SCALES}, "readout": {}, "constants": {}}


@pytest.mark.parametrize("of", ["energy", "forces"])
@pytest.mark.parametrize("cap_eV", [None, 0.05])
def test_the_bias_is_minus_the_spread_and_its_force_the_difference(of, cap_eV):
    mean, params = several()
    sampler = uncertainty_bias(
        mean, strength=2.0, of=of, cap_eV=cap_eV, dynamics=BATH | {"steps": 1, "record_every": 1}
    )
    context = Context(params=params)
    init = jax.jit(sampler.stepper.init)

    def walk_at(positions):
        structure = clusters(1, atoms=3)._replace(positions=positions[None])
        start = jax.tree.map(lambda leaf: leaf[0], sampler.place(structure))
        return init(KEY, start, context)

    positions = np.asarray(clusters(1, atoms=3).positions[0])
    walk = walk_at(jnp.asarray(positions))
    # by hand: energies and forces are those of springs of unit strength, times the strengths
    apart = positions - positions.mean(axis=0)
    spread = np.std(0.5 * SCALES, ddof=1)
    energy = 0.5 * 3 * np.sum(apart**2) * spread
    force = np.sqrt(np.mean(np.sum((3 * apart) ** 2, axis=1))) * spread
    depth = 2.0 * (energy if of == "energy" else force)
    expected = -depth if cap_eV is None else -cap_eV * (1 - np.exp(-depth / cap_eV))
    np.testing.assert_allclose(walk.external, expected, rtol=1e-10)
    found = np.zeros_like(positions)
    for index in np.ndindex(positions.shape):
        step = np.zeros_like(positions)
        step[index] = 1e-4
        totals = [walk_at(jnp.asarray(positions + s * step)) for s in (1, -1)]
        high, low = (float(each.energy + each.external) for each in totals)
        found[index] = -(high - low) / 2e-4
    np.testing.assert_allclose(walk.forces, found, atol=1e-7)


@pytest.mark.slow
def test_the_bias_leads_to_where_members_disagree():
    """Weaker springs by the bias: the spread of a biased walk is larger, by what is known."""
    mean, params = several()
    spreads = {}
    for strength in (0.001, 1.0):
        sampler = uncertainty_bias(
            mean,
            strength=strength,
            dynamics=BATH | {"steps": 300, "record_every": 150, "drift": "automatic"},
        )
        stepper, state, context = begin(
            sampler, mean._replace(init=lambda key: params), clusters(512, atoms=3)
        )
        _, frames = run(stepper, KEY, state, context, steps=2)
        assert not frames.stopped.any()
        spreads[strength] = frames.observed.spread[-1]
    # U = ½ (k - τ σ_k) 3 Σ |r|²: six degrees of freedom with 3 kT on average
    middle, sigma = 0.5 * float(SCALES.mean()), 0.5 * float(np.std(SCALES, ddof=1))
    for strength, found in spreads.items():
        exact = 3 * ENERGY * sigma / (middle - strength * sigma)
        noise = found.std(ddof=1) / np.sqrt(len(found))
        assert abs(found.mean() - exact) < 4 * noise
    assert spreads[1.0].mean() > 1.2 * spreads[0.001].mean()


@pytest.mark.slow
def test_members_that_agree_are_no_trouble():
    mean, params = several()
    equal = jax.tree.map(jnp.ones_like, params)
    for of in ("energy", "forces"):
        sampler = uncertainty_bias(mean, of=of, dynamics=BATH | {"steps": 2, "record_every": 1})
        stepper, state, context = begin(sampler, mean._replace(init=lambda key: equal), clusters(2))
        after, frames = run(stepper, KEY, state, context, steps=2)
        assert not frames.stopped.any()
        # rounding of the mean is all that members of equal params differ by
        np.testing.assert_allclose(frames.external_energy, 0.0, atol=1e-12)
        apart = after.structure.positions - after.structure.positions.mean(axis=1, keepdims=True)
        np.testing.assert_allclose(after.forces, -4.0 * apart, atol=1e-10)


def test_the_bias_of_what_labels_leave_unknown():
    """-τ [L gᵀ A⁻¹ g]^½ of one network with two last weights, and its force, by hand."""

    def atomic(params, environment):
        squares = jnp.sum(environment.vectors**2, axis=-1)
        squares = jnp.where(environment.neighbor_species > 0, squares, 0.0)
        sums = jnp.stack([jnp.sum(squares, -1), jnp.sum(squares**2, -1)], axis=-1)
        return sums @ params["readout"]["weights"]

    mean = committee(local(atomic, cutoff=8.0, init=springs().init))
    params = {"body": {}, "readout": {"weights": jnp.array([[0.1, 0.02]])}, "constants": {}}
    information, noise = np.array([[3.0, 1.0], [1.0, 2.0]]), 0.04
    targets = {
        "information": (jnp.linalg.cholesky(information)[None], jnp.array([noise])),
        "floor_eV_per_atom": jnp.asarray(-jnp.inf),
    }
    dynamics = BATH | {"steps": 1, "record_every": 1}
    sampler = uncertainty_bias(mean, strength=2.0, of="fisher", dynamics=dynamics)
    assert sampler.targets == ("information",)
    init = jax.jit(sampler.stepper.init)
    positions = np.asarray(clusters(1, atoms=3).positions[0])

    def walk_at(points, targets=targets):
        structure = clusters(1, atoms=3)._replace(positions=jnp.asarray(points)[None])
        start = jax.tree.map(lambda leaf: leaf[0], sampler.place(structure))
        return init(KEY, start, Context(params=params, targets=targets))

    def bias(points):
        squares = np.sum((points[:, None] - points[None]) ** 2, axis=-1)
        row = np.array([squares.sum(), (squares**2).sum()])
        return -2.0 * np.sqrt(noise * row @ np.linalg.solve(information, row))

    walk = walk_at(positions)
    np.testing.assert_allclose(walk.external, bias(positions), rtol=1e-9)
    step = np.zeros_like(positions)
    step[1, 2] = 1e-5
    high, low = (walk_at(positions + sign * step) for sign in (1, -1))
    slope = -(high.energy + high.external - low.energy - low.external) / 2e-5
    np.testing.assert_allclose(walk.forces[1, 2], slope, rtol=1e-5)
    with pytest.raises(BadInput, match="only a campaign knows"):
        walk_at(positions, None)


def test_a_committee_is_needed():
    with pytest.raises(BadInput, match="expected the mean of a committee"):
        uncertainty_bias(springs())
    mean, params = several()
    single = jax.tree.map(lambda leaf: leaf[:1], params)
    with pytest.raises(BadInput, match="at least 2 members, found one"):
        begin(uncertainty_bias(mean), mean._replace(init=lambda key: single), clusters(1))


NEAR = {"name": "distance", "atoms": [0, 1]}


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"name": "umbrella", "variable": NEAR}, "sampler: center: .* found neither"),
        ({"name": "umbrella", "center": 1.0}, "sampler.variable: missing"),
        (
            {"name": "umbrella", "variable": {**NEAR, "atoms": [0]}, "center": 1.0},
            r"sampler.variable.atoms: expected list of 2",
        ),
        (
            {"name": "umbrella", "variable": NEAR, "center": 1.0, "stiffness_eV_per_A2": 0.0},
            "stiffness_eV_per_A2: expected a positive",
        ),
        (
            {"name": "metadynamics", "variables": [NEAR], "widths": [0.1, 0.1]},
            "widths: expected a positive number for each of 1",
        ),
        (
            {"name": "metadynamics", "variables": [{**NEAR, "atom": 0}], "widths": [0.1]},
            r"sampler: variables\[0\].atom: unknown key",
        ),
        (
            {"name": "metadynamics", "variables": [NEAR], "widths": [0.1], "bias_factor": 1.0},
            "bias_factor: expected a number above 1",
        ),
        (
            {"name": "metadynamics", "variables": [NEAR], "widths": [0.1]}
            | {"dynamics": {"name": "nvt_langevin", "temperature_K": [300.0, 500.0]}},
            "bias_factor: expected a dynamics at one temperature",
        ),
        (
            {"name": "replica_exchange", "temperatures_K": [300.0, 300.0]},
            "temperatures_K: expected two or more positive temperatures that rise",
        ),
        ({"name": "replica_exchange", "dynamics": "nve"}, "one that samples an ensemble"),
        ({"name": "uncertainty_bias", "dynamics": "nve"}, "mean of a committee"),
    ],
)
def test_settings_that_cannot_be_are_refused(spec, said):
    with pytest.raises(BadInput, match=said):
        registry.build(SAMPLERS, spec, springs(), where="sampler")


def test_absent_atoms_are_refused_where_a_walk_is_placed():
    wanted = {"name": "distance", "atoms": [0, 4]}
    for sampler in (
        umbrella(springs(), variable=wanted, center=1.0),
        metadynamics(springs(), variables=(wanted,), widths=(0.1,)),
    ):
        with pytest.raises(BadInput, match="names atom 4: expected indices from 0 to 3"):
            sampler.place(clusters(1))


def test_configurations_are_filled_in_and_built():
    spec = {"name": "metadynamics", "variables": [NEAR], "widths": [0.1], "dynamics": "nvt_csvr"}
    resolved = registry.resolve(SAMPLERS, spec)
    assert resolved["dynamics"]["coupling_time_fs"] == 100.0
    assert resolved["variables"] == [NEAR]
    sampler = registry.build(SAMPLERS, resolved, springs())
    assert sampler.steps == 1000
    resolved = registry.resolve(SAMPLERS, {"name": "umbrella", "variable": NEAR, "center": 1.0})
    assert resolved["center"] == 1.0
    registry.build(SAMPLERS, resolved, springs())
