from dataclasses import replace

import pytest

from bidsseg.bids.outputs import OutputSettings
from bidsseg.lesions.together import FAINT
from bidsseg.report.methods import Steps, methods_text

RECIPE = OutputSettings("1.0", "net", "0" * 64)


@pytest.mark.parametrize(
    ("bias_correction", "steps", "named", "unnamed"),
    [
        (True, Steps(), ["Tustison", "Ronneberger"], ["Mattes", "Thompson", "Battaglini"]),
        (False, Steps(), ["Ronneberger"], ["Tustison"]),
        (True, Steps(lesions=True), ["Thompson", "Mattes"], ["averaged", "filled"]),
        (True, Steps(fuse=True), ["averaged", "Mattes"], ["Thompson"]),
        (True, Steps(lesions=True, fuse=True), ["averaged", "Mattes", "Thompson"], []),
        (True, Steps(longitudinal=True), ["sessions of a participant were registered", "Mattes"], ["Thompson"]),
        (True, Steps(lesions=True, fill=True), ["filled", "Battaglini", "Chard"], []),
    ],
)
def test_the_text_names_what_was_done_and_every_source_once(
    bias_correction: bool, steps: Steps, named: list[str], unnamed: list[str]
) -> None:
    recipe = OutputSettings(RECIPE.version, RECIPE.model, RECIPE.weights_sha256, bias_correction)
    text = methods_text(recipe, ("T1w",), steps)
    references = text.partition("# References")[2].strip().splitlines()
    assert len(references) == len(set(references))
    assert all(word in text for word in named)
    assert not any(word in text for word in unnamed)


@pytest.mark.parametrize(
    ("weights", "network_first", "told"),
    [
        ("", False, "Lesion masks were given. "),
        ("1" * 64, False, "Where no lesion mask was given, a small"),
        ("1" * 64, True, "In preference to given masks, a small"),
    ],
)
def test_the_text_tells_where_lesions_come_from(weights: str, network_first: bool, told: str) -> None:
    recipe = replace(RECIPE, lesion_weights_sha256=weights, lesion_thresholds=(0.25, 0.75))
    text = methods_text(recipe, ("FLAIR",), Steps(lesions=True, network_first=network_first))
    assert told in text
    assert (f"{FAINT:g} of their threshold" in text) == bool(weights)


def test_the_text_tells_of_mirror_images() -> None:
    assert "mirror image" in methods_text(replace(RECIPE, mirror=True), ("T1w",), Steps())
    assert "mirror image" not in methods_text(RECIPE, ("T1w",), Steps())
