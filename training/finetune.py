"""Train a policy that routes: `python training/finetune.py --config FILE [key=value ...]`.

The same program as `router-r1 train FILE`, run from a checkout.
"""

import sys
from pathlib import Path

# Import from the root of the checkout, not from the folder of this file.
sys.path.pop(0)
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from training.program import main

if __name__ == "__main__":
    sys.exit(main())
