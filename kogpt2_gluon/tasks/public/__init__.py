"""The tasks whose data is public: what their files hold, how they are read, and what others scored on them.

None of the data is in this package. The traps of each file are described in its module, with where they were seen.
"""

from __future__ import annotations

from kogpt2_gluon.tasks.public.carecall_memory import CARECALL_MEMORY
from kogpt2_gluon.tasks.public.hate_speech import HATE_SPEECH
from kogpt2_gluon.tasks.public.klue_ner import KLUE_NER
from kogpt2_gluon.tasks.public.klue_nli import KLUE_NLI
from kogpt2_gluon.tasks.public.klue_sts import KLUE_STS
from kogpt2_gluon.tasks.public.kornli import KORNLI
from kogpt2_gluon.tasks.public.korsts import KORSTS
from kogpt2_gluon.tasks.public.massive import MASSIVE
from kogpt2_gluon.tasks.public.nsmc import NSMC
from kogpt2_gluon.tasks.public.pawsx import PAWSX
from kogpt2_gluon.tasks.public.question_pair import QUESTION_PAIR
from kogpt2_gluon.tasks.public.three_i4k import THREE_I4K
from kogpt2_gluon.tasks.task import Task

_TASKS = (
    NSMC,
    QUESTION_PAIR,
    KORSTS,
    KORNLI,
    PAWSX,
    HATE_SPEECH,
    THREE_I4K,
    KLUE_NER,
    KLUE_NLI,
    KLUE_STS,
    MASSIVE,
    CARECALL_MEMORY,
)
PUBLIC: dict[str, Task] = {task.name: task for task in _TASKS}
