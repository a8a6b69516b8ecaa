"""Jacobians of residuals and damped least-squares steps.

    minimize |r + J d|² + l |θ + d|² + Σ_p μ_p d_p²,   Λ = l + μ

    primal:  d = -(JᵀJ + Λ)⁻¹ (Jᵀr + l θ)
    dual:    d = e - Λ⁻¹ l θ,   e = -Λ⁻¹ Jᵀ (J Λ⁻¹ Jᵀ + 1)⁻¹ (r - J Λ⁻¹ l θ)

Both are the same step; the dual one (Woodbury, with the penalty's shift of the origin taken out
first, which keeps it as accurate) costs less where residuals are fewer than parameters.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from alj.training.descriptions import (
    Described,
    over_structures,
    predict,
    split_floating,
    take_atoms,
    total_energy,
)
from alj.training.losses import Prediction, Residuals, batch_residuals
from alj.types import Batch, Potential


class Target(NamedTuple):
    """A batch with the factor of each structure's residuals, 0 for those that do not train."""

    batch: Batch
    described: Described | None
    energy_factor: Float[Array, " batch"]
    force_factor: Float[Array, " batch"]


class Dual(NamedTuple):
    """Residuals linearized, row by row."""

    residual: Float[Array, " rows"]
    jacobian: Float[Array, "rows parameters"]
    gradient: Float[Array, " parameters"]
    cost: Float[Array, ""]


class Primal(NamedTuple):
    """Residuals linearized, summed: `hessian` is JᵀJ, `gradient` Jᵀr, `cost` |r|²."""

    hessian: Float[Array, "parameters parameters"]
    gradient: Float[Array, " parameters"]
    cost: Float[Array, ""]


Linear = Dual | Primal


def row_count(targets: tuple[Target, ...], quantities: tuple[str, ...]) -> int:
    """Residuals, padding included."""
    return sum(
        target.batch.index.shape[0]
        * (1 + (3 * target.batch.structures.species.shape[1] if "forces" in quantities else 0))
        for target in targets
    )


def cost(found: tuple[Residuals, ...], targets: tuple[Target, ...]) -> Float[Array, ""]:
    """Sum of the squared residuals of those that train."""
    total = jnp.zeros(())
    for residuals, target in zip(found, targets, strict=True):
        total = total + _square(_rows(target.energy_factor, residuals.energy))
        if residuals.forces is not None:
            total = total + _square(_rows(target.force_factor, residuals.forces))
    return total


def residual_rows(
    found: tuple[Residuals, ...], targets: tuple[Target, ...]
) -> Float[Array, " rows"]:
    """The residuals as `Dual` lists them, those that do not train being 0."""
    rows = []
    for residuals, target in zip(found, targets, strict=True):
        rows.append(_rows(target.energy_factor * residuals.has_energy, residuals.energy))
        if residuals.forces is not None and residuals.has_forces is not None:
            factor = jnp.where(residuals.has_forces, target.force_factor[:, None, None], 0.0)
            rows.append(_rows(factor.reshape(-1), residuals.forces.reshape(-1)))
    return jnp.concatenate(rows)


def linearize(
    potential: Potential,
    quantities: tuple[str, ...],
    parameters: Float[Array, " parameters"],
    rebuild: Any,
    targets: tuple[Target, ...],
    *,
    dual: bool,
) -> Linear:
    """Linearize the residuals of all targets; `rebuild` turns parameters into params."""
    summed, listed = [], []
    for target in targets:
        listed.append(_energy_rows(potential, parameters, rebuild, target))
        if "forces" in quantities:
            rows = partial(_force_rows, potential, parameters, rebuild)
            if dual:
                listed.append(_stack(rows, target))
            else:
                summed.append(_accumulate(rows, target))
    if not dual:
        summed += [_gram(*pair) for pair in listed]
        return jax.tree.map(lambda *parts: sum(parts), *summed)
    residual = jnp.concatenate([r for r, _ in listed])
    jacobian = jnp.concatenate([j for _, j in listed])
    return Dual(residual, jacobian, residual @ jacobian, _square(residual))


def direction(
    linear: Linear,
    parameters: Float[Array, " parameters"],
    penalty: float,
    damping: Float[Array, " parameters"],
) -> Float[Array, " parameters"]:
    """The step d of the formulas above; NaN where the system is not positive definite."""
    total = penalty + damping
    if isinstance(linear, Primal):
        matrix = linear.hessian + jnp.diag(total)
        return -_solved(matrix, linear.gradient + penalty * parameters)
    jacobian, origin = linear.jacobian, penalty * parameters / total
    matrix = (jacobian / total[None]) @ jacobian.T + jnp.eye(jacobian.shape[0], dtype=total.dtype)
    inner = _solved(matrix, linear.residual - jacobian @ origin)
    return -(inner @ jacobian) / total - origin


@jax.custom_batching.sequential_vmap
def _solved(matrix, right):
    """Solution of a positive definite system; NaN where it is not.

    One after the other under `vmap`: a batch of LAPACK calls waits in XLA's thread pool for tasks
    of the same pool, which can deadlock where there are few cores.
    """
    factor = jax.scipy.linalg.cho_factor(matrix, lower=True)
    return jax.scipy.linalg.cho_solve(factor, right)


