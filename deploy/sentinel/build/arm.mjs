// Writes the content as an ARM template that a larger one can nest.
import { standalone } from './content.mjs';
import { workbook } from './workbook.mjs';

const SAVED_SEARCHES = '2025-07-01';
const ALERT_RULES = '2024-09-01';
const WORKBOOKS = '2023-06-01';
const WORKSPACE = "resourceId('Microsoft.OperationalInsights/workspaces', parameters('workspaceName'))";
/** `guid` takes the case of its input seriously, and Azure gives one id in several: the same deployment must find its own again. */
const ID = `toLower(${WORKSPACE})`;
/** Of a search that somebody else saved under this id nothing would be left. */
const OURS = 'opship-';

/** ARM reads a string that begins with a bracket as an expression: two brackets are one. */
const text = (string) => (string.startsWith('[') ? `[${string}` : string);
const bool = (description) => ({ type: 'bool', defaultValue: true, metadata: { description } });

export function template(content) {
  return {
    $schema: 'https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#',
    contentVersion: '1.0.0.0',
    metadata: { description: 'Microsoft Sentinel content for opship. Generated from deploy/sentinel: do not edit.' },
    parameters: {
      workspaceName: { type: 'string', metadata: { description: 'Log Analytics workspace with Microsoft Sentinel, in this resource group.' } },
      location: {
        type: 'string', defaultValue: '[resourceGroup().location]', metadata: { description: 'Region of the workbook: that of the workspace.' },
      },
      deployParsers: bool('Deploy the ASIM parsers.'),
      deployRules: bool('Deploy the analytic rules. Microsoft Sentinel and the table OnePasswordEventLogs_CL must be there.'),
      enableRules: bool('Whether the analytic rules run at once.'),
      ruleIdSalt: {
        type: 'string', defaultValue: '', maxLength: 20,
        metadata: { description: 'Any text makes other ids of the rules: those of rules that were deleted cannot be used again for about a day.' },
      },
      correlation: {
        type: 'string', defaultValue: 'tenant', allowedValues: Object.keys(CORRELATION),
        metadata: {
          description: 'Whether Microsoft Defender may merge incidents of the rules with others: as the tenant has it, never (exclude), or always (include). '
            + 'Rules for the health of the agent are never merged.',
        },
      },
      deployHunting: bool('Deploy the hunting queries.'),
      deployWorkbook: bool('Deploy the workbook.'),
    },
    variables: { correlationTags: CORRELATION },
    resources: [
      ...content.functions.map((one) => savedFunction(one)),
      ...content.parsers.map((one) => savedFunction(one, 'deployParsers')),
      ...content.rules.map((one) => rule(one, content)),
      ...content.hunting.map(hunt),
      workbookResource(content),
    ],
    outputs: {
      workbookId: {
        type: 'string', condition: "[parameters('deployWorkbook')]",
        value: `[resourceId('Microsoft.Insights/workbooks', guid(${ID}, 'opship workbook'))]`,
      },
    },
  };
}

function savedSearch(name, properties, condition) {
  return {
    ...(condition && { condition: `[parameters('${condition}')]` }),
    type: 'Microsoft.OperationalInsights/workspaces/savedSearches',
    apiVersion: SAVED_SEARCHES,
    name: `[concat(parameters('workspaceName'), '/${OURS}${name}')]`,
    // An existing search is replaced only by a write that says it does not mind which version is there; of a template the engine takes
    // that in the properties alone.
    properties: { ...properties, version: 2, etag: '*' },
  };
}

function savedFunction({ name, meta, query }, condition) {
  return savedSearch(name, {
    category: 'opship', displayName: meta.title, query: text(query), functionAlias: name,
    ...(meta.parameters && { functionParameters: meta.parameters }),
  }, condition);
}

function hunt({ name, meta, query }) {
  const tag = (tagName, value) => ({ name: tagName, value });
  return savedSearch(name, {
    category: 'Hunting Queries', displayName: `1Password: ${meta.title}`, query: text(query),
    tags: [tag('description', meta.description), tag('tactics', meta.tactics.join(',')), tag('techniques', parents(meta.techniques).join(','))],
  }, 'deployHunting');
}

/** The API takes techniques without their sub-techniques; those stand in the description. */
const parents = (techniques) => [...new Set(techniques.map((technique) => technique.split('.')[0]))];

/**
 * The tag that opens a description tells Microsoft Defender whether it may merge incidents; a deployment without it would undo what somebody chose in
 * the portal. A silent agent is no step of an attack: https://learn.microsoft.com/defender-xdr/exclude-analytics-rules-correlation
 */
const CORRELATION = { tenant: '', exclude: '#DONT_CORR# ', include: '#INC_CORR# ' };

function described(name, description) {
  if (name.startsWith('Health')) return text(`${CORRELATION.exclude}${description}`);
  return `[concat(variables('correlationTags')[parameters('correlation')], '${description.replaceAll("'", "''")}')]`;
}

function rule({ name, meta, query }, content) {
  return {
    condition: "[parameters('deployRules')]",
    type: 'Microsoft.SecurityInsights/alertRules',
    apiVersion: ALERT_RULES,
    scope: `[${WORKSPACE}]`,
    name: `[guid(${ID}, concat('opship ${name}', parameters('ruleIdSalt')))]`,
    kind: 'Scheduled',
    properties: {
      displayName: meta.title,
      description: described(name, `${meta.description} (${meta.techniques.join(', ')})`),
      severity: meta.severity,
      enabled: "[parameters('enableRules')]",
      query: text(standalone(query, content)),
      queryFrequency: meta.frequency,
      queryPeriod: meta.period,
      triggerOperator: 'GreaterThan',
      triggerThreshold: 0,
      suppressionEnabled: false,
      suppressionDuration: 'PT1H',
      tactics: meta.tactics,
      techniques: parents(meta.techniques),
      entityMappings: meta.entity,
      customDetails: Object.fromEntries(meta.details.map((column) => [column, column])),
      alertDetailsOverride: {
        ...(meta.alert && { alertDisplayNameFormat: meta.alert }), ...(meta.severityColumn && { alertSeverityColumnName: meta.severityColumn }),
      },
      eventGroupingSettings: { aggregationKind: 'AlertPerResult' },
      // Runs overlap by five minutes, so a row may raise an alert twice: the incident is one.
      incidentConfiguration: {
        createIncident: true,
        groupingConfiguration: { enabled: true, reopenClosedIncident: false, lookbackDuration: 'PT6H', matchingMethod: 'AllEntities' },
      },
    },
  };
}

function workbookResource(content) {
  return {
    condition: "[parameters('deployWorkbook')]",
    type: 'Microsoft.Insights/workbooks',
    apiVersion: WORKBOOKS,
    name: `[guid(${ID}, 'opship workbook')]`,
    location: "[parameters('location')]",
    kind: 'shared',
    properties: {
      displayName: '1Password events (opship)',
      category: 'sentinel',
      version: 'Notebook/1.0',
      sourceId: `[${WORKSPACE}]`,
      serializedData: JSON.stringify(workbook(content.workbook)),
    },
  };
}
