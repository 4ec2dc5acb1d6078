"""Bias, variance and wall-clock of Monte Carlo gradient estimators. Importing this package imports nothing heavy."""
