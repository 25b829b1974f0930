"""How many examples hypothesis tries: ``HYPOTHESIS_PROFILE`` is quick, usual or thorough."""

import os
from typing import Final

from hypothesis import HealthCheck, settings

_FACTORS: Final = {"quick": 0.2, "usual": 0.5, "thorough": 10.0}


def examples(count: int) -> int:
    """Return how many examples to try where so many are normal."""
    return max(10, round(count * _FACTORS[_PROFILE]))


_PROFILE: Final = os.environ.get("HYPOTHESIS_PROFILE", "usual")
if _PROFILE not in _FACTORS:
    raise ValueError(f"HYPOTHESIS_PROFILE must be one of {', '.join(_FACTORS)}, not {_PROFILE!r}")

# How fast an example is made or tried depends on what else this machine does.
settings.register_profile(
    _PROFILE,
    max_examples=examples(100),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile(_PROFILE)

THOROUGH: Final = _PROFILE == "thorough"
"""Whether to try what takes long, too."""
