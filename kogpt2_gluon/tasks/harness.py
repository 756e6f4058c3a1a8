"""Checkpoints in lm-evaluation-harness: its tasks, and MXNet inside.

Every text has ``<s>`` in front, once: before a context, before an answer without one, before a text that is scored as a
whole. The harness's own backend for transformers folders puts it in front of the last two by itself, and in front of a
context only with add_bos_token=True, which then doubles it in front of whole texts.

A prompt that is too long loses tokens on its left, as with the harness's own backends; but ``<s>`` stays.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from lm_eval import simple_evaluate
from lm_eval.api.model import LM
from lm_eval.tasks import TaskManager

from kogpt2_gluon.errors import DataError, RecipeError
from kogpt2_gluon.inference.prompt_encoding import PromptEncoder
from kogpt2_gluon.inference.sampling import Sampling
from kogpt2_gluon.inference.scoring import Request, Scorer, rolling_requests
from kogpt2_gluon.inference.shared_prefixes import Ids
from kogpt2_gluon.inference.text_engine import FAILED, TextEngine, TextRequest
from kogpt2_gluon.machine.runtime import mx
from kogpt2_gluon.model.gpt2 import GPT2Model
from kogpt2_gluon.tasks.harness_tasks import is_task_file, read_task_file
from kogpt2_gluon.tokens.tokenizer import Tokenizer
from kogpt2_gluon.wording import Say, counted, silent

RESAMPLES = 1000  # for a standard error that has no formula
TEXTS_AT_ONCE = 8
NEW_TOKENS = 256  # of a generated text, where a task does not say: the harness's own default
GENERATION = {"until", "max_gen_toks", "do_sample", "temperature", "top_k", "top_p", "repetition_penalty"}


class HarnessModel(LM):
    """A network and its tokenizer as the harness takes a model.

    Parameters
    ----------
    net : GPT2Model
        As :func:`~kogpt2_gluon.inference.loading.load_checkpoint` returns it.
    tokenizer : Tokenizer
    ctx : mx.Context
        None: the CPU.
    say : callable
        Is called with what was computed otherwise than it was asked for.
    """

    def __init__(self, net: GPT2Model, tokenizer: Tokenizer, ctx: Any = None, say: Say = silent) -> None:
        super().__init__()
        self._net, self._tokenizer, self._ctx, self._say = net, tokenizer, ctx or mx.cpu(), say
        self._scorer, self._encoder = Scorer(net, self._ctx), PromptEncoder(tokenizer)

    @property
    def tokenizer_name(self) -> str:
        """The tokenizer's hash, by which the harness keeps requests."""
        return self._tokenizer.sha256

    def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Returns, of each request (context, continuation), the log-likelihood and whether it is the greedy text."""
        by_context: dict[str, list[int]] = {}
        for place, (context, _) in enumerate(request.args for request in requests):
            by_context.setdefault(context, []).append(place)
        encoded = self._encoder.encode(
            [(context, [requests[place].args[1] for place in places]) for context, places in by_context.items()]
        )
        wanted: dict[int, Request] = {}
        for each, places in zip(encoded, by_context.values()):
            wanted.update(zip(places, (Request(each.context, answer) for answer in each.answers)))
        if crossed := sum(len(each.answers) for each in encoded if each.is_crossed):
            self._say(f"{counted(crossed, 'answer')} scored with the end of the context, where a piece crosses into it")
        found = self._scorer.log_likelihoods(self._fitting([wanted[place] for place in range(len(requests))]))
        results = [(each.log_likelihood, each.is_greedy) for each in found]
        for request, result in zip(requests, results):
            self.cache_hook.add_partial("loglikelihood", request.args, result)
        return results

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """Returns the log-likelihood of each text as a whole, after ``<s>``; ``</s>`` is not scored."""
        texts = [request.args[0] for request in requests]
        parts = [
            rolling_requests(ids, self._tokenizer.bos_id, self._net.max_length)
            for ids in self._encoder.encode_texts(texts)
        ]
        found = iter(self._scorer.log_likelihoods([each for part in parts for each in part]))
        results = [sum(next(found).log_likelihood for _ in part) for part in parts]
        for text, result in zip(texts, results):
            self.cache_hook.add_partial("loglikelihood_rolling", (text,), result)
        return results

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Returns the continuation of each context, up to a text to stop at, ``</s>``, or the number of tokens."""
        engine = TextEngine(self._net, self._tokenizer, self._ctx, TEXTS_AT_ONCE)
        places = {}
        for number, request in enumerate(requests):
            context, settings = request.args
            places[engine.add(self._text_request(context, settings, number))] = number
        results = [""] * len(requests)
        for written in engine.run():
            place = places[written.number]
            results[place] += written.text
            if written.finish_reason == FAILED:
                raise DataError(f"request {place + 1}: {written.error}")
            if written.finish_reason:
                self.cache_hook.add_partial("generate_until", requests[place].args, results[place])
        return results

    def _fitting(self, requests: Sequence[Request]) -> list[Request]:
        """Cuts contexts on their left so that all fits."""
        fitting, cut = [], 0
        for context, continuation in requests:
            room = self._net.max_length + 1 - len(continuation)
            if len(context) > room >= 1:
                context = _keep_last(context, room)
                cut += 1
            fitting.append(Request(context, continuation))
        if cut:
            self._say(f"{counted(cut, 'context')} of {len(requests):,} cut on the left: the network has room for less")
        return fitting

    def _text_request(self, context: str, settings: Mapping[str, Any], number: int) -> TextRequest:
        wanted, most = read_generation(settings, self._say), self._net.max_length
        new_tokens = min(wanted.max_new_tokens, most // 2)
        if new_tokens < wanted.max_new_tokens:
            asked = wanted.max_new_tokens
            self._say(f"at most {new_tokens} new tokens, not {asked}: the network has {most:,} positions")
        ids = np.array([self._tokenizer.bos_id, *self._tokenizer.encode(context)], np.int32)
        if len(ids) + new_tokens > most:
            self._say(f"a context of {len(ids):,} tokens cut on the left: the network has {most:,} positions")
            ids = _keep_last(ids, most - new_tokens)
        return TextRequest(ids.tolist(), replace(wanted, max_new_tokens=new_tokens), number)


def read_generation(settings: Mapping[str, Any], say: Say) -> Sampling:
    """Reads a task's `generation_kwargs`, the words of transformers. RecipeError for a value out of range."""
    if unknown := sorted(settings.keys() - GENERATION):
        say(f"generation_kwargs: {', '.join(unknown)} without effect")
    until = settings.get("until") or []
    samples = settings.get("do_sample", bool(settings.get("temperature")))
    temperature = settings.get("temperature", 1.0) if samples else 0.0
    try:
        new_tokens = int(settings.get("max_gen_toks", NEW_TOKENS))
        if new_tokens < 1:
            raise RecipeError(f"generation_kwargs: max_gen_toks={new_tokens}: it must be 1 or more")
        return Sampling(
            new_tokens,
            temperature=float(temperature),
            top_k=int(settings.get("top_k", 0)),
            top_p=float(settings.get("top_p", 1.0)),
            repetition_penalty=float(settings.get("repetition_penalty", 1.0)),
            stop=(until,) if isinstance(until, str) else tuple(str(each) for each in until if each),
        )
    except (TypeError, ValueError) as error:
        raise RecipeError(f"generation_kwargs: {error}") from None


def _keep_last(ids: Ids, count: int) -> Ids:
    """Returns ``<s>`` and the last tokens, `count` together."""
    return np.concatenate([ids[:1], ids[len(ids) - count + 1 :]])


def evaluate_with_harness(
    model: HarnessModel,
    tasks: Sequence[str],
    include: Path | None = None,
    num_fewshot: int | None = None,
    limit: int | None = None,
    samples: bool = False,
) -> dict[str, Any]:
    """Returns what lm-evaluation-harness computes: `results`, `n-samples`, `versions`, and with `samples` those.

    `tasks` are names of the harness's tasks, or YAML files; `include` is a folder of further tasks, whose code is run.
    RecipeError for a task that is not there or cannot be loaded.
    """
    files = [name for name in tasks if is_task_file(name)]
    specs = [read_task_file(Path(name)) if name in files else name for name in tasks]
    manager = TaskManager(include_path=include, include_defaults=len(files) < len(tasks))
    for name in tasks:
        if name not in files and name not in manager.all_tasks:
            near = difflib.get_close_matches(name, manager.all_tasks, n=1)
            hint = f"; did you mean {near[0]}?" if near else "; a file's name ends in .yaml"
            raise RecipeError(
                f"task {name}: lm-evaluation-harness {metadata.version('lm-eval')} has none of that name{hint}"
            )
    try:
        loaded = manager.load(specs)
    except Exception as error:  # whatever its tasks and their data raise; the network among it
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise DataError(f"{', '.join(tasks)}: lm-evaluation-harness cannot load it: {lines[-1]}") from error
    # The harness draws samples for standard errors in forked processes, which do not get on with MXNet's threads, and
    # prints about it to stdout.
    os.environ.setdefault("DISABLE_MULTIPROC", "1")
    with contextlib.redirect_stdout(sys.stderr):
        found = simple_evaluate(
            model,
            tasks=specs if loaded.get("groups") else [*loaded["tasks"].values()],
            task_manager=manager,
            num_fewshot=num_fewshot,
            limit=limit,
            log_samples=samples,
            bootstrap_iters=RESAMPLES,
            torch_random_seed=None,  # PyTorch is not used
        )
    kept = (
        "results",
        "groups",
        "n-samples",
        "n-shot",
        "versions",
        "higher_is_better",
        *(["samples"] if samples else []),
    )
    return {key: found[key] for key in kept if key in found}
