from dataclasses import replace

import pytest

from bidsseg.bids.outputs import OutputSettings
from bidsseg.report.methods import methods_text

RECIPE = OutputSettings("1.0", "net", "0" * 64)


@pytest.mark.parametrize(
    ("bias_correction", "lesions", "fusion", "named", "unnamed"),
    [
        (True, False, False, ["Tustison", "Ronneberger"], ["Mattes", "Thompson"]),
        (False, False, False, ["Ronneberger"], ["Tustison"]),
        (True, True, False, ["Thompson", "Mattes"], ["averaged"]),
        (True, False, True, ["averaged", "Mattes"], ["Thompson"]),
        (True, True, True, ["averaged", "Mattes", "Thompson"], []),
    ],
)
def test_the_text_names_what_was_done_and_every_source_once(
    bias_correction: bool, lesions: bool, fusion: bool, named: list[str], unnamed: list[str]
) -> None:
    recipe = OutputSettings(RECIPE.version, RECIPE.model, RECIPE.weights_sha256, bias_correction)
    text = methods_text(recipe, ("T1w",), lesions, fusion)
    references = text.partition("# References")[2].strip().splitlines()
    assert len(references) == len(set(references))
    assert all(word in text for word in named)
    assert not any(word in text for word in unnamed)


def test_the_text_tells_of_sessions_together() -> None:
    text = methods_text(RECIPE, ("T1w",), longitudinal=True)
    assert "sessions of a participant were registered" in text
    assert text.count("Mattes D") == 1


def test_the_text_tells_of_mirror_images() -> None:
    assert "mirror image" in methods_text(replace(RECIPE, mirror=True), ("T1w",))
    assert "mirror image" not in methods_text(RECIPE, ("T1w",))
