"""Candidates, pools, and one call with its reply."""

from .candidate import Candidate
from .given_pool import as_pool
from .pool import CandidatePool
from .settings import ControllerSettings, ModelSettings

__all__ = ["Candidate", "CandidatePool", "ControllerSettings", "ModelSettings", "as_pool"]
