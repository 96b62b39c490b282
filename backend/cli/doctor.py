"""`doctor`: what the backend finds on this machine, one line each, and what to do."""

from __future__ import annotations

import argparse
import json

from ..doctor import examine
from ..wire import paths


def doctor(options: argparse.Namespace) -> int:
    """Print the findings; 1 when something is wrong."""
    findings = []
    for finding in examine(paths.home(), options.port):
        findings.append(finding)
        if not options.json:
            print(finding.line(), flush=True)
    bad = any(finding.level == "wrong" for finding in findings)
    if options.json:
        print(json.dumps({"ok": not bad, "findings": [finding.to_json() for finding in findings]}))
    return int(bad)
