"""The table of README.md is that of the results."""

from pathlib import Path

import pytest

from eval.report.summary import BY_SCORE, LINES, TASKS, load, summary

README = Path(__file__).parents[3] / "README.md"


def test_the_table_of_the_readme_is_made_of_the_results():
    assert summary(load()) in README.read_text()


def row(name, sweeps=100.0):
    numbers = {"success": 0.5, "success_low": 0.4, "success_high": 0.6, "score": 0.75, "speedup": 12.345}
    return {"name": name, "sweeps": sweeps, **numbers, "paired_diff": -0.05, "paired_low": -0.1, "paired_high": 0.0}


def test_rivals_are_told_by_their_number_of_steps_whatever_their_spacing():
    names = ["DDPM-100", "BAC S=10 n=5", "BAC S=10 n=5, last 3 forced", "DDIM-100", "BAC S=10 n=5 on DDIM-100"]
    names += ["BAC S=20 n=5", "fitted multistep-4"]
    rivals = [("DDIM-17 trailing", 17), ("DPM-Solver++-16 leading", 16), ("DDIM-4 linspace", 4), ("DPM-Solver++-4", 4)]
    rows = [row(name) for name in names] + [row(*rival) for rival in rivals]
    lines = summary(dict.fromkeys(TASKS, rows)).splitlines()
    assert len(lines) == 2 + len(LINES)
    line = next(line for line in lines if line.startswith("| rival: DDIM, the steps"))
    assert "| .500 [.400, .600] (K = 17) | 12.3 |" in line
    assert ".750, -.050 [-.100, +.000] (K = 17) | 12.3 |" in line and BY_SCORE in TASKS


def test_a_table_without_a_method_says_how_to_make_one_with_it():
    with pytest.raises(
        ValueError, match=r"assembly-v3/table.json: has no row of BAC S=10 n=5; .* eval.compare tuned=fitted_4.json"
    ):
        summary(dict.fromkeys(TASKS, [row("DDPM-100")]))
