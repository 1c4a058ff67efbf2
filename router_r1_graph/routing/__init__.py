"""The first turn of a controller: whom it would ask, and how likely each candidate was."""

from .first_turn import adecide_only, aroute_only, decide_only, route_only
from .planned_calls import PlannedCall, Routing

__all__ = [
    "PlannedCall",
    "Routing",
    "adecide_only",
    "aroute_only",
    "decide_only",
    "route_only",
]
