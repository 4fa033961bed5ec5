// What Microsoft's testers of ASIM parsers report as an error, offline: the rules of ASimSchemaTester over the columns, and the value lists of
// ASimDataTester over rows, with the list of fields that both read (asimtester.json says where it comes from). Two things of the list are not
// asked: its product and vendor names are those of Microsoft's own parsers, and its object types lack one that the schema's document has.
import fs from 'node:fs';
import path from 'node:path';

const LIST = JSON.parse(fs.readFileSync(path.join(import.meta.dirname, 'asimtester.json'), 'utf8'));
const IP = /^(\d{1,3}(\.\d{1,3}){3}|[0-9a-f:]*:[0-9a-f:.]*)$/i;
/** A name of one host: no blanks, no more than 63 characters a label. */
const HOST = /^[\w-]{1,63}(\.[\w-]{1,63})*$/;
const ALIASES = { ...Object.fromEntries(['AuditEvent', 'Authentication'].map((schema) => [schema, LIST[schema].aliases])) };

/** Errors about the columns (`{ name: type }`) of a parser. */
export function schemaErrors(schema, columns) {
  const { mandatory, recommended, pairs, aliases, types } = LIST[schema];
  const has = (column) => column in columns;
  return [
    ...mandatory.filter((column) => !has(column)).map((column) => `missing mandatory field ${column}`),
    ...recommended.filter((column) => !has(column)).map((column) => `missing recommended field ${column}`),
    ...Object.entries(pairs).filter(([type, of]) => has(of) && !has(type)).map(([type, of]) => `missing ${type}, mandatory when ${of} exists`),
    ...Object.entries(aliases).filter(([alias, of]) => has(of) && !has(alias)).map(([alias, of]) => `missing alias ${alias} of ${of}`),
    ...Object.entries({ ...LIST.types, ...types }).filter(([column, type]) => has(column) && columns[column] !== type)
      .map(([column, type]) => `${column} is ${columns[column]} and should be ${type}`),
  ];
}

/** Errors about the values of a parser's rows. */
export function dataErrors(schema, rows) {
  const { values, beyond, mandatory, pairs } = LIST[schema];
  const errors = new Set();
  for (const row of rows) {
    const empty = (column) => row[column] === null || row[column] === undefined || row[column] === '';
    for (const [column, allowed] of Object.entries(values)) {
      if (column in row && !allowed.includes(row[column]) && !beyond[column]?.includes(row[column])) errors.add(`${column}: ${row[column]}`);
    }
    for (const column of mandatory.filter(empty)) errors.add(`${column} is mandatory and empty`);
    for (const [type, of] of Object.entries(pairs)) if (!empty(of) && of in row && empty(type)) errors.add(`${type} is empty beside ${of}`);
    for (const [alias, of] of Object.entries(ALIASES[schema])) if (alias in row && row[alias] !== row[of]) errors.add(`${alias} is not ${of}`);
    for (const column of Object.keys(row).filter((name) => name.endsWith('IpAddr') && !empty(name))) if (!IP.test(row[column])) errors.add(`${column}: ${row[column]}`);
    for (const column of Object.keys(row).filter((name) => name.endsWith('Hostname') && !empty(name))) if (!HOST.test(row[column])) errors.add(`${column}: ${row[column]}`);
  }
  return [...errors];
}
