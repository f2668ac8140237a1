// All that releases need on Azure: a model store, a registry, a cluster, and one identity for CI.
// docs/11-azure.md shows how to deploy it, what it costs, and how to take it away.
targetScope = 'resourceGroup'

@description('Where everything is.')
param location string = resourceGroup().location

@description('Names everything: 5 to 24 lower-case letters and digits, unique among the storage accounts and registries of all of Azure.')
@minLength(5)
@maxLength(24)
param name string = resourceGroup().name

@description('Whether the registry has permissions for repositories (ABAC), whose roles are others.')
param repositoryPermissions bool = false

@description('The subject of the jobs on GitHub that release, such as repo:OWNER/NAME:environment:production; empty for none.')
param githubSubject string = ''

@description('The issuer of a service connection of Azure Pipelines; empty for none.')
param pipelinesIssuer string = ''

@description('The subject of that service connection.')
param pipelinesSubject string = ''

@description('The size of the nodes.')
param nodeSize string = 'Standard_D2s_v5'

@description('The number of the nodes.')
@minValue(1)
param nodeCount int = 2

var audience = 'api://AzureADTokenExchange'

// The ids of built-in roles are the same in every tenant.
var storageBlobDataContributor = 'ba92f5b4-2d11-453d-a403-e96b0029c9fe'
var acrPush = '8311e382-0749-4cb8-b61a-304f252e45ec'
var acrPull = '7f951dda-4ed3-4680-a7ca-43fe172d538d'
var repositoryWriter = '2a1e307c-b015-4ebd-883e-5b7698a07328'
var repositoryReader = 'b93aa761-3e63-49ed-ac28-beffa264f7ac'
var aksClusterUser = '4abbcc35-e782-43d8-92c5-2d3f1bd2253f'
var aksRbacWriter = 'a7ffa36f-339b-4b5c-8bdf-e2c188b2c0eb'
var pushRole = repositoryPermissions ? repositoryWriter : acrPush
var pullRole = repositoryPermissions ? repositoryReader : acrPull

resource identity 'Microsoft.ManagedIdentity/userAssignedIdentities@2023-01-31' = {
  name: name
  location: location
}

resource githubCredential 'Microsoft.ManagedIdentity/userAssignedIdentities/federatedIdentityCredentials@2023-01-31' = if (!empty(githubSubject)) {
  parent: identity
  name: 'github'
  properties: {
    issuer: 'https://token.actions.githubusercontent.com'
    subject: githubSubject
    audiences: [audience]
  }
}

// One after the other: an identity takes one change of its credentials at a time.
resource pipelinesCredential 'Microsoft.ManagedIdentity/userAssignedIdentities/federatedIdentityCredentials@2023-01-31' = if (!empty(pipelinesIssuer)) {
  parent: identity
  name: 'azure-pipelines'
  properties: {
    issuer: pipelinesIssuer
    subject: pipelinesSubject
    audiences: [audience]
  }
  dependsOn: [githubCredential]
}

resource storage 'Microsoft.Storage/storageAccounts@2023-05-01' = {
  name: name
  location: location
  kind: 'StorageV2'
  sku: {
    name: 'Standard_LRS'
  }
  properties: {
    allowSharedKeyAccess: false
    allowBlobPublicAccess: false
    minimumTlsVersion: 'TLS1_2'
    supportsHttpsTrafficOnly: true
  }
}

resource blobs 'Microsoft.Storage/storageAccounts/blobServices@2023-05-01' = {
  parent: storage
  name: 'default'
}

resource models 'Microsoft.Storage/storageAccounts/blobServices/containers@2023-05-01' = {
  parent: blobs
  name: 'models'
}

resource registry 'Microsoft.ContainerRegistry/registries@2025-11-01' = {
  name: name
  location: location
  sku: {
    name: 'Standard'
  }
  properties: {
    adminUserEnabled: false
    roleAssignmentMode: repositoryPermissions ? 'AbacRepositoryPermissions' : 'LegacyRegistryPermissions'
  }
}

resource cluster 'Microsoft.ContainerService/managedClusters@2024-05-01' = {
  name: name
  location: location
  identity: {
    type: 'SystemAssigned'
  }
  sku: {
    name: 'Base'
    tier: 'Free'
  }
  properties: {
    dnsPrefix: name
    disableLocalAccounts: true
    enableRBAC: true
    aadProfile: {
      managed: true
      enableAzureRBAC: true
    }
    agentPoolProfiles: [
      {
        name: 'nodes'
        mode: 'System'
        count: nodeCount
        vmSize: nodeSize
        osType: 'Linux'
      }
    ]
  }
}

resource publishes 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(storage.id, identity.id, storageBlobDataContributor)
  scope: storage
  properties: {
    principalId: identity.properties.principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', storageBlobDataContributor)
  }
}

resource pushes 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(registry.id, identity.id, pushRole)
  scope: registry
  properties: {
    principalId: identity.properties.principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', pushRole)
  }
}

resource nodesPull 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(registry.id, cluster.id, pullRole)
  scope: registry
  properties: {
    principalId: cluster.properties.identityProfile.kubeletidentity.objectId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', pullRole)
  }
}

resource readsCluster 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(cluster.id, identity.id, aksClusterUser)
  scope: cluster
  properties: {
    principalId: identity.properties.principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', aksClusterUser)
  }
}

resource deploys 'Microsoft.Authorization/roleAssignments@2022-04-01' = {
  name: guid(cluster.id, identity.id, aksRbacWriter)
  scope: cluster
  properties: {
    principalId: identity.properties.principalId
    principalType: 'ServicePrincipal'
    roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', aksRbacWriter)
  }
}

@description('For `client_id` in [azure], or the variable AZURE_CLIENT_ID.')
output clientId string = identity.properties.clientId

@description('For `tenant` in [azure], or the variable AZURE_TENANT_ID.')
output tenantId string = subscription().tenantId

@description('For `subscription` in [azure], or the variable AZURE_SUBSCRIPTION_ID.')
output subscriptionId string = subscription().subscriptionId

@description('For `store` in [model].')
output store string = '${storage.properties.primaryEndpoints.blob}${models.name}'

@description('For `registry` of the environment.')
output registry string = registry.properties.loginServer

@description('For `aks` of the environment.')
output aks string = '${resourceGroup().name}/${cluster.name}'
