// Everything that ships the events of one 1Password account to a Log Analytics workspace. Deploy it into a resource group of its own.
metadata name = 'opship'
metadata description = 'Ships 1Password events to Microsoft Sentinel: table, data collection rule, identity, store, vault, container, alerts.'

targetScope = 'resourceGroup'

@description('Required. Resource id of the Log Analytics workspace (with Microsoft Sentinel). It may be in another resource group or subscription of the tenant.')
@minLength(80)
@maxLength(300)
param workspaceResourceId string

@description('Optional. Region of what is created here; that of the Container Apps environment where one of yours is used. The data collection rule and the alerts go to the region of the workspace.')
param location string = resourceGroup().location

@description('Optional. Base of all names: 3 to 12 letters, digits and hyphens, a letter first, no hyphen last and no two together. Upper case is made lower. Another name gives a second, independent deployment in the same resource group.')
@minLength(3)
@maxLength(12)
param name string = 'opship'

@description('Optional. Tags of all resources; or, as the form of the portal gives them, tags by type of resource.')
param tags object = {}

@description('Optional. app: `opship run` as a Container App, polls each minute, with health probes. job: `opship once` as a Container Apps Job, pays for its seconds only.')
@allowed(['app', 'job'])
param mode string = 'app'

@description('Optional. Container image. Pin it for production: ghcr.io/opship/opship@sha256:...')
@minLength(3)
@maxLength(500)
param image string = 'ghcr.io/opship/opship:0.1.0'

@description('Optional. Registry that the identity signs in to, such as myregistry.azurecr.io; grant it AcrPull there. Empty for a public image.')
@maxLength(255)
param registryServer string = ''

@description('Optional. Cores of the container; memory is two GiB a core.')
@allowed(['0.25', '0.5', '1.0'])
param cpu string = '0.25'

@description('Optional. app: when to poll, cron with five fields, UTC.')
@minLength(9)
@maxLength(100)
param appCron string = '* * * * *'

@description('Optional. job: when to start an execution, cron with five fields, UTC. Rules that look at five minutes want five minutes.')
@minLength(9)
@maxLength(100)
param jobCron string = '*/5 * * * *'

@description('Optional. job: minutes after which an execution is ended. It stops by itself two minutes before, and the next one goes on.')
@minValue(10)
@maxValue(240)
param jobTimeoutInMinutes int = 30

@description('Optional. 1Password Events API token. It goes into the vault and nowhere else. Leave it empty to keep the secret that is there.')
@secure()
@maxLength(8192)
param onePasswordToken string = ''

@description('Optional. Day on which the token expires, yyyy-mm-dd: gives the secret its expiry and an alert three weeks before.')
@maxLength(10)
param tokenExpires string = ''

@description('Optional. Address of the Events API, such as https://events.1password.eu. Empty: the token tells it.')
@maxLength(255)
param eventsUrl string = ''

@description('Optional. What to ship.')
@allowed(['auditevents', 'itemusages', 'signinattempts'])
@minLength(1)
param streams array = ['auditevents', 'itemusages', 'signinattempts']

@description('Optional. Where the very first start begins: a duration back such as 30d (at most 119d), an RFC 3339 time, or now (cut-over from another connector).')
@minLength(2)
@maxLength(40)
param lookback string = '30d'

@description('Optional. Resource id of a Key Vault of yours that uses roles, not access policies. Empty: a new one.')
@maxLength(400)
param existingVaultResourceId string = ''

@description('Optional. Name of the secret with the token.')
@minLength(1)
@maxLength(127)
param secretName string = 'onepassword-events-token'

@description('Optional. Recover the vault of an earlier deployment: needed when it was deleted less than 90 days ago.')
param recoverVault bool = false

@description('Optional. Resource id of a Container Apps environment of yours. Empty: a new one.')
@maxLength(400)
param existingEnvironmentResourceId string = ''

@description('Optional. Resource id of a subnet delegated to Microsoft.App/environments, with the service endpoints Microsoft.Storage and Microsoft.KeyVault. The new environment runs in it, and store and vault can then be reached from it alone.')
@maxLength(400)
param subnetResourceId string = ''

