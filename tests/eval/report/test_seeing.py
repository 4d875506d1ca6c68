"""The README's table of policies that see is that of the results."""

from pathlib import Path

from eval.report.seeing import POLICIES, lines, load

README = Path(__file__).parents[3] / "README.md"


def flow(name, difference, ms):
    return {
        "name": name,
        "all": {"n": 8, "success": [0.5, 0.25, 0.75], "difference": difference},
        "latency": {"p50_ms": ms},
    }


def diffusion(name, difference, speedup):
    numbers = dict(zip(("paired_diff", "paired_low", "paired_high"), difference, strict=True))
    return {
        "name": name,
        "n": 8,
        "success": 1.0,
        "success_low": 0.75,
        "success_high": 1.0,
        "speedup": speedup,
        **numbers,
    }


def test_the_table_of_the_readme_is_made_of_the_results():
    assert "\n".join(lines(load())) in README.read_text()


def test_what_is_shown_is_bold_and_speed_is_over_pytorch():
    ways = ("Euler-10", (0, 0, 0), 50), ("Euler-2", (-0.2, -0.3, -0.1), 20), ("fitted-2", (0.1, -0.1, 0.3), 25)
    of_flow = {
        "eager": {"p50_ms": 100.0},
        "rows": [flow(*way) for way in (*ways, ("BAC S=5 n=2", (0.2, 0.1, 0.3), 40))],
    }
    names = (
        ("DDPM-100", (None,) * 3, 2),
        ("DPM-Solver++-2 leading", (0, -0.1, 0.1), 20),
        ("BAC S=10 n=5", (-0.2, -0.3, -0.1), 4),
    )
    of_ddpm = [diffusion(*way) for way in names]
    tables = {policy.folder: of_ddpm if policy.own == "DDPM-100" else of_flow for policy in POLICIES}
    shown = list(lines(tables))
    cells = "| .500 [.250, .750], n = 8 | **-.200 [-.300, -.100]** | +.100 [-.100, +.300] | **+.200 [+.100, +.300]** |"
    assert shown[2] == f"| {POLICIES[0].title} {cells} 2.0, 5.0, 4.0, 2.5 |"
    last = "| 1.000 [.750, 1.000], n = 8 | +.000 [-.100, +.100] | - | **-.200 [-.300, -.100]** | 2.0, 20.0, -, 4.0 |"
    assert shown[-1] == f"| {POLICIES[-1].title} {last}"
