"""The knobs of one run: their help and ranges, and the one function that reads them."""

from .given import Knobs, as_context
from .run_context import CandidateContext, RouterContext, knobs, knobs_in

__all__ = ["CandidateContext", "Knobs", "RouterContext", "as_context", "knobs", "knobs_in"]