@description('Optional. How rows reach the workspace: direct uses the endpoint of the rule itself; endpoint adds a data collection endpoint; private adds one without public network access, to be linked to your Azure Monitor private link scope.')
@allowed(['direct', 'endpoint', 'private'])
param ingestion string = 'direct'

@description('Optional. What TimeGenerated means. ingestion: most published rules look back five minutes and would miss an event that comes late by its own time. event: the time of the event; Azure replaces times older than two days.')
@allowed(['ingestion', 'event'])
param timeGenerated string = 'ingestion'

@description('Optional. The table OnePasswordEventLogs_CL. create: make it, or bring it to the 33 columns and this retention; other columns of a table that is there are dropped. addColumns: the table is there, made by a connector or by hand: add the columns it lacks, keep its own and its retention. keep: it has the 33 columns, do not touch it. keep28: it has the older 28, do not touch it, drop the other five.')
@allowed(['create', 'addColumns', 'keep', 'keep28'])
param table string = 'create'

@description('Optional. Days of interactive retention of the table; 90 are free of charge in a workspace with Microsoft Sentinel.')
@minValue(4)
@maxValue(730)
param retentionInDays int = 90

@description('Optional. Days of total retention of the table; what is beyond the interactive retention is kept as archive. Azure takes whole years beyond two.')
@allowed([30, 60, 90, 120, 180, 270, 365, 550, 730, 1095, 1460, 1826, 2191, 2556, 2922, 3288, 3653, 4018, 4383])
param totalRetentionInDays int = 90

@description('Optional. Redundancy of the storage account that keeps the position.')
@allowed(['Standard_LRS', 'Standard_ZRS', 'Standard_GRS', 'Standard_GZRS'])
param storageRedundancy string = 'Standard_GRS'

@description('Optional. Let the identity read the workspace (Log Analytics Reader), for `opship reconcile`. It can then read every table there.')
param grantWorkspaceReader bool = false

@description('Optional. What happens to a batch whose answer was lost: resend it, at worst a traceable duplicate; or verify, which asks the workspace first and grants the identity Log Analytics Reader.')
@allowed(['resend', 'verify'])
param onInDoubt string = 'resend'

@description('Optional. Write the errors of the rule, the logs of the container and the audit logs of vault and store to the workspace.')
param deployDiagnostics bool = true

@description('Optional. Deploy the alert rules.')
param deployAlerts bool = true

@description('Optional. Address that gets mail from the alerts.')
@maxLength(254)
param alertEmail string = ''

@description('Optional. Resource id of an action group of yours that the alerts call.')
@maxLength(400)
param alertActionGroupResourceId string = ''

@description('Optional. app: let the status page and the metrics be reached from the network of the environment, with statusToken. Without it nothing but the probes of the platform reaches them.')
param statusPage bool = false

@description('Optional. Bearer token of the status page and the metrics. Each deployment makes a new one unless you set it; it is a secret of the app.')
@secure()
param statusToken string = newGuid()

@description('Optional. Deploy the Microsoft Sentinel content: saved functions and what sentinelParts names. It reads all 33 columns: not with table keep28.')
param deploySentinelContent bool = false

@description('Optional. Put Microsoft Sentinel onto the workspace first, where it is not there yet: rules need it. It is billed by the volume of the whole workspace, and may bring the workspace into the Defender portal.')
param onboardSentinel bool = false

@description('Optional. Whether Microsoft Defender may merge incidents of the content\'s rules with others: as the tenant has it, never (exclude), or always (include). Rules for the health of the agent are never merged.')
@allowed([
  'tenant'
  'exclude'
  'include'
])
param correlation string = 'tenant'

@description('Optional. Any text gives the rules of the content other ids: those of rules that were deleted cannot be used again for about a day.')
@maxLength(20)
param ruleIdSalt string = ''

@description('Optional. Which parts of the content besides its functions. rules need Microsoft Sentinel on the workspace.')
@allowed(['parsers', 'rules', 'hunting', 'workbook'])
param sentinelParts array = ['parsers', 'rules', 'hunting', 'workbook']

