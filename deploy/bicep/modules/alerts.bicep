// What tells a person that events are not arriving. All of it looks at what arrived, not at what the agent believes.
metadata description = 'Alert rules over the table, the rule that fills it and the expiry of the token.'

@description('Required. Base of the names.')
param name string

@description('Required. Region of the workspace.')
param location string

@description('Required. Tags of the alert rules.')
param tags object

@description('Required. Resource id of the workspace.')
param workspaceResourceId string

@description('Required. Resource id of the data collection rule.')
param ruleResourceId string

@description('Required. Whether the errors of the data collection rule are written to the workspace.')
param diagnostics bool

@description('Required. Address that gets mail, or empty.')
param email string

@description('Required. Resource id of an action group of yours, or empty.')
param actionGroupResourceId string

@description('Required. Day on which the token expires, yyyy-mm-dd, or empty.')
param tokenExpires string

var actionGroups = concat(
  empty(email)
    ? []
    : [
        group.id
      ],
  empty(actionGroupResourceId)
    ? []
    : [
        actionGroupResourceId
      ]
)
var metricActions = concat(
  empty(email)
    ? []
    : [
        { actionGroupId: group.id }
      ],
  empty(actionGroupResourceId)
    ? []
    : [
        { actionGroupId: actionGroupResourceId }
      ]
)

resource group 'Microsoft.Insights/actionGroups@2023-01-01' = if (!empty(email)) {
  name: 'ag-${name}'
  location: 'global'
  tags: tags
  properties: {
    groupShortName: take(name, 12)
    enabled: true
    emailReceivers: [
      {
        name: 'operator'
        emailAddress: email
        useCommonAlertSchema: true
      }
    ]
  }
}

resource silence 'Microsoft.Insights/scheduledQueryRules@2023-12-01' = {
  name: 'alert-${name}-silence'
  location: location
  tags: tags
  properties: {
    displayName: 'opship: no heartbeat for an hour'
    description: 'A heartbeat follows each good cycle, and only then. Without one events may be missing; opship fetches them when it runs again. Look at the logs of the container, then run `opship check`.'
    severity: 1
    enabled: true
    scopes: [
      workspaceResourceId
    ]
    evaluationFrequency: 'PT15M'
    windowSize: 'PT1H'
    overrideQueryTimeRange: 'P2D'
    autoMitigate: true
    skipQueryValidation: true
    criteria: {
      allOf: [
        {
          // By account: one that is alive must not hide another. An older table has no such column.
          query: '''
let Beats = OnePasswordEventLogs_CL
| where log_source == "healthevents" and isempty(category)
| summarize Last = max(ingestion_time()) by Account = column_ifexists("account_uuid", "");
union (Beats | where Last < ago(1h)), (Beats | summarize Accounts = count() | where Accounts == 0)'''
          timeAggregation: 'Count'
          operator: 'GreaterThan'
          threshold: 0
          failingPeriods: {
            minFailingPeriodsToAlert: 1
            numberOfEvaluationPeriods: 1
          }
        }
      ]
    }
    actions: {
      actionGroups: actionGroups
    }
  }
}

resource trouble 'Microsoft.Insights/scheduledQueryRules@2023-12-01' = {
  name: 'alert-${name}-trouble'
  location: location
  tags: tags
  properties: {
    displayName: 'opship: the agent reports trouble'
    description: 'category says what is wrong: credentials_failed (the 1Password token is refused: expired or revoked), source_failed, delivery_failed, checkpoint_failed or configuration_failed. `opship check` names the remedy.'
    severity: 2
    enabled: true
    scopes: [
      workspaceResourceId
    ]
    evaluationFrequency: 'PT15M'
    windowSize: 'PT15M'
    overrideQueryTimeRange: 'P2D'
    autoMitigate: false
    skipQueryValidation: true
    criteria: {
      allOf: [
        {
          // Each row is in one look, which leaves it five minutes until it can be queried.
          query: '''
OnePasswordEventLogs_CL
| where log_source == "healthevents" and isnotempty(category)
| where ingestion_time() between (ago(20m) .. ago(5m))
| project category, details'''
          timeAggregation: 'Count'
          dimensions: [
            {
              name: 'category'
              operator: 'Include'
              values: [
                '*'
              ]
            }
          ]
          operator: 'GreaterThan'
          threshold: 0
          failingPeriods: {
            minFailingPeriodsToAlert: 1
            numberOfEvaluationPeriods: 1
          }
        }
      ]
    }
    actions: {
      actionGroups: actionGroups
    }
  }
}

resource lag 'Microsoft.Insights/scheduledQueryRules@2023-12-01' = {
  name: 'alert-${name}-lag'
  location: location
  tags: tags
  properties: {
    displayName: 'opship: events come late'
    description: 'Half of the audit events and sign-ins of the last hour came more than half an hour after they happened. Item usages are left out: devices send them when they sync. So is history older than a day.'
    severity: 2
    enabled: true
    scopes: [
      workspaceResourceId
    ]
    evaluationFrequency: 'PT15M'
    windowSize: 'PT1H'
    overrideQueryTimeRange: 'P2D'
    autoMitigate: true
    skipQueryValidation: true
    criteria: {
      allOf: [
        {
          // Not in the first two hours, which bring the history.
          query: '''
OnePasswordEventLogs_CL
| where log_source in ("auditevents", "signinattempts")
| extend Arrived = ingestion_time()
| extend Lag = iff(Arrived > ago(1h) and timestamp > Arrived - 1d, (Arrived - timestamp) / 1m, real(null))
| summarize FirstRow = min(Arrived), Events = countif(isnotnull(Lag)), MedianLagMinutes = percentile(Lag, 50)
| where Events >= 10 and MedianLagMinutes > 30 and FirstRow < ago(2h)'''
          timeAggregation: 'Count'
          operator: 'GreaterThan'
          threshold: 0
          failingPeriods: {
            // Of several periods Azure wants a query with TimeGenerated; this one looks back over two hours by itself.
            minFailingPeriodsToAlert: 1
            numberOfEvaluationPeriods: 1
          }
        }
      ]
    }
    actions: {
      actionGroups: actionGroups
    }
  }
}

