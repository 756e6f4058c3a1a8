"""The programs that run on the hosts of a launch.

They are sent there as one archive (run/agent.py), so they need Python 3.9 or later and the standard library alone. They
import nothing from outside this folder but ``kogpt2_gluon.machine.job``, which is in the archive too.

``supervisor.py`` runs one worker, connected to the launcher through ``link.py``. ``place.py`` computes which worker it
is, and ``spot.py`` asks if its instance is about to end. ``processes.py`` finds and ends processes. ``visit.py`` is
what the launcher does on a host before and after an attempt.
"""
