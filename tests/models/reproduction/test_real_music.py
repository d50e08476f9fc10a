"""`mgc reproduce` on the real-music corpus: recipes of the studies, and what a split of slices is worth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from commands import mgc

pytestmark = [pytest.mark.corpus, pytest.mark.slow]


def reproduced(name: str, *words: object, corpus: Path, data: Path, scheduler: str) -> list[dict[str, Any]]:
    """Results of `mgc reproduce` on the corpus."""
    command = ("reproduce", name, "--dataset", corpus / "fma_debian", "--scheduler", scheduler, "--json", *words)
    outcome = mgc(*command, "--data-dir", data)
    assert outcome.code == 0, outcome.err
    return outcome.json


@pytest.mark.parametrize("name", ["kth2020/cnn", "ubc2020/prcnn", "padova2023/late-fusion", "xu2022/mobilenet"])
def test_recipes_run_from_files_to_scores(name: str, corpus: Path, scheduler: str, tmp_path: Path) -> None:
    words = ("--limit-tracks", 1, "--epochs", 1, "--protocol", "leak-free")
    (result,) = reproduced(name, *words, corpus=corpus, data=tmp_path, scheduler=scheduler)
    assert result["tracks"] == {"training": 6, "validation": 6, "test": 12}
    assert {"dataset fma_debian for fma_small", "at most 1 training tracks of each genre"} <= {*result["differences"]}
    assert f"`{name}`" in mgc("reproduce", "--table", "--markdown", "--data-dir", tmp_path).out


def test_a_split_of_slices_scores_far_above_a_split_of_tracks(corpus: Path, scheduler: str, tmp_path: Path) -> None:
    leaky, clean = reproduced("vit2021/cnn", "--epochs", 20, corpus=corpus, data=tmp_path, scheduler=scheduler)
    assert (leaky["leaky"], clean["leaky"]) == (True, False)
    leaky, clean = (result["scores"]["test"]["by_slice"] for result in (leaky, clean))
    assert leaky["accuracy"] > clean["accuracy"] + 0.2
    assert leaky["accuracy_interval"][0] > clean["accuracy"] + 0.1
