// What is wrong with the input, told before anything is made. A template has no patterns for its parameters; forms and limits of length
// find most of it, and this the rest.
metadata description = 'Refuses input that would end a deployment half-way, with a sentence for each mistake.'

@description('Required. Base of all names, in lower case.')
param name string

@description('Required. Resource id of the workspace.')
param workspaceResourceId string

@description('Required. Resource id of a vault, or empty.')
param existingVaultResourceId string

@description('Required. Resource id of a Container Apps environment, or empty.')
param existingEnvironmentResourceId string

@description('Required. Resource id of a subnet, or empty.')
param subnetResourceId string

@description('Required. Resource id of an action group, or empty.')
param alertActionGroupResourceId string

@description('Required. Name of the secret with the 1Password token.')
#disable-next-line secure-secrets-in-params // The name of a secret is none.
param secretName string

@description('Required. Day on which the token expires, yyyy-mm-dd, or empty.')
param tokenExpires string

@description('Required. Address of the Events API, or empty.')
param eventsUrl string

@description('Required. Where the very first start begins.')
param lookback string

@description('Required. When to poll or to start, cron with five fields.')
param cron string

@description('Required. Container image.')
param image string

@description('Required. Registry that the identity signs in to, or empty.')
param registryServer string

@description('Required. Address that gets mail from the alerts, or empty.')
param alertEmail string

@description('Required. Whether columns are added to a table that must then be there.')
param addsColumns bool

@description('Required. Whether the content is asked for, which reads columns that the table is said to lack.')
param contentWithoutColumns bool

var letters = 'abcdefghijklmnopqrstuvwxyz'
var digits = '0123456789'
// How many parts the id has, the first of them empty, what stands between them, and how it ends.
var ids = [
  {
    parameter: 'workspaceResourceId'
    value: workspaceResourceId
    parts: 9
    types: '/providers/microsoft.operationalinsights/workspaces/'
    end: 'NAME'
  }
  {
    parameter: 'existingVaultResourceId'
    value: existingVaultResourceId
    parts: 9
    types: '/providers/microsoft.keyvault/vaults/'
    end: 'NAME'
  }
  {
    parameter: 'existingEnvironmentResourceId'
    value: existingEnvironmentResourceId
    parts: 9
    types: '/providers/microsoft.app/managedenvironments/'
    end: 'NAME'
  }
  {
    parameter: 'subnetResourceId'
    value: subnetResourceId
    parts: 11
    types: '/providers/microsoft.network/virtualnetworks/'
    end: 'NAME/subnets/NAME'
  }
  {
    parameter: 'alertActionGroupResourceId'
    value: alertActionGroupResourceId
    parts: 9
    types: '/providers/microsoft.insights/actiongroups/'
    end: 'NAME'
  }
]
var wrongIds = filter(
  ids,
  id =>
    !empty(id.value) && (length(split(id.value, '/')) != id.parts || !startsWith(toLower(id.value), '/subscriptions/') || !contains(
      toLower(id.value),
      id.types
    ) || endsWith(id.value, '/') || contains(id.value, '//'))
)
var day = split('${tokenExpires}--', '-')
var strange = {
  name: filter(
    map(range(0, length(name)), place => substring(name, place, 1)),
    one => !contains('${letters}${digits}-', one)
  )
  secretName: filter(
    map(range(0, length(secretName)), place => substring(secretName, place, 1)),
    one => !contains('${letters}${digits}-', toLower(one))
  )
  tokenExpires: filter(
    map(range(0, length(tokenExpires)), place => substring(tokenExpires, place, 1)),
    one => !contains('${digits}-', one)
  )
}
var isDay = empty(strange.tokenExpires) && length(tokenExpires) == 10 && length(day[0]) == 4 && length(day[1]) == 2 && length(day[2]) == 2
var month = isDay ? int(day[1]) : 0
// Enough until 2100.
var february = isDay ? (int(day[0]) % 4 == 0 ? 29 : 28) : 0
var days = [0, 31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
var isRealDay = isDay ? int(day[2]) >= 1 && int(day[2]) <= days[month > 12 ? 0 : month] : false
var unitOfLookback = last(lookback)
var numberOfLookback = take(lookback, max(length(lookback) - 1, 0))
var isNumber = empty(filter(
  map(range(0, length(numberOfLookback)), place => substring(numberOfLookback, place, 1)),
  one => !contains(digits, one)
)) && length(numberOfLookback) < 9 && !empty(numberOfLookback)
var daysOfLookback = isNumber && unitOfLookback == 'd' ? int(numberOfLookback) : 0
var isLookback = isNumber && contains('dhms', unitOfLookback) && daysOfLookback <= 119
var strangeInCron = filter(
  map(range(0, length(cron)), place => substring(cron, place, 1)),
  one => !contains('${digits}*/,- ', one)
)
var problems = concat(
  map(
    wrongIds,
    id =>
      '${id.parameter} is no resource id of the kind /subscriptions/SUBSCRIPTION/resourceGroups/GROUP${id.types}${id.end}'
  ),
  !empty(strange.name) || !contains(letters, substring(name, 0, 1)) || endsWith(name, '-') || contains(name, '--')
    ? ['name is 3 to 12 letters, digits and hyphens, a letter first, no hyphen last and no two together']
    : [],
  empty(strange.secretName) ? [] : ['secretName has letters, digits and hyphens only'],
  empty(tokenExpires) || isRealDay ? [] : ['tokenExpires is a day of the form yyyy-mm-dd'],
  empty(eventsUrl) || startsWith(eventsUrl, 'https://') ? [] : ['eventsUrl begins with https://'],
  lookback == 'now' || (contains(lookback, 'T') && contains(lookback, '-') && contains(lookback, ':')) || isLookback
    ? []
    : ['lookback is a duration such as 30d (at most 119d), a time such as 2027-01-31T00:00:00Z, or now'],
  length(filter(split(cron, ' '), field => !empty(field))) == 5 && empty(strangeInCron)
    ? []
    : ['appCron and jobCron have five fields: minute, hour, day, month, day of the week'],
  contains(image, '://') || contains(image, ' ') || !contains(image, '/')
    ? ['image is REGISTRY/NAME:TAG or REGISTRY/NAME@sha256:DIGEST']
    : [],
  contains(registryServer, '/')
    ? ['registryServer is a name such as myregistry.azurecr.io, without https:// and without a path']
    : [],
  empty(alertEmail) || length(split(alertEmail, '@')) == 2 ? [] : ['alertEmail is one mail address'],
  contentWithoutColumns ? ['deploySentinelContent reads all 33 columns: not with table keep28'] : []
)

// any(): the compiler would see that these sentences are not allowed. That is what they are for.
module refusal 'refusal.bicep' = if (!empty(problems)) {
  name: 'opship-refusal-${uniqueString(deployment().name)}'
  params: {
    problem: any(join(concat(problems, empty(problems) ? ['nothing is wrong'] : []), '. '))
  }
}

// A table that is not there ends the deployment here too.
var workspaceParts = split('${workspaceResourceId}////////', '/')
module found 'columns.bicep' = if (addsColumns && empty(problems)) {
  name: '${name}-found-${uniqueString(deployment().name)}'
  scope: resourceGroup(workspaceParts[2], workspaceParts[4])
  params: {
    workspaceName: workspaceParts[8]
  }
}

@description('Columns that the table has and keeps.')
output columns array = addsColumns && empty(problems) ? found!.outputs.columns : []
