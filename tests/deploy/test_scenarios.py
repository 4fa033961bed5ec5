"""What a deployment would make, for the choices that a person has. The templates are evaluated as Azure would."""
import json
import re

import pytest
from world import ROOT, STATUS, TEMPLATE, TOKEN, WORKSPACE, deployed, module, of_type, variables

import schemas
import template as rules

FIVE = ["account_uuid", "actor_type", "actor_account_uuid", "user_type", "user_account_uuid"]
SUBNET = "/subscriptions/s/resourceGroups/n/providers/Microsoft.Network/virtualNetworks/v/subnets/apps"


def one(deployment, kind):
    found = of_type(deployment.resources, kind)
    assert len(found) == 1, f"{len(found)} of {kind}"
    return found[0]


def workload(deployment):
    return (of_type(deployment.resources, "App/containerApps") + of_type(deployment.resources, "App/jobs"))[0]


def commands(deployment):
    """The job that runs a command when it is started."""
    return next(job for job in of_type(deployment.resources, "App/jobs") if job["properties"]["configuration"]["triggerType"] == "Manual")


def transformation(deployment):
    return one(deployment, "Insights/dataCollectionRules")["properties"]["dataFlows"][0]["transformKql"]


def roles(deployment):
    """(title of the role, what it is on) of each assignment."""
    found = set()
    for assignment in of_type(deployment.resources, "Authorization/roleAssignments"):
        guid = assignment["properties"]["roleDefinitionId"].rsplit("/", 1)[1]
        found.add((rules.ROLES[guid][0], assignment["scope"].split("/providers/", 1)[1]))
    return found


EVERYTHING = {"tokenExpires": "2027-01-31", "alertEmail": "soc@example.com", "eventsUrl": "https://events.1password.eu", "tags": {"a": "b"}}


@pytest.mark.parametrize("choice", [
    {}, {"mode": "job"}, {"table": "addColumns"}, {"table": "keep28", "timeGenerated": "event"}, {"ingestion": "private"},
    {"subnetResourceId": SUBNET}, {"onInDoubt": "verify", "registryServer": "mine.azurecr.io"}, {"statusPage": True}, EVERYTHING,
], ids=lambda choice: " ".join(choice) or "default")
def test_everything_that_is_made_fits_its_published_schema(choice):
    made = deployed(**choice).resources
    assert [line for one in made for line in schemas.findings(one, one["name"])] == []
    assert len(made) >= 22


def test_an_app_is_one_replica_that_polls_each_minute():
    app = workload(deployed())
    assert app["type"] == "Microsoft.App/containerApps"
    assert app["properties"]["template"]["scale"] == {"minReplicas": 1, "maxReplicas": 1}
    assert app["properties"]["template"]["containers"][0]["args"] == ["run"]
    assert app["properties"]["configuration"]["ingress"] is None
    assert variables(app)["OPSHIP_SCHEDULE__CRON"] == "* * * * *"


def test_a_job_runs_once_every_five_minutes_and_ends_before_it_is_ended():
    deployment = deployed(mode="job", jobTimeoutInMinutes=30)
    assert of_type(deployment.resources, "App/containerApps") == []
    job = workload(deployment)["properties"]
    assert job["configuration"]["scheduleTriggerConfig"]["cronExpression"] == "*/5 * * * *"
    assert job["configuration"]["replicaTimeout"] == 1800
    assert job["template"]["containers"][0]["args"] == ["once", "--max-duration", "28m"]


def test_probes_ask_the_admin_server_where_it_listens():
    app = workload(deployed())
    port = int(variables(app)["OPSHIP_ADMIN__LISTEN"].rsplit(":", 1)[1])
    probes = app["properties"]["template"]["containers"][0]["probes"]
    asked = {(probe["type"], probe["httpGet"]["path"], probe["httpGet"]["port"]) for probe in probes}
    assert asked == {("Startup", "/livez", port), ("Liveness", "/livez", port), ("Readiness", "/livez", port)}
    assert type(port) is int and port == 9464


@pytest.mark.parametrize("mode", ["app", "job"])
def test_every_setting_is_a_key_of_the_configuration(mode):
    readme = (ROOT / "README.md").read_text()
    keys = set(re.findall(r"^\| `([a-z_]+(?:\.[A-Za-z_]+)+)` \|", readme, re.M))
    assert len(keys) > 30
    set_there = variables(workload(deployed(mode=mode, eventsUrl="https://events.1password.eu", onInDoubt="verify")))
    ours = [name for name in set_there if name.startswith("OPSHIP_")]
    named = {name.removeprefix("OPSHIP_").lower().replace("__", ".").replace("accounts.default", "accounts.NAME") for name in ours}
    assert named <= keys
    assert len(ours) == (18 if mode == "app" else 15)


