// A vault for the 1Password token, where none is given.
metadata description = 'Key Vault with purge protection, by roles only.'

@description('Required. Name of the vault.')
@minLength(3)
@maxLength(24)
param vaultName string

@description('Required. Region of the vault.')
param location string

@description('Required. Tags of the vault.')
param tags object

@description('Required. Resource id of the only subnet that may reach the vault, or empty: any network, by identity alone.')
param subnetResourceId string

@description('Required. Whether a deleted vault of this name is recovered.')
param recover bool

@description('Required. Resource id of the workspace for the audit log, or empty for none.')
param diagnosticsWorkspaceResourceId string

resource vault 'Microsoft.KeyVault/vaults@2026-02-01' = {
  name: vaultName
  location: location
  tags: tags
  properties: {
    tenantId: tenant().tenantId
    sku: {
      family: 'A'
      name: 'standard'
    }
    createMode: recover ? 'recover' : 'default'
    enableRbacAuthorization: true
    enabledForDeployment: false
    enabledForDiskEncryption: false
    enabledForTemplateDeployment: false
    enableSoftDelete: true
    enablePurgeProtection: true
    softDeleteRetentionInDays: 90
    publicNetworkAccess: 'Enabled'
    networkAcls: {
      bypass: 'None'
      defaultAction: empty(subnetResourceId) ? 'Allow' : 'Deny'
      virtualNetworkRules: empty(subnetResourceId)
        ? []
        : [
            {
              id: subnetResourceId
            }
          ]
    }
  }
}

resource logs 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = if (!empty(diagnosticsWorkspaceResourceId)) {
  scope: vault
  name: 'opship'
  properties: {
    workspaceId: diagnosticsWorkspaceResourceId
    logs: [
      {
        category: 'AuditEvent'
        enabled: true
      }
    ]
  }
}
