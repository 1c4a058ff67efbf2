"""Learned controllers: each predicts what every candidate would score, and asks one of them.

They are the baselines that a trained policy has to beat: fitted on a score matrix in seconds or
minutes, they ask one candidate the whole question and repeat its reply. Needs the extra `eval`;
`mf`, `irt`, `encoder` and the MiniLM embedding need `local` (torch) too.
"""

from .controller import LearnedController
from .methods import AUTO, METHODS

__all__ = ["AUTO", "METHODS", "LearnedController"]
