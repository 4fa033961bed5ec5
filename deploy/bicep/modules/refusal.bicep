// Takes no other value than the one below: Azure then refuses the deployment and names the value that it was given, which is a sentence.
metadata description = 'Ends a deployment whose input is wrong, with the sentence that says what is wrong.'

@description('Required. What is wrong with the input, in one sentence.')
@allowed([
  'nothing is wrong'
])
param problem string

@description('What was found.')
output problem string = problem
