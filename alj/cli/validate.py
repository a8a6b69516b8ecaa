"""`alj validate`: a potential beside its reference, in figures, numbers and one page."""

import base64
import io
import json
from pathlib import Path
from typing import Any, NamedTuple

import click
from rich.console import Console

from alj.cli.environment import prepare
from alj.types import BadInput

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ title }}</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<style>
 body { font: 15px/1.45 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
 table { border-collapse: collapse; margin: .6rem 0 1.2rem } td, th { padding: .2rem .9rem .2rem 0; text-align: right }
 td:first-child, th:first-child { text-align: left } tr + tr { border-top: 1px solid #ddd }
 img { max-width: 100% } .failed { color: #a33 } h2 { margin-top: 2.2rem }
</style></head><body>
<h1>{{ title }}</h1>
<p>{{ model }}{% if reference %}, beside {{ reference }}{% endif %}</p>
{% for one in results %}<h2>{{ one.name }}: {{ one.formula }}, {{ one.kind }}</h2>
{% for check in one.checks %}<h3>{{ check.title }}</h3>
{% for who, reason in check.failed %}<p class="failed">{{ who }}: {{ reason }}</p>{% endfor %}
{% if check.rows %}<table><tr><th></th>{% for who in check.columns %}<th>{{ who }}</th>{% endfor %}</tr>
{% for row in check.rows %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>{% endfor %}</table>{% endif %}
{% if check.image %}<img alt="{{ check.title }}" src="data:image/png;base64,{{ check.image }}">{% endif %}
{% endfor %}{% endfor %}
{% if errors %}<h2>Errors on {{ data }}</h2><pre>{{ errors }}</pre>{% endif %}
</body></html>
"""  # noqa: E501


class ValidateOptions(NamedTuple):
    """The options of `alj validate`."""

    labeler: str | None
    config: str | None
    data: str | None
    only: tuple[str, ...]
    settings: tuple[str, ...]
    out: str
    quiet: bool


def validate(model: str, structures: tuple[str, ...], options: ValidateOptions) -> int:
    """Make the checks, write DIR, print the numbers; 3 where a check of the model failed."""
    prepare()
    from alj.calculator import CommitteeCalculator
    from alj.campaign.subjects import model_of_name
    from alj.campaign.validation import settings_of, validate

    of_labeler = [s for s in options.settings if s.startswith("labeler.")]
    settings = settings_of([s for s in options.settings if s not in of_labeler], options.only)
    subject = model_of_name(model)
    calculators: dict[str, Any] = {"model": CommitteeCalculator(subject, uncertainty=False)}
    reference = _reference(options, of_labeler)
    if reference is not None:
        calculators["reference"] = reference[1]
    subjects = _subjects(structures)
    if not subjects and options.data is None:
        raise BadInput("nothing to judge: give STRUCTURES, or --data with labeled ones")
    console = Console(stderr=True, highlight=False, quiet=options.quiet)
    results = validate(subjects, calculators, settings, lambda text: console.print(text))
    report = _errors(subject, options.data)
    folder = Path(options.out)
    about = {"model": model, "reference": None if reference is None else reference[0]}
    _write(folder, about, settings, results, report, options.data)
    if not options.quiet:
        for line in lines(results):
            click.echo(line)
        for line in report[1]:
            click.echo(line)
        click.echo(f"next: open {folder / 'validation.html'}")
    failed = ("failed" in c.get("model", {}) for one in results for c in one["checks"].values())
    return 3 if any(failed) else 0


def lines(results: list[dict]) -> list[str]:
    """The numbers as lines of aligned columns."""
    found = []
    for one in results:
        found.append(f"{one['name']}: {one['formula']}, {one['kind']}")
        for name, answers in one["checks"].items():
            columns, rows, failed = _rows(answers)
            heads = "".join(f"{who:>14}" for who in columns)
            found.append(f"  {name.replace('_', ' '):34}{heads}")
            for head, *cells in rows:
                found.append(f"    {head:32}" + "".join(f"{cell:>14}" for cell in cells))
            found += [f"    {who} failed: {reason}" for who, reason in failed]
    return found


def _rows(answers: dict[str, dict]) -> tuple[list[str], list[list[str]], list[tuple[str, str]]]:
    """Columns and rows of a check's numbers, and who failed for which reason."""
    from alj.campaign.validation import numbers

    given = {who: numbers(a) for who, a in answers.items() if "failed" not in a}
    failed = [(who, a["failed"]) for who, a in answers.items() if "failed" in a]
    keys = list(dict.fromkeys(key for each in given.values() for key in each))
    rows = [
        [_spoken(key), *(f"{each[key]:.5g}" if key in each else "–" for each in given.values())]
        for key in keys
    ]
    return list(given), rows, failed


def _spoken(key: str) -> str:
    for end, unit in (("_eV_per_atom", "eV/atom"), ("_A3_per_atom", "Å³/atom"), ("_GPa", "GPa"),
                      ("_meV_per_atom", "meV/atom"), ("_eV_per_A", "eV/Å"), ("_per_cm", "1/cm"),
                      ("_THz", "THz"), ("_eV", "eV"), ("_ps", "ps")):  # fmt: skip
        if key.endswith(end):
            return f"{key.removesuffix(end).replace('_', ' ')} ({unit})"
    return key.replace("_", " ")


def _reference(options: ValidateOptions, settings: list[str]):
    """Name and calculator of the reference engine; None where there is none."""
    from alj.calculator import CommitteeCalculator, ReferenceCalculator
    from alj.campaign import config as configuration
    from alj.campaign import models
    from alj.labeling import build_labeler
    from alj.labeling.in_jax import InJax

    section: Any = options.labeler
    if options.config is not None:
        section = configuration.read(options.config).get("labeler")
        if section is None:
            raise BadInput(f"{options.config}: has no section labeler")
        if options.labeler is not None:
            raise BadInput("--labeler and --config both name a reference; give one of them")
    if section is None:
        if settings:
            raise BadInput(f"--set {settings[0]}: there is no reference; give --labeler")
        return None
    given: dict = {"labeler": section}
    for setting in settings:
        given = configuration.override_one(given, setting)
    labeler = build_labeler(given["labeler"])
    if isinstance(labeler, InJax):
        import jax

        potential = labeler.potential
        params = potential.init(jax.random.key(0))
        calculator: Any = CommitteeCalculator(models.model_of(potential, params, {"members": 1}))
    else:
        calculator = ReferenceCalculator(labeler)
    return labeler.name, calculator


def _subjects(structures: tuple[str, ...]) -> list:
    from alj.campaign.reading import read_atoms
    from alj.campaign.validation import Subject

    subjects = []
    for path in structures:
        frames = read_atoms(path)
        for i, atoms in enumerate(frames):
            clean = atoms.copy()
            clean.calc = None
            name = Path(path).stem + (f" {i}" if len(frames) > 1 else "")
            subjects.append(Subject(name, clean))
    return subjects


def _errors(model, data: str | None) -> tuple[dict | None, list[str]]:
    """Errors on labeled structures for each config_type, and the table of them."""
    if data is None:
        return None, []
    from alj.campaign import datasets
    from alj.campaign.evaluate import evaluate
    from alj.cli.files import table

    dataset, taken = datasets.read(data, species=model.species)
    report = evaluate(model, dataset)
    return report, [f"{data}: {taken}", *table(report)]


def _write(folder: Path, about: dict, settings, results, report, data) -> None:
    """`validation.json`, `figures/`, `validation.html`."""
    import jinja2

    from alj.analysis.validation_figures import FIGURES
    from alj.campaign.store import write_file

    drawn = {figure.__name__: figure for figure in FIGURES}
    shown = []
    for one in results:
        checks = []
        for name, answers in one["checks"].items():
            columns, rows, failed = _rows(answers)
            good = {who: a for who, a in answers.items() if "failed" not in a}
            image = ""
            if name in drawn and good:
                stream = io.BytesIO()
                drawn[name](good).savefig(stream, format="png", dpi=130)
                file = f"{one['name'].replace(' ', '_')}-{name}.png"
                write_file(folder / "figures" / file, stream.getvalue())
                image = base64.b64encode(stream.getvalue()).decode()
            title = name.replace("_", " ")
            checks.append({"title": title, "columns": columns, "rows": rows, "failed": failed,
                           "image": image})  # fmt: skip
        shown.append({**one, "checks": checks})
    content = {**about, "settings": settings, "results": results, "errors": report[0]}
    write_file(folder / "validation.json", (json.dumps(content, indent=1) + "\n").encode())
    template = jinja2.Environment(autoescape=True).from_string(PAGE)
    page = template.render(
        title="Validation", results=shown, errors="\n".join(report[1]), data=data, **about
    )
    write_file(folder / "validation.html", page.encode())