def test_the_token_of_the_status_page_is_a_secret_that_is_there():
    app = workload(deployed())
    there = variables(app)
    assert there[there["OPSHIP_ADMIN__TOKEN"].removeprefix("env:")] == "secret status-token"
    assert [secret["name"] for secret in app["properties"]["configuration"]["secrets"]] == ["status-token"]


@pytest.mark.parametrize("mode", ["app", "job"])
def test_nothing_is_resolved_by_the_platform_and_opship_reads_its_token_itself(mode):
    deployment = deployed(mode=mode)
    vault = one(deployment, "KeyVault/vaults")["name"]
    for made in [workload(deployment), commands(deployment)]:
        assert variables(made)["OPSHIP_ACCOUNTS__DEFAULT__TOKEN"] == f"keyvault:https://{vault}.vault.azure.net/secrets/onepassword-events-token"
        assert "keyVaultUrl" not in json.dumps(made) and TOKEN not in json.dumps(made)
        assert made["identity"]["type"] == "UserAssigned"


def test_making_the_environment_is_the_wait_for_the_role_on_the_secret():
    made = next(one for one in TEMPLATE["resources"] if "-environment-" in one["name"])
    assert any("-token-" in one for one in made["dependsOn"])


@pytest.mark.parametrize("mode", ["app", "job"])
def test_a_job_runs_the_commands_that_alerts_name_with_the_configuration_of_the_workload(mode):
    deployment = deployed(mode=mode, eventsUrl="https://events.1password.eu", onInDoubt="verify")
    job, ours = commands(deployment)["properties"], workload(deployment)
    assert job["configuration"]["triggerType"] == "Manual" and job["template"]["containers"][0]["args"] == ["check"]
    shared = {name: value for name, value in variables(ours).items()
              if not name.startswith(("OPSHIP_ADMIN", "OPSHIP_SCHEDULE__CRON", "STATUS_TOKEN"))}
    assert variables(commands(deployment)) == shared
    for key in ("environmentId", "workloadProfileName"):
        assert job[key] == ours["properties"][key]
    assert commands(deployment)["identity"] == ours["identity"]
    assert deployment.outputs["commandsName"] == commands(deployment)["name"] == "caj-opship-commands"


def test_the_status_page_is_reached_from_the_network_of_the_environment_where_that_is_wanted():
    ingress = workload(deployed(statusPage=True))["properties"]["configuration"]["ingress"]
    assert ingress == {"external": False, "targetPort": 9464, "transport": "http", "allowInsecure": False}


def test_the_token_stands_in_the_vault_and_nowhere_else():
    deployment = deployed()
    places = [path for path, value in rules.strings(deployment.resources, "$") if TOKEN in value]
    secret = next(place for place, one in enumerate(deployment.resources) if one["type"].endswith("vaults/secrets"))
    assert places == [f"$[{secret}].properties.value"]
    assert TOKEN not in json.dumps(deployment.outputs) and STATUS not in json.dumps(deployment.outputs)


def test_a_job_has_no_secret_at_all():
    assert "secrets" not in workload(deployed(mode="job"))["properties"]["configuration"]


def test_the_identity_has_three_roles_each_on_one_thing():
    deployment = deployed()
    vault, account = one(deployment, "KeyVault/vaults")["name"], one(deployment, "Storage/storageAccounts")["name"]
    assert roles(deployment) == {
        ("Monitoring Metrics Publisher", "Microsoft.Insights/dataCollectionRules/dcr-opship"),
        ("Storage Blob Data Contributor", f"Microsoft.Storage/storageAccounts/{account}/blobServices/default/containers/opship"),
        ("Key Vault Secrets User", f"Microsoft.KeyVault/vaults/{vault}/secrets/onepassword-events-token"),
    }


@pytest.mark.parametrize("choice", [{"grantWorkspaceReader": True}, {"onInDoubt": "verify"}])
def test_whoever_asks_the_workspace_may_read_it_and_knows_its_id(choice):
    deployment = deployed(**choice)
    assert roles(deployment) - roles(deployed()) == {("Log Analytics Reader", "Microsoft.OperationalInsights/workspaces/law")}
    assert variables(workload(deployment))["OPSHIP_AZURE__WORKSPACE_ID"] == "<law.customerId>"
    assert "OPSHIP_AZURE__WORKSPACE_ID" not in variables(workload(deployed()))


def test_a_second_deployment_names_everything_alike():
    names = [[(one["type"], one["name"]) for one in deployed().resources] for _ in range(2)]
    assert names[0] == names[1] and len(set(names[0])) > 15


