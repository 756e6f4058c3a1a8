"""EC2's notice that a spot instance is about to end."""

from __future__ import annotations

import json
import urllib.request

METADATA = "http://169.254.169.254"


def spot_notice(metadata: str) -> str:
    """EC2's notice that this spot instance ends, through IMDSv2; empty if there is none, or no EC2 to ask."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # link-local: never through a proxy
    try:
        lifetime = {"X-aws-ec2-metadata-token-ttl-seconds": "60"}
        ask = urllib.request.Request(f"{metadata}/latest/api/token", method="PUT", headers=lifetime)
        with opener.open(ask, timeout=1) as answer:
            token = answer.read(4096).decode()
        ask = urllib.request.Request(
            f"{metadata}/latest/meta-data/spot/instance-action", headers={"X-aws-ec2-metadata-token": token}
        )
        with opener.open(ask, timeout=1) as answer:
            action = json.loads(answer.read(4096))
        return f"{action['action']} at {action['time']}"
    except (OSError, ValueError, KeyError, TypeError):  # 404: no notice
        return ""
