"""From configuration to code: what is accepted, and what each mistake is answered with."""

import math
from typing import Annotated, Any, Literal

import pytest

from alj.registry import (
    Nested,
    build,
    call,
    filled,
    find,
    json_schema,
    resolve,
    sane_range,
    schema,
)
from alj.types import BadInput


def inner_well(scale, *, width_A: float = 1.0):
    """A well.

    Args:
        width_A: half of it, and
            some more words.
    """
    return ("well", scale, width_A)


def langevin(
    scale,
    *,
    temperature_K: float = 300.0,
    timestep_fs: float = 0.5,
    steps: int = 100,
    hidden: tuple[int, ...] = (10, 10),
    start: Literal["fresh", "warm"] = "fresh",
    ceiling_eV: float | None = None,
    verbose: bool = False,
    box: tuple[float, float] = (1.0, 2.0),
    weights: dict[str, float] | None = None,
    well: Annotated[Any, Nested(lambda: (inner_well,))] | None = None,
    note: str = "",
):
    """Langevin dynamics.

    With a second paragraph: not help.

    Args:
        temperature_K: of the bath.
        timestep_fs: of the integrator.

    Returns:
        nothing: that is help.
    """
    if temperature_K == 13:
        raise BadInput("temperature_K: 13 brings bad luck")
    return locals()


BUILDERS = (langevin, inner_well)


def test_a_bare_name_and_a_mapping_are_the_same():
    assert build(BUILDERS, "langevin", 1.0) == build(BUILDERS, {"name": "langevin"}, 1.0)


def test_values_arrive_as_annotated():
    spec = {"name": "langevin", "temperature_K": 500, "hidden": [5, 5], "ceiling_eV": 1}
    made = build(BUILDERS, {**spec, "weights": {"energy": 1}}, 2.0)
    assert made["temperature_K"] == 500.0
    assert isinstance(made["temperature_K"], float)
    assert made["hidden"] == (5, 5)
    assert made["ceiling_eV"] == 1.0
    assert made["weights"] == {"energy": 1.0}
    assert isinstance(made["weights"]["energy"], float)
    assert made["steps"] == 100
    assert made["scale"] == 2.0


def test_nested_builders_are_built_inside_out_with_the_same_collaborators():
    made = build(BUILDERS, {"name": "langevin", "well": {"name": "inner_well", "width_A": 2}}, 7.0)
    assert made["well"] == ("well", 7.0, 2.0)
    assert build(BUILDERS, {"name": "langevin", "well": "inner_well"}, 7.0)["well"][2] == 1.0
    assert build(BUILDERS, {"name": "langevin", "well": None}, 7.0)["well"] is None


def test_help_comes_from_the_args_section_only():
    helps = {setting.name: setting.help for setting in schema(langevin)}
    assert helps["temperature_K"] == "of the bath."
    assert helps["steps"] == ""
    assert "nothing" not in helps
    assert schema(inner_well)[0].help == "half of it, and some more words."
    types = {setting.name: setting.type for setting in schema(langevin)}
    assert types["hidden"] == "list of whole numbers"
    assert types["start"] == "'fresh' or 'warm'"
    assert types["ceiling_eV"] == "number or null"


MISTAKES = [
    ({"temperture_K": 1}, ["s[1].temperture_K", "did you mean 'temperature_K'"]),
    ({"Temperature_k": 1}, ["did you mean 'temperature_K'"]),
    ({"zzz": 1}, ["s[1].zzz", "langevin takes: temperature_K"]),
    ({"temperature_K": "300"}, ["s[1].temperature_K", "expected a number", "without quotes"]),
    ({"temperature_K": "1e-3"}, ["without quotes", "0.001"]),
    ({"temperature_K": "hot"}, ["expected number", "'hot'"]),
    ({"temperature_K": True}, ["expected number", "true"]),
    ({"temperature_K": None}, ["expected number", "null"]),
    ({"temperature_K": math.nan}, ["finite", "nan"]),
    ({"temperature_K": math.inf}, ["finite"]),
    ({"temperature_K": -1}, ["0 to 100000", "-1", "check the unit"]),
    ({"temperature_K": 13}, ["s[1]", "bad luck"]),
    ({"timestep_fs": 0}, ["0.001 to 1000"]),
    ({"steps": True}, ["whole number", "true"]),
    ({"steps": 1.5}, ["whole number", "1.5"]),
    ({"steps": 1e4}, ["whole number", "write 10000"]),
    ({"verbose": 1}, ["true or false", "1"]),
    ({"verbose": "yes"}, ["true or false"]),
    ({"hidden": 10}, ["list of whole numbers", "10"]),
    ({"hidden": [10, "x"]}, ["s[1].hidden[1]", "whole number"]),
    ({"hidden": "10"}, ["list of whole numbers"]),
    ({"box": [1.0]}, ["list of 2"]),
    ({"start": "frsh"}, ["s[1].start", "did you mean 'fresh'"]),
    ({"start": True}, ["true"]),
    ({"ceiling_eV": "x"}, ["s[1].ceiling_eV", "number"]),
    ({"weights": [1]}, ["mapping"]),
    ({"weights": {"energy": "x"}}, ["s[1].weights.energy"]),
    ({"note": 3}, ["expected text", "3"]),
    ({"well": "iner_well"}, ["s[1].well.name", "did you mean 'inner_well'"]),
    ({"well": {"name": "inner_well", "width": 1}}, ["s[1].well.width", "did you mean 'width_A'"]),
    ({"well": {"width_A": 1}}, ["s[1].well", "`name`"]),
]


