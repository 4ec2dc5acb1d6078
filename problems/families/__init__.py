"""Families of distributions, bound to their parameters as q."""
