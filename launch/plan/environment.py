"""The variables that workers inherit from the environment, and those that must never travel there.

Workers get an allowlist, not the whole environment: horovodrun writes each variable it gets onto a command line (the
ssh line too), where every user of the machine can read it with ``ps``. So the allowlist holds only what is needed to
find programs and libraries and to tune them. Credentials are not on it, and a variable that looks like a secret is
dropped even if a pattern would admit it. Workers find credentials where the AWS SDK looks for them without variables:
the instance's role, or ``~/.aws/credentials`` (HOME and AWS_PROFILE are passed on).
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping, Sequence

from kogpt2_gluon.errors import RecipeError
from kogpt2_gluon.machine import job

ALLOWED = (
    *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "TMPDIR", "TZ"),  # the account
    *("LANG", "LANGUAGE", "LC_*"),  # text: Korean output needs a UTF-8 locale
    *("TERM", "COLUMNS", "NO_COLOR", "FORCE_COLOR"),  # the terminal
    *("PYTHON*", "VIRTUAL_ENV", "LD_LIBRARY_PATH"),  # the installation
    *("OMP_*", "GOMP_*", "KMP_*", "MKL_*", "DNNL_*"),  # CPU threads and kernels
    *("CUDA_*", "NVIDIA_*"),  # which GPUs, and their libraries
    *("HOROVOD_*", "NCCL_*", "FI_*"),  # communication
    *("MXNET_*", "KOGPT2_*"),  # the framework and this project
    *("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE", "AWS_CONFIG_FILE"),  # where and as whom, never the keys
    *("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_CA_BUNDLE"),  # a store of another maker
)

# horovodrun (with --gloo) sets these for every worker. It overwrites what was asked for, silently.
SET_BY_HOROVODRUN = (
    *(name for name in job.HOROVODRUN if name),
    *("HOROVOD_CROSS_RANK", "HOROVOD_CROSS_SIZE", "HOROVOD_HOSTNAME", "HOROVOD_CONTROLLER", "HOROVOD_CPU_OPERATIONS"),
    *("HOROVOD_GLOO_RENDEZVOUS_ADDR", "HOROVOD_GLOO_RENDEZVOUS_PORT"),
)
LIBRARY_PATH = "LD_LIBRARY_PATH"
INTERFACE_VARIABLES = ("HOROVOD_GLOO_IFACE", "NCCL_SOCKET_IFNAME")

# Whole words between underscores: KOGPT2_API_TOKEN and AWS_ACCESS_KEY_ID are secrets, KOGPT2_TOKENIZER is not.
_SECRET = re.compile(
    r"(^|_)(API_?KEY|ACCESS_?KEY|KEYS?|TOKEN|SECRETS?|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?|AUTH)(_|$)", re.IGNORECASE
)
_USER_IN_URL = re.compile(r"://[^/@\s]*@")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def looks_secret(name: str) -> bool:
    """Returns True if a variable's name suggests that its value is a key, token or password."""
    return _SECRET.search(name) is not None


def check_variable(name: str, value: str) -> None:
    """RecipeError for a variable that a plan must not hold: malformed, a secret, or overwritten by horovodrun."""
    if not _NAME.fullmatch(name):
        raise RecipeError(f"--env {name!r}: not the name of an environment variable; write NAME=VALUE")
    if looks_secret(name):
        raise RecipeError(
            f"--env {name}: looks like a secret, and others can read a plan and its command lines; "
            "use the instance's role, ~/.aws/credentials or a file of mode 600 on every host instead"
        )
    if name in INTERFACE_VARIABLES:
        raise RecipeError(f"--env {name}: horovodrun overwrites it; use --network-interface")
    if name in SET_BY_HOROVODRUN:
        raise RecipeError(f"--env {name}: horovodrun sets it for every worker; leave it out")
    if any(ord(character) < 32 or ord(character) == 127 for character in value):
        raise RecipeError(f"--env {name}: the value holds a line break or another control character")


def inherited(environment: Mapping[str, str]) -> dict[str, str]:
    """The part of `environment` that workers inherit: on the allowlist, not a secret, not another job's rank."""
    return {
        name: value
        for name, value in environment.items()
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in ALLOWED)
        and not looks_secret(name)
        and not _USER_IN_URL.search(value)
        and name not in SET_BY_HOROVODRUN
    }


def worker_environment(planned: Mapping[str, str], ours: Mapping[str, str]) -> dict[str, str]:
    """The environment of the workers: the allowed part of ours, with the plan's variables on top."""
    env = {**inherited(ours), **planned}
    if LIBRARY_PATH in ours and LIBRARY_PATH in planned:
        env[LIBRARY_PATH] = join_library_paths(planned[LIBRARY_PATH], ours[LIBRARY_PATH])
    return env


def join_library_paths(first: str, second: str) -> str:
    """Joins two lists of folders, each folder once."""
    return ":".join(dict.fromkeys([*first.split(":"), *second.split(":")]))


def parse_variables(settings: Sequence[str]) -> dict[str, str]:
    """Reads the variables of repeated ``--env K=V`` options; for a repeated name the last one counts."""
    variables: dict[str, str] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals:
            # The text is not shown, because it may be a secret that was pasted in the wrong place.
            raise RecipeError("--env: write NAME=VALUE")
        variables[name] = value
    return variables
