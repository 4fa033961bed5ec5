// Writers of rows in table shape, for the scenes and the cases. Times count back from "now", in minutes.
import { createHash } from 'node:crypto';

const MINUTE = 60_000;
export const id = (...parts) => {
  const letters = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567';
  return [...createHash('sha256').update(parts.join('/')).digest()].slice(0, 26).map((byte) => letters[byte % 32]).join('');
};
export const ACCOUNT = id('account');
export const PLACES = {
  DE: { country: 'DE', region: 'Berlin', city: 'Berlin', latitude: 52.52, longitude: 13.405 },
  PL: { country: 'PL', region: 'Greater Poland', city: 'Poznań', latitude: 52.4064, longitude: 16.9252 },
  NZ: { country: 'NZ', region: 'Auckland', city: 'Auckland', latitude: -36.8485, longitude: 174.7633 },
};
export const person = (name) => ({ uuid: id('person', name), name: `${name} Scene`, email: `${name.toLowerCase()}@example.org` });

/** What writes rows; `ago` is minutes before now, `late` the minutes from event to row (1 where nothing is said). */
export function writers(now) {
  const rows = [];
  const row = (stream, ago, fields, { late = 1, uuid = id('event', rows.length) } = {}) => {
    const iso = (minutes) => new Date(now - minutes * MINUTE).toISOString();
    rows.push({ TimeGenerated: iso(ago - late), account_uuid: ACCOUNT, log_source: stream, timestamp: iso(ago), uuid_s: uuid, ...fields });
    return rows.at(-1);
  };
  const audit = (ago, who, action, object_type, more = {}, how) => row('auditevents', ago, {
    action, object_type, actor_uuid: id('person', who), actor_details: person(who), actor_type: 'user', object_uuid: id(object_type, ago),
    session: { uuid: id('visit', who), login_time: new Date(now - 600 * MINUTE).toISOString(), device_uuid: id('device', who), ip: '192.0.2.10' },
    location: PLACES.DE, ...more,
  }, how);
  const about = (whom) => ({ aux_uuid: id('person', whom), aux_details: person(whom) });
  const onUser = (whom) => ({ object_uuid: id('person', whom), object_details: person(whom) });
  const use = (ago, who, action, item, vault = 'shared', how) => row('itemusages', ago, {
    action, user: person(who), user_type: 'user', item_uuid: id('item', item), vault_uuid: id('vault', vault), used_version: 1,
    client: { app_name: '1Password CLI', app_version: '1', os_name: 'Linux', platform_name: 'scene', ip_address: '192.0.2.20' }, location: PLACES.DE,
  }, how);
  const signIn = (ago, who, place, category, action_type, ip = '192.0.2.30', how) => row('signinattempts', ago, {
    category, action_type, country: place, location: PLACES[place], session_uuid: id('visit', who, ago), target_user: person(who),
    client: { app_name: '1Password for Mac', app_version: '1', os_name: 'MacOSX', platform_name: 'scene', ip_address: ip },
  }, how);
  const health = (ago, account, category, action_type) => row('healthevents', ago, {
    account_uuid: id('account', account), uuid_s: undefined, ...(category && { category, action_type }),
  }, { late: 0 });
  const many = (count, write) => Array.from({ length: count }, (_, n) => write(n));
  const group = (name) => ({ object_uuid: id('group', name.toLowerCase()), object_details: { uuid: id('group', name.toLowerCase()), name } });
  return { rows, row, audit, about, onUser, group, use, signIn, health, many };
}
