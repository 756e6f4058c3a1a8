"""Where and how a recipe runs: hosts, workers, their environment, and the processes on this machine.

A recipe says what is trained, and this package says where; neither knows the other's part. It is installed as
``kogpt2_launch`` (command ``kogpt2-launch``), works as ``python -m launch`` in a checkout, and needs no MXNet.

Read it in this order. ``hosts.py`` names who takes part. ``plan/`` decides everything in advance: discovery (finds
hosts), fabric (what each instance type needs), lint (variables that do harm), environment (what workers inherit),
variables (what they get), commands (how engines are called), plan and plan_file. ``preflight/`` asks every host if it
is ready, through ``ssh.py``. ``run/`` runs a plan: job (attempt after attempt), restart (if there is another one),
attempt (one start of all workers), verdicts (when it is over), control (the connections to the supervisors), agent
(what is sent to the hosts). ``host/`` is what is sent; its supervisor runs one worker. ``render/`` writes a plan for
schedulers. ``cli/`` has a file for each verb. The names that launcher and workers share are in
``kogpt2_gluon/machine/job.py``.
"""
