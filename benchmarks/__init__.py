"""How fast odingw is: ``python -m benchmarks``; see README.rst."""
