// In the resource group of the workspace: Microsoft Sentinel on the workspace, where it is asked for.
metadata description = 'Puts Microsoft Sentinel onto a Log Analytics workspace.'

@description('Required. Name of the Log Analytics workspace, in the resource group of this deployment.')
param workspaceName string

resource workspace 'Microsoft.OperationalInsights/workspaces@2023-09-01' existing = {
  name: workspaceName
}

// A workspace that is onboarded stays as it is.
resource onboarding 'Microsoft.SecurityInsights/onboardingStates@2024-09-01' = {
  scope: workspace
  name: 'default'
}
