"""The command `kogpt2`: one verb for each stage of the road from text to a converted model.

Every verb is a file in this folder, and it is thin: it parses, calls the stage's function and prints. Modules are
imported inside the verbs, so that `kogpt2 --help` loads neither MXNet nor anything else that is slow.
"""

from __future__ import annotations

import sys

import click

from kogpt2_gluon import __version__
from kogpt2_gluon.cli.chain import chain
from kogpt2_gluon.cli.clean import clean
from kogpt2_gluon.cli.convert import convert
from kogpt2_gluon.cli.demo import demo
from kogpt2_gluon.cli.doctor import doctor
from kogpt2_gluon.cli.evaluate import evaluate
from kogpt2_gluon.cli.files import files
from kogpt2_gluon.cli.finetune import finetune
from kogpt2_gluon.cli.generate import generate
from kogpt2_gluon.cli.group import Group
from kogpt2_gluon.cli.lm_eval import lm_eval
from kogpt2_gluon.cli.note import note
from kogpt2_gluon.cli.ops import ops
from kogpt2_gluon.cli.predict import predict
from kogpt2_gluon.cli.profile import profile
from kogpt2_gluon.cli.recipe import recipe
from kogpt2_gluon.cli.report import report
from kogpt2_gluon.cli.runs import runs
from kogpt2_gluon.cli.score import score
from kogpt2_gluon.cli.search import search
from kogpt2_gluon.cli.serve import serve
from kogpt2_gluon.cli.set import set_
from kogpt2_gluon.cli.shard import shard
from kogpt2_gluon.cli.tokenizer import tokenizer
from kogpt2_gluon.cli.train import train
from kogpt2_gluon.cli.verify import verify
from kogpt2_gluon.cli.watch import watch
from kogpt2_gluon.errors import one_line


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="kogpt2")
def cli() -> None:
    """Train KoGPT-2 again: text, tokenizer, shards, training, evaluation, conversion.

    \b
    From text to a PyTorch model in five lines:
      kogpt2 clean news.txt --documents line --out corpus
      kogpt2 tokenizer corpus --vocab-size 50000 --out tokenizer.model
      kogpt2 shard corpus --tokenizer tokenizer.model --out shards
      kogpt2 train kogpt2_base data.train=shards/train data.test=shards/test
      kogpt2 convert runs/kogpt2_base OUT --to huggingface

    Exit codes: 0 done, 2 bad recipe or argument, 3 bad data, 4 diverged, 5 workers that hold
    different parameters, 75 stopped with its state saved, 1 other.
    """


def main() -> None:
    """Runs the command: an error that a user can fix becomes one line on stderr and its exit code."""
    with one_line("kogpt2"):
        try:
            cli(standalone_mode=False)
        except click.ClickException as error:
            error.show()
            sys.exit(error.exit_code)
        except click.Abort:
            raise KeyboardInterrupt from None


for verb in (
    clean,
    tokenizer,
    shard,
    verify,
    files,
    ops,
    recipe,
    train,
    watch,
    set_,
    note,
    runs,
    search,
    chain,
    profile,
    evaluate,
    finetune,
    predict,
    generate,
    serve,
    score,
    lm_eval,
    convert,
    doctor,
    report,
    demo,
):
    cli.add_command(verb)


if __name__ == "__main__":
    main()
