"""One unit system inside (eV, Å, amu, e), and the factors used at the door."""

BOLTZMANN = 8.617333262e-5
"""eV/K (CODATA 2018)."""

AVOGADRO = 6.02214076e23

EV_PER_A3_IN_BAR = 1.602176634e6
"""One eV/Å^3 in bar."""

KCAL_PER_MOL = 0.0433641153087705
"""eV."""

FEMTOSECOND = 1.0 / 10.180505710774743
"""One fs in units of Å (amu/eV)^½ (CODATA 2018)."""

HARTREE = 27.211386245988
"""eV (CODATA 2018)."""


def number_density(density_g_per_cc: float, mass_amu: float) -> float:
    """Particles per Å^3 of a substance of the given density.

    >>> round((108 / number_density(1.0, 18.015)) ** (1 / 3), 4)  # edge of a box of water, Å
    14.7832
    """
    return density_g_per_cc * AVOGADRO / mass_amu * 1e-24


def mass_density(count: float, mass_amu: float, volume_A3: float) -> float:
    """Density in g/cm^3 of `count` particles of one mass in a volume."""
    return count * mass_amu / (AVOGADRO * volume_A3 * 1e-24)
