"""Pulls, starts and barriers of alkanes, by a network or by the reference engine alike.

Every function is a job of its own: it takes names of files and plain settings, and gives arrays.
"""

from typing import Any

import numpy as np

CARBON, HYDROGEN = 6, 1
BOND_LIMIT_A = 2.5
"""A carbon–carbon bond longer than this is broken."""


def alkane(carbons: int) -> tuple[np.ndarray, np.ndarray]:
    """Atomic numbers and positions (Å) of an all-trans chain, carbons first."""
    bond, reach, half = 1.53, 1.095, np.radians(56.0)
    sites = np.arange(carbons + 2)
    # a zigzag whose first and last sites are hydrogens, drawn nearer
    zigzag = np.stack([sites * bond * np.sin(half), sites % 2 * bond * np.cos(half), 0 * sites], 1)
    chain = zigzag[1:-1]
    ends = [
        chain[near] + reach / bond * (zigzag[far] - chain[near]) for near, far in ((0, 0), (-1, -1))
    ]
    lean, side = reach * np.cos(np.radians(53.5)), reach * np.sin(np.radians(53.5))
    beside = [
        place + np.array([0.0, lean if index % 2 == 0 else -lean, sign * side])
        for index, place in enumerate(chain)
        for sign in (1, -1)
    ]
    species = np.array([CARBON] * carbons + [HYDROGEN] * (2 * carbons + 2))
    return species, np.vstack([chain, ends, beside])


def relaxed(labeler: dict, carbons: int) -> dict[str, np.ndarray]:
    """The all-trans chain at the engine's minimum of energy."""
    species, positions = alkane(carbons)
    # out of the symmetry, which a minimization would keep
    positions = positions + np.random.default_rng(0).normal(0.0, 0.02, positions.shape)
    frames = walked(
        {"labeler": labeler}, {"name": "fire", "steps": 400, "record_every": 20},
        species, positions[None],
    )  # fmt: skip
    last = {name: frames[name][-1, 0] for name in ("positions", "energy")}
    return {"species": species, **last}


def frames_of(
    labeler: dict, engine: dict, species, positions, count: int, sampler: dict, seed: int
) -> dict[str, np.ndarray]:
    """Structures that the engine's own dynamics visits, evenly spaced, with labels."""
    from alj.labeling import build_labeler
    from alj.types import Structure

    frames = walked({"labeler": engine}, sampler, species, positions[None], seed=seed)
    chosen = np.linspace(0, len(frames["energy"]) - 1, count).astype(int)
    asked = build_labeler(labeler)
    found = [
        asked.label(Structure(frames["positions"][i, 0], species, np.zeros((3, 3)), 0, 0))
        for i in chosen
    ]
    return {
        "positions": frames["positions"][chosen, 0],
        "energy": np.array([labels.energy for labels in found]),
        "forces": np.array([labels.forces for labels in found]),
    }


def settled(labeler: dict, species, positions, sampler: dict, seed: int) -> dict[str, np.ndarray]:
    """Positions and velocities after relaxing in the engine's own dynamics."""
    frames = walked({"labeler": labeler}, sampler, species, positions[None], seed=seed)
    return {"positions": frames["positions"][-1, 0], "velocities": frames["velocities"][-1, 0]}


def walked(model: dict, sampler: dict, species, positions, velocities=None, seed: int = 0):
    """The frames of a sampler from given positions (walks, atoms, 3), velocities in Å/fs.

    `model` is `{"labeler": section}`, or `{"state": file of a campaign's state, "config": its
    potential, "members": "best_forces", "all" (the mean), or "each" (a walk for each member)}`.
    """
    from alj.cli.environment import prepare

    prepare()
    import jax
    import jax.numpy as jnp

    from alj import registry
    from alj.sampling import SAMPLERS
    from alj.stepping import batched, run
    from alj.types import Context, Structure

    potential, params = subject(model)
    built = registry.build(SAMPLERS, sampler, potential, where="sampler")
    walks = len(positions)
    dtype = model.get("precision", "float64")
    start = Structure(
        jnp.asarray(positions, dtype),
        jnp.asarray(np.tile(species, (walks, 1)), jnp.int32),
        jnp.zeros((walks, 3, 3), dtype),
        jnp.zeros(walks, jnp.int32),
        jnp.zeros(walks, jnp.int32),
    )
    placed = built.place(start)
    if velocities is not None:
        placed = moving(placed, jnp.asarray(velocities, dtype))
    stepper, context = batched(built.stepper), Context(params=params)
    if model.get("members") == "each":
        stepper = one_walk_a_member(built.stepper)
    begin, go = jax.random.split(jax.random.key(seed))
    state = jax.jit(stepper.init)(begin, placed, context)
    _, frames = run(stepper, go, state, context, steps=built.steps)
    found = {
        "positions": frames.structure.positions,
        "velocities": frames.velocities,
        "energy": frames.energy,
        "stopped": frames.stopped,
        "temperature": frames.temperature_K,
    }
    seen = frames.observed
    if seen is not None:
        found |= {name: getattr(seen, name) for name in ("value", "anchor", "work")}
    return {name: np.asarray(value) for name, value in found.items()}


