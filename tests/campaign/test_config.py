"""Configuration files: what is read, what each broken one is answered with, what is written."""

import pytest

from alj.campaign import config
from alj.types import BadInput


@pytest.fixture
def written(tmp_path):
    def write(text):
        path = tmp_path / "water.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def test_yaml_is_version_1_2(written):
    path = written("seed: 1e-3\nprecision: NO\nrounds: 010\nstop: off\n")
    assert config.load(path) == {"seed": 0.001, "precision": "NO", "rounds": 10, "stop": "off"}


BROKEN = [
    ("", ["water.yaml", "empty"]),
    ("# only a comment\n", ["empty"]),
    ("- 1\n", ["mapping", "list"]),
    ("hello\n", ["mapping", "'hello'"]),
    ("seed: 1\nsampelr: x\n", ["water.yaml:2", "'sampelr'", "did you mean 'sampler'"]),
    ("seed: 1\nrounds: 2\nseed: 3\n", ["water.yaml:3", "'seed' is given twice"]),
    ("stop:\n  kept: 1\n  kept: 2\n", ["water.yaml:3", "'kept' is given twice"]),
    ("seed:\n\tx: 1\n", ["water.yaml:2", "tab"]),
    ("seed: [1\n", ["water.yaml:2", "not valid YAML"]),
    ("seed: 1: 2\n", ["water.yaml:1", "not valid YAML"]),
    ("seed: 1\n---\nseed: 2\n", ["one document"]),
    ("seed: !!python/object/apply:os.system [ls]\n", ["water.yaml:1", "not valid YAML"]),
    ("seed: &a [*a]\n", ["too deeply"]),
    ("[" * 1200, ["too deeply"]),
    (b"\xff\xfe\x00\x01", ["UTF-8", "binary"]),
    ("seed: \x00\n", ["not a YAML file"]),
]


@pytest.mark.parametrize(("text", "words"), BROKEN, ids=lambda value: str(value)[:20])
def test_a_broken_file_is_answered_with_one_line(written, text, words):
    with pytest.raises(BadInput) as caught:
        config.load(written(text))
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_a_missing_file_or_a_folder_is_named(tmp_path, written):
    written("seed: 1")
    with pytest.raises(BadInput, match=r"waeter.yaml: no such file.*did you mean 'water.yaml'"):
        config.load(tmp_path / "waeter.yaml")
    with pytest.raises(BadInput, match="found a folder"):
        config.load(tmp_path)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("seed=3", {"seed": 3}),
        ("sampler.0.steps=5", {"sampler": [{"name": "nested_mc", "steps": 5}, {"name": "b"}]}),
        ("sampler[1].x=[1, 2]", {"sampler": ["nested_mc", {"name": "b", "x": [1, 2]}]}),
        ("potential.hidden=[4]", {"potential": {"name": "bp", "hidden": [4]}}),
        ("trainer.rate=1e-3", {"trainer": {"rate": 0.001}}),
        ("labeler=null", {"labeler": None}),
        ("labeler=a=b", {"labeler": "a=b"}),
        ("stop.kept.x=yes", {"stop": {"kept": {"x": "yes"}}}),
    ],
)
def test_an_override_reaches_its_place_and_nothing_else(override, expected):
    base = {"seed": 0, "potential": "bp", "sampler": ["nested_mc", {"name": "b"}]}
    before = repr(base)
    assert config.override_one(base, override) == {**base, **expected}
    assert repr(base) == before


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("seed", "expected key.path=value"),
        ("=3", "expected key.path=value"),
        ("a..b=3", "expected key.path=value"),
        ("sampelr.steps=3", "did you mean 'sampler'"),
        ("sampler.steps=3", "index from 0 to 1"),
        ("sampler.7.steps=3", "index from 0 to 1"),
        ("potential.0.x=3", "leave the index 0 away"),
        ("seed.x=3", "below the plain value 0"),
        ("seed=[1", "not valid YAML"),
    ],
)
def test_a_wrong_override_says_why(override, words):
    base = {"seed": 0, "potential": "bp", "sampler": ["nested_mc", {"name": "b"}]}
    with pytest.raises(BadInput, match=r"--set") as caught:
        config.override_one(base, override)
    assert words in str(caught.value)


def test_what_is_written_is_read_back_and_always_the_same(written):
    full = {
        "stop": {"kept": 300},
        "sampler": [{"name": "a", "rate": 1e-05, "hidden": (5, 5), "text": "1e-3", "no": "NO"}],
        "seed": 0,
        "versions": {"alj": "0.1"},
        "data": {"none": None, "yes": True, "empty": [], "long": "x y " * 60},
    }
    text = config.dump(full)
    assert text == config.dump(dict(reversed(full.items())))
    assert text.startswith("seed: 0\n")
    again = config.read(written(text))
    assert config.difference(full, again) == []
    assert config.dump(again) == text


def test_the_difference_names_each_value_that_changed():
    old = {"seed": 0, "sampler": [{"steps": 1, "x": 2}], "a": 1, "same": {"b": (1, 2)}}
    new = {"seed": True, "sampler": [{"steps": 3, "y": 2}], "c": None, "same": {"b": [1, 2]}}
    assert config.difference(old, new) == [
        "seed: 0 -> true",
        "sampler[0].steps: 1 -> 3",
        "sampler[0].x: 2 -> absent",
        "sampler[0].y: absent -> 2",
        "a: 1 -> absent",
        "c: absent -> nothing (null)",
    ]


def test_keys_are_located_by_line(written):
    path = written("seed: 1\nsampler:\n  - name: a\n    steps: 3\n  - b\nstop: {kept: 3}\n")
    places = ["seed", "sampler", "sampler[0].steps", "sampler[1]", "stop.kept"]
    assert [config.locate(path, place) for place in places] == [1, 2, 4, 5, 6]
    for absent in ("nothing", "sampler[2]", "sampler[0].x", "seed.x", "sampler.name"):
        assert config.locate(path, absent) is None
