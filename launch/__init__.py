"""Where and how a recipe runs: hosts, workers, their environment, and the processes on this machine.

A recipe says what is trained, this package says where; neither knows the other's part. It is installed as
``kogpt2_launch`` (command ``kogpt2-launch``), works as ``python -m launch`` in a checkout, and needs no MXNet.

Read in this order: ``hosts.py`` (who takes part), ``discovery.py`` (who is there), ``fabric.py`` (what each instance
type needs), ``lint.py`` (variables that do harm), ``environment.py`` (what workers inherit), ``variables.py`` (what
they get), ``plan.py`` (everything decided beforehand, as a file), ``preflight.py`` with ``ssh.py``, ``probe.py`` and
``checks.py`` (is every host ready), ``run.py`` (a plan on this host), ``worker_exit.py`` (keeps a worker's exit code).
``cli.py`` has the verbs.
"""