@description('Optional. Whether the analytic rules of the content run at once. Each deployment writes its rules anew, changes of yours included: leave rules out of sentinelParts once you have changed some.')
param enableRules bool = true

// The one form of it that names are made of: Azure refuses upper case in some of them.
var base = toLower(name)
// Without hyphens where hyphens are not allowed, and short enough with the 13 characters of the hash.
var suffix = uniqueString(resourceGroup().id, base)
var bareName = replace(base, '-', '')
var accountName = take('st${suffix}${bareName}', 24)
var newVaultName = 'kv-${take(bareName, 7)}-${suffix}'
var workloadName = mode == 'app' ? 'ca-${base}' : 'caj-${base}'
var commandsName = 'caj-${base}-commands'
var deploymentSuffix = uniqueString(deployment().name, base)

// With parts enough in an id that is none: modules/input.bicep tells what is wrong with it.
var workspaceParts = split('${workspaceResourceId}////////', '/')
var vaultResourceId = empty(existingVaultResourceId)
  ? resourceId('Microsoft.KeyVault/vaults', newVaultName)
  : existingVaultResourceId
var vaultParts = split('${vaultResourceId}////////', '/')
var environmentName = 'cae-${base}'
var environmentResourceId = empty(existingEnvironmentResourceId)
  ? resourceId('Microsoft.App/managedEnvironments', environmentName)
  : existingEnvironmentResourceId

// No name of a tag has a slash: where there is one these are tags by type. What belongs together has the tags of its main resource.
var taggedTypes = {
  identity: 'Microsoft.ManagedIdentity/userAssignedIdentities'
  rule: 'Microsoft.Insights/dataCollectionRules'
  store: 'Microsoft.Storage/storageAccounts'
  vault: 'Microsoft.KeyVault/vaults'
  environment: 'Microsoft.App/managedEnvironments'
  workload: 'Microsoft.App/containerApps'
  alerts: 'Microsoft.Insights/scheduledQueryRules'
}
var tagsOf = mapValues(taggedTypes, type => contains(join(objectKeys(tags), ' '), '/') ? (tags[?type] ?? {}) : tags)

var diagnosticsWorkspaceResourceId = deployDiagnostics ? workspaceResourceId : ''
var writesTable = table == 'create' || table == 'addColumns'
var readsWorkspace = grantWorkspaceReader || onInDoubt == 'verify'
var clouds = {
  AzureCloud: 'public'
  AzureUSGovernment: 'usgov'
  AzureChinaCloud: 'china'
}
var vaultName = vaultParts[8]

resource workspace 'Microsoft.OperationalInsights/workspaces@2023-09-01' existing = {
  scope: resourceGroup(workspaceParts[2], workspaceParts[4])
  name: workspaceParts[8]
}

// Bad input ends here, before anything is made.
module input 'modules/input.bicep' = {
  name: '${base}-input-${deploymentSuffix}'
  params: {
    name: base
    workspaceResourceId: workspaceResourceId
    existingVaultResourceId: existingVaultResourceId
    existingEnvironmentResourceId: existingEnvironmentResourceId
    subnetResourceId: subnetResourceId
    alertActionGroupResourceId: alertActionGroupResourceId
    secretName: secretName
    tokenExpires: tokenExpires
    eventsUrl: eventsUrl
    lookback: lookback
    cron: mode == 'app' ? appCron : jobCron
    image: image
    registryServer: registryServer
    alertEmail: alertEmail
    addsColumns: table == 'addColumns'
    contentWithoutColumns: deploySentinelContent && table == 'keep28'
  }
}

resource identity 'Microsoft.ManagedIdentity/userAssignedIdentities@2023-01-31' = {
  name: 'id-${base}'
  location: location
  tags: tagsOf.identity
  dependsOn: [input]
}

// Before everything else: it takes minutes to be known, and the content comes last.
module onboarding 'modules/onboarding.bicep' = if (onboardSentinel) {
  name: '${base}-onboarding-${deploymentSuffix}'
  scope: resourceGroup(workspaceParts[2], workspaceParts[4])
  params: {
    workspaceName: workspace.name
  }
  dependsOn: [input]
}

