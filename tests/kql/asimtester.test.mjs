// The ASIM parsers by the rules of Microsoft's testers, with and without filters, over columns and rows; then seeded mistakes.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import test from 'node:test';
import { ROOT, load } from '../../deploy/sentinel/build/content.mjs';
import { dataErrors, schemaErrors } from './asimtester.mjs';
import { semantics } from './checks.mjs';
import { now, runWorlds } from './rows.mjs';

const content = load();
const parserColumns = (from) => semantics(from, ({ kind }) => kind === 'parsers').columns;
const columns = parserColumns(content);
const NONE = 'datetime(null), datetime(null)';
/** A second copy of an event that came in another window than the first: the first row is not asked for. */
const copied = { account_uuid: 'A', log_source: 'signinattempts', timestamp: new Date(now() - 90 * 60_000).toISOString(), uuid_s: 'COPIED', category: 'success', target_user: { email: 'a@example.org' } };
const copies = [80, 10].map((ago) => ({ ...copied, TimeGenerated: new Date(now() - ago * 60_000).toISOString() }));
const since = `datetime(${new Date(now() - 30 * 60_000).toISOString()})`;

const found = runWorlds({
  here: { queries: {
    ...Object.fromEntries(content.parsers.map(({ name }) => [name, `${name}()`])),
    filtered: `vimAuthenticationOnePassword(${NONE}, dynamic(["resident"]))`, audited: `vimAuditEventOnePassword(${NONE}, dynamic([]), dynamic(["builder"]))`,
    off: 'ASimAuditEventOnePassword(disabled=true)', packed: 'ASimAuthenticationOnePassword(pack=true)', hosts: `vimAuthenticationOnePassword(${NONE}, dynamic([]), dynamic([]), dynamic([]), dynamic(["scene"]))`,
  } },
  copies: { rows: copies, queries: { later: `vimAuthenticationOnePassword(${since})`, all: 'vimAuthenticationOnePassword()' } },
}, content);

for (const { name, file, meta } of content.parsers) {
  test(`${name} gives the testers no error`, () => {
    assert.deepEqual(schemaErrors(meta.schema, columns[file]), []);
    assert.ok(found.here[name].length > 100);
    assert.deepEqual(dataErrors(meta.schema, found.here[name]), []);
  });
}
test('a parser without filters gives what the one with filters gives', () => {
  for (const schema of ['Authentication', 'AuditEvent']) {
    const ids = (name) => found.here[`${name}${schema}OnePassword`].map(({ EventUid }) => EventUid).sort();
    assert.deepEqual(ids('ASim'), ids('vim'));
  }
  assert.deepEqual(found.here.off, []);
  assert.ok(found.here.packed.every(({ AdditionalFields }) => AdditionalFields.includes('platform_name') || AdditionalFields.includes('client')));
});
test('the name that a filter matched is told, and no host has a name', () => {
  const matched = (rows) => [...new Set(rows.map(({ ASimMatchingUsername }) => ASimMatchingUsername))];
  assert.deepEqual([found.here.vimAuthenticationOnePassword, found.here.filtered, found.here.audited].map(matched), [['-'], ['TargetUsername'], ['ActorUsername']]);
  assert.deepEqual(found.here.hosts, []);
});
test('time is filtered before copies are put together: a row of the time asked for is there, whatever came before it', () => {
  assert.deepEqual([found.copies.later.length, found.copies.all.length], [1, 1]);
});

/** Errors about the columns of one parser with a text changed. */
function mistaken(file, from, to) {
  const text = fs.readFileSync(path.join(ROOT, file), 'utf8');
  assert.ok(text.includes(from), `${file} does not contain ${from}`);
  const changed = load({ [file]: text.replace(from, to) });
  return schemaErrors(changed.parsers.find((one) => one.file === file).meta.schema, parserColumns(changed)[file]);
}
test('a missing field, pair or alias and a wrong type or value are found', () => {
  const audit = 'parsers/vimAuditEventOnePassword.kql';
  assert.deepEqual(mistaken(audit, ', SrcDvcIdType = iff(isempty(SrcDvcId), "", "Other")', ''), ['missing SrcDvcIdType, mandatory when SrcDvcId exists']);
  assert.deepEqual(mistaken(audit, 'Dvc = "1Password", Operation', 'Operation'), ['missing mandatory field Dvc']);
  assert.deepEqual(mistaken(audit, ', Value = NewValue', ''), ['missing alias Value of NewValue']);
  assert.deepEqual(mistaken(audit, 'toint(1)', 'tolong(1)'), ['EventCount is long and should be int']);
  const [row] = found.here.vimAuditEventOnePassword;
  const errors = (change) => dataErrors('AuditEvent', [{ ...row, ...change }]);
  assert.deepEqual(errors({ SrcHostname: 'MacBook Pro of Anna' }), ['SrcHostname: MacBook Pro of Anna']);
  assert.deepEqual(errors({ EventType: 'Peek' }), ['EventType: Peek']);
  assert.deepEqual(errors({ SrcDvcId: 'D1', SrcDvcIdType: '' }), ['SrcDvcIdType is empty beside SrcDvcId']);
  assert.deepEqual(errors({ User: 'nobody' }), ['User is not ActorUsername']);
});
