"""Weaknesses of the two existing systems: what closes each here, and the test that shows it."""
