"""``python -m launch`` in a checkout, ``python -m kogpt2_launch`` once installed."""

import sys

# In a checkout this folder is the package that its own imports name, whatever else is installed.
sys.modules["kogpt2_launch"] = sys.modules[__package__]

from kogpt2_launch.cli.main import main  # noqa: E402

if __name__ == "__main__":
    main(prog_name=f"python -m {__package__}")
