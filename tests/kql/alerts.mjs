// What an alert says: its title and the custom details that a playbook reads, within the limits of Microsoft Sentinel.
// Three fields and 256 bytes: https://learn.microsoft.com/azure/sentinel/customize-alert-details
// Twenty keys and two kilobytes: https://learn.microsoft.com/azure/sentinel/surface-custom-details-in-alerts
const FIELDS_MAX = 3;
const TITLE_BYTES_MAX = 256;
const KEYS_MAX = 20;
const DETAILS_BYTES_MAX = 2048;
/** The longest value of a column that is no free text: ids of 26, times of 28, a hash of 64. */
const BYTES = { datetime: 28, long: 20, int: 11, real: 24, bool: 5, string: 64 };
/** Mail addresses have at most 254 characters; the part before the @, which titles name people by, 64 of them. */
const MAIL_BYTES = 254;

const fieldsOf = (title) => [...title.matchAll(/\{\{(\w+)\}\}/g)].map(([, column]) => column);

/** Complaints about the title and the details of a rule; `columns` are those of its result. */
export function alertProblems({ file, meta }, columns) {
  const complaints = [];
  const say = (text) => complaints.push(`${file}: ${text}`);
  const fields = fieldsOf(meta.alert ?? '');
  if (!meta.alert) say('no alert title');
  else if (!fields.length) say('the alert title names nothing of the alert');
  if (fields.length > FIELDS_MAX) say(`the alert title has ${fields.length} fields, ${FIELDS_MAX} are the limit`);
  const fixed = (meta.alert ?? '').replace(/\{\{\w+\}\}/g, '');
  if (/[{}]/.test(fixed)) say('the alert title has a brace that is no field');
  if (Buffer.byteLength(fixed) + fields.length * BYTES.string > TITLE_BYTES_MAX) say(`the alert title may exceed ${TITLE_BYTES_MAX} bytes`);
  if (!meta.details.length) say('no custom details');
  if (meta.details.length > KEYS_MAX) say(`${meta.details.length} custom details, ${KEYS_MAX} are the limit`);
  if (new Set(meta.details).size !== meta.details.length) say('a custom detail stands there twice');
  for (const column of [...fields, ...meta.details]) {
    if (!(column in columns)) say(`${column} is no column of the result`);
    else if (!(columns[column] in BYTES)) say(`${column} is no scalar but ${columns[column]}`);
  }
  if ('EventUuid' in columns && meta.details[0] !== 'EventUuid') say("the event's id must be the first custom detail");
  const bytes = meta.details.reduce((sum, column) => sum + column.length + 8 + (/Email$/.test(column) ? MAIL_BYTES : BYTES[columns[column]] ?? 0), 0);
  if (bytes > DETAILS_BYTES_MAX) say(`the custom details may have ${bytes} bytes, ${DETAILS_BYTES_MAX} are the limit`);
  return complaints;
}

/** Title and details as the service would write them for a row: each detail is a list of one value. */
export function rendered(meta, row) {
  return {
    title: meta.alert.replace(/\{\{(\w+)\}\}/g, (_, column) => String(row[column])),
    details: Object.fromEntries(meta.details.map((column) => [column, [row[column]]])),
  };
}

/** What the template must say of each rule, whoever reads its incidents where. */
export function incidentProblems(document) {
  const health = (properties) => properties.displayName.startsWith('opship:');
  return document.resources.filter(({ kind }) => kind === 'Scheduled').flatMap(({ properties }) => [
    // Microsoft Defender shows no alert of a rule that makes no incident: https://learn.microsoft.com/azure/sentinel/move-to-defender
    ...(properties.incidentConfiguration.createIncident === true ? [] : [`${properties.displayName}: makes no incident`]),
    // https://learn.microsoft.com/defender-xdr/exclude-analytics-rules-correlation: the tag opens the description.
    ...(health(properties) !== properties.description.startsWith('#DONT_CORR# ') ? [`${properties.displayName}: a health rule is never correlated, others by choice`] : []),
    ...(health(properties) || properties.description.startsWith("[concat(variables('correlationTags')[parameters('correlation')], '") ? [] : [`${properties.displayName}: no tag of choice`]),
  ]);
}
