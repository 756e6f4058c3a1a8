"""Samples text from a network, with cached keys and values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from kogpt2_gluon.errors import RecipeError
from kogpt2_gluon.inference.loading import load_checkpoint
from kogpt2_gluon.inference.sampling import Chooser, Sampling
from kogpt2_gluon.inference.text_engine import PROMPT_PART
from kogpt2_gluon.machine.runtime import mx
from kogpt2_gluon.model.decoding import weights_for
from kogpt2_gluon.model.gpt2 import GPT2Model
from kogpt2_gluon.model.slots import Run, slots_for
from kogpt2_gluon.tokens.tokenizer import Tokenizer

SPACES = " \t\u00a0\u3000"  # not line ends, with which prompts of questions and answers often end


class Generator:
    """A network made ready to write many texts, with the parameters that it has at this moment.

    Parameters
    ----------
    net : GPT2Model
        Not hybridized, as :meth:`GPT2Model.for_decoding` makes it.
    ctx : mx.Context
        None: the CPU.
    weights : str
        In which form the network's matrices are kept for this: float32, bfloat16, int8, 1bit to 4bit, or codes, as in
        :class:`~kogpt2_gluon.model.decoding.FusedWeights`; empty: as its precision is.
    """

    def __init__(self, net: GPT2Model, ctx: Any = None, weights: str = ""):
        self._net, self._ctx = net, ctx or mx.cpu()
        self._weights = weights_for(net, weights)

    def ids(
        self,
        prompt: Sequence[int],
        eos_id: int,
        sampling: Sampling,
        num_samples: int = 1,
        vocab_size: int = 0,
        left_out: Sequence[int] = (),
    ) -> list[list[int]]:
        """Continues one prompt `num_samples` times; returns the new ids of each, without `</s>`.

        Ids from `vocab_size` on are never chosen (0: all may be), because a network may have more rows than its
        tokenizer has pieces; nor are the ids in `left_out`. The prompt goes through the network once, then one token a
        step for all samples together. A sample is finished once it has met `</s>`, or the end of the positions.
        RecipeError for stop strings: ids are not texts.
        """
        if sampling.stop:
            raise RecipeError("Sampling.stop: only TextEngine and `kogpt2 generate` look for stop strings")
        net = self._net
        prompt = list(prompt)[-(net.max_length - 1) :]  # leave a position for at least one new token
        length = min(net.max_length - len(prompt), sampling.max_new_tokens)
        slots = slots_for(net, num_samples, len(prompt) + length, self._ctx, self._weights or "")
        choosers = [
            Chooser(sampling, prompt, eos_id, vocab_size or net._embed.weight.shape[0], left_out, sample)
            for sample in range(num_samples)
        ]
        for begin in range(0, len(prompt), PROMPT_PART):
            (after_prompt,) = slots.next_logits([Run(0, prompt[begin : begin + PROMPT_PART])])
        for sample in range(1, num_samples):
            slots.copy(0, sample)
        samples: list[list[int]] = [[] for _ in range(num_samples)]
        logits = dict.fromkeys(range(num_samples), after_prompt)  # of those that go on
        while logits:
            for sample, row in list(logits.items()):
                token = choosers[sample].next_id(row)
                if token == eos_id:
                    del logits[sample]
                    continue
                samples[sample].append(token)
                if len(samples[sample]) == length:
                    del logits[sample]
            if logits:
                logits = dict(zip(logits, slots.next_logits([Run(each, samples[each][-1:]) for each in logits])))
        return samples


def generate_ids(
    net: GPT2Model,
    prompt: Sequence[int],
    eos_id: int,
    sampling: Sampling,
    num_samples: int = 1,
    ctx: Any = None,
    vocab_size: int = 0,
    left_out: Sequence[int] = (),
) -> list[list[int]]:
    """Continues one prompt; see :meth:`Generator.ids`."""
    return Generator(net, ctx).ids(prompt, eos_id, sampling, num_samples, vocab_size, left_out)


def prompt_notes(tokenizer: Tokenizer, prompt: str, max_length: int, max_new_tokens: int) -> list[str]:
    """Says what of a prompt a network of `max_length` positions reads otherwise than it is written, or not at all."""
    length = 1 + len(tokenizer.encode(prompt))  # with <s>
    notes = spelling_notes(tokenizer, prompt)
    if length >= max_length:
        return [
            *notes,
            f"the prompt has {length:,} tokens and the network {max_length:,} positions: it does not read the first "
            f"{1 + length - max_length:,}, and writes one new token",
        ]
    return notes + _room_notes(length, max_length, max_new_tokens)


def spelling_notes(tokenizer: Tokenizer, prompt: str) -> list[str]:
    """Says what of a prompt a network reads otherwise than it is written, and spaces at its end."""
    notes = []
    if unknown := list(dict.fromkeys(tokenizer.unknown_in(prompt))):
        some = ", ".join(repr(each) for each in unknown[:5]) + (f" and {len(unknown) - 5} more" if unknown[5:] else "")
        notes.append(f"the tokenizer cannot spell {some}: the network reads <unk> there, which is printed as ⁇")
    if written := [name for name in tokenizer.controls if name in prompt]:
        notes.append(f"{', '.join(written[:5])} in the prompt is read as text, letter by letter, not as that token")
    if (bare := prompt.rstrip(SPACES)) != prompt:
        ids, without = tokenizer.encode(prompt), tokenizer.encode(bare)
        if ids != without:
            same = next((place for place, pair in enumerate(zip(ids, without)) if pair[0] != pair[1]), len(without))
            read = " ".join(repr(tokenizer.pieces[token]) for token in ids[same:][-5:])
            notes.append(
                f"the prompt ends with a space: the network reads {read} there. In texts a space mostly belongs to the "
                "token of the word after it; without this space the text usually goes on better"
            )
    return notes


def _room_notes(length: int, max_length: int, max_new_tokens: int) -> list[str]:
    room = max_length - length
    if room >= max_new_tokens:
        return []
    return [
        f"the network has {max_length:,} positions, so at most {room:,} new tokens follow the {length:,} of the "
        f"prompt, not {max_new_tokens:,}"
    ]


def fit_prompt(
    tokenizer: Tokenizer, prompt: str, max_length: int, max_new_tokens: int, slides: bool = False
) -> tuple[list[int], list[str]]:
    """Returns a prompt's ids with ``<s>``, and what is to say of it, as :func:`prompt_notes` does.

    RecipeError if it leaves no position for a new token. With `slides` its last tokens are kept then, so many that
    `max_new_tokens` fit after them, or half of the positions if these are more.
    """
    ids = [tokenizer.bos_id, *tokenizer.encode(prompt)]
    notes = spelling_notes(tokenizer, prompt)
    if len(ids) >= max_length:
        if not slides:
            raise RecipeError(
                f"the prompt has {len(ids):,} tokens with <s>, and the network {max_length:,} positions, of which one "
                "is for a new token: shorten it, or keep its last tokens with --long-prompts slide"
            )
        kept = max(max_length - max_new_tokens, max_length // 2, 1)
        notes.append(
            f"the prompt has {len(ids):,} tokens and the network {max_length:,} positions: it reads <s> and the last "
            f"{kept - 1:,} of them"
        )
        ids = [ids[0], *ids[len(ids) - kept + 1 :]]
    return ids, notes + _room_notes(len(ids), max_length, max_new_tokens)


def generate(
    net: GPT2Model, tokenizer: Tokenizer, prompt: str, sampling: Sampling, num_samples: int = 1, ctx: Any = None
) -> list[str]:
    """Continues `prompt` as the beginning of a document; returns `num_samples` texts, each with the prompt."""
    ids = [tokenizer.bos_id, *tokenizer.encode(prompt)]
    left_out = tokenizer.never_written(sampling.allow_unknown)
    continued = generate_ids(net, ids, tokenizer.eos_id, sampling, num_samples, ctx, tokenizer.vocab_size, left_out)
    return [tokenizer.decode(ids[1:] + new) for new in continued]


def generate_from_checkpoint(
    path: Path,
    prompt: str,
    sampling: Sampling,
    num_samples: int = 1,
    device: str = "auto",
    precision: str = "float32",
    ops: str = "auto",
    say: Callable[[str], None] = lambda note: None,
) -> list[str]:
    """Loads a checkpoint and continues `prompt` with it; see :func:`generate`.

    `say` is called with each of :func:`prompt_notes`, before the network is used.
    """
    net, tokenizer, _, ctx = load_checkpoint(path, device, precision, ops)
    for note in prompt_notes(tokenizer, prompt, net.max_length, sampling.max_new_tokens):
        say(note)
    return generate(net, tokenizer, prompt, sampling, num_samples, ctx)
