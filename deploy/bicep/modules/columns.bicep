// What the table has now. A module of its own, because a template cannot read and write one resource.
metadata description = 'Columns that the table OnePasswordEventLogs_CL of a Log Analytics workspace has now.'

@description('Required. Name of the Log Analytics workspace, in the resource group of this deployment.')
param workspaceName string

resource workspace 'Microsoft.OperationalInsights/workspaces@2023-09-01' existing = {
  name: workspaceName

  resource events 'tables' existing = {
    name: 'OnePasswordEventLogs_CL'
  }
}

@description('Its own columns, as Azure tells them. Those that every table has come apart from these, as standardColumns.')
output columns array = workspace::events.properties.schema.?columns ?? []
