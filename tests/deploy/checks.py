#!/usr/bin/env python3
"""All checks of deploy/, offline. `--write` formats the Bicep and renews what is made of it (azuredeploy.json, environments.json, the
table of docs/deploy.md), `--checkov PROGRAM` runs checkov too, `--queries` only prints the queries of the alerts and the
transformations of the rule as JSON, for a checker of KQL. Without the official compiler that one check is skipped, by its name."""
import argparse
import json
import pathlib
import sys
import time

import alerts
import button
import columns
import compiler
import document
import differences
import environment
import evaluate
import interface
import retirements
import security
import template
import workflows

ROOT = pathlib.Path(__file__).resolve().parents[2]
ARM, DOCUMENT = ROOT / "deploy/arm/azuredeploy.json", ROOT / "docs/deploy.md"
COMPILER = "the official Bicep compiler"
ENVIRONMENTS = ROOT / "tests/deploy/environments.json"


def load(path):
    return json.loads((ROOT / path).read_text())


def everything(arm):
    """Name of a check -> its findings."""
    found = {
        "azuredeploy.json": template.check(arm),
        "alert rules": alerts.check(arm),
        "versions of Azure's APIs": retirements.check(arm, load("tests/deploy/retirements.json")),
        "azuredeploy.parameters.json": template.parameter_file(load("deploy/arm/azuredeploy.parameters.json"), arm),
        "createUiDefinition.json": interface.check(load("deploy/arm/createUiDefinition.json"), arm),
        "columns": columns.check(arm, (ROOT / "src/flow/decode.rs").read_text(), columns.documents(ROOT)),
        "docs/deploy.md": document.check(DOCUMENT.read_text(), arm),
        "environments.json": differences.differences(json.loads(ENVIRONMENTS.read_text()), environment.of(arm)),
        "workflows": workflows.check(ROOT),
        "buttons of the README": button.check((ROOT / "README.md").read_text(), ROOT),
    }
    found["docs/deploy.md"] += document.service_rules(DOCUMENT.read_text(), found.keys() | document.names_of_tests(ROOT / "tests/deploy"))
    return found


def queries(arm):
    """Name -> KQL, of every alert and every transformation that a deployment can have."""
    workspace = "/subscriptions/s/resourceGroups/g/providers/Microsoft.OperationalInsights/workspaces/w"
    found = {}
    for choice in ({"tokenExpires": "2027-01-31"}, {"timeGenerated": "event"}, {"table": "keep28"}):
        for one in evaluate.Deployment(arm, {"workspaceResourceId": workspace, **choice}).resources:
            if one["type"].endswith("scheduledQueryRules"):
                found[one["name"]] = one["properties"]["criteria"]["allOf"][0]["query"]
            elif one["type"].endswith("dataCollectionRules"):
                transformation = one["properties"]["dataFlows"][0]["transformKql"]
                found[f"transformation {transformation}"] = transformation
    return found


def main():
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--write", action="store_true")
    options.add_argument("--checkov", metavar="PROGRAM")
    options.add_argument("--queries", action="store_true")
    given = options.parse_args()
    if given.write:
        try:
            said = compiler.write(compiler.program(ROOT), ROOT)
        except compiler.NoCompiler as error:
            print(f"nothing is written: {error}", file=sys.stderr)
            return 69
        print("\n".join(said), file=sys.stderr)
        made = json.loads(ARM.read_text())
        ENVIRONMENTS.write_text(json.dumps(environment.of(made), indent=2) + "\n")
        DOCUMENT.write_text(document.renewed(DOCUMENT.read_text(), made))
    if given.queries:
        print(json.dumps(queries(json.loads(ARM.read_text())), indent=2))
        return 0
    started, arm = time.monotonic(), json.loads(ARM.read_text())
    results = everything(arm)
    try:
        results[COMPILER] = compiler.check(compiler.program(ROOT), ROOT)
    except compiler.NoCompiler as error:
        print(f"{COMPILER}: SKIPPED\n{error}")
    if given.checkov:
        found, passed = security.failed(given.checkov, arm)
        results["checkov"] = security.check(found, security.accepted())
        print(f"checkov: {passed} checks passed, {len(found)} accepted or failed")
    for name, findings in results.items():
        print(f"{name}: {len(findings) or 'no'} finding{'' if len(findings) == 1 else 's'}")
        for line in findings:
            print(f"  {line}")
    totals = ", ".join(f"{number} {key}" for key, number in template.count(arm).items())
    print(f"looked at {totals}, {columns.count(arm)} columns in {time.monotonic() - started:.1f} s")
    return 1 if any(results.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
