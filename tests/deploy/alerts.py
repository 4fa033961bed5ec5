"""What Azure refuses of an alert rule over a query, or answers by switching the rule off a week later."""
import re

from nested import every

RULES = "Microsoft.Insights/scheduledQueryRules"
# Tables that are there from their first row on.
LATE_TABLES = ("DCRLogErrors", "ContainerAppConsoleLogs", "ContainerAppSystemLogs", "StorageBlobLogs", "AZKVAuditLogs", "AzureDiagnostics")
FUZZY = re.compile(r"union\s+isfuzzy\s*=\s*true\s+\(datatable\s*\(")


def check(template):
    rules = [(where, resource) for where, resource in every(template) if resource.get("type") == RULES]
    return [f"{where}: {line}" for where, rule in rules for one in rule["properties"]["criteria"]["allOf"] for line in of_query(one)]


def of_query(one):
    query, periods = one["query"], one.get("failingPeriods", {}).get("numberOfEvaluationPeriods", 1)
    if periods != 1 and not re.search(r"\bbin\s*\(\s*TimeGenerated\b|\bproject\b[^|]*\bTimeGenerated\b", query):
        # https://learn.microsoft.com/azure/azure-monitor/alerts/alerts-create-log-alert-rule
        yield f"{periods} periods over a query without TimeGenerated are refused: one period"
    for table in LATE_TABLES:
        if re.search(rf"\b{table}\b", query) and not FUZZY.search(query):
            # https://learn.microsoft.com/azure/azure-monitor/alerts/alerts-troubleshoot-log
            yield f"{table} is not there before its first row: a rule whose query fails for a week is switched off"
