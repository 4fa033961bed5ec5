// In the resource group of the workspace: the table, and the right to read the workspace.
metadata description = 'Table OnePasswordEventLogs_CL of a Log Analytics workspace, and optionally Log Analytics Reader on it.'

@description('Required. Name of the Log Analytics workspace, in the resource group of this deployment.')
param workspaceName string

@description('Required. What happens to the table: create it, or bring it to the 33 columns and this retention; addColumns gives a table that is there the columns it lacks, and keeps its own and its retention; keep and keep28 do not touch it.')
@allowed([
  'create'
  'addColumns'
  'keep'
  'keep28'
])
param table string

@description('Required. Columns that the table has and keeps, for addColumns.')
param found array

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

resource workspace 'Microsoft.OperationalInsights/workspaces@2023-09-01' existing = {
  name: workspaceName
}

module events 'table.bicep' = if (table == 'create' || table == 'addColumns') {
  name: 'opship-table-${uniqueString(deployment().name)}'
  params: {
    workspaceName: workspaceName
    create: table == 'create'
    found: found
    retentionInDays: retentionInDays
    totalRetentionInDays: totalRetentionInDays
  }
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
