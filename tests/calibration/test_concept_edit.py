"""Another definition in a policy's text: all else stays, in whatever way it was written."""

import json
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagesafety.calibration.concept_edit import with_concept
from imagesafety.policy import Concept, Probe, Prompt

PROBE = Concept("red", probe=Probe("red.probe", "0" * 64))
WEIGHTS = Concept("red", (Prompt('"red"\n', 1.0), Prompt("é", 0.25)))
REST = '[groups.g]  # a group\nthresholds = { red = 0.5 }\nred = ["no"]\n'
WAYS = {
    "list": '[concepts]\na = ["red"]\nred = ["x", "y"]  # why\nb = ["red"]\n',
    "lines": '[concepts]\nred = [\n  "x",  # one\n  "y",\n]\nb = ["red"]\n',
    "table": '[concepts]\n  red = { prompts = ["x"], weights = [2] }\nb = ["red"]\n',
    "quoted": "[concepts]\n'red' = ['x']\nb = ['red']\n",
    "header": '[concepts.a]\nprompts = ["a"]\n\n[concepts.red]\nprompts = ["x"]\nweights = [1]\n\n',
    "dotted": 'concepts.red = ["x"]\nconcepts.b = ["y"]\n',
    "text": "[concepts]\nc = ['''\nred = 1\n''']\nred = ['x']\n",
    "probe": '[concepts]\nred = { probe = "old", sha256 = "1" }\n',
}


@pytest.mark.parametrize("concept", [PROBE, WEIGHTS], ids=["probe", "weights"])
@pytest.mark.parametrize("way", WAYS)
def test_only_the_definition_changes(way: str, concept: Concept) -> None:
    text = WAYS[way] + REST
    edited = with_concept(text, concept)
    before, after = tomllib.loads(text), tomllib.loads(edited)
    found = after["concepts"].pop("red")
    before["concepts"].pop("red")
    assert after == before
    if concept is PROBE:
        assert found == {"probe": "red.probe", "sha256": "0" * 64}
    else:
        assert found == {"prompts": ['"red"\n', "é"], "weights": [1.0, 0.25]}
    # Nothing that somebody wrote is lost.
    left = edited.split("\n")
    for line in text.split("\n"):
        assert line in left or f"# {line}".rstrip() in left
    assert list(tomllib.loads(text)["concepts"]) == list(tomllib.loads(edited)["concepts"])


@pytest.mark.parametrize(
    "text", ['concepts = { red = ["x"], b = ["y"] }\n', '[concepts]\nb = ["x"]\n']
)
def test_a_definition_without_lines_of_its_own_is_left_alone(text: str) -> None:
    with pytest.raises(KeyError):
        with_concept(text, PROBE)


names = st.text(st.characters(codec="utf-8", exclude_characters="'\r\n\x00"), min_size=1)


@given(st.lists(names, min_size=1, max_size=4, unique=True), st.data())
def test_any_name_will_do(some: list[str], data: st.DataObject) -> None:

    keys = [json.dumps(name, ensure_ascii=False).replace("\x7f", "\\u007f") for name in some]
    text = "[concepts]\n" + "".join(f'{key} = ["x"]\n' for key in keys)
    name = data.draw(st.sampled_from(some))
    edited = with_concept(text, Concept(name, probe=PROBE.probe))
    assert tomllib.loads(edited)["concepts"][name]["probe"] == "red.probe"
