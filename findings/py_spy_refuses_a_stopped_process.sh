#!/usr/bin/env bash
# py-spy: it cannot show the stack of a process that is stopped, unless it is asked not to stop it.
#
# Guess: a process that already stands still (SIGSTOP, Ctrl-Z) is the easiest one to read.
# What happens: py-spy 0.4.3 stops the process itself before it reads, does not expect the answer of one that is stopped
# already, and ends with an error. With --nonblocking it reads the memory at once and shows the stack.
# It matters to whoever looks for the rank that holds up a Horovod job. A worker that a scheduler or a debugger has
# stopped is just the one to find, and py-spy fails on that one alone.
#
# Output on 2026-11-28:
#   py-spy 0.4.3
#   running: MainThread
#   stopped: Error: Failed to get stack traces; unexpected waitpid result PtraceEvent(Pid(...), SIGSTOP, 128) to ...
#   stopped, --nonblocking: MainThread
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
"${PYTHON:-python3.11}" -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check py-spy==0.4.3

venv/bin/py-spy --version
"${PYTHON:-python3.11}" -c 'import time; time.sleep(60)' &
sleeper=$!
trap 'kill -KILL $sleeper; wait $sleeper 2> /dev/null || true; rm -rf "$folder"' EXIT
sleep 1
if ! venv/bin/py-spy dump --pid $sleeper > running 2>&1; then
  echo "py-spy may not read processes here: nothing can be shown"
  exit 0
fi
echo "running: $(grep -o MainThread running)"
kill -STOP $sleeper
sleep 1
if venv/bin/py-spy dump --pid $sleeper > stopped 2>&1; then
  echo "read a stopped process: the behaviour has changed"
  exit 1
fi
echo "stopped: $(grep -m 1 Error: stopped); $(grep -o 'unexpected waitpid.*' stopped)"
venv/bin/py-spy dump --nonblocking --pid $sleeper > nonblocking 2>&1
echo "stopped, --nonblocking: $(grep -o MainThread nonblocking)"
