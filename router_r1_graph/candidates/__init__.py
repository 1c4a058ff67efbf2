"""Candidates, pools, and one call with its reply."""

from .candidate import Candidate
from .pool import CandidatePool
from .settings import ControllerSettings, ModelSettings

__all__ = ["Candidate", "CandidatePool", "ControllerSettings", "ModelSettings"]
