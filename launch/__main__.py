"""``python -m launch`` in a checkout, ``python -m kogpt2_launch`` once installed."""

from kogpt2_launch.cli.main import main

if __name__ == "__main__":
    main(prog_name=f"python -m {__package__}")
