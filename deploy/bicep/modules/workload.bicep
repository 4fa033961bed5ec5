// What runs: `opship run` as a Container App, or `opship once` as a Container Apps Job.
metadata description = 'opship as a Container App with one replica, or as a scheduled Container Apps Job.'

@description('Required. What runs opship: app or job.')
@allowed([
  'app'
  'job'
])
param mode string

@description('Required. Name of the app or of the job.')
@minLength(2)
@maxLength(32)
param workloadName string

@description('Required. Region: that of the environment.')
param location string

@description('Required. Tags of the app or the job.')
param tags object

@description('Required. Resource id of the Container Apps environment.')
param environmentResourceId string

@description('Required. Workload profile of the environment, or empty: its default.')
param workloadProfileName string

@description('Required. Container image.')
param image string

@description('Required. Registry that the identity signs in to, or empty for a public image.')
param registryServer string

@description('Required. Cores of the container.')
@allowed([
  '0.25'
  '0.5'
  '1.0'
])
param cpu string

@description('Required. When to poll, cron with five fields, UTC.')
param cron string

@description('Required. job: minutes after which an execution is ended.')
param jobTimeoutInMinutes int

@description('Required. Resource id of the identity.')
param identityResourceId string

@description('Required. Address of the secret with the 1Password token, without a version.')
param tokenSecretUri string

@description('Required. app: bearer token of the status page and the metrics.')
@secure()
param statusToken string

@description('Required. What opship is to be told: name and value of environment variables.')
param settings array

// Memory comes with cores in Container Apps, two GiB each.
var memory = {
  '0.25': '0.5Gi'
  '0.5': '1Gi'
  '1.0': '2Gi'
}
var resources = {
  cpu: json(cpu)
  memory: memory[cpu]
}
var identity = {
  type: 'UserAssigned'
  userAssignedIdentities: {
    '${identityResourceId}': {}
  }
}
var registries = empty(registryServer)
  ? []
  : [
      {
        server: registryServer
        identity: identityResourceId
      }
    ]
var tokenSecret = {
  name: 'onepassword-token'
  keyVaultUrl: tokenSecretUri
  identity: identityResourceId
}
var tokenVariable = {
  name: 'OP_EVENTS_TOKEN'
  secretRef: 'onepassword-token'
}

resource app 'Microsoft.App/containerApps@2025-01-01' = if (mode == 'app') {
  name: workloadName
  location: location
  tags: tags
  identity: identity
  properties: {
    environmentId: environmentResourceId
    workloadProfileName: empty(workloadProfileName) ? null : workloadProfileName
    configuration: {
      activeRevisionsMode: 'Single'
      maxInactiveRevisions: 3
      registries: registries
      secrets: [
        tokenSecret
        {
          name: 'status-token'
          value: statusToken
        }
      ]
    }
    template: {
      // An open POST and the position get 25 s.
      terminationGracePeriodSeconds: 30
      containers: [
        {
          name: 'opship'
          image: image
          args: [
            'run'
          ]
          resources: resources
          env: concat(settings, [
            tokenVariable
            {
              name: 'OPSHIP_SCHEDULE__CRON'
              value: cron
            }
            {
              name: 'OPSHIP_ADMIN__LISTEN'
              value: '0.0.0.0:9464'
            }
            {
              name: 'OPSHIP_ADMIN__TOKEN'
              value: 'env:STATUS_TOKEN'
            }
            {
              name: 'STATUS_TOKEN'
              secretRef: 'status-token'
            }
          ])
          probes: [
            {
              type: 'Startup'
              httpGet: {
                path: '/livez'
                port: 9464
                scheme: 'HTTP'
              }
              initialDelaySeconds: 1
              periodSeconds: 3
              timeoutSeconds: 2
              failureThreshold: 10
            }
            {
              type: 'Liveness'
              httpGet: {
                path: '/livez'
                port: 9464
                scheme: 'HTTP'
              }
              periodSeconds: 30
              timeoutSeconds: 5
              failureThreshold: 3
            }
            {
              type: 'Readiness'
              httpGet: {
                path: '/readyz'
                port: 9464
                scheme: 'HTTP'
              }
              periodSeconds: 15
              timeoutSeconds: 5
              failureThreshold: 3
            }
          ]
        }
      ]
      // A second replica would stand by for the first; none at all would ship nothing.
      scale: {
        minReplicas: 1
        maxReplicas: 1
      }
    }
  }
}

resource job 'Microsoft.App/jobs@2025-01-01' = if (mode == 'job') {
  name: workloadName
  location: location
  tags: tags
  identity: identity
  properties: {
    environmentId: environmentResourceId
    workloadProfileName: empty(workloadProfileName) ? null : workloadProfileName
    configuration: {
      triggerType: 'Schedule'
      scheduleTriggerConfig: {
        cronExpression: cron
        parallelism: 1
        replicaCompletionCount: 1
      }
      // The next execution goes on where this one stopped: a retry would only be an earlier one.
      replicaRetryLimit: 0
      replicaTimeout: jobTimeoutInMinutes * 60
      registries: registries
      secrets: [
        tokenSecret
      ]
    }
    template: {
      containers: [
        {
          name: 'opship'
          image: image
          // It ends by itself, with its position saved, before it would be ended.
          args: [
            'once'
            '--max-duration'
            '${jobTimeoutInMinutes - 2}m'
          ]
          resources: resources
          env: concat(settings, [
            tokenVariable
          ])
        }
      ]
    }
  }
}