def test_two_deployments_in_one_group_share_nothing_but_the_table():
    # Diagnostic settings, containers and default services carry the names of their parents in `scope` or in front.
    def key(one):
        return one["type"], one["name"], one.get("scope")
    ours, theirs = ({key(one) for one in deployed(name=name).resources} for name in ("opship", "opship-eu"))
    assert {kind for kind, _, _ in ours & theirs} == {"Microsoft.OperationalInsights/workspaces/tables"}


@pytest.mark.parametrize("name", ["abc", "a-b", "opship", "opship-emea1", "a-b-c-d-e-f1"])
def test_names_keep_to_the_rules_of_their_types(name):
    limits = {
        "Storage/storageAccounts": r"[a-z0-9]{3,24}",
        "KeyVault/vaults": r"(?!.*--)[a-z][a-z0-9-]{1,22}[a-z0-9]",
        "App/managedEnvironments": r"(?!.*--)[a-z][a-z0-9-]{0,30}[a-z0-9]",
        "App/containerApps": r"(?!.*--)[a-z][a-z0-9-]{0,30}[a-z0-9]",
        "ManagedIdentity/userAssignedIdentities": r"[a-z0-9][a-z0-9_-]{2,127}",
        "Insights/dataCollectionRules": r"[a-z0-9][a-z0-9-]{1,62}",
        "Insights/dataCollectionEndpoints": r"[a-z0-9][a-z0-9-]{2,43}",
        "Insights/metricAlerts": r"[^*#&+:<>?@%{}\\/|]{1,260}",
    }
    deployment = deployed(name=name, ingestion="endpoint")
    for kind, pattern in limits.items():
        assert re.fullmatch(pattern, one(deployment, kind)["name"]), f"{kind}: {one(deployment, kind)['name']}"
    assert all(len(made) <= 64 for made in deployment.modules)


def test_in_the_us_government_cloud_every_name_is_that_clouds():
    deployment = deployed(cloud="AzureUSGovernment")
    assert variables(workload(deployment))["OPSHIP_AZURE__CLOUD"] == "usgov"
    url = variables(workload(deployment))["OPSHIP_ACCOUNTS__DEFAULT__TOKEN"]
    assert url.endswith(".vault.usgovcloudapi.net/secrets/onepassword-events-token")
    assert ".azure.net" not in json.dumps(deployment.resources)


def test_the_table_is_in_the_group_of_the_workspace_with_the_retention_asked_for():
    assert deployed().resources[1]["name"] == "law/OnePasswordEventLogs_CL"
    table = one(deployed(retentionInDays=180, totalRetentionInDays=90), "OperationalInsights/workspaces/tables")["properties"]
    assert (table["retentionInDays"], table["totalRetentionInDays"]) == (180, 180)
    assert len(table["schema"]["columns"]) == 33


@pytest.mark.parametrize("choice", ["keep", "keep28"])
def test_a_table_that_is_kept_is_not_touched(choice):
    deployment = deployed(table=choice)
    assert of_type(deployment.resources, "OperationalInsights/workspaces/tables") == []
    assert [name for name in deployment.modules if "-workspace-" in name] == []


def test_the_rule_stamps_the_time_of_ingestion_unless_asked_for_the_events():
    assert transformation(deployed()) == "source | extend TimeGenerated = now()"
    assert transformation(deployed(timeGenerated="event")) == "source | extend TimeGenerated = iif(isnull(timestamp), now(), timestamp)"


def test_for_the_older_28_columns_the_rule_drops_the_five_newer_ones():
    text = transformation(deployed(table="keep28"))
    assert text == f"source | extend TimeGenerated = now() | project-away {', '.join(FIVE)}"


def test_rows_go_straight_to_the_rule():
    deployment = deployed()
    rule = one(deployment, "Insights/dataCollectionRules")
    assert (rule["kind"], rule["properties"]["dataCollectionEndpointId"]) == ("Direct", None)
    assert variables(workload(deployment))["OPSHIP_SINK__ENDPOINT"] == "<dcr-opship.endpoints.logsIngestion>"
    assert rule["location"] == "<law.location>"


@pytest.mark.parametrize(("choice", "access"), [("endpoint", "Enabled"), ("private", "Disabled")])
def test_with_an_endpoint_rows_go_through_it(choice, access):
    deployment = deployed(ingestion=choice)
    endpoint, rule = one(deployment, "Insights/dataCollectionEndpoints"), one(deployment, "Insights/dataCollectionRules")
    assert endpoint["properties"]["networkAcls"]["publicNetworkAccess"] == access
    assert rule["kind"] is None and rule["properties"]["dataCollectionEndpointId"].endswith("/dataCollectionEndpoints/dce-opship")
    assert variables(workload(deployment))["OPSHIP_SINK__ENDPOINT"] == "<dce-opship.logsIngestion.endpoint>"


