// callgate on Azure Container Apps: calls of ACS, talking with Azure Voice Live. 1 to 10 replicas of 2
// cores and 4 GiB, as many as live calls need. docs/deploy/azure.md says what has to be there before:
// an environment, a Redis, a PostgreSQL, a vault with the secrets, and an identity that may read them.

@description('The name of the app.')
param name string = 'callgate'

param location string = resourceGroup().location

@description('The id of the environment that it runs in.')
param environmentId string

@description('The image, by digest: my-registry.azurecr.io/callgate@sha256:…')
param image string

@description('The server that the image comes from.')
param registry string

@description('The id of a user-assigned identity that may pull the image and read the secrets.')
param identityId string

@description('The vault with the secrets: https://my-vault.vault.azure.net')
param vaultUrl string

@description('What carriers call it by: https, and a name of yours or the one of the environment.')
param publicUrl string

@description('The immutable id of the ACS resource.')
param acsResourceId string

@description('wss://my-resource.services.ai.azure.com/voice-live/realtime')
param voiceLiveUrl string

@description('The new connections a minute that Voice Live allows the resource.')
@minValue(1)
param connectionsPerMinute int = 30

@minValue(1)
@maxValue(10)
param minReplicas int = 1

@minValue(1)
@maxValue(10)
param maxReplicas int = 10

@description('Live calls of all replicas. 900 is what 9 replicas hold, should one be gone.')
@minValue(1)
param maxActiveCalls int = 900

@description('Live calls of one replica at most.')
@minValue(1)
param maxConnections int = 100

@description('Live calls a replica from which on there is another one: below maxConnections by what rings until it is ready, which takes about a minute.')
@minValue(1)
param callsPerReplica int = 70

@description('Other settings of callgate, by name; none is a secret.')
param settings object = {}

// The names of the secrets in the vault. Each is a file in the container.
var secrets = [
  'acs-connection-string'
  'eventgrid-secret'
  'voice-live-api-key'
  'ops-token'
  'ops-read-token'
  'ticket-secret'
  'redis-url'
  'database-url'
]

var graceSeconds = 600

resource app 'Microsoft.App/containerApps@2025-07-01' = {
  name: name
  location: location
  identity: {
    type: 'UserAssigned'
    userAssignedIdentities: {
      '${identityId}': {}
    }
  }
  properties: {
    environmentId: environmentId
    configuration: {
      // Rules that are not about requests want one revision at a time. The old one drains.
      activeRevisionsMode: 'Single'
      ingress: {
        // Every path, operators' pages too. docs/deploy/azure.md says how to open fewer.
        external: true
        targetPort: 5050
        // WebSockets, too. http is redirected, which loses a webhook's form: carriers are given https.
        transport: 'http'
        allowInsecure: false
      }
      registries: [
        {
          server: registry
          identity: identityId
        }
      ]
      secrets: [for secret in secrets: {
        name: secret
        keyVaultUrl: '${vaultUrl}/secrets/${secret}'
        identity: identityId
      }]
    }
    template: {
      // DRAIN_SECONDS and 35 s for the goodbye and what is to be written down.
      terminationGracePeriodSeconds: graceSeconds
      containers: [
        {
          name: 'callgate'
          image: image
          resources: {
            cpu: json('2.0')
            memory: '4Gi'
          }
          env: concat([
            {
              name: 'PRODUCTION'
              value: '1'
            }
            {
              name: 'LISTEN'
              value: '0.0.0.0:5050'
            }
            {
              name: 'PUBLIC_URL'
              value: publicUrl
            }
            {
              name: 'ACS_CONNECTION_STRING_FILE'
              value: '/run/secrets/acs-connection-string'
            }
            {
              name: 'ACS_RESOURCE_ID'
              value: acsResourceId
            }
            {
              name: 'EVENTGRID_SECRET_FILE'
              value: '/run/secrets/eventgrid-secret'
            }
            {
              name: 'AGENT'
              value: 'voice_live'
            }
            {
              name: 'VOICE_LIVE_URL'
              value: voiceLiveUrl
            }
            {
              name: 'VOICE_LIVE_API_KEY_FILE'
              value: '/run/secrets/voice-live-api-key'
            }
            {
              name: 'AGENT_CONNECTIONS_PER_MINUTE'
              value: string(connectionsPerMinute)
            }
            {
              name: 'OPS_TOKEN_FILE'
              value: '/run/secrets/ops-token'
            }
            {
              name: 'OPS_READ_TOKEN_FILE'
              value: '/run/secrets/ops-read-token'
            }
            {
              name: 'TICKET_SECRET_FILE'
              value: '/run/secrets/ticket-secret'
            }
            {
              name: 'REDIS_URL_FILE'
              value: '/run/secrets/redis-url'
            }
            {
              name: 'DATABASE_URL_FILE'
              value: '/run/secrets/database-url'
            }
            {
              name: 'MAX_ACTIVE_CALLS'
              value: string(maxActiveCalls)
            }
            {
              name: 'MAX_CONNECTIONS'
              value: string(maxConnections)
            }
            {
              // As many as there may be: without Redis each then admits the smallest share.
              name: 'EXPECTED_REPLICAS'
              value: string(maxReplicas)
            }
            {
              // As few as there should be: with fewer, an alarm goes off.
              name: 'LEAST_REPLICAS'
              value: string(minReplicas)
            }
            {
              name: 'DRAIN_SECONDS'
              value: string(graceSeconds - 35)
            }
            {
              name: 'TERMINATION_GRACE_SECONDS'
              value: string(graceSeconds)
            }
            {
              name: 'LOG_FORMAT'
              value: 'json'
            }
          ], map(items(settings), setting => {
            name: setting.key
            value: setting.value
          }))
          volumeMounts: [
            {
              volumeName: 'secrets'
              mountPath: '/run/secrets'
            }
          ]
          probes: [
            {
              type: 'Startup'
              httpGet: {
                path: '/health/live'
                port: 5050
              }
              periodSeconds: 3
              timeoutSeconds: 2
              failureThreshold: 10
            }
            {
              type: 'Liveness'
              httpGet: {
                path: '/health/live'
                port: 5050
              }
              periodSeconds: 10
              timeoutSeconds: 4
              // Its calls are cut when it is restarted, so it gets half a minute.
              failureThreshold: 3
            }
            {
              type: 'Readiness'
              httpGet: {
                path: '/health/ready'
                port: 5050
              }
              periodSeconds: 2
              timeoutSeconds: 2
              failureThreshold: 2
            }
          ]
        }
      ]
      volumes: [
        {
          name: 'secrets'
          storageType: 'Secret'
          secrets: [for secret in secrets: {
            secretRef: secret
            path: secret
          }]
        }
      ]
      scale: {
        minReplicas: minReplicas
        maxReplicas: maxReplicas
        pollingInterval: 10
        cooldownPeriod: 300
        rules: [
          {
            // Requests say nothing of a call that has been talking for ten minutes. Calls that are not
            // over have a row of a rank below 90, whichever replica has them.
            name: 'live-calls'
            custom: {
              type: 'postgresql'
              metadata: {
                query: 'SELECT count(*) FROM calls WHERE rank < 90'
                targetQueryValue: string(callsPerReplica)
              }
              auth: [
                {
                  secretRef: 'database-url'
                  triggerParameter: 'connection'
                }
              ]
            }
          }
        ]
      }
    }
  }
}

@description('The name that it is reached by where publicUrl is not one of yours.')
output host string = app.properties.configuration.ingress.fqdn
