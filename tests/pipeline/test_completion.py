"""Shell completion: the scripts, and what bash gets from them."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from commands import MGC, mgc

from mgc.pipeline.completion import SHELLS

FIXTURE = Path(__file__).parents[1] / "fixtures" / "v0.1" / "workspace"
#: Completes each line of its input, of which the last word is begun, and prints the answers in a line.
BASH = r"""
eval "$(mgc completion bash)"
compopt() { :; }
while IFS= read -r line; do
    read -ra COMP_WORDS <<< "$line"
    [[ $line == *" " ]] && COMP_WORDS+=("")
    COMP_CWORD=$(( ${#COMP_WORDS[@]} - 1 ))
    COMPREPLY=()
    _mgc_completion mgc
    echo "${COMPREPLY[*]}"
done
"""


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_bash_completes(tmp_path: Path):
    shutil.copytree(FIXTURE, tmp_path / "data")
    os.utime(tmp_path / "data" / "runs" / "fold" / "config.json")  # the newest
    cases = {
        "mgc li": "list",
        "mgc train --optim": "--optimizer",
        "mgc train --optimizer adam": "adam adamw",
        "mgc train --model kth2020/crnn": "kth2020/crnn kth2020/crnn-137",
        "mgc models moments/k": "moments/knn moments/knn-pca",
        "mgc extract --feature m": "mel mfcc",
        "mgc evaluate neu": "data/runs/neural",
        "mgc predict data/runs/n": "data/runs/neural",
        "mgc info stats": "data/runs/stats data/features/songs/stats-a6309b",
        "mgc slice data/features/songs/st": "data/features/songs/stats-a6309b",
        "mgc train --data-dir data --member ens": "data/runs/ensemble",
        "mgc remove runs/s": "runs/stats",
        "mgc config comple": "completion",
        "mgc completion ": " ".join(SHELLS),
    }
    environment = {name: text for name, text in os.environ.items() if not name.startswith("MGC_")}
    run = subprocess.run(
        ["bash", "-c", BASH],
        input="".join(f"{line}\n" for line in [*cases, "mgc evaluate "]),
        cwd=tmp_path,
        env=environment | {"PATH": f"{MGC.parent}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )
    assert run.stderr == ""
    *answers, runs = run.stdout.splitlines()
    assert dict(zip(cases, [" ".join(sorted(answer.split())) for answer in answers], strict=True)) == {
        line: " ".join(sorted(answer.split())) for line, answer in cases.items()
    }
    assert runs.split()[0] == "data/runs/fold"
    assert len(runs.split()) == 6


@pytest.mark.parametrize("shell", SHELLS)
def test_each_shell_accepts_its_script(shell: str, tmp_path: Path):
    outcome = mgc("completion", shell)
    assert outcome.code == 0
    assert f"_MGC_COMPLETE={shell}_complete" in outcome.out
    if shutil.which(shell) is not None:
        (tmp_path / "script").write_text(outcome.out)
        assert subprocess.run([shell, "-n", tmp_path / "script"], capture_output=True).stderr == b""


def test_a_broken_settings_file_does_not_disturb_the_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "mgc.toml").write_text("[train\n")
    environment = {"_MGC_COMPLETE": "bash_complete", "COMP_WORDS": "mgc train --epo", "COMP_CWORD": "2"}
    run = subprocess.run([MGC], cwd=tmp_path, env=os.environ | environment, capture_output=True, text=True)
    assert (run.stdout.strip(), run.stderr) == ("plain,--epochs", "")
