// In the resource group of the workspace: the table, and the right to read the workspace.
metadata description = 'Table OnePasswordEventLogs_CL of a Log Analytics workspace, and optionally Log Analytics Reader on it.'

@description('Required. Name of the Log Analytics workspace, in the resource group of this deployment.')
param workspaceName string

@description('Required. What happens to the table: create it with all 33 columns and set its retention; addColumns gives an older table the columns it lacks and leaves its retention alone; keep and keep28 do not touch it.')
@allowed([
  'create'
  'addColumns'
  'keep'
  'keep28'
])
param table string

@description('Required. Days of interactive retention of a table that is created.')
@minValue(4)
@maxValue(730)
param retentionInDays int

@description('Required. Days of total retention of a table that is created.')
@minValue(4)
@maxValue(4383)
param totalRetentionInDays int

@description('Required. Whether the identity may read the workspace.')
param grantReader bool

@description('Required. Object id of the identity that runs opship.')
param principalId string

var logAnalyticsReader = '73c42c96-874c-492b-b04d-ab87d138a893'
var columns = [
  { name: 'TimeGenerated', type: 'dateTime' }
  { name: 'SourceSystem', type: 'string' }
  { name: 'log_source', type: 'string' }
  { name: 'uuid_s', type: 'string' }
  { name: 'timestamp', type: 'dateTime' }
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

// All that is said of an older table: its plan and its retention stay.
var widened = {
  schema: {
    name: 'OnePasswordEventLogs_CL'
    description: '1Password events, one row each, shipped by opship.'
    columns: columns
  }
}
var retention = {
  plan: 'Analytics'
  retentionInDays: retentionInDays
  totalRetentionInDays: max(retentionInDays, totalRetentionInDays)
}

resource workspace 'Microsoft.OperationalInsights/workspaces@2023-09-01' existing = {
  name: workspaceName
}

resource events 'Microsoft.OperationalInsights/workspaces/tables@2023-09-01' = if (table == 'create' || table == 'addColumns') {
  parent: workspace
  name: 'OnePasswordEventLogs_CL'
  properties: table == 'create' ? union(retention, widened) : widened
}

resource reader 'Microsoft.Authorization/roleAssignments@2022-04-01' = if (grantReader) {
  scope: workspace
  name: guid(workspace.id, principalId, logAnalyticsReader)
  properties: {
    description: 'opship asks which of its rows arrived.'
    principalId: principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', logAnalyticsReader)
  }
}
