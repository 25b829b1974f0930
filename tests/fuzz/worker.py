"""One target under atheris, in a process of its own; ``tests.fuzz`` starts it.

``python -m tests.fuzz.worker TARGET [libFuzzer's options and folders]``
"""

import sys

import atheris  # type: ignore[import-untyped]  # atheris has no types

with atheris.instrument_imports(
    include=["odingw", "tomllib", "twisted.web.http", "urllib.parse"],
    enable_loader_override=False,
):
    from tests.fuzz.targets import TARGETS


def main() -> None:
    """Run until libFuzzer is done."""
    name, *options = sys.argv[1:]
    atheris.Setup([sys.argv[0], *options], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
