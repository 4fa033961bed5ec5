// Where opship keeps its position, its ledger and its dead letters.
metadata description = 'Hardened storage account with one container, and Storage Blob Data Contributor on that container alone.'

@description('Required. Name of the storage account.')
@minLength(3)
@maxLength(24)
param accountName string

@description('Required. Region of the account.')
param location string

@description('Required. Tags of the resources.')
param tags object

@description('Required. Redundancy of the account.')
param sku string

@description('Required. Resource id of the only subnet that may reach the account, or empty: any network, by identity alone.')
param subnetResourceId string

@description('Required. Resource id of the workspace for the logs of writes and deletions, or empty for none.')
param diagnosticsWorkspaceResourceId string

@description('Required. Object id of the identity that runs opship.')
param principalId string

var storageBlobDataContributor = 'ba92f5b4-2d11-453d-a403-e96b0029c9fe'

resource account 'Microsoft.Storage/storageAccounts@2025-01-01' = {
  name: accountName
  location: location
  tags: tags
  kind: 'StorageV2'
  sku: {
    name: sku
  }
  properties: {
    accessTier: 'Hot'
    allowBlobPublicAccess: false
    allowCrossTenantReplication: false
    allowSharedKeyAccess: false
    allowedCopyScope: 'AAD'
    defaultToOAuthAuthentication: true
    isLocalUserEnabled: false
    minimumTlsVersion: 'TLS1_2'
    supportsHttpsTrafficOnly: true
    encryption: {
      keySource: 'Microsoft.Storage'
      requireInfrastructureEncryption: true
      services: {
        blob: {
          enabled: true
          keyType: 'Account'
        }
      }
    }
    publicNetworkAccess: 'Enabled'
    networkAcls: {
      bypass: 'None'
      defaultAction: empty(subnetResourceId) ? 'Allow' : 'Deny'
      virtualNetworkRules: empty(subnetResourceId)
        ? []
        : [
            {
              id: subnetResourceId
              action: 'Allow'
            }
          ]
    }
  }
}

resource blobs 'Microsoft.Storage/storageAccounts/blobServices@2025-01-01' = {
  parent: account
  name: 'default'
  properties: {
    isVersioningEnabled: true
    deleteRetentionPolicy: {
      enabled: true
      days: 14
      allowPermanentDelete: false
    }
    containerDeleteRetentionPolicy: {
      enabled: true
      days: 14
    }
  }
}

resource container 'Microsoft.Storage/storageAccounts/blobServices/containers@2025-01-01' = {
  parent: blobs
  name: 'opship'
  properties: {
    publicAccess: 'None'
  }
}

// Checkpoints are written every minute: without this the versions of a year would stay.
resource oldVersions 'Microsoft.Storage/storageAccounts/managementPolicies@2025-01-01' = {
  parent: account
  name: 'default'
  properties: {
    policy: {
      rules: [
        {
          name: 'old-versions'
          enabled: true
          type: 'Lifecycle'
          definition: {
            filters: {
              blobTypes: [
                'blockBlob'
                'appendBlob'
              ]
            }
            actions: {
              version: {
                delete: {
                  daysAfterCreationGreaterThan: 7
                }
              }
            }
          }
        }
      ]
    }
  }
  dependsOn: [
    blobs
  ]
}

resource contributor 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  scope: container
  name: guid(container.id, principalId, storageBlobDataContributor)
  properties: {
    description: 'opship keeps its position here.'
    principalId: principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', storageBlobDataContributor)
  }
}

// Reads are left out: the agent reads its ledger all day.
resource logs 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = if (!empty(diagnosticsWorkspaceResourceId)) {
  scope: blobs
  name: 'opship'
  properties: {
    workspaceId: diagnosticsWorkspaceResourceId
    logs: [
      {
        category: 'StorageWrite'
        enabled: true
      }
      {
        category: 'StorageDelete'
        enabled: true
      }
    ]
  }
}

@description('Address of the container.')
output containerUrl string = '${account.properties.primaryEndpoints.blob}${container.name}'
