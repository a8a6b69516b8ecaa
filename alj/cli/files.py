"""`alj evaluate`: structures in, errors out."""

import json
from pathlib import Path

import click

from alj.cli.environment import prepare


def evaluate(model: str, data: str, json_file: str | None) -> int:
    """Print the errors of a model on labeled structures; also as JSON where asked for."""
    prepare()
    from alj.campaign import datasets, models
    from alj.campaign.evaluate import evaluate
    from alj.campaign.store import write_file

    loaded = models.load(model)
    dataset, taken = datasets.read(data, species=loaded.species)
    click.echo(f"{data}: {taken}")
    report = evaluate(loaded, dataset)
    if json_file is not None:
        write_file(Path(json_file), (json.dumps(report, indent=1) + "\n").encode())
    for line in table(report):
        click.echo(line)
    return 0


def table(report: dict) -> list[str]:
    """The errors as lines of aligned columns: meV/atom and meV/Å, me and me Å."""
    columns = {
        "energy_mae_meV_per_atom": ("E MAE", 1.0),
        "energy_rmse_meV_per_atom": ("E RMSE", 1.0),
        "energy_bias_meV_per_atom": ("bias", 1.0),
        "force_mae_eV_per_A": ("F MAE", 1000.0),
        "force_rmse_eV_per_A": ("F RMSE", 1000.0),
        "force_max_eV_per_A": ("F max", 1000.0),
        "charge_rmse_e": ("q RMSE", 1000.0),
        "dipole_rmse_e_A": ("dipole RMSE", 1000.0),
        "force_spread_error_spearman": ("spread-error", 1.0),
        "force_spread_factor_90": ("90 % factor", 1.0),
    }
    for key in ("charge_rmse_e", "dipole_rmse_e_A"):
        if key not in report["all"]:
            del columns[key]
    rows = [("", *(head for head, _ in columns.values()))]
    by_type = report["by_config_type"]
    for name, part in {"all": report["all"], **(by_type if len(by_type) > 1 else {})}.items():
        values = ((part.get(key), scale) for key, (_, scale) in columns.items())
        rows.append((name, *("–" if v is None else f"{scale * v:.4g}" for v, scale in values)))
    width = max(len(row[0]) for row in rows)
    lines = [f"{row[0]:{width}}" + "".join(f"{cell:>13}" for cell in row[1:]) for row in rows]
    units = "energies in meV/atom, force components in meV/Å"
    if {"charge_rmse_e", "dipole_rmse_e_A"} & set(report["all"]):
        units += ", charges in me, components of dipoles in me Å"
    if report["all"].get("force_spread_factor_90") is not None:
        units += "; 90 % of force errors lie within the 90 % factor times the committee's spread"
    return [*lines, units]
