"""Read clusters with ParallelCluster's own schema: a JSON list of them on stdin, a list of its refusals on stdout.

The interpreter of an environment with aws-parallelcluster (`make .venv-pcluster/.ready`) runs this, without the
project. Nothing reaches AWS: the schema needs the name of a region, and no more.
"""

from __future__ import annotations

import json
import os
import sys

os.environ.update(AWS_DEFAULT_REGION="us-east-1", AWS_EC2_METADATA_DISABLED="true")


def refusal(cluster):
    from marshmallow import ValidationError
    from pcluster.schemas.cluster_schema import ClusterSchema

    try:
        ClusterSchema(cluster_name="kogpt2").load(cluster)
    except ValidationError as error:
        return json.dumps(error.messages)
    return None


if __name__ == "__main__":
    json.dump([refusal(cluster) for cluster in json.load(sys.stdin)], sys.stdout)