resource deadLetters 'Microsoft.Insights/scheduledQueryRules@2023-12-01' = {
  name: 'alert-${name}-dead-letters'
  location: location
  tags: tags
  properties: {
    displayName: 'opship: an event is a dead letter'
    description: 'An event could not be shipped whole. Its row is a stub; the event itself is kept for 30 days (`opship dead-letters list`).'
    severity: 2
    enabled: true
    scopes: [
      workspaceResourceId
    ]
    evaluationFrequency: 'PT15M'
    windowSize: 'PT15M'
    overrideQueryTimeRange: 'P2D'
    autoMitigate: false
    skipQueryValidation: true
    criteria: {
      allOf: [
        {
          // By the time of ingestion: a rule may stamp rows with the time of the event.
          query: '''
OnePasswordEventLogs_CL
| where isnotempty(tostring(details.opship.stub))
| where ingestion_time() between (ago(20m) .. ago(5m))
| project uuid_s, log_source'''
          timeAggregation: 'Count'
          operator: 'GreaterThan'
          threshold: 0
          failingPeriods: {
            minFailingPeriodsToAlert: 1
            numberOfEvaluationPeriods: 1
          }
        }
      ]
    }
    actions: {
      actionGroups: actionGroups
    }
  }
}

// The date stands in the query: neither the vault nor the token tells it to a workspace.
resource expiry 'Microsoft.Insights/scheduledQueryRules@2023-12-01' = if (!empty(tokenExpires)) {
  name: 'alert-${name}-token'
  location: location
  tags: tags
  properties: {
    displayName: 'opship: the 1Password token expires'
    description: 'Three weeks or less are left. Issue a new token, put it into the vault as a new version of the secret, deploy again with its date.'
    severity: 2
    enabled: true
    scopes: [
      workspaceResourceId
    ]
    evaluationFrequency: 'P1D'
    windowSize: 'P1D'
    autoMitigate: false
    skipQueryValidation: true
    criteria: {
      allOf: [
        {
          query: 'OnePasswordEventLogs_CL\n| summarize Rows = count()\n| where now() > datetime(${tokenExpires}) - 21d'
          timeAggregation: 'Count'
          operator: 'GreaterThan'
          threshold: 0
          failingPeriods: {
            minFailingPeriodsToAlert: 1
            numberOfEvaluationPeriods: 1
          }
        }
      ]
    }
    actions: {
      actionGroups: actionGroups
    }
  }
}

resource ruleErrors 'Microsoft.Insights/scheduledQueryRules@2023-12-01' = if (diagnostics) {
  name: 'alert-${name}-rule-errors'
  location: location
  tags: tags
  properties: {
    displayName: 'opship: the data collection rule reports errors'
    description: 'Rows were accepted and then not stored: a 204 does not tell. Look at DCRLogErrors; `opship reconcile` finds what is missing.'
    severity: 1
    enabled: true
    scopes: [
      workspaceResourceId
    ]
    evaluationFrequency: 'PT15M'
    windowSize: 'PT15M'
    autoMitigate: false
    skipQueryValidation: true
    criteria: {
      allOf: [
        {
          // The table is there from its first row on: until then a query that names it alone fails, and Azure turns its alert off.
          query: 'union isfuzzy=true (datatable(TimeGenerated: datetime, _ResourceId: string)[]), DCRLogErrors\n| where _ResourceId =~ "${ruleResourceId}"'
          timeAggregation: 'Count'
          operator: 'GreaterThan'
          threshold: 0
          failingPeriods: {
            minFailingPeriodsToAlert: 1
            numberOfEvaluationPeriods: 1
          }
        }
      ]
    }
    actions: {
      actionGroups: actionGroups
    }
  }
}

resource dropped 'Microsoft.Insights/metricAlerts@2018-03-01' = {
  name: 'alert-${name}-rows-dropped'
  location: 'global'
  tags: tags
  properties: {
    description: 'The data collection rule drops rows that it accepted. Its transformation drops none, so the table or the rule was changed.'
    severity: 1
    enabled: true
    scopes: [
      ruleResourceId
    ]
    evaluationFrequency: 'PT5M'
    windowSize: 'PT15M'
    autoMitigate: true
    criteria: {
      'odata.type': 'Microsoft.Azure.Monitor.SingleResourceMultipleMetricCriteria'
      allOf: [
        {
          criterionType: 'StaticThresholdCriterion'
          name: 'rows-dropped'
          metricNamespace: 'Microsoft.Insights/dataCollectionRules'
          metricName: 'RowsDropped_Count'
          timeAggregation: 'Total'
          operator: 'GreaterThan'
          threshold: 0
          skipMetricValidation: true
        }
      ]
    }
    actions: metricActions
  }
}
