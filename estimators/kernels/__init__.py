"""Kernel forms: a pair's draws, evaluations and sums fused in lanes, one lane a replicate. Importing this imports nothing heavy.

A lane function is written once, in a factory that takes a `Backend`; only the drivers (`cpu`) know a device. Rows of numbers have
the lanes innermost; one Philox block's four words are four lanes (`philox.replicates_of`): of 64 lanes, lane 16 w + i is replicate
4 i + w.
"""
