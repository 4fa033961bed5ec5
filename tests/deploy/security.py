"""What checkov has against the templates, against the list of what is accepted and why (accepted.json)."""
import json
import os
import pathlib
import re
import subprocess
import tempfile


def parts(template, name="main"):
    """A template and those nested in it, each alone: checkov overlooks conditional resources of nested ones."""
    kept = []
    for resource in template["resources"]:
        if resource["type"] == "Microsoft.Resources/deployments":
            inner = resource["properties"]["template"]
            yield from parts(inner, re.search(r"-(\w+)-", resource["name"]).group(1))
        else:
            kept.append(resource)
    yield name, {**template, "resources": kept}


def failed(checkov, template):
    """(check, type of the resource) of each failed check, and how many checks passed."""
    with tempfile.TemporaryDirectory() as folder:
        for name, part in parts(template):
            (pathlib.Path(folder) / f"{name}.json").write_text(json.dumps(part))
        command = [checkov, "-d", folder, "--framework", "arm", "--compact", "--quiet", "--skip-download", "-o", "json"]
        environment = {**os.environ, "LOG_LEVEL": "ERROR"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    return read(json.loads(done.stdout))


def read(report):
    if report["results"].get("parsing_errors"):
        raise SystemExit(f"checkov cannot read {report['results']['parsing_errors']}")
    found = {(one["check_id"], one["resource"].split(".[")[0]) for one in report["results"]["failed_checks"]}
    return found, report["summary"]["passed"]


def check(found, accepted):
    """A failed check must be accepted, and what is accepted must still fail: the list may not rot."""
    listed = {(one["check"], one["resource"]) for one in accepted}
    lines = [f"checkov {check} fails on {resource}" for check, resource in sorted(found - listed)]
    lines += [f"accepted.json accepts {check} on {resource}, which does not fail" for check, resource in sorted(listed - found)]
    return lines + [f"accepted.json gives no reason for {one['check']}" for one in accepted if len(one.get("reason", "")) < 20]


def accepted():
    return json.loads((pathlib.Path(__file__).parent / "accepted.json").read_text())