module inWorkspace 'modules/workspace.bicep' = if (writesTable || readsWorkspace) {
  name: '${base}-workspace-${deploymentSuffix}'
  scope: resourceGroup(workspaceParts[2], workspaceParts[4])
  params: {
    workspaceName: workspace.name
    table: table
    found: input.outputs.columns
    retentionInDays: retentionInDays
    totalRetentionInDays: totalRetentionInDays
    grantReader: readsWorkspace
    principalId: identity.properties.principalId
  }
  dependsOn: [onboarding]
}

module rule 'modules/rule.bicep' = {
  name: '${base}-rule-${deploymentSuffix}'
  params: {
    name: base
    location: workspace.location
    tags: tagsOf.rule
    workspaceResourceId: workspaceResourceId
    ingestion: ingestion
    timeGenerated: timeGenerated
    has28Columns: table == 'keep28'
    diagnostics: deployDiagnostics
    principalId: identity.properties.principalId
  }
  dependsOn: [inWorkspace]
}

module store 'modules/store.bicep' = {
  name: '${base}-store-${deploymentSuffix}'
  params: {
    accountName: accountName
    location: location
    tags: tagsOf.store
    sku: storageRedundancy
    subnetResourceId: subnetResourceId
    diagnosticsWorkspaceResourceId: diagnosticsWorkspaceResourceId
    principalId: identity.properties.principalId
  }
}

module vault 'modules/vault.bicep' = if (empty(existingVaultResourceId)) {
  name: '${base}-vault-${deploymentSuffix}'
  params: {
    vaultName: newVaultName
    location: location
    tags: tagsOf.vault
    subnetResourceId: subnetResourceId
    recover: recoverVault
    diagnosticsWorkspaceResourceId: diagnosticsWorkspaceResourceId
  }
  dependsOn: [input]
}

module token 'modules/token.bicep' = {
  name: '${base}-token-${deploymentSuffix}'
  scope: resourceGroup(vaultParts[2], vaultParts[4])
  params: {
    vaultName: vaultName
    secretName: secretName
    token: onePasswordToken
    expires: tokenExpires
    principalId: identity.properties.principalId
  }
  dependsOn: [vault]
}

module containers 'modules/environment.bicep' = if (empty(existingEnvironmentResourceId)) {
  name: '${base}-environment-${deploymentSuffix}'
  params: {
    environmentName: environmentName
    location: location
    tags: tagsOf.environment
    subnetResourceId: subnetResourceId
    diagnosticsWorkspaceResourceId: diagnosticsWorkspaceResourceId
  }
  // Making an environment takes minutes: as long as the role on the secret takes to work.
  dependsOn: [input, token]
}

// Last, after all roles; a container that starts before they work waits for them.
module workload 'modules/workload.bicep' = {
  name: '${base}-workload-${deploymentSuffix}'
  params: {
    mode: mode
    workloadName: workloadName
    location: location
    tags: tagsOf.workload
    environmentResourceId: environmentResourceId
    workloadProfileName: empty(existingEnvironmentResourceId) ? 'Consumption' : ''
    image: image
    registryServer: registryServer
    cpu: cpu
    cron: mode == 'app' ? appCron : jobCron
    jobTimeoutInMinutes: jobTimeoutInMinutes
    identityResourceId: identity.id
    statusToken: statusToken
    statusPage: statusPage
    commandsName: commandsName
    settings: concat(
      [
        {
          name: 'OPSHIP_ACCOUNTS__DEFAULT__TOKEN'
          value: 'keyvault:https://${vaultName}${environment().suffixes.keyvaultDns}/secrets/${secretName}'
        }
        { name: 'OPSHIP_ACCOUNTS__DEFAULT__STREAMS', value: join(streams, ',') }
        { name: 'OPSHIP_SCHEDULE__LOOKBACK', value: lookback }
        { name: 'OPSHIP_SINK__KIND', value: 'azure' }
        { name: 'OPSHIP_SINK__ENDPOINT', value: rule.outputs.endpoint }
        { name: 'OPSHIP_SINK__DCR_IMMUTABLE_ID', value: rule.outputs.immutableId }
        { name: 'OPSHIP_STORE__KIND', value: 'azure-blob' }
        { name: 'OPSHIP_STORE__CONTAINER_URL', value: store.outputs.containerUrl }
        { name: 'OPSHIP_AZURE__CREDENTIAL', value: 'managed-identity' }
        { name: 'OPSHIP_AZURE__CLIENT_ID', value: identity.properties.clientId }
        { name: 'OPSHIP_AZURE__CLOUD', value: clouds[environment().name] }
        { name: 'OPSHIP_DELIVERY__ON_IN_DOUBT', value: onInDoubt }
        { name: 'OPSHIP_LOG__FORMAT', value: 'json' }
      ],
      empty(eventsUrl)
        ? []
        : [
            { name: 'OPSHIP_ACCOUNTS__DEFAULT__EVENTS_URL', value: eventsUrl }
          ],
      readsWorkspace
        ? [
            { name: 'OPSHIP_AZURE__WORKSPACE_ID', value: workspace.properties.customerId }
          ]
        : []
    )
  }
  dependsOn: [inWorkspace, token, containers]
}

