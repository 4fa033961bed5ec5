// What runs: `opship run` as a Container App, or `opship once` as a Container Apps Job; and a job that runs a command when it is started.
//
// No secret of the vault is a secret of the platform: it would be resolved when the app is made, by addresses of the platform's own, and an
// app whose secret or whose role is not there yet would not be made. opship reads it itself, waits, and says what is missing.
metadata description = 'opship as a Container App with one replica, or as a scheduled Container Apps Job, and a job for its commands.'

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

@description('Required. app: bearer token of the status page and the metrics.')
@secure()
param statusToken string

@description('Required. app: whether the status page and the metrics can be reached from the network of the environment.')
param statusPage bool

@description('Required. Name of the job that runs a command of opship when it is started.')
@minLength(2)
@maxLength(32)
param commandsName string

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
// Only from the network of the environment, and with the token. Without it nothing but the platform's probes reaches the port.
var ingress = {
  external: false
  targetPort: 9464
  transport: 'http'
  allowInsecure: false
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
      ingress: statusPage ? ingress : null
      secrets: [
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
              // Not /readyz: an app that waits for its secret has to come up, and its status page says so.
              type: 'Readiness'
              httpGet: {
                path: '/livez'
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
          env: settings
        }
      ]
    }
  }
}

// With the same identity, network and configuration: what an alert names can be run where opship runs. The arguments are given when it is
// started; without any it checks.
resource commands 'Microsoft.App/jobs@2025-01-01' = {
  name: commandsName
  location: location
  tags: tags
  identity: identity
  properties: {
    environmentId: environmentResourceId
    workloadProfileName: empty(workloadProfileName) ? null : workloadProfileName
    configuration: {
      triggerType: 'Manual'
      manualTriggerConfig: {
        parallelism: 1
        replicaCompletionCount: 1
      }
      replicaRetryLimit: 0
      // A backfill of months takes hours; what it has not done, the next one does.
      replicaTimeout: 14400
      registries: registries
    }
    template: {
      containers: [
        {
          name: 'opship'
          image: image
          args: [
            'check'
          ]
          resources: resources
          env: settings
        }
      ]
    }
  }
}
