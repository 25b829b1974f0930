"""Fuzzing of all that parses what strangers send; see README.rst beside this file."""
