"""The environment that the templates give to opship, for tests/deploy.rs: the program itself has to take it."""
import evaluate

CASES = {
    "app": ("AzureCloud", {}),
    "job": ("AzureCloud", {"mode": "job"}),
    "app in the US government cloud": ("AzureUSGovernment", {"eventsUrl": "https://events.1password.eu", "streams": ["itemusages"]}),
    "job that verifies": ("AzureCloud", {"mode": "job", "onInDoubt": "verify", "lookback": "now"}),
}
WORKSPACE = "/subscriptions/s/resourceGroups/g/providers/Microsoft.OperationalInsights/workspaces/w"
# What only Azure knows, in the form that it has there; of clouds the ends of names.
GIVEN = {
    ".logsIngestion>": "https://dcr-opship-a1b2.westeurope-1.ingest.monitor.azure.{monitor}",
    ".immutableId>": "dcr-0123456789abcdef0123456789abcdef",
    ".blob>opship": "https://account.blob.{storage}/opship",
    ".clientId>": "00000000-0000-0000-0000-000000000001",
    ".customerId>": "00000000-0000-0000-0000-000000000002",
}


def of(arm):
    """Case -> name -> value."""
    return {case: variables(arm, cloud, choice) for case, (cloud, choice) in CASES.items()}


def variables(arm, cloud, choice):
    made = evaluate.Deployment(arm, {"workspaceResourceId": WORKSPACE, **choice}, cloud).resources
    workload = next(one for one in made if one["type"] in ("Microsoft.App/containerApps", "Microsoft.App/jobs"))
    ends = {"monitor": "us" if cloud == "AzureUSGovernment" else "com", "storage": evaluate.CLOUDS[cloud]["storage"]}
    return {one["name"]: known(one, ends) for one in workload["properties"]["template"]["containers"][0]["env"]}


def known(one, ends):
    if "secretRef" in one:
        return f"the secret {one['secretRef']}"
    mark = next((mark for mark in GIVEN if one["value"].endswith(mark)), None)
    return GIVEN[mark].format(**ends) if mark else one["value"]
