// Where the container runs, where no environment is given.
metadata description = 'Container Apps environment on the consumption profile; logs go to the workspace without a key.'

@description('Required. Name of the environment.')
param environmentName string

@description('Required. Region of the environment.')
param location string

@description('Required. Tags of the environment.')
param tags object

@description('Required. Resource id of the subnet that it runs in, or empty.')
param subnetResourceId string

@description('Required. Resource id of the workspace for the logs of the containers, or empty for none.')
param diagnosticsWorkspaceResourceId string

resource environment 'Microsoft.App/managedEnvironments@2025-01-01' = {
  name: environmentName
  location: location
  tags: tags
  properties: {
    appLogsConfiguration: {
      // With a diagnostic setting; without one the logs can be followed but are not kept.
      destination: 'azure-monitor'
    }
    vnetConfiguration: empty(subnetResourceId)
      ? null
      : {
          infrastructureSubnetId: subnetResourceId
          internal: true
        }
    workloadProfiles: [
      {
        name: 'Consumption'
        workloadProfileType: 'Consumption'
      }
    ]
    zoneRedundant: false
  }
}

resource logs 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = if (!empty(diagnosticsWorkspaceResourceId)) {
  scope: environment
  name: 'opship'
  properties: {
    workspaceId: diagnosticsWorkspaceResourceId
    logs: [
      {
        category: 'ContainerAppConsoleLogs'
        enabled: true
      }
      {
        category: 'ContainerAppSystemLogs'
        enabled: true
      }
    ]
  }
}
