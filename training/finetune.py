"""Train a policy that routes: `python training/finetune.py --config FILE [key=value ...]`.

The same program as `router-r1 train FILE`, run from a checkout.
"""

import signal
import sys
from pathlib import Path

# Until the program takes it, Ctrl-C stops imports, in which nothing has begun, without a traceback.
signal.signal(signal.SIGINT, signal.SIG_DFL)

# Import from the root of the checkout, not from the folder of this file.
sys.path.pop(0)
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from training.program import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
