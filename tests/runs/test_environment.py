"""env.json: the facts of a run without its secrets."""

from __future__ import annotations

import json
import sys

import numpy as np

from kogpt2_gluon.runs.environment import HIDDEN, hide_secrets, select_variables, write_environment


class TestEnvironment:
    def test_facts(self, tmp_path):
        facts = json.loads(write_environment(tmp_path).read_text(encoding="utf-8"))
        assert facts["packages"]["numpy"] == np.__version__ and facts["host"]["cores"] >= 1
        assert facts["command"][0] == sys.argv[0]

    def test_secrets_stay_out(self):
        variables = {
            "OMP_NUM_THREADS": "2",
            "KOGPT2_TOKEN": "s1",
            "NCCL_secret_x": "s2",
            "HOROVOD_KEY": "s3",
            "MXNET_PASSWORD": "s4",
            "AWS_REGION": "s5",
            "HOME": "s6",
            "KOGPT2_PROXY": "http://me:s7@host/",
        }
        assert select_variables(variables) == {"KOGPT2_PROXY": f"http://{HIDDEN}@host/", "OMP_NUM_THREADS": "2"}
        command = [
            "kogpt2",
            "train",
            "data.tokenizer=a.model",
            "--api-key",
            "s",
            "x.secret=s",
            "--password=s",
            "s3://u:s@b/c",
        ]
        assert hide_secrets(command) == [
            *("kogpt2", "train", "data.tokenizer=a.model", "--api-key", HIDDEN),
            *(f"x.secret={HIDDEN}", f"--password={HIDDEN}", f"s3://{HIDDEN}@b/c"),
        ]
