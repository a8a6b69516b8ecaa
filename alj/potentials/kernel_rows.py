"""What each inducing point of a SOAP kernel contributes to energy, forces and stress.

Training and variances need the derivatives of hundreds of kernels with respect to all positions. By
the chain rule, with q_m = p·p_m of an atom's spectrum p = s/|s| and V_m the matrices of ∂(s·p_m)/∂c
(`soap.unpacked`),

    ∂k_m/∂r_j = δ ζ q_m^(ζ-1)/|s| Σ_alm [(V_m - q_m V_p) c]_alm ∂(f_c R_nl Y_lm)(r_j)/∂r_j,

which is a product of two matrices for each atom: (points × channels and harmonics) times (channels
and harmonics × neighbors and directions). Differentiating automatically would hold the same
numbers edge by edge instead, and take several times as long.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from alj.geometry.environment import environment
from alj.geometry.periodic import volume
from alj.potentials.soap import Soap, edges, expansion, one_hot, scaled, spectrum, unpacked
from alj.types import Environment, Neighbors, Params, ReadoutRows, Structure

_ATOMS = 8
"""Atoms of one element whose products are taken at once; bounds memory."""


class Kernel(NamedTuple):
    """δ² (p·p')^ζ of spectra p."""

    soap: Soap
    zeta: int
    delta: float


def kernel_rows(
    kernel: Kernel, params: Params, structure: Structure, neighbors: Neighbors
) -> ReadoutRows:
    """Derivatives with respect to the readout weights, of element after element."""
    env = environment(structure, neighbors, kernel.soap.cutoff)
    constants = params["constants"]
    dtype = env.vectors.dtype
    inducing, whiten = (constants[name].astype(dtype) for name in ("inducing", "whiten"))
    matrices = jax.vmap(lambda points: unpacked(kernel.soap, points))(inducing)
    c = expansion(kernel.soap, env)
    blocks, kinds = _by_kind(one_hot(kernel.soap, env.species, bool))
    atoms, (species, points, _) = env.species.shape[0], inducing.shape
    # Rows beyond the last atom take what pads.
    start = (
        jnp.zeros((species, atoms + 1, points), dtype),
        jnp.zeros((species, atoms + 1, 3, points), dtype),
        jnp.zeros((species, 3, 3, points), dtype),
    )

    def add(sums, block):
        rows, kind = block
        return _added(kernel, sums, env, c, rows, kind, inducing[kind], matrices[kind]), None

    (atomic, forces, virial), _ = jax.lax.scan(add, start, (blocks, kinds))

    def readout(sums):
        """(species, ..., points) of kernels as (..., weights): φ = k L⁻ᵀ."""
        turned = jax.vmap(lambda values, white: values @ white)(sums, whiten)
        return jnp.moveaxis(turned, 0, -2).reshape(*turned.shape[1:-1], -1)

    atomic = readout(atomic[:, :atoms])
    stress = readout(0.5 * (virial + jnp.swapaxes(virial, 1, 2)))
    return ReadoutRows(
        jnp.sum(atomic, axis=0), atomic, readout(forces[:, :atoms]), stress / volume(structure.cell)
    )


def _by_kind(own) -> tuple[Int[Array, "blocks rows"], Int[Array, " blocks"]]:
    """Blocks of atoms of one element each, and which; the number of atoms pads."""
    atoms, species = own.shape
    counts = jnp.sum(own, axis=0, dtype=jnp.int32)
    lengths = -(-counts // _ATOMS)
    ends = jnp.cumsum(lengths)
    blocks = -(-atoms // _ATOMS) + species
    place = jnp.cumsum(own, axis=0, dtype=jnp.int32) - 1 + _ATOMS * (ends - lengths)[None]
    place = jnp.where(own, place, blocks * _ATOMS)
    listed = jnp.full(blocks * _ATOMS, atoms, jnp.int32)
    for kind in range(species):
        listed = listed.at[place[:, kind]].set(jnp.arange(atoms, dtype=jnp.int32), mode="drop")
    kinds = jnp.searchsorted(ends, jnp.arange(blocks), side="right")
    return listed.reshape(blocks, _ATOMS), jnp.minimum(kinds, species - 1).astype(jnp.int32)


def _added(kernel: Kernel, sums, env: Environment, c, rows, kind, inducing, matrices):
    """The sums, with a block of atoms of one element."""
    about = kernel.soap
    atomic, forces, virial = sums
    atoms = env.species.shape[0]

    def picked(values, fill=0):
        return values.at[rows].get(mode="fill", fill_value=fill)

    mine = picked(c)
    raw = spectrum(about, mine)
    p = scaled(raw)
    square = jnp.sum(raw * raw, axis=1)
    lengths = jnp.sqrt(jnp.where(square > 0, square, 1.0))
    q = p @ inducing.T
    slopes = kernel.delta * kernel.zeta * q ** (kernel.zeta - 1) / lengths[:, None]
    atomic = atomic.at[kind, rows].add(kernel.delta * q**kernel.zeta)
    towards = _applied(about, matrices, mine)
    along = jax.vmap(lambda m, x: _applied(about, m[None], x[None])[0, 0])(unpacked(about, p), mine)
    vectors = picked(env.vectors)
    others = picked(env.neighbor_species)
    neighbors = picked(env.neighbors, atoms)
    pushes = _pushes(about, vectors, others)
    found = []
    # Atom by atom: linear algebra is fastest at products of two matrices, without a batch.
    for one in range(_ATOMS):
        pulled = pushes[one] @ towards[one].T - (pushes[one] @ along[one])[:, None] * q[one][None]
        found.append(pulled * slopes[one][None])
    pulled = jnp.stack(found).reshape(_ATOMS, -1, 3, q.shape[1])
    forces = forces.at[kind, neighbors].add(-pulled)
    forces = forces.at[kind, rows].add(jnp.sum(pulled, axis=1))
    virial = virial.at[kind].add(jnp.einsum("ajk,ajln->kln", vectors, pulled))
    return atomic, forces, virial


def _applied(about: Soap, matrices, c):
    """Σ_b V_lab c_blm of every matrix and atom, (atoms, matrices, channels · harmonics)."""
    parts = [
        jnp.einsum("nab,ibm->inam", matrices[:, degree], c[:, :, degree**2 : (degree + 1) ** 2])
        for degree in range(about.l_max + 1)
    ]
    return jnp.concatenate(parts, axis=-1).reshape(c.shape[0], matrices.shape[0], -1)


def _pushes(about: Soap, vectors, others):
    """∂(f_c R_nl Y_lm)/∂r_j, (atoms, neighbors · 3, channels · harmonics), in its element's."""
    kinds = one_hot(about, others, vectors.dtype)
    there = jnp.any(kinds > 0, axis=-1)
    degrees = np.concatenate([np.full(2 * degree + 1, degree) for degree in range(about.l_max + 1)])

    def product(vectors):
        radial, angular = edges(about, vectors, there)
        return radial[..., degrees] * angular[..., None, :]

    def along(axis):
        tangent = jnp.zeros_like(vectors).at[..., axis].set(1.0)
        return jax.jvp(product, (vectors,), (tangent,))[1]

    slopes = jnp.stack([along(axis) for axis in range(3)], axis=2)
    of = kinds[:, :, None, :, None, None] * slopes[:, :, :, None]
    return of.reshape(of.shape[0], of.shape[1] * 3, -1)