module alerts 'modules/alerts.bicep' = if (deployAlerts) {
  name: '${base}-alerts-${deploymentSuffix}'
  params: {
    name: base
    location: workspace.location
    tags: tagsOf.alerts
    workspaceResourceId: workspaceResourceId
    ruleResourceId: rule.outputs.ruleId
    diagnostics: deployDiagnostics
    email: alertEmail
    actionGroupResourceId: alertActionGroupResourceId
    tokenExpires: tokenExpires
  }
  dependsOn: [inWorkspace]
}

// The content is a template of its own, which can be deployed without the agent too.
module content '../sentinel/sentinel.json' = if (deploySentinelContent) {
  name: '${base}-content-${deploymentSuffix}'
  scope: resourceGroup(workspaceParts[2], workspaceParts[4])
  params: {
    workspaceName: workspace.name
    location: workspace.location
    deployParsers: contains(sentinelParts, 'parsers')
    deployRules: contains(sentinelParts, 'rules')
    deployHunting: contains(sentinelParts, 'hunting')
    deployWorkbook: contains(sentinelParts, 'workbook')
    enableRules: enableRules
    ruleIdSalt: ruleIdSalt
    correlation: correlation
  }
  // Minutes after the table and the onboarding: rules are checked against both, and neither is known at once.
  dependsOn: [onboarding, workload]
}

@description('Name of the Container App or of the job.')
output workloadName string = workloadName

@description('Name of the job that runs a command of opship, such as `check` or `reconcile`, when it is started.')
output commandsName string = commandsName

@description('Client id of the identity that runs opship.')
output identityClientId string = identity.properties.clientId

@description('Address that rows are posted to: `sink.endpoint`.')
output logsIngestionEndpoint string = rule.outputs.endpoint

@description('Immutable id of the data collection rule: `sink.dcr_immutable_id`.')
output dcrImmutableId string = rule.outputs.immutableId

@description('Address of the container with position and ledger: `store.container_url`.')
output containerUrl string = store.outputs.containerUrl

@description('First: watch it. The first rows are in the workspace within fifteen minutes of "shipped".')
output watchLogs string = mode == 'app'
  ? 'az containerapp logs show --follow -g ${resourceGroup().name} -n ${workloadName}'
  : 'az containerapp job start -g ${resourceGroup().name} -n ${workloadName}; az containerapp job execution list -o table -g ${resourceGroup().name} -n ${workloadName}'

@description('Then: run this query in the workspace.')
output firstQuery string = 'OnePasswordEventLogs_CL | summarize rows = count(), newest = max(timestamp) by log_source'

@description('Later: a new token, and the day on which it expires. Both are asked for, so that the token does not end up in the history of the shell.')
output rotateToken string = 'read -rsp "Token: " T && read -rp "Expires (yyyy-mm-dd): " D && printf %s "$T" | az keyvault secret set --file /dev/stdin --encoding utf-8 -o none --expires "$D"T00:00:00Z --vault-name ${vaultName} -n ${secretName}'
