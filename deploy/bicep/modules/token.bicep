// In the resource group of the vault: the secret with the 1Password token, and the right to read that one secret.
metadata description = 'Secret with the 1Password token, and Key Vault Secrets User on that secret alone.'

@description('Required. Name of the vault, in the resource group of this deployment.')
param vaultName string

@description('Required. Name of the secret.')
param secretName string

@description('Required. The 1Password Events API token, or empty where the secret is there already.')
@secure()
param token string

@description('Required. Day on which the token expires, yyyy-mm-dd, or empty.')
param expires string

@description('Required. Object id of the identity that runs opship.')
param principalId string

var keyVaultSecretsUser = '4633458b-17de-408a-b874-0445c86b69e6'

resource vault 'Microsoft.KeyVault/vaults@2026-02-01' existing = {
  name: vaultName
}

resource secret 'Microsoft.KeyVault/vaults/secrets@2026-02-01' = if (!empty(token)) {
  parent: vault
  name: secretName
  properties: {
    value: token
    contentType: '1Password Events API token'
    attributes: {
      enabled: true
      exp: empty(expires) ? null : dateTimeToEpoch('${expires}T00:00:00Z')
    }
  }
}

resource user 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  scope: secret
  name: guid(secret.id, principalId, keyVaultSecretsUser)
  properties: {
    description: 'opship reads its 1Password token.'
    principalId: principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', keyVaultSecretsUser)
  }
}
