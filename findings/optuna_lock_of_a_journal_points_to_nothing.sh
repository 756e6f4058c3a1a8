#!/usr/bin/env bash
# Optuna: the lock of a journal with a relative path points to nothing; one that a kill leaves is never released.
#
# Guess: JournalFileBackend("runs/study.log") works as with an absolute path: a lock whose holder was killed is released
# after its grace period of 30 seconds.
# What happens: the lock is a symbolic link runs/study.log.lock to the text "runs/study.log", which the system reads from
# the folder of the link: runs/runs/study.log, which is not there. To see how old a lock is, Optuna looks at the file that
# it points to. That fails, and the loop begins again, without its pause and without its rule for old locks: the next
# process waits for ever, with a whole core. With an absolute path, or a name without a folder, the rule works.
# It matters to whoever kills a study: its next start says every ten seconds that it
# takes longer, and never begins. Give an absolute path.
#
# This script does not hang: the process that waits for ever is ended after 10 seconds, with a grace period of 3.
#
# Output on 2026-11-30:
#   optuna 5.0.0
#   runs/study.log: the lock points to nothing; a second process has waited for 10 s
#   /.../runs/study.log: the lock points to the journal; a second process has the lock
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3.11}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check optuna==5.0.0

venv/bin/python -W ignore - <<'EOF'
import os
import subprocess
import sys
from pathlib import Path

import optuna
from optuna.storages.journal import JournalFileSymlinkLock

print("optuna", optuna.__version__)
SECOND = """
import sys
from optuna.storages.journal import JournalFileSymlinkLock
print("imported", flush=True)
JournalFileSymlinkLock(sys.argv[1], grace_period=3).acquire()
print("acquired", flush=True)
"""


def second_process(path):
    """Returns whether another process gets a lock that nobody releases."""
    process = subprocess.Popen([sys.executable, "-W", "ignore", "-c", SECOND, path], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "imported\n"
    try:
        said, _ = process.communicate(timeout=LIMITS[os.path.isabs(path)])
        return "acquired" in said
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return False


LIMITS = {False: 10, True: 60}  # seconds, by whether the path is absolute
os.mkdir("runs")
results = []
for path in ("runs/study.log", os.path.abspath("runs/study.log")):
    Path(path).touch()
    JournalFileSymlinkLock(path).acquire()  # as of a process that is killed now
    where = "the journal" if os.path.exists(path + ".lock") else "nothing"
    got = second_process(path)
    said = "has the lock" if got else f"has waited for {LIMITS[False]} s"
    print(f"{path.replace(os.getcwd(), '/...')}: the lock points to {where}; a second process {said}")
    results.append((where, got))
    Path(path + ".lock").unlink(missing_ok=True)
assert results == [("nothing", False), ("the journal", True)], "the behaviour has changed"
EOF
