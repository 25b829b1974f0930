"""Simulated ODIN servers and clients, which speak only the public wire."""
