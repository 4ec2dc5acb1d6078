"""Kernel forms: a pair's draws, evaluations and sums fused in lanes, one lane a replicate. Importing this imports nothing heavy.

A lane function is written once, in a factory that takes a `Backend`; only the drivers (`cpu`) know a device. Rows of numbers have
the lanes innermost; lane w Q + j of a block of L = 4 Q lanes is replicate 4 j + w: one Philox block's four words are four lanes.
"""
