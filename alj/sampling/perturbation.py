"""Uniform random perturbation: independent displacements and density changes of the start.

The way to begin without a potential: a network trained on one structure is a constant and explores
nothing, but small random displacements already span the first descriptors.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from alj.arrays import split_named
from alj.types import BadInput, Context, Frame, Key, Potential, Sampler, Stepper, Structure


class PerturbationState(NamedTuple):
    """The start, which never changes."""

    start: Structure


def perturbation(
    potential: Potential,
    *,
    frames: int = 10,
    amplitude_A: tuple[float, float] = (0.0, 0.3),
    density_factor: tuple[float, float] = (0.95, 1.05),
) -> Sampler:
    """Random copies of the start: every atom displaced within a cube, the cell scaled.

    Args:
        frames: Number of copies.
        amplitude_A: Range from which each copy's half-width of the cube is drawn.
        density_factor: Range from which each copy's density over that of the start is drawn.

    Raises:
        BadInput: a range is empty or negative.
    """
    if frames < 1:
        raise BadInput(f"frames: expected at least 1, found {frames}")
    for name, (low, high) in {"amplitude_A": amplitude_A, "density_factor": density_factor}.items():
        if not 0 <= low <= high or (name == "density_factor" and low == 0):
            raise BadInput(f"{name}: expected 0 ≤ low ≤ high, found [{low}, {high}]")

    def init(key: Key, start: Structure, context: Context) -> PerturbationState:
        return PerturbationState(start)

    def step(key: Key, state: PerturbationState, context: Context):
        width, density, cube = split_named(key, "width", "density", "cube")
        positions = state.start.positions
        dtype = positions.dtype
        amplitude = jax.random.uniform(width, (), dtype, *amplitude_A)
        factor = jax.random.uniform(density, (), dtype, *density_factor)
        scale = factor ** (-1.0 / 3.0)
        shifts = amplitude * jax.random.uniform(cube, positions.shape, dtype, -1.0, 1.0)
        real = (state.start.species > 0)[:, None]
        moved = state.start._replace(
            positions=scale * positions + jnp.where(real, shifts, 0.0),
            cell=scale * state.start.cell,
        )
        nothing = jnp.asarray(jnp.nan, dtype)
        return state, Frame(moved, nothing, jnp.ones((), dtype), nothing, jnp.asarray(False))

    return Sampler(Stepper(init, step), place=lambda s: s, steps=frames, spacing="time")
