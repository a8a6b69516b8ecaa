"""Free energies from work (Jarzynski) and from biased walks (reweighting).

Many pulls from equilibrium, each with its work W, tell the difference of the free energies at their
ends, however fast they are,

    exp(-ΔF / kT) = <exp(-W / kT)>,   ΔF ≈ <W> - var(W) / 2 kT where W is Gaussian.

The average is carried by the rarest pulls, so it is done with logarithms, and `effective` counts
the pulls that matter: a few, and the number is an upper bound. C. Jarzynski, Phys. Rev. Lett. 78,
2690 (1997), doi:10.1103/PhysRevLett.78.2690; S. Park, F. Khalili-Araghi, E. Tajkhorshid, K.
Schulten, J. Chem. Phys. 119, 3559 (2003), doi:10.1063/1.1590311.

A walk under a bias V(s) visits s with probability ∝ exp(-[F(s) + V(s)] / kT), so every frame counts
exp(V / kT). A bias that still grows (metadynamics) has a zero that drifts by c(t), which each frame
is to be relieved of: G. M. Torrie, J. P. Valleau, J. Comput. Phys. 23, 187 (1977),
doi:10.1016/0021-9991(77)90121-8; P. Tiwary, M. Parrinello, J. Phys. Chem. B 119, 736 (2015),
doi:10.1021/jp504920s.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.special import logsumexp

from alj.types import BadInput


class Pulls(NamedTuple):
    """A free energy difference from the work of many pulls, and its error by bootstrap; all in eV.

    `jarzynski` is the exponential average, `cumulant` the second cumulant beside it; `dissipated`
    is <W> - ΔF; `effective` is the number of pulls that the exponential average rests on.
    """

    jarzynski: float
    jarzynski_error: float
    cumulant: float
    cumulant_error: float
    mean_work: float
    dissipated: float
    effective: float


class Profile(NamedTuple):
    """A free energy along a variable, eV, lowest at 0; NaN in bins that were never visited.

    `centers` in the unit of the variable; `error` by jackknife over blocks of the walk; `visits`
    counts frames; `effective` is the number of frames that the weights leave.
    """

    centers: Float[np.ndarray, " bins"]
    free_energy: Float[np.ndarray, " bins"]
    error: Float[np.ndarray, " bins"]
    visits: Float[np.ndarray, " bins"]
    effective: float


def jarzynski(
    work: Float[np.ndarray, " pulls"], kT_eV: float, *, resamples: int = 1000, seed: int = 0
) -> Pulls:
    """The free energy difference between the ends of pulls that began in equilibrium.

    `work` in eV. Errors are standard deviations over `resamples` pulls drawn with replacement: they
    do not know of the bias of too few pulls (`effective` near 1).

    >>> found = jarzynski(np.full(20, 1.5), 0.025)
    >>> found.jarzynski, found.jarzynski_error, round(found.effective)
    (1.5, 0.0, 20)

    Raises:
        BadInput: fewer than two pulls, work that is not finite, or kT that is not positive.
    """
    values = np.asarray(work, float)
    if len(values) < 2 or not np.isfinite(values).all():
        raise BadInput("jarzynski: expected the finite work of two pulls or more")
    _check_kT("jarzynski", kT_eV)
    drawn = np.random.default_rng(seed).integers(len(values), size=(resamples, len(values)))
    exact, gauss = _estimates(values[None], kT_eV)
    exacts, gausses = _estimates(values[drawn], kT_eV)
    logs = -(values - values.min()) / kT_eV
    effective = np.exp(2.0 * _log_sum(logs) - _log_sum(2.0 * logs))
    return Pulls(
        float(exact[0]),
        float(exacts.std(ddof=1)),
        float(gauss[0]),
        float(gausses.std(ddof=1)),
        float(values.mean()),
        float(values.mean() - exact[0]),
        float(effective),
    )


def jarzynski_profile(
    work: Float[np.ndarray, "pulls frames"], kT_eV: float, *, resamples: int = 200, seed: int = 0
) -> tuple[Float[np.ndarray, " frames"], Float[np.ndarray, " frames"]]:
    """ΔF up to every frame of pulls along one schedule, and its bootstrap error; eV.

    It is the free energy of molecule and spring at the anchor of that frame; with a stiff spring
    that of the molecule with the variable there.
    """
    values = np.asarray(work, float)
    each = [
        jarzynski(values[:, i], kT_eV, resamples=resamples, seed=seed)
        for i in range(len(values[0]))
    ]
    return (
        np.array([one.jarzynski for one in each]),
        np.array([one.jarzynski_error for one in each]),
    )


def reweighted_profile(
    variable: Float[np.ndarray, " frames"],
    bias_eV: Float[np.ndarray, " frames"],
    kT_eV: float,
    *,
    edges: Float[np.ndarray, " edges"],
    offset_eV: Float[np.ndarray, " frames"] | None = None,
    blocks: int = 10,
) -> Profile:
    """F(s) = -kT ln Σ_i w_i δ(s - s_i), w_i = exp[(V_i - c_i) / kT], of the frames of one walk.

    `bias_eV` is the bias V that acted on each frame (the hills of its moment); `offset_eV` is its
    c(t), none for a bias that stands still; `edges` are those of the bins. Leave out the frames
    while the bias still fills the wells. The walk is cut into `blocks` in time; the error is that
    of a jackknife over them and assumes blocks longer than the walk's memory: try fewer blocks, and
    see whether it grows.

    Raises:
        BadInput: too few frames, series of unequal length, no frame between the edges.
    """
    values, bias = np.asarray(variable, float), np.asarray(bias_eV, float)
    offset = np.zeros_like(bias) if offset_eV is None else np.asarray(offset_eV, float)
    _check_kT("reweighted_profile", kT_eV)
    if not (len(values) == len(bias) == len(offset) and 2 <= blocks <= len(values)):
        raise BadInput(
            f"reweighted_profile: expected as many biases and offsets as frames, and 2 to "
            f"{len(values)} blocks; found {len(bias)}, {len(offset)} and {blocks}"
        )
    if not (np.isfinite(values).all() and np.isfinite(bias).all() and np.isfinite(offset).all()):
        raise BadInput("reweighted_profile: expected finite values; leave frozen frames out")
    logs = (bias - offset) / kT_eV
    weights = np.exp(logs - logs.max())
    places = np.minimum(np.arange(len(values)) * blocks // len(values), blocks - 1)
    inside = (values >= edges[0]) & (values <= edges[-1])
    if not inside.any():
        raise BadInput("reweighted_profile: no frame lies between the edges")
    counts = np.stack(
        [
            np.histogram(values[places == b], edges, weights=weights[places == b])[0]
            for b in range(blocks)
        ]
    )
    whole = _free_energy(counts.sum(axis=0), edges, kT_eV)
    without = np.stack(
        [_free_energy(counts.sum(axis=0) - counts[b], edges, kT_eV) for b in range(blocks)]
    )
    spread = np.sum((without - without.mean(axis=0)) ** 2, axis=0)
    error = np.sqrt((blocks - 1) / blocks * spread)
    visits = np.histogram(values, edges)[0].astype(float)
    effective = weights[inside].sum() ** 2 / np.sum(weights[inside] ** 2)
    centers = 0.5 * (edges[1:] + edges[:-1])
    return Profile(centers, whole - np.nanmin(whole), error, visits, float(effective))


def free_energy_difference(
    profile: Profile, kT_eV: float, first: tuple[float, float], second: tuple[float, float]
) -> float:
    """F of the second basin less that of the first, eV; basins are ranges of the variable.

    ΔF = -kT ln [∫_2 exp(-F/kT) ds / ∫_1 exp(-F/kT) ds].

    Raises:
        BadInput: no bin with a frame lies in a range.
    """
    _check_kT("free_energy_difference", kT_eV)

    def basin(low, high):
        here = (profile.centers >= low) & (profile.centers <= high)
        here &= np.isfinite(profile.free_energy)
        if not here.any():
            raise BadInput(f"free_energy_difference: nothing was visited from {low} to {high}")
        return -kT_eV * _log_sum(-profile.free_energy[here] / kT_eV)

    return float(basin(*second) - basin(*first))


def _estimates(work, kT):
    """Exponential average and second cumulant over the last axis."""
    count = work.shape[-1]
    lowest = work.min(axis=-1, keepdims=True)
    tail = _log_sum(-(work - lowest) / kT) - np.log(count)
    exact = lowest[..., 0] - kT * tail
    return exact, work.mean(axis=-1) - work.var(axis=-1, ddof=1) / (2.0 * kT)


def _log_sum(values) -> np.ndarray:
    """ln Σ exp over the last axis."""
    return np.asarray(logsumexp(values, axis=-1))


def _free_energy(counts, edges, kT):
    """-kT ln of the normalized density; NaN where there is none."""
    density = counts / np.diff(edges) / max(counts.sum(), np.finfo(float).tiny)
    there = density > 0
    return np.where(there, -kT * np.log(np.where(there, density, 1.0)), np.nan)


def _check_kT(name, kT_eV):
    if not (np.isfinite(kT_eV) and kT_eV > 0):
        raise BadInput(f"{name}: expected a positive kT in eV, found {kT_eV}")
