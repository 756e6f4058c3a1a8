"""A plan as a file: reading back what ``kogpt2-launch plan --out`` wrote, and refusing what was edited by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kogpt2_gluon.errors import RecipeError
from kogpt2_gluon.estimate import Estimate
from kogpt2_gluon.findings import FAIL
from kogpt2_gluon.recipe import load_recipe
from kogpt2_gluon.storage.links import read_file
from kogpt2_launch.hosts import FileSystem, Host
from kogpt2_launch.plan.environment import INTERFACE_VARIABLES, check_variable
from kogpt2_launch.plan.plan import FORMAT, Plan, check_gpus, check_interface
from kogpt2_launch.plan.variables import USER, Fabric, Variable, worker_variables


def is_plan(name: str) -> bool:
    """Returns True if a file is a plan, whatever its name; a name that ends in .json is taken for one."""
    if name.endswith(".json"):
        return True
    try:
        with Path(name).open(encoding="utf-8", errors="replace") as file:
            return '"format": "kogpt2-launch-plan-' in file.read(200)
    except OSError:
        return False  # a shipped recipe's name, or nothing


def load_plan(path: Path) -> Plan:
    """Reads a plan that ``plan --out`` wrote; RecipeError if it is damaged, edited by hand or out of date."""
    again = "make it again with kogpt2-launch plan"
    try:
        plain = json.loads(read_file(path).decode())
    except (OSError, ValueError, RecursionError) as error:
        raise RecipeError(f"plan {path}: not readable: {error}") from None
    found = plain.get("format") if isinstance(plain, dict) else None
    if found != FORMAT:
        raise RecipeError(f"plan {path}: format {found!r} is not {FORMAT!r}; {again}")
    try:
        plan = _from_dict(plain)
        _check_plan(plan, plain, f"plan {path}: ", again)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise RecipeError(f"plan {path}: incomplete ({type(error).__name__}: {error}); {again}") from None
    except RecipeError as error:  # of a part of it, which does not know its file
        raise RecipeError(str(error) if str(path) in str(error) else f"plan {path}: {error}") from None
    return plan


def _check_plan(plan: Plan, plain: Mapping[str, Any], where: str, again: str) -> None:
    """RecipeError if a plan was edited by hand, or is not what would be planned now."""
    # Everything that can be derived is derived again: a command that was written into the file by hand is never
    # started.
    written = plan.to_dict()
    changed = sorted(key for key in {*written, *plain} if written.get(key) != plain.get(key))
    if changed:
        raise RecipeError(f"{where}{', '.join(changed)} does not follow from the rest of the plan; {again}")
    check_interface(plan)
    check_gpus(plan)
    _check_variables(plan)
    resolved = load_recipe(plan.recipe, plan.overrides)
    if len(plan.hosts) > 1:  # a plan for this machine alone may come from a machine with other cores
        user = {each.name: each.value for each in plan.env if each.source == USER}
        if worker_variables(resolved, plan.hosts, plan.network_interface, plan.fabric, user) != plan.env:
            raise RecipeError(f"{where}env does not follow from the rest of the plan; {again}")
    batch = (resolved.training.batch_size, resolved.accumulate(plan.size), resolved.data.seq_length)
    same = (resolved.fingerprint(), str(resolved.run_dir)) == (plan.fingerprint, plan.run_dir)
    if not same or batch != (plan.batch_size, plan.accumulate, plan.seq_length):
        raise RecipeError(f"{where}recipe {plan.recipe} has changed since the plan was made; {again}")


def _from_dict(plain: Mapping[str, Any]) -> Plan:
    recipe, batch = plain["recipe"], plain["batch"]
    interface, shared = plain["network_interface"], plain["file_system"]
    # A value of another type is converted here, and then differs from the file.
    return Plan(
        recipe=str(recipe["name"]),
        overrides=tuple(str(override) for override in recipe["overrides"]),
        fingerprint=str(recipe["fingerprint"]),
        run_dir=str(plain["run_dir"]),
        hosts=tuple(Host(str(host["name"]), int(host["slots"])) for host in plain["hosts"]),
        network_interface=None if interface is None else str(interface),
        env=tuple(Variable(str(each["name"]), str(each["value"]), str(each["source"])) for each in plain["env"]),
        batch_size=int(batch["batch_size"]),
        accumulate=int(batch["accumulate"]),
        seq_length=int(batch["seq_length"]),
        fabric=Fabric(**{name: None if value is None else str(value) for name, value in plain["fabric"].items()}),
        file_system=FileSystem(**{name: str(value) for name, value in shared.items()}) if shared else None,
        estimate=tuple(Estimate(**each) for each in plain["estimate"]),
    )


def _check_variables(plan: Plan) -> None:
    """Holds the variables of a plan file to the rules of the command line; RecipeError."""
    for each in plan.env:
        if each.name not in INTERFACE_VARIABLES or each.value != plan.network_interface:
            check_variable(each.name, each.value)
    for finding in plan.fabric.lint({each.name: each.value for each in plan.env}):
        if finding.status == FAIL:
            raise RecipeError(f"{finding.what}: {finding.text} ({finding.where})")
