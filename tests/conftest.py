"""What all tests share."""

import os

import hypothesis

hypothesis.settings.register_profile(
    "default", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
# For the extension that traces every line: it is some hundred times slower.
hypothesis.settings.register_profile(
    "traced", hypothesis.settings.get_profile("default"), max_examples=5
)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))