def one_walk_a_member(stepper):
    """The stepper for as many walks as the context has members, each with its own."""
    import jax
    import jax.numpy as jnp

    from alj.types import Context, Stepper

    own: Any = Context(params=0, data=None, targets=None)

    def every(function):
        def together(key, states, context):
            count = jax.tree.leaves(states)[0].shape[0]
            keys = jax.random.split(key, count)
            return jax.vmap(function, (0, 0, own))(keys, states, context)

        return together

    def overflowed(states):
        return jnp.any(jax.vmap(stepper.overflowed)(states))

    return Stepper(every(stepper.init), every(stepper.step), overflowed, stepper.grow)


def moving(placed, velocities):
    """A start with velocities; that of a pulled walk holds that of its dynamics."""
    if hasattr(placed, "start"):
        return placed._replace(start=moving(placed.start, velocities))
    return placed._replace(velocities=velocities)


def subject(model: dict):
    """The potential and params of a model, as `walked` takes it."""
    import jax

    from alj.campaign.host_potential import host_potential
    from alj.labeling import build_labeler
    from alj.potentials import build_potential
    from alj.potentials.combine import committee

    if "labeler" in model:
        return host_potential(build_labeler(model["labeler"])).potential, None
    state = state_of(model["state"])
    potential = build_potential(model["config"], (HYDROGEN, CARBON))
    if model["members"] == "each":
        return potential, state.params
    if model["members"] == "all":
        return committee(potential), state.params
    best = state.memory["fit"]["best_forces"]
    return potential, jax.tree.map(lambda leaf: leaf[best], state.params)


def state_of(path: str):
    """The state of a campaign in a file of its store."""
    from pathlib import Path

    from alj.campaign import rounds, trees

    found = trees.decode(Path(path).read_bytes(), path)
    # a round's state stands beside what its labels said of the predictions
    return found if isinstance(found, rounds.RoundState) else found[0]


def barrier(model: dict, species, positions, variable: dict, distances) -> dict[str, np.ndarray]:
    """Relaxed energies (eV) along a distance: each minimum under a stiff spring, from the last one.

    Gives the distances reached, the energies above the first minimum without a spring, and the
    structures. Each minimization begins a little off the last minimum: a stretched chain whose
    bonds are all alike is a saddle, from which one bond must be able to break alone.
    """
    from alj.cli.environment import prepare

    prepare()
    import jax
    import jax.numpy as jnp

    from alj import registry
    from alj.sampling import SAMPLERS
    from alj.stepping import run
    from alj.types import Context, Structure

    potential, params = subject(model)
    minimize = {"name": "fire", "steps": 1000, "record_every": 25, "force_tolerance_eV_per_A": 5e-3}
    pulled = {
        "name": "steered", "variable": variable, "speed_A_per_ps": 0.0, "anchor_A": 0.0,
        "stiffness_eV_per_A2": 50.0, "dynamics": minimize,
    }  # fmt: skip
    context, key = Context(params=params), jax.random.key(0)

    def lowest(sampler, state):
        def flat(done, state, frames):
            return bool(frames.largest_force[-1] < 5e-3) or bool(frames.stopped[-1])

        state, frames = run(
            sampler.stepper, key, state, context, steps=sampler.steps, block=2, on_block=flat
        )
        return state, frames

    generator = np.random.default_rng(1)

    def noise():
        return generator.normal(0.0, 0.01, positions.shape)

    one = Structure(
        jnp.asarray(positions + noise())[None], jnp.asarray(species, jnp.int32)[None],
        jnp.zeros((1, 3, 3)), jnp.zeros(1, jnp.int32), jnp.zeros(1, jnp.int32),
    )  # fmt: skip
    free = registry.build(SAMPLERS, minimize, potential)
    start = jax.tree.map(lambda leaf: leaf[0], free.place(one))
    state, frames = lowest(free, jax.jit(free.stepper.init)(key, start, context))
    bottom, found = float(frames.energy[-1]), []
    held = registry.build(SAMPLERS, pulled, potential)
    begin, structure = jax.jit(held.stepper.init), state.structure
    for distance in distances:
        shaken = structure._replace(positions=structure.positions + noise())
        batch = jax.tree.map(lambda leaf: leaf[None], shaken)
        placed = jax.tree.map(lambda leaf: leaf[0], held.place(batch))
        state = begin(key, placed, context)
        # the anchor is part of the state: one program for all distances
        anchor = jnp.full_like(state.bias.anchor, distance)
        state = state._replace(bias=state.bias._replace(anchor=anchor))
        state, frames = lowest(held, state)
        if frames.stopped[-1] or not np.isfinite(frames.energy[-1]):
            break
        structure = state.structure
        found.append((frames.observed.value[-1], frames.energy[-1] - bottom, structure.positions))
    value, energy, places = (np.array(column) for column in zip(*found, strict=True))
    return {"value": value, "energy": energy, "positions": places, "bottom": np.array(bottom)}
