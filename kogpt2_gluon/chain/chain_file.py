"""Reads a chain: a YAML file that names stages, each the run of an ordinary verb. It is data; nothing in it is run.

    name: mine
    folder: runs/mine
    stages:
      pretrain: {train: small_cpu, settings: {training.num_steps: 1000}}
      tune: {finetune: "{pretrain}", task: nsmc, data: nsmc}

``{pretrain}`` in any text of a later stage is the checkpoint of that stage: its best one, or its newest where it keeps
no best one.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kogpt2_gluon.errors import RecipeError
from kogpt2_gluon.options import from_plain, option, unknown_key
from kogpt2_gluon.recipe import Recipe
from kogpt2_gluon.user_files import read_yaml

NAME = re.compile(r"[a-z][a-z0-9_-]{0,39}")
REFERENCE = re.compile(r"\{([A-Za-z][A-Za-z0-9_-]*)\}")
ASIDE = "before-"  # begins the name of a folder with stages of before
SETTINGS = "settings"
# Keys of a recipe that a chain sets itself.
OWN = ("tracking.run_dir", "checkpoint.ckpt_dir", "checkpoint.mirrors")


@dataclass
class Train:
    """A stage of `kogpt2 train`; `settings` has keys of its recipe in addition."""

    train: str = option("", "a recipe: a file, also one next to the chain's, or the name of a shipped one", needed=True)


@dataclass
class Finetune:
    """A stage of `kogpt2 finetune`; `settings` has keys of its recipe in addition."""

    finetune: str = option("", "the network to fine-tune", path=True, needed=True)
    task: str = option("", "a task, or the YAML file of a table", needed=True)
    data: str = option("", "folder of the task's files", path=True, needed=True)
    recipe: str = option("finetune", "a recipe, as for train")
    seeds: int = option(1, "runs, each with its own seed", minimum=1)
    untrained: bool = option(False, "train the same network from random weights too")
    baselines: bool = option(True, "score simple systems as well")


@dataclass
class Evaluate:
    """A stage of `kogpt2 evaluate`."""

    evaluate: str = option("", "the network to score", path=True, needed=True)
    data: str = option("", "shards, or text", path=True, needed=True)
    documents: str = option("", "what a document of the text is")
    stride: int = option(0, "tokens from one sequence to the next; 0: a whole sequence", minimum=0)
    batch_size: int = option(8, "sequences at a time", minimum=1)


VERBS: dict[str, Any] = {"train": Train, "finetune": Finetune, "evaluate": Evaluate}


@dataclass(frozen=True)
class Stage:
    """A stage of a chain.

    Attributes
    ----------
    name : str
    verb : str
        A key of VERBS.
    options : Train, Finetune or Evaluate
    settings : mapping
        {dotted key of a recipe: value as YAML has it}.
    """

    name: str
    verb: str
    options: Any
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def references(self) -> list[str]:
        """The names of the stages that it refers to, each once."""
        found: dict[str, None] = {}
        self.resolved(lambda name: found.setdefault(name) or name)
        return list(found)

    def resolved(self, place: Callable[[str], str]) -> Stage:
        """Returns the stage with ``place(name)`` instead of each reference."""

        def replaced(value: Any) -> Any:
            if isinstance(value, str):
                return REFERENCE.sub(lambda found: place(found[1]), value)
            if isinstance(value, list):
                return [replaced(each) for each in value]
            if isinstance(value, dict):
                return {replaced(key): replaced(each) for key, each in value.items()}
            return value

        options = dataclasses.replace(self.options, **{key: replaced(v) for key, v in vars(self.options).items()})
        return Stage(self.name, self.verb, options, replaced(dict(self.settings)))


@dataclass(frozen=True)
class Chain:
    """A chain: its stages in their order, and the folder below which each has its own."""

    name: str
    about: str
    folder: Path
    stages: list[Stage]
    path: Path  # the file

    def stage(self, name: str) -> Stage:
        """Returns a stage; RecipeError, naming the nearest one, if there is none of this name."""
        names = [each.name for each in self.stages]
        if name not in names:
            raise RecipeError(f"{self.path}: {_unknown('stage', name, names)}")
        return self.stages[names.index(name)]

    def dependents(self, name: str) -> list[str]:
        """Returns a stage and all that depend on its result, in their order."""
        found = [self.stage(name).name]
        for each in self.stages:
            if each.name not in found and set(each.references) & set(found):
                found.append(each.name)
        return found


def find_chain(name: str) -> Path:
    """Returns the file of a chain: `name` is a path, or the name of one that the package ships."""
    if Path(name).is_file():
        return Path(name)
    try:
        import kogpt2_recipes  # the installed name of recipes/

        shipped = {file.stem: file for at in kogpt2_recipes.__path__ for file in Path(at).glob("chains/*.yaml")}
    except ImportError:
        shipped = {}
    if name in shipped:
        return shipped[name]
    raise RecipeError(f"chain {name}: no such file, and no shipped chain of that name ({', '.join(sorted(shipped))})")


def load_chain(name: str, overrides: Sequence[str] = (), folder: Path | None = None) -> Chain:
    """Reads a chain, applies ``STAGE.KEY=VALUE`` overrides, and checks it. RecipeError names the first fault.

    `folder` is the chain's, instead of the one that the file names.
    """
    path = find_chain(name)
    plain = read_yaml(path, "chain")
    for key in plain:
        if key not in ("name", "about", "folder", "stages"):
            raise RecipeError(f"{path}: {unknown_key(str(key), ['name', 'about', 'folder', 'stages']).text}")
    for key in ("name", "about", "folder"):
        if not isinstance(plain.get(key, ""), str):
            raise RecipeError(f"{path}: {key}: expected a text")
    listed = plain.get("stages")
    if not isinstance(listed, dict) or not listed:
        raise RecipeError(f"{path}: stages: expected a mapping from the name of each stage to what it does")
    names = [str(each) for each in listed]
    given = _by_stage(path, names, overrides)
    stages: list[Stage] = []
    for stage_name, content in listed.items():
        stages.append(_stage(path, str(stage_name), content, given.get(str(stage_name), []), stages))
    chosen = plain.get("name") or path.stem
    folder = folder or Path(plain.get("folder") or f"runs/{chosen}")
    return Chain(chosen, plain.get("about") or "", folder, stages, path)


def _by_stage(path: Path, names: Sequence[str], overrides: Sequence[str]) -> dict[str, list[str]]:
    """Returns the overrides of each stage, without its name."""
    found: dict[str, list[str]] = {}
    for override in overrides:
        stage, dot, rest = override.partition(".")
        if not dot or "=" not in rest:
            raise RecipeError(f"override {override!r}: write it as STAGE.KEY=VALUE, such as {names[0]}.training.seed=1")
        if stage not in names:
            raise RecipeError(f"override {override!r}: {path}: {_unknown('stage', stage, names)}")
        found.setdefault(stage, []).append(rest)
    return found


def _stage(path: Path, name: str, content: Any, overrides: Sequence[str], before: Sequence[Stage]) -> Stage:
    where = f"{path}: stages.{name}"
    if not NAME.fullmatch(name) or name.startswith(ASIDE):
        raise RecipeError(f"{where}: a stage's name has up to 40 lower-case letters, digits, _ and -, a letter first")
    if not isinstance(content, dict):
        raise RecipeError(f"{where}: expected a mapping with one of {', '.join(VERBS)}")
    verbs = [verb for verb in VERBS if verb in content]
    if len(verbs) != 1:
        raise RecipeError(f"{where}: names {' and '.join(verbs) or 'no verb'}; it needs one of {', '.join(VERBS)}")
    kind = VERBS[verbs[0]]
    known = [entry.name for entry in dataclasses.fields(kind)]
    takes_settings = kind is not Evaluate
    for key in content:
        if key not in known and not (key == SETTINGS and takes_settings):
            raise RecipeError(f"{where}: {unknown_key(str(key), [*known, *[SETTINGS] * takes_settings]).text}")
    settings = dict(_settings(where, content.get(SETTINGS)))
    own: list[str] = []
    for override in overrides:
        key, _, text = override.partition("=")
        if "." in key and takes_settings:
            settings[key] = text
        else:
            own.append(override)
    plain = {key: value for key, value in content.items() if key != SETTINGS}
    options, faults = from_plain(kind, plain, own)
    faults_of = [fault.text for fault in faults]
    for entry in dataclasses.fields(kind):
        if not faults_of and entry.metadata["needed"] and not getattr(options, entry.name):
            faults_of.append(f"{entry.name} is missing: {entry.metadata['help']}")
    faults_of += [f"{key}: the chain sets it; leave it out" for key in settings if key in OWN]
    stage = Stage(name, verbs[0], options, settings)
    verbs_before = {each.name: each.verb for each in before}
    for reference in stage.references:
        if reference not in verbs_before:
            faults_of.append(_unknown("earlier stage", reference, list(verbs_before)))
        elif verbs_before[reference] == "evaluate":
            faults_of.append(
                f"{{{reference}}}: stage {reference} evaluates, and leaves no network; name one that trains"
            )
    if faults_of:
        raise RecipeError(f"{where}: {'; '.join(faults_of)}")
    return stage


def _settings(where: str, plain: Any) -> Iterator[tuple[str, Any]]:
    """Yields the dotted keys of settings, which may be written as sections."""
    if plain is None:
        return
    if not isinstance(plain, dict):
        raise RecipeError(f"{where}.{SETTINGS}: expected a mapping from keys of a recipe to values")
    sections = {name for name, value in vars(Recipe()).items() if dataclasses.is_dataclass(value)}
    for key, value in plain.items():
        if key in sections and isinstance(value, dict):
            yield from ((f"{key}.{name}", each) for name, each in value.items())
        else:
            yield str(key), value


def _unknown(what: str, name: str, known: Sequence[str]) -> str:
    fault = unknown_key(name, known).text.removeprefix("unknown key")
    listed = f" (there are: {', '.join(known)})" if known else " (it is the first one)"
    return f"no {what}{fault}" + ("" if "did you mean" in fault else listed)
