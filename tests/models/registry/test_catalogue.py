"""The generated catalogue of systems, and its copy docs/systems.md."""

from pathlib import Path

import pytest

from mgc.models.registry import catalogue, systems

PAGE = Path(__file__).parents[3] / "docs" / "systems.md"


@pytest.fixture(scope="module")
def page() -> str:
    return catalogue.markdown()


def test_the_page_in_docs_is_up_to_date(page: str) -> None:
    assert PAGE.read_text(encoding="utf-8") == page, "run `mgc models --markdown > docs/systems.md`"


def test_every_system_has_a_row_in_both_tables_of_its_study(page: str) -> None:
    sections = {section.partition("\n")[0]: section for section in page.split("\n## ")[1:]}
    assert set(sections) == set(catalogue.studies())
    for id in systems.ids():
        assert sections[id.partition("/")[0]].count(f"\n| `{id}`") == 2


def test_rows_have_the_settings_of_the_recipe_and_their_sources(page: str) -> None:
    model, recipe = (line for line in page.splitlines() if line.startswith("| `kth2020/cnn` "))
    assert model == (
        "| `kth2020/cnn` | 1×128×128 | 1,328,120 | 5.3 |"
        " test: accuracy 50.25, macro precision 51.02, macro recall 50.25, macro f1 50.20 |"
    )
    assert "| melᵖ sr 22050ᶜ, n_fft 2048ᶜ, hop_length 604ᶜ, n_mels 128ᶜ |" in recipe
    assert "| seconds 3.5ᶜ, overlap 0ᶜ, offset 15.5ᶜ, max_slices 1ᶜ |" in recipe
    assert recipe.endswith(
        "| binary-on-softmaxᶜ | 16ᶜ | 30ᶜ | accuracyᶜ, patience 7ᶜ |"
        " adamᶜ lr 0.0002ᶜ, eps 1e-07ᶜ, betas 0.9 and 0.999ᶜ, decay 6.667e-06ᶜ |"
        " variants pitch:-2,pitch:+2,stretch:0.9,stretch:1.1ᵖ |"
    )


def test_an_ensemble_names_its_members(page: str) -> None:
    assert "| `padova2023/ensemble-2` = mean of late-fusion, cnn2d-mel |" in page
