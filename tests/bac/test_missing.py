"""A policy whose observation the environment does not give."""

from types import SimpleNamespace

import pytest

from bac.cli.measure import naming_what_is_missing
from bac.errors import BacError

SEES = SimpleNamespace(
    input_features={"observation.state": None, "observation.image": None, "observation.image.left": None}
)


@pytest.mark.parametrize(
    "error",
    [
        KeyError("observation.image.left"),
        ValueError("observation.image.left: this policy sees it, and the observation has none"),
        ValueError("All image features are missing from the batch (observation.image, observation.image.left)"),
    ],
)
def test_what_is_missing_is_named_with_what_to_type(error):
    with (
        pytest.raises(
            BacError, match="gives no observation.image.left, which the policy takes.*--env-option pixels=96"
        ),
        naming_what_is_missing("bac_so101", SEES),
    ):
        raise error


@pytest.mark.parametrize("error", [KeyError("action"), ValueError("observation.state: must have shape (3,), got (4,)")])
def test_other_errors_stay_what_they_are(error):
    with pytest.raises(type(error)), naming_what_is_missing("bac_so101", SEES):
        raise error
