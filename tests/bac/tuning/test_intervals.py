"""The closed form of Wilson's interval against a library's."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bac.tuning.intervals import success_rate

proportion = pytest.importorskip("statsmodels.stats.proportion")


@given(n=st.integers(1, 5000), share=st.floats(0, 1), confidence=st.floats(0.5, 0.999))
def test_wilson_s_interval_is_that_of_statsmodels(n, share, confidence):
    successes = round(share * n)
    found = success_rate(successes, n, confidence=confidence)
    low, high = proportion.proportion_confint(successes, n, alpha=1 - confidence, method="wilson")
    assert (found.low, found.high) == pytest.approx((max(low, 0.0), min(high, 1.0)), abs=1e-9)


def test_more_successes_than_episodes_are_refused():
    with pytest.raises(ValueError, match="got 3 of 2"):
        success_rate(3, 2)
