"""What runs on the hosts of a launch: sent there as one archive (agent.py), so it needs the standard library alone.

``supervisor.py`` runs one worker, tied to the launcher through ``link.py``; ``place.py`` says which worker it is,
``spot.py`` whether its instance is about to end; ``processes.py`` finds and ends processes; ``visit.py`` is what the
launcher does on a host before and after. Python 3.9 or later; nothing of this package outside this folder.
"""
