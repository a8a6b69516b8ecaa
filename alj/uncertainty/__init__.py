"""Uncertainties: how much a potential's answer is to be doubted, per atom."""

from alj.uncertainty.committee import atomic_energy_spread, energy_spread, force_spread

__all__ = ["atomic_energy_spread", "energy_spread", "force_spread"]
