// The data collection rule that takes the rows, and the right to post to it.
metadata description = 'Data collection rule for 1Password events, with Monitoring Metrics Publisher on it alone.'

@description('Required. Base of the names.')
param name string

@description('Required. Region of the rule: that of the workspace.')
param location string

@description('Required. Tags of the resources.')
param tags object

@description('Required. Resource id of the workspace that holds the table.')
param workspaceResourceId string

@description('Required. How rows reach the rule: direct has an endpoint of its own; endpoint and private go through a data collection endpoint, private without public network access.')
@allowed([
  'direct'
  'endpoint'
  'private'
])
param ingestion string

@description('Required. What TimeGenerated means: the time of ingestion, or the time of the event.')
@allowed([
  'ingestion'
  'event'
])
param timeGenerated string

@description('Required. Whether the table has the older 28 columns: the five newer ones are then dropped by the rule.')
param has28Columns bool

@description('Required. Whether the rule writes its errors to the workspace (table DCRLogErrors).')
param diagnostics bool

@description('Required. Object id of the identity that runs opship.')
param principalId string

var monitoringMetricsPublisher = '3913510d-42f4-4e42-8a64-420c390055eb'
var stamp = {
  ingestion: 'now()'
  // A row without a readable timestamp still has to be found.
  event: 'iif(isnull(timestamp), now(), timestamp)'
}
var newerColumns = 'account_uuid, actor_type, actor_account_uuid, user_type, user_account_uuid'

resource endpoint 'Microsoft.Insights/dataCollectionEndpoints@2023-03-11' = if (ingestion != 'direct') {
  name: 'dce-${name}'
  location: location
  tags: tags
  properties: {
    description: 'Takes 1Password events from opship.'
    networkAcls: {
      publicNetworkAccess: ingestion == 'private' ? 'Disabled' : 'Enabled'
    }
  }
}

resource rule 'Microsoft.Insights/dataCollectionRules@2023-03-11' = {
  name: 'dcr-${name}'
  location: location
  tags: tags
  kind: ingestion == 'direct' ? 'Direct' : null
  properties: {
    description: 'Takes 1Password events from opship.'
    dataCollectionEndpointId: ingestion == 'direct' ? null : endpoint.id
    streamDeclarations: {
      'Custom-OnePasswordEventLogs_CL': {
        columns: [
          { name: 'log_source', type: 'string' }
          { name: 'uuid_s', type: 'string' }
          { name: 'timestamp', type: 'datetime' }
          { name: 'account_uuid', type: 'string' }
          { name: 'session_uuid', type: 'string' }
          { name: 'country', type: 'string' }
          { name: 'category', type: 'string' }
          { name: 'action_type', type: 'string' }
          { name: 'details', type: 'dynamic' }
          { name: 'target_user', type: 'dynamic' }
          { name: 'client', type: 'dynamic' }
          { name: 'location', type: 'dynamic' }
          { name: 'actor_uuid', type: 'string' }
          { name: 'actor_details', type: 'dynamic' }
          { name: 'actor_type', type: 'string' }
          { name: 'actor_account_uuid', type: 'string' }
          { name: 'action', type: 'string' }
          { name: 'object_type', type: 'string' }
          { name: 'object_uuid', type: 'string' }
          { name: 'object_details', type: 'dynamic' }
          { name: 'aux_id', type: 'int' }
          { name: 'aux_uuid', type: 'string' }
          { name: 'aux_details', type: 'dynamic' }
          { name: 'aux_info', type: 'string' }
          { name: 'session', type: 'dynamic' }
          { name: 'used_version', type: 'int' }
          { name: 'vault_uuid', type: 'string' }
          { name: 'item_uuid', type: 'string' }
          { name: 'user', type: 'dynamic' }
          { name: 'user_type', type: 'string' }
          { name: 'user_account_uuid', type: 'string' }
        ]
      }
    }
    destinations: {
      logAnalytics: [
        {
          name: 'workspace'
          workspaceResourceId: workspaceResourceId
        }
      ]
    }
    dataFlows: [
      {
        streams: [
          'Custom-OnePasswordEventLogs_CL'
        ]
        destinations: [
          'workspace'
        ]
        transformKql: 'source | extend TimeGenerated = ${stamp[timeGenerated]}${has28Columns ? ' | project-away ${newerColumns}' : ''}'
        outputStream: 'Custom-OnePasswordEventLogs_CL'
      }
    ]
  }
}

resource publisher 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  scope: rule
  name: guid(rule.id, principalId, monitoringMetricsPublisher)
  properties: {
    description: 'opship posts rows to this rule.'
    principalId: principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', monitoringMetricsPublisher)
  }
}

// A 204 means that Azure took the rows over. What happens behind it is told here alone.
resource errors 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = if (diagnostics) {
  scope: rule
  name: 'opship'
  properties: {
    workspaceId: workspaceResourceId
    logs: [
      {
        category: 'LogErrors'
        enabled: true
      }
    ]
  }
}

@description('Address that rows are posted to.')
output endpoint string = ingestion == 'direct'
  ? rule.properties.endpoints.logsIngestion
  : endpoint!.properties.logsIngestion.endpoint

@description('Immutable id of the rule, as opship needs it.')
output immutableId string = rule.properties.immutableId

@description('Resource id of the rule.')
output ruleId string = rule.id
