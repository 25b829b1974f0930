"""Faults on purpose: what the gateway promises must outlive them."""
