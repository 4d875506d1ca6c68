"""The lines to type next."""

from pathlib import Path

from bac.cli import hints

TEN = "--eval.n_episodes=10 --eval.batch_size=1"


def test_the_line_plays_where_the_policy_was_tuned():
    line = hints.evaluate(Path("CKPT"), [], "bac_so101", ["pixels=96", "wrist=true"], "so101-pick-place")
    where = "--env.type=bac_so101 --env.task=so101-pick-place --env.pixels=96 --env.wrist=true"
    assert line == f"lerobot-eval --policy.path=CKPT {where} {TEN}"


def test_without_an_environment_its_name_is_left_to_the_user_and_what_had_to_be_imported_is_named():
    line = hints.evaluate(Path("my policy"), ["my.types"], None, [], None)
    assert line == f"lerobot-eval --policy.path='my policy' --own1.discover_packages_path=my.types --env.type=ENV {TEN}"
