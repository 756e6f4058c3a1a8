"""Where and how a recipe runs: hosts, workers, their environment, and the processes on this machine.

A recipe says what is trained, this package says where; neither knows the other's part. It is installed as
``kogpt2_launch`` (command ``kogpt2-launch``), works as ``python -m launch`` in a checkout, and needs no MXNet.

Read in this order: ``hosts.py`` (who takes part), ``discovery.py`` (who is there), ``fabric.py`` (what each instance
type needs), ``lint.py`` (variables that do harm), ``environment.py`` (what workers inherit), ``variables.py`` (what
they get), ``plan.py`` (everything decided beforehand, as a file), ``preflight.py`` with ``ssh.py``, ``probe.py``,
``checks.py`` and ``checks_ec2.py`` (is every host ready).

Then a run: ``job.py`` (attempt after attempt), ``restart.py`` (whether there is another), ``attempt.py`` (one, from the
hosts' preparation to their sweeping), ``control.py`` (the connections to the supervisors), ``engines.py`` (what starts
them), ``agent.py`` (what is sent to the hosts: the folder ``host/``, whose ``supervisor.py`` stands beside a worker),
``run.py`` (on this machine), ``status.py``. ``render.py`` writes a plan for schedulers. ``cli*.py`` have the verbs.
"""
