"""The peers' file is collected only where the extra `peers` is installed."""

from __future__ import annotations

from importlib.util import find_spec

collect_ignore = [] if find_spec("jax") else ["test_jax.py"]
