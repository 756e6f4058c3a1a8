"""Scores that others published, as fractions. Each table is as it is in its source, which was read there."""

from __future__ import annotations

import math

from kogpt2_gluon.tasks.task import Published

KOGPT2 = "SKT-AI/KoGPT2, README.md of version 1.0 (revision a3d827e)"
KOGPT2_2 = "SKT-AI/KoGPT2, README.md of version 2.0 (revision 56ef31f)"

# Of the first four the table says that they are KoELECTRA's, whose settings name the files: the tests of NSMC (50,000
# rows), PAWS-X (2,000, "NS" among them), KorNLI, KorSTS and Question Pair (its second split), and
# korean-hate-speech's dev. KorNLI was trained on MultiNLI's rows alone.
_LM_KOR = "kiyoungkim1/LMkor, README.md (revision a0212cd)"
_LM_KOR_MODELS = (
    "KoBERT",
    "HanBERT",
    "kcbert-base",
    "KoELECTRA-Base-v3",
    "albert-kor-base",
    "bert-kor-base",
    "electra-kor-base",
    "funnel-kor-base",
)
_KLUE = "KLUE-benchmark/KLUE, README.md (revision 3efd987: test set, which is not public)"
_KLUE_MODELS = (
    "mBERT-base",
    "XLM-R-base",
    "XLM-R-large",
    "KR-BERT-base",
    "KoELECTRA-base",
    "KLUE-BERT-base",
    "KLUE-RoBERTa-small",
    "KLUE-RoBERTa-base",
    "KLUE-RoBERTa-large",
)


def lm_kor(metric: str, split: str, *percents: float) -> tuple[Published, ...]:
    """Returns a column of LM-kor's table, NaN for a model that has no score there."""
    return _column(_LM_KOR_MODELS, metric, split, percents, _LM_KOR)


def klue(metric: str, *percents: float) -> tuple[Published, ...]:
    """Returns a column of KLUE's table of baselines."""
    return _column(_KLUE_MODELS, metric, "test", percents, _KLUE)


def _column(
    models: tuple[str, ...], metric: str, split: str, percents: tuple[float, ...], source: str
) -> tuple[Published, ...]:
    assert len(models) == len(percents)
    return tuple(
        Published(model, metric, round(percent / 100, 4), split, source)
        for model, percent in zip(models, percents)
        if not math.isnan(percent)
    )