def test_a_subnet_closes_store_and_vault_to_everything_else():
    deployment = deployed(subnetResourceId=SUBNET)
    for kind in ("Storage/storageAccounts", "KeyVault/vaults"):
        rules_of = one(deployment, kind)["properties"]["networkAcls"]
        assert (rules_of["defaultAction"], rules_of["bypass"]) == ("Deny", "None")
        assert [rule["id"] for rule in rules_of["virtualNetworkRules"]] == [SUBNET]
    network = one(deployment, "App/managedEnvironments")["properties"]["vnetConfiguration"]
    assert network == {"infrastructureSubnetId": SUBNET, "internal": True}


def test_the_store_takes_no_key_and_shows_nothing_to_the_public():
    properties = one(deployed(), "Storage/storageAccounts")["properties"]
    off = ["allowBlobPublicAccess", "allowSharedKeyAccess", "allowCrossTenantReplication", "isLocalUserEnabled"]
    assert [properties[key] for key in off] == [False] * 4
    assert (properties["minimumTlsVersion"], properties["supportsHttpsTrafficOnly"]) == ("TLS1_2", True)
    blobs = one(deployed(), "Storage/storageAccounts/blobServices")["properties"]
    assert blobs["isVersioningEnabled"] and blobs["deleteRetentionPolicy"]["enabled"] and blobs["containerDeleteRetentionPolicy"]["enabled"]


def test_a_vault_and_an_environment_of_yours_are_used_and_not_made():
    vault = "/subscriptions/s2/resourceGroups/shared/providers/Microsoft.KeyVault/vaults/mine"
    environment = "/subscriptions/s2/resourceGroups/shared/providers/Microsoft.App/managedEnvironments/mine"
    deployment = deployed(existingVaultResourceId=vault, existingEnvironmentResourceId=environment, onePasswordToken="")
    kinds = {made["type"] for made in deployment.resources}
    assert kinds & {"Microsoft.KeyVault/vaults", "Microsoft.KeyVault/vaults/secrets", "Microsoft.App/managedEnvironments"} == set()
    app = workload(deployment)["properties"]
    assert (app["environmentId"], app["workloadProfileName"]) == (environment, None)
    assert variables(workload(deployment))["OPSHIP_ACCOUNTS__DEFAULT__TOKEN"] == "keyvault:https://mine.vault.azure.net/secrets/onepassword-events-token"
    scopes = [made["scope"] for made in deployment.resources if made["type"].endswith("roleAssignments")]
    assert f"{vault}/secrets/onepassword-events-token" in scopes


def test_a_token_that_expires_gives_the_secret_its_date_and_an_alert():
    deployment = deployed(tokenExpires="2027-01-31")
    assert one(deployment, "KeyVault/vaults/secrets")["properties"]["attributes"]["exp"] == 1801353600
    alert = next(made for made in deployment.resources if made["name"] == "alert-opship-token")
    assert "now() > datetime(2027-01-31) - 21d" in alert["properties"]["criteria"]["allOf"][0]["query"]
    assert one(deployed(), "KeyVault/vaults/secrets")["properties"]["attributes"]["exp"] is None


def alerts(deployment):
    found = of_type(deployment.resources, "Insights/scheduledQueryRules") + of_type(deployment.resources, "Insights/metricAlerts")
    return {made["name"].removeprefix("alert-opship-"): made["properties"] for made in found}


def test_alerts_watch_what_arrives():
    everyday = {"silence", "trouble", "lag", "dead-letters", "rule-errors", "rows-dropped"}
    assert alerts(deployed()).keys() == everyday
    assert alerts(deployed(tokenExpires="2027-01-31")).keys() == everyday | {"token"}
    assert alerts(deployed(deployDiagnostics=False)).keys() == everyday - {"rule-errors"}
    assert alerts(deployed(deployAlerts=False)).keys() == set()


def test_an_hour_without_a_heartbeat_is_an_alert():
    silence = alerts(deployed())["silence"]
    criterion = silence["criteria"]["allOf"][0]
    assert (silence["overrideQueryTimeRange"], criterion["operator"], criterion["threshold"]) == ("P2D", "GreaterThan", 0)
    for part in ['log_source == "healthevents" and isempty(category)', "Last < ago(1h)", 'column_ifexists("account_uuid", "")', "Accounts == 0"]:
        assert part in criterion["query"]


