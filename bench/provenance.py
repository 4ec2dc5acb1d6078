"""Where a stored number comes from: the command that makes it again, the versions that made it, and the day."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any

from bench.environment import versions

if TYPE_CHECKING:
    from problems.base import Problem


def described(problem: Problem) -> str:
    """The problem as the command line selects it: `name[setting=value,...]`."""
    from problems.settings import settings_text

    settings = settings_text(problem.settings)
    return f"{problem.name}[{settings}]" if settings else problem.name


def provenance(command: str, seed: int) -> dict[str, Any]:
    """command, seed, versions and date, as they are stored beside numbers."""
    today = datetime.date.today().isoformat()
    return {"command": command, "seed": seed, "versions": versions(), "date": today}