@pytest.mark.parametrize(("settings", "words"), MISTAKES, ids=lambda value: str(value)[:40])
def test_a_mistake_is_answered_with_one_helpful_line(settings, words):
    with pytest.raises(BadInput) as caught:
        build(BUILDERS, {"name": "langevin", **settings}, 1.0, where="s[1]")
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("langvin", ["s.name", "did you mean 'langevin'", "langevin, inner_well"]),
        ({"temperature_K": 1}, ["`name`"]),
        ({"name": 3}, ["`name`", "3"]),
        (None, ["expected a name", "null"]),
        ([1], ["expected a name"]),
    ],
)
def test_what_is_no_named_mapping_is_refused(spec, words):
    with pytest.raises(BadInput) as caught:
        build(BUILDERS, spec, where="s")
    assert all(word in str(caught.value) for word in words)


def test_a_keyword_without_default_is_asked_for():
    def command(*, program: str):
        """Run a program.

        Args:
            program: its path.
        """
        return program

    with pytest.raises(BadInput, match=r"labeler.program: missing.*text.*its path"):
        call(command, {}, where="labeler")
    assert call(command, {"program": "lmp"}) == "lmp"


def test_resolved_settings_build_the_same_object_and_are_plain():
    full = resolve(BUILDERS, {"name": "langevin", "well": "inner_well", "hidden": [3]}, "s")
    assert full["well"] == {"name": "inner_well", "width_A": 1.0}
    assert full["hidden"] == [3]
    assert set(full) == {"name", *(setting.name for setting in schema(langevin))}
    assert resolve(BUILDERS, full) == full
    assert build(BUILDERS, full, 1.0) == build(BUILDERS, full | {"steps": 100}, 1.0)
    assert filled(inner_well, {}) == {"width_A": 1.0}


def test_the_longest_ending_gives_the_range():
    assert sane_range("tolerance_meV_per_atom") == (0.0, 1e6)
    assert sane_range("ceiling_eV_per_bead")[0] < 0
    assert sane_range("temperature_K") == (0.0, 1e5)
    assert sane_range("Kind") == (None, None)
    assert sane_range("discount") == (None, None)
    assert sane_range("seed")[0] == 0


def test_json_schema_accepts_what_build_accepts():
    described = json_schema(langevin)
    assert described["additionalProperties"] is False
    properties = described["properties"]
    assert properties["name"] == {"const": "langevin"}
    assert properties["temperature_K"]["minimum"] == 0.0
    assert properties["temperature_K"]["description"] == "of the bath."
    assert properties["hidden"] == {
        "type": "array",
        "items": {"type": "integer"},
        "default": [10, 10],
    }
    assert properties["start"]["enum"] == ["fresh", "warm"]
    assert {"type": "null"} in properties["ceiling_eV"]["anyOf"]
    assert described["required"] == ["name"]


def doubled(potential, *, factor: int = 2):
    """A builder outside of the package.

    Args:
        factor: what it multiplies by.
    """
    return factor * potential


def test_builders_of_others_are_named_by_their_module():
    """The same checks as for our own: types, unknown keys, defaults."""
    path = f"{__name__}:doubled"
    assert build((), {"name": path, "factor": 3}, 7, where="sampler") == 21
    assert resolve((), path) == {"name": path, "factor": 2}
    with pytest.raises(BadInput, match=r"sampler\.facto: unknown key, did you mean 'factor'"):
        build((), {"name": path, "facto": 3}, 7, where="sampler")
    with pytest.raises(BadInput, match=r"sampler\.name: nowhere:x cannot be imported"):
        build((), "nowhere:x", 7, where="sampler")
    with pytest.raises(BadInput, match="expected math:pi to be a function"):
        find((), "math:pi")
