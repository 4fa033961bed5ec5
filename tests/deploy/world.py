"""What the tests share: the documents as they are, mistakes put into them, and what a deployment would make."""
import copy
import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import evaluate  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
WORKSPACE = "/subscriptions/other/resourceGroups/security/providers/Microsoft.OperationalInsights/workspaces/law"
TEMPLATE = json.loads((ROOT / "deploy/arm/azuredeploy.json").read_text())
FORM = json.loads((ROOT / "deploy/arm/createUiDefinition.json").read_text())
TABLE = f"{WORKSPACE}/tables/OnePasswordEventLogs_CL"
# What Azure tells of a table: types in lower case, and what nobody may write.
OLDER = {TABLE: {"plan": "Analytics", "schema": {
    "name": "OnePasswordEventLogs_CL", "tableType": "CustomLog", "tableSubType": "DataCollectionRuleBased",
    "columns": [
        {"name": "TimeGenerated", "type": "datetime", "isDefaultDisplay": True, "isHidden": False},
        {"name": "uuid_s", "type": "string", "isDefaultDisplay": True, "isHidden": False},
    ],
    "standardColumns": [{"name": "TenantId", "type": "guid", "isDefaultDisplay": False, "isHidden": False}],
}}}
TOKEN, STATUS = "the-1password-token", "the-status-token"


def template():
    return copy.deepcopy(TEMPLATE)


def form():
    return copy.deepcopy(FORM)


def module(document, part):
    """The template of the module with this name."""
    return next(one for one in document["resources"] if f"-{part}-" in one["name"])["properties"]["template"]


def of_type(resources, kind):
    return [one for one in resources if one["type"].lower() == f"microsoft.{kind}".lower()]


def resource(document, kind):
    """The one resource of a type in a template."""
    found = of_type(document["resources"], kind)
    assert len(found) == 1, f"{len(found)} of {kind}"
    return found[0]


def deployed(cloud="AzureCloud", there=None, **parameters):
    """`there` is what Azure has already; the table of an older connector, unless something else is said."""
    given = {"workspaceResourceId": WORKSPACE, "onePasswordToken": TOKEN, "statusToken": STATUS, **parameters}
    return evaluate.Deployment(template(), given, cloud, there=OLDER if there is None else there)


def every_module(deployment):
    """Name -> deployment, at any depth."""
    for name, made in deployment.modules.items():
        yield name, made
        yield from every_module(made)


def variables(workload):
    """Name -> value, or a reference to a secret, of a container's environment."""
    container = workload["properties"]["template"]["containers"][0]
    return {one["name"]: one.get("value", f"secret {one.get('secretRef')}") for one in container["env"]}