def test_what_alerts_look_at_does_not_depend_on_what_time_generated_means():
    for time in ("ingestion", "event"):
        found = alerts(deployed(timeGenerated=time))
        for name in ("trouble", "dead-letters"):
            query = found[name]["criteria"]["allOf"][0]["query"]
            assert found[name]["overrideQueryTimeRange"] == "P2D"
            # As long as the time between two looks: each row is in one of them.
            assert found[name]["evaluationFrequency"] == "PT15M" and "ingestion_time() between (ago(20m) .. ago(5m))" in query
        assert found["lag"]["overrideQueryTimeRange"] == "P2D" and "FirstRow < ago(2h)" in found["lag"]["criteria"]["allOf"][0]["query"]


def test_alerts_call_the_mail_address_and_the_group_that_were_given():
    mine = "/subscriptions/s/resourceGroups/r/providers/Microsoft.Insights/actionGroups/mine"
    deployment = deployed(alertEmail="soc@example.com", alertActionGroupResourceId=mine)
    for name, alert in alerts(deployment).items():
        actions = alert["actions"] if name == "rows-dropped" else alert["actions"]["actionGroups"]
        called = [action["actionGroupId"] if isinstance(action, dict) else action for action in actions]
        assert [group.rsplit("/", 1)[1] for group in called] == ["ag-opship", "mine"]
    assert of_type(deployed().resources, "Insights/actionGroups") == []


def test_without_diagnostics_nothing_is_written_to_the_workspace_but_rows():
    assert len(of_type(deployed().resources, "Insights/diagnosticSettings")) == 4
    assert of_type(deployed(deployDiagnostics=False).resources, "Insights/diagnosticSettings") == []


def test_the_content_is_deployed_beside_the_table_with_the_parts_asked_for():
    assert not any("-content-" in name for name in deployed().modules)
    deployment = deployed(deploySentinelContent=True, sentinelParts=["rules", "workbook"])
    content = next(made for name, made in deployment.modules.items() if "-content-" in name)
    assert content.root == WORKSPACE.split("/providers/")[0]
    assert content.parameters["enableRules"] is True
    off = deployed(deploySentinelContent=True, enableRules=False).modules
    assert next(made for name, made in off.items() if "-content-" in name).parameters["enableRules"] is False
    asked = {name: content.parameters[f"deploy{name}"] for name in ("Parsers", "Rules", "Hunting", "Workbook")}
    assert asked == {"Parsers": False, "Rules": True, "Hunting": False, "Workbook": True}


def test_the_container_comes_after_every_role():
    workload_module = next(one for one in TEMPLATE["resources"] if "-workload-" in one["name"])
    granting = [one for one in TEMPLATE["resources"] if "roleAssignments" in json.dumps(one) and one is not workload_module]
    waits = [rules.target(rules.parsed(key)) for key in workload_module["dependsOn"]]
    assert len(granting) == 4 and all(rules.identity(one) in waits for one in granting)
    assert module(TEMPLATE, "workload")["resources"]


def test_the_outputs_say_what_to_do_next():
    outputs = deployed().outputs
    assert outputs["watchLogs"] == "az containerapp logs show --follow -g rg -n ca-opship"
    assert deployed(mode="job").outputs["watchLogs"].startswith("az containerapp job start -g rg -n caj-opship;")
    assert outputs["rotateToken"].endswith("-n onepassword-events-token") and "--value" not in outputs["rotateToken"]


def test_sentinel_is_put_onto_the_workspace_before_everything_else_where_that_is_asked_for():
    made = deployed(onboardSentinel=True, deploySentinelContent=True).resources
    kinds = [one["type"] for one in made]
    assert "Microsoft.SecurityInsights/onboardingStates" in kinds
    assert kinds.index("Microsoft.SecurityInsights/onboardingStates") < kinds.index("Microsoft.OperationalInsights/workspaces/tables")
    assert "Microsoft.SecurityInsights/onboardingStates" not in [one["type"] for one in deployed(deploySentinelContent=True).resources]


def test_rules_come_minutes_after_the_table_and_the_onboarding():
    content = next(one for one in TEMPLATE["resources"] if "-content-" in one["name"])
    assert any("-workload-" in one for one in content["dependsOn"]) and any("-onboarding-" in one for one in content["dependsOn"])


def test_a_rule_that_was_deleted_comes_back_under_another_id():
    def ids(**choice):
        made = of_type(deployed(deploySentinelContent=True, **choice).resources, "SecurityInsights/alertRules")
        return {one["name"] for one in made}
    assert len(ids()) == 24 and ids() == ids() and not ids() & ids(ruleIdSalt="again")
