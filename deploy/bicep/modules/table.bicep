// The table. A PUT drops every column that it does not list, so the columns that are there are listed too:
// https://learn.microsoft.com/azure/azure-monitor/logs/create-custom-table
metadata description = 'Table OnePasswordEventLogs_CL of a Log Analytics workspace: made with 33 columns, or given those it lacks.'

@description('Required. Name of the Log Analytics workspace, in the resource group of this deployment.')
param workspaceName string

@description('Required. Whether the table is made, with this retention; otherwise it is given columns and nothing else.')
param create bool

@description('Required. Columns that the table has and keeps.')
param found array

@description('Required. Days of interactive retention of a table that is made.')
@minValue(4)
@maxValue(730)
param retentionInDays int

@description('Required. Days of total retention of a table that is made.')
@minValue(4)
@maxValue(4383)
param totalRetentionInDays int

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

// Azure has these in every table and takes them from nobody; so it does with names that begin with an underscore.
// https://learn.microsoft.com/azure/azure-monitor/logs/logs-ingestion-api-overview
var reserved = [
  'id'
  'tenantid'
  'title'
  'type'
  'uniqueid'
]
// Of a column that is read, what may be written: the rest is Azure's own (isHidden, isDefaultDisplay).
var written = [
  'dataTypeHint'
  'description'
  'displayName'
  'name'
  'type'
]
var theirs = filter(found, column => !startsWith(column.name, '_') && !contains(reserved, toLower(column.name)))
var kept = map(
  theirs,
  column =>
    toObject(
      filter(items(column), part => contains(written, part.key) && !empty(part.value)),
      part => part.key,
      part => part.value
    )
)
var taken = map(theirs, column => toLower(column.name))
// Where both have a column, the table's own definition of it stays.
var missing = filter(columns, column => !contains(taken, toLower(column.name)))

var schema = {
  schema: {
    name: 'OnePasswordEventLogs_CL'
    description: '1Password events, one row each, shipped by opship.'
    columns: concat(kept, missing)
  }
}
// No plan is said: a new table is of the plan Analytics, and one that is there keeps its own.
var retention = {
  retentionInDays: retentionInDays
  totalRetentionInDays: max(retentionInDays, totalRetentionInDays)
}

resource workspace 'Microsoft.OperationalInsights/workspaces@2023-09-01' existing = {
  name: workspaceName
}

// Nothing is said of plan and retention of a table that is there: they stay.
resource events 'Microsoft.OperationalInsights/workspaces/tables@2023-09-01' = {
  parent: workspace
  name: 'OnePasswordEventLogs_CL'
  properties: create ? union(retention, schema) : schema
}
