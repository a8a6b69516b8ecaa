"""Atomic energies of structures: every potential is one builder."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from alj import registry
from alj.annotations import join, named
from alj.potentials.ani import ani
from alj.potentials.atomistic import behler_parrinello
from alj.potentials.constant import constant
from alj.potentials.equivariant import equivariant
from alj.potentials.gaussian_moments import gaussian_moments
from alj.potentials.gaussian_process import gaussian_process
from alj.potentials.lennard_jones import lennard_jones
from alj.potentials.meta_networks import meta_networks
from alj.potentials.ml_bop import ml_bop
from alj.potentials.partial_charges import partial_charges
from alj.potentials.priors import with_prior
from alj.potentials.schnet import schnet
from alj.potentials.short_range import pair_repulsion, zbl
from alj.potentials.tosi_fumi import nacl_tosi_fumi
from alj.types import BadInput, Potential

CLASSICAL = (ml_bop, lennard_jones, zbl, pair_repulsion, constant, nacl_tosi_fumi)
"""Potentials with nothing to train; each may also be a prior of another one."""

NETWORKS = (
    behler_parrinello,
    ani,
    gaussian_moments,
    schnet,
    equivariant,
    partial_charges,
    meta_networks,
)
POTENTIALS = (*NETWORKS, gaussian_process, *CLASSICAL)


def prior_settings(
    *, prior: tuple[Annotated[Any, registry.Nested(lambda: CLASSICAL)], ...] = ()
) -> tuple:
    """What every potential takes beside its own settings.

    Args:
        prior: classical potentials that it is added to, and trained on the difference to: one
            (a name, or a mapping with `name`) or a list of them. `zbl` keeps atoms apart,
            `pair_repulsion` beads; any other one serves as a baseline.
    """
    return prior


def build_potential(
    config: Mapping[str, Any] | str, species: tuple[int, ...], where: str = "potential"
) -> Potential:
    """The potential of a `potential` section, with the priors that it names. Raises BadInput.

    >>> water = {"name": "behler_parrinello", "cutoff_A": 4.0, "prior": "pair_repulsion"}
    >>> build_potential(water, (8,)).cutoff
    4.0
    >>> build_potential({**water, "prior": {"name": "zbl", "outer": 2.0}}, (8,))
    Traceback (most recent call last):
    alj.types.BadInput: potential.prior.outer: unknown key, did you mean 'outer_A'? \
zbl takes: inner_A, outer_A
    """
    own, priors = _divided(config, where)
    potential = registry.build(POTENTIALS, own, species, where=where)
    parts = [registry.build(CLASSICAL, spec, species, where=path) for path, spec in priors]
    return with_prior(potential, *parts)


def resolve_potential(config: Mapping[str, Any] | str, where: str = "potential") -> dict:
    """The section with every default filled in; `prior` is a list, left out where there is none.

    >>> resolve_potential({"name": "ml_bop", "prior": "zbl"})
    {'name': 'ml_bop', 'prior': [{'name': 'zbl', 'inner_A': 1.0, 'outer_A': 2.0}]}

    Raises BadInput.
    """
    own, priors = _divided(config, where)
    resolved = registry.resolve(POTENTIALS, own, where)
    parts = [registry.resolve(CLASSICAL, spec, path) for path, spec in priors]
    return {**resolved, "prior": parts} if parts else resolved


def _divided(config, where):
    """The section without its priors, and the path and specification of each of these."""
    common, own = registry.divided(POTENTIALS, config, prior_settings, where)
    given = common.get("prior")
    path = join(where, "prior")
    if given is None:
        priors = []
    elif isinstance(given, Sequence) and not isinstance(given, str):
        priors = [(f"{path}[{index}]", spec) for index, spec in enumerate(given)]
    else:
        priors = [(path, given)]
    for place, spec in priors:
        kind, _ = named(spec, place)
        if kind in {b.__name__ for b in POTENTIALS} - {b.__name__ for b in CLASSICAL}:
            choices = ", ".join(each.__name__ for each in CLASSICAL)
            raise BadInput(
                f"{join(place, 'name')}: {kind} is trained and cannot lie under another potential; "
                f"expected one of: {choices}"
            )
    return own, priors