def curvature(linear: Linear) -> Float[Array, " parameters"]:
    """The diagonal of JᵀJ."""
    if isinstance(linear, Primal):
        return jnp.diagonal(linear.hessian)
    return jnp.sum(linear.jacobian**2, axis=0)


_CHUNK_ROWS = 700


def _square(values):
    return jnp.sum(values * values)


def _rows(factor, values):
    """Residuals times their structure's factor; 0 where the factor is 0, whatever they are."""
    wide = factor.reshape((-1,) + (1,) * (values.ndim - 1))
    return jnp.where(wide > 0, wide * values, 0.0)


def _energy_rows(potential, parameters, rebuild, target):
    batch, described = target.batch, target.described

    def total(parameters, structure, neighbors, described):
        if described is None:
            params = rebuild(parameters)
            return predict(potential, ("energy",), params, structure, neighbors, None).energy
        return total_energy(potential, rebuild(parameters), described.description)

    energies, slopes = over_structures(
        lambda row: jax.value_and_grad(total)(parameters, *row),
        (batch.structures, batch.neighbors, described),
    )
    found = batch_residuals(Prediction(energies), batch)
    atoms = jnp.maximum(jnp.sum(batch.structures.species > 0, axis=1), 1)
    factor = target.energy_factor * found.has_energy
    return _rows(factor, found.energy), _rows(factor / atoms, slopes)


def _force_rows(potential, parameters, rebuild, target: Target):
    """Residuals and their Jacobian for the forces of one structure (leaves without batch axis)."""
    batch, described = target.batch, target.described
    quantities = ("energy", "forces")

    def forces(parameters):
        params = rebuild(parameters)
        found = predict(
            potential, quantities, params, batch.structures, batch.neighbors, described
        ).forces
        assert found is not None
        return found

    if described is None:
        value, slopes = _jacobian(forces, parameters)
    else:
        value = forces(parameters)
        slopes = _described_force_slopes(potential, parameters, rebuild, described)
    predicted = Prediction(jnp.zeros((1,)), value[None], None)
    found = batch_residuals(predicted, jax.tree.map(lambda leaf: leaf[None], batch))
    assert found.forces is not None
    assert found.has_forces is not None
    factor = jnp.where(found.has_forces[0], target.force_factor, 0.0).ravel()
    residual = jnp.where(factor > 0, factor * found.forces[0].ravel(), 0.0)
    return residual, jnp.where((factor > 0)[:, None], factor[:, None] * slopes, 0.0)


def _described_force_slopes(potential, parameters, rebuild, described):
    """-∂²E/∂x_j∂θ: forward along T_j over reverse in θ, on the few atoms that atom j affects."""

    def of_atom(rows, slopes):
        moving, restore = split_floating(take_atoms(described.description, rows))

        def gradient(moving):
            return jax.grad(
                lambda p: total_energy(potential, rebuild(p), restore(moving)).astype(p.dtype)
            )(parameters)

        def along(tangent):
            return jax.jvp(gradient, (moving,), (tangent,))[1]

        return -jax.vmap(along)(slopes)

    found = jax.vmap(of_atom)(described.affected, described.slopes)
    return found.reshape(-1, parameters.shape[0])


def _jacobian(function, parameters):
    """Value and Jacobian (rows, parameters) by the mode that needs fewer passes."""
    shape = jax.eval_shape(function, parameters)
    if parameters.shape[0] <= shape.size:
        value, push = jax.linearize(function, parameters)
        columns = jax.lax.map(push, jnp.eye(parameters.shape[0]), batch_size=16)
        return value, columns.reshape(parameters.shape[0], -1).T
    value, pull = jax.vjp(function, parameters)
    cotangents = jnp.eye(shape.size, dtype=shape.dtype).reshape(-1, *shape.shape)
    return value, jax.lax.map(lambda c: pull(c)[0], cotangents, batch_size=16)


def _chunked(target: Target):
    """The target's structures in chunks of about `_CHUNK_ROWS` force residuals."""
    count, atoms = target.batch.structures.species.shape
    largest = max(1, _CHUNK_ROWS // (3 * atoms))
    size = max(n for n in range(1, min(count, largest) + 1) if count % n == 0)
    return jax.tree.map(lambda leaf: leaf.reshape(count // size, size, *leaf.shape[1:]), target)


def _accumulate(rows, target) -> Primal:
    """JᵀJ and Jᵀr summed over chunks, so that memory stays bounded."""

    def part(chunk):
        residual, jacobian = jax.vmap(rows)(chunk)
        return _gram(residual.ravel(), jacobian.reshape(-1, jacobian.shape[-1]))

    chunks = _chunked(target)
    shapes = jax.eval_shape(part, jax.tree.map(lambda leaf: leaf[0], chunks))
    zero = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return jax.lax.scan(
        lambda total, chunk: (jax.tree.map(jnp.add, total, part(chunk)), None), zero, chunks
    )[0]


def _stack(rows, target):
    residual, jacobian = jax.lax.map(lambda chunk: jax.vmap(rows)(chunk), _chunked(target))
    return residual.ravel(), jacobian.reshape(-1, jacobian.shape[-1])


def _gram(residual, jacobian) -> Primal:
    return Primal(jacobian.T @ jacobian, residual @ jacobian, _square(residual))
