"""``python -m odingw.cli`` is ``odingw``."""

from odingw.cli.main import main

if __name__ == "__main__":
    main()
